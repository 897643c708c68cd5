"""Arrows run one way, and the repository keeps its own rules."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rooms

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_packages_stand_on_each_other_one_way():
    for item in rooms.imports(ROOT):
        package, target = item.source.split(".")[0], item.target.split(".")[0]
        assert rooms.PACKAGES.index(target) <= rooms.PACKAGES.index(package), (
            f"{item.source}:{item.line}: {item.target}"
        )


@pytest.mark.parametrize("package", rooms.ALLOWED)
def test_a_room_imports_only_what_the_table_lets_it(package):
    allowed = rooms.ALLOWED[package]
    found = {rooms.room_of(module, ROOT).split(".")[1] for module in rooms.modules(ROOT) if module.startswith(package)}
    assert found - {"__init__"} == set(allowed)
    for item in rooms.imports(ROOT):
        source, target = rooms.room_of(item.source, ROOT).split("."), rooms.room_of(item.target, ROOT).split(".")
        if source[0] == target[0] == package and source[1] not in ("__init__", target[1]):
            assert target[1] in allowed[source[1]], f"{item.source}, line {item.line}, imports {item.target}"


def test_the_readme_shows_the_same_table():
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (.+?) \|$", (ROOT / "README.md").read_text(), re.M)
    shown = {name: set() if below == "nothing" else set(below.split(", ")) for name, below in rows}
    held = {name: set(below) for name, below in rooms.ALLOWED["analysis"].items() if name != "__main__"}
    assert shown.pop("commands") == {"every other room"}
    assert held.pop("commands") == set(held)
    assert shown == held


def test_the_table_has_no_circle_and_seven_floors_at_most():
    for allowed in rooms.ALLOWED.values():
        assert max(rooms.floors({room: set(below) for room, below in allowed.items()}).values()) <= 8


def test_other_rooms_come_in_through_the_face():
    for item in rooms.imports(ROOT):
        source, target = item.source.split("."), item.target.split(".")
        if target[0] == "analysis" and len(target) > 2 and source[1] not in (target[1], "__main__"):
            stub = ROOT.joinpath(*target[:2], "__init__.pyi").read_text()
            assert f" {target[2]} as {target[2]}" in stub, f"{item.source}, line {item.line}: {item.target}"


def test_no_import_hides_in_a_function_or_from_the_interpreter():
    for item in rooms.imports(ROOT):
        assert item.at_load, f"{item.source}, line {item.line}, imports {item.target} where it is not loaded"


def test_what_the_table_forbids_is_found_wherever_it_stands(tmp_path):
    (tmp_path / "analysis" / "records").mkdir(parents=True)
    (tmp_path / "analysis" / "runs").mkdir()
    (tmp_path / "analysis" / "runs" / "__init__.py").touch()
    (tmp_path / "analysis" / "runs" / "config.py").touch()
    (tmp_path / "analysis" / "records" / "store.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from analysis.runs import config\n"
        "def f():\n    import analysis.runs.config\n"
    )
    found = [(item.target, item.at_load) for item in rooms.imports(tmp_path)]
    assert found == [("analysis.runs.config", False)] * 2
    assert rooms.plan(tmp_path, "analysis") == {"rooms": 2, "floors": 1, "arrows": 1, "upwards": 1, "circles": 0}


def test_theory_statistics_and_plots_name_no_torch():
    quiet = [path for name, path in rooms.modules(ROOT).items() if name.startswith(rooms.NO_TORCH)]
    assert len(quiet) > 50
    for path in quiet:
        assert not _top_level(path) & {"torch", "transformers", "peft"}, path.relative_to(ROOT)


@pytest.mark.parametrize("package", ["theory", "adapters", "analysis", "report"])
def test_nothing_is_pickled(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not _top_level(path) & {"pickle", "dill", "cloudpickle"}, path.relative_to(ROOT)


def _top_level(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_importing_the_bounds_loads_no_torch():
    code = "import sys, theory.bounds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_help_is_quick_because_it_loads_neither_torch_nor_numpy():
    code = (
        "import sys\nfrom analysis.commands.main import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy', 'pandas'} & sys.modules.keys()))"
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
    for package in rooms.PACKAGES:
        for module in (ROOT / package).rglob("*.py"):
            lines = len(module.read_text(encoding="utf-8").splitlines())
            assert lines <= 400, f"{module.relative_to(ROOT)} has {lines} lines: split it"


def _functions(package: str) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    for module in sorted((ROOT / package).rglob("*.py")):
        text = module.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module.relative_to(ROOT), node, text


def _code_lines(node: ast.AST, text: str) -> int:
    """Count the lines of a function without its docstrings and blank lines."""
    told: set[int] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            told |= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines()[node.lineno - 1 : node.end_lineno], node.lineno)
    return sum(number not in told and bool(line.strip()) for number, line in lines)


def test_lines_of_code_are_counted_without_docstrings_and_blank_lines():
    text = 'def f(\n    x,\n):\n    """Say.\n\n    More.\n    """\n\n    return x\n'
    assert _code_lines(ast.parse(text).body[0], text) == 4


@pytest.mark.parametrize("package", [*rooms.PACKAGES, "report"])
def test_a_function_holds_one_idea(package):
    for module, node, text in _functions(package):
        count = _code_lines(node, text)
        assert count <= 60, f"{module}, line {node.lineno}: {node.name} has {count} lines of code: split it"


@pytest.mark.parametrize("package", [*rooms.PACKAGES, "report"])
def test_a_function_takes_no_more_than_a_reader_can_hold(package):
    for module, node, _ in _functions(package):
        taken = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)
        assert taken <= 13, f"{module}, line {node.lineno}: {node.name} takes {taken} parameters: group them"


def test_no_public_interface_says_any():
    """A bare ``Any`` tells neither a reader nor mypy what comes in or goes out."""
    for name, path in rooms.modules(ROOT).items():
        for holder in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(holder, (ast.Module, ast.ClassDef)) or getattr(holder, "name", "").startswith("_"):
                continue
            for node in holder.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    notes = [item.annotation for item in given] + [node.returns]
                elif isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
                    notes = [node.annotation]
                else:
                    continue
                assert "Any" not in [ast.unparse(note) for note in notes if note], f"{name}, line {node.lineno}"


def test_a_command_parses_calls_and_prints():
    for module, node, text in _functions("analysis/commands"):
        hidden = [inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)]
        assert not hidden, f"{module}, line {hidden[0].lineno}: {node.name} imports"
        count = _code_lines(node, text)
        assert count <= 40, f"{module}, line {node.lineno}: {node.name} has {count} lines of code: move its work down"


def test_what_draws_on_axes_is_named_plot():
    for module, node, _ in _functions("analysis/plots"):
        draws = node.returns is not None and ast.unparse(node.returns) in ("Axes", "np.ndarray")
        if not node.name.startswith("_"):
            assert node.name.startswith("plot_") == draws, f"{module}, line {node.lineno}: {node.name}"
