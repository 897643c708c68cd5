import subprocess
import sys
from pathlib import Path

import pytest

from theory.registry import Registry, check_reference, resolve

ROOT = Path(__file__).resolve().parents[2]


def plug(folder, points, **files):
    """Lay down an installed package: its modules, and its entry points."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    info = folder / "outside-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)


def registry(group="test.numbers"):
    found = Registry("number", group=group, accepts=int, name=str)
    found.register(1)
    return found


def test_entry_points_are_read_at_the_first_look_and_not_before(tmp_path, monkeypatch):
    plug(tmp_path, "[test.numbers]\nseven = outside_numbers:SEVEN\n", outside_numbers="SEVEN = 7\n")
    found = registry()
    monkeypatch.syspath_prepend(tmp_path)
    assert list(found) == ["1", "7"]
    assert found.get_named("7") == 7
    assert len(found) == 2


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("outside_broken:SEVEN", "ZeroDivisionError: division by zero"),
        ("outside_absent:SEVEN", "ModuleNotFoundError: No module named 'outside_absent'"),
        ("outside_text:SEVEN", "TypeError: number must be a int, got str"),
        ("outside_twice:ONE", "ValueError: number 'True' is registered already"),
    ],
)
def test_a_broken_entry_point_is_named_and_the_rest_stays(tmp_path, monkeypatch, value, problem):
    files = {"outside_broken": "1 / 0\n", "outside_text": "SEVEN = '7'\n", "outside_twice": "ONE = True\n"}
    plug(tmp_path, f"[test.numbers]\nseven = {value}\n", **files)
    monkeypatch.syspath_prepend(tmp_path)
    found = Registry("number", group="test.numbers", accepts=int, name=str)
    found.register(1)
    if "twice" in value:
        found._found["True"] = 2
    with pytest.warns(
        RuntimeWarning, match=rf"entry point 'seven' = '{value}' of 'test.numbers' \(outside 1.2\).*"
    ) as seen:
        assert found["1"] == 1
    assert problem in str(seen[0].message)
    assert "7" not in found


def test_an_unknown_name_is_named_with_the_accepted_ones():
    with pytest.raises(ValueError, match="unknown number '2'; accepted: 1"):
        registry().get_named("2")
    with pytest.raises(TypeError, match="number must be a string, got int"):
        registry().get_named(2)


@pytest.mark.parametrize("value", ["reader", "a:b:c", "a b:c", ":c", "a:"])
def test_a_reference_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match=r"reader must be of the form 'package.module:object'"):
        check_reference("reader", value)
    with pytest.raises(TypeError, match="reader must be a string"):
        check_reference("reader", 3)


def test_a_reference_leads_to_its_object():
    assert resolve("pathlib:Path.home") == Path.home


def test_importing_the_bounds_and_printing_help_read_no_entry_points():
    code = (
        "import importlib.metadata as m, sys\n"
        "def refuse(**_): raise AssertionError('entry points were read')\n"
        "m.entry_points = refuse\n"
        "import theory.bounds, theory.methods\n"
        "from analysis.commands.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
