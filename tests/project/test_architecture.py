"""Arrows run one way, and the repository keeps its own rules."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "theory": {"torch", "transformers", "peft", "adapters", "analysis", "pickle"},
    "adapters": {"analysis", "pickle"},
    "analysis": {"report", "notebooks", "pickle"},
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_run_one_way(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        assert not _imports(module) & FORBIDDEN[package], module.relative_to(ROOT)


def test_importing_the_bounds_loads_no_torch():
    code = "import sys, theory.bounds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_help_is_quick_because_it_loads_no_torch():
    code = (
        "import sys\nfrom analysis.commands.main import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "SUBCOMMAND" in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_holds_no_logic_and_ends_in_an_assert(path):
    assert path.stat().st_size <= 200_000
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert 0 < len(cells) <= 12
    for cell in cells:
        assert len(cell.splitlines()) <= 10
        assert not re.search(r"^\s*(def|class) ", cell, re.M)
    assert "assert " in cells[-1]
    assert "PROFILE" in cells[0]


def test_modules_stay_short_enough_to_read():
    for package in FORBIDDEN:
        for module in (ROOT / package).rglob("*.py"):
            lines = len(module.read_text(encoding="utf-8").splitlines())
            assert lines <= 400, f"{module.relative_to(ROOT)} has {lines} lines: split it"
