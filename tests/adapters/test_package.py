"""Another package of the same name is told from ours, wherever it is noticed first."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("code", ["import analysis", "from theory.package import check_adapters_are_ours as c; c()"])
def test_files_that_are_not_ours_are_named(tmp_path, code):
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "__init__.py").write_text('"""A library of adapters."""\n')
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; {code}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    where = tmp_path / "adapters" / "__init__.py"
    assert f"ImportError: the package adapters at {where} is not beyond-lora's: AdapterHub's" in done.stderr


def test_our_modules_under_anothers_front_do_not_load(monkeypatch):
    """As after installing AdapterHub's package over ours: its ``__init__.py``, the rest of our files beside."""
    import adapters
    from theory.package import check_adapters_are_ours

    check_adapters_are_ours()
    monkeypatch.setattr(
        adapters.__spec__.loader, "get_source", lambda name: '"""A library of adapters."""', raising=False
    )
    with pytest.raises(ImportError, match="is not beyond-lora's"):
        check_adapters_are_ours()
    monkeypatch.delitem(sys.modules, "adapters.config")
    with pytest.raises(ImportError, match="is not beyond-lora's"):
        __import__("adapters.config")
    monkeypatch.undo()
