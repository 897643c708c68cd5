"""Names that documentation mentions exist: a renamed function must not live on in a docstring."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("theory", "adapters", "analysis", "report")
_DOTTED = re.compile(rf"`~?((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)(?<!\.json)(?:\(\))?`")
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([^`]+)`")


def mentioned() -> set[tuple[str, str, str]]:
    """Return (where, module, name): what is in backticks after a role or begins with one of the packages."""
    found = set()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT)
            module = ".".join(where.with_suffix("").parts).removesuffix(".__init__")
            texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
            for text in (text for text in texts if isinstance(text, str)):
                found |= {(str(where), module, name) for name in _DOTTED.findall(text) + _ROLE.findall(text)}
    guides = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    guides += [path for package in PACKAGES for path in (ROOT / package).rglob("*.md")]
    return found | {(p.name, "", name) for p in guides for name in _DOTTED.findall(p.read_text())}


def exists(name: str, module: str = "") -> bool:
    """Whether a name stands for something: from the root, in its own module, or in one of the module's classes."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            holder = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return _has(holder, parts[count:])
    if not module:
        return False
    home = importlib.import_module(module)
    return any(_has(holder, parts) for holder in (home, *(v for v in vars(home).values() if isinstance(v, type))))


def _has(holder: object, parts: list[str]) -> bool:
    for part in parts:
        if part in getattr(holder, "__dataclass_fields__", {}) or part in getattr(holder, "__annotations__", {}):
            return True
        if not hasattr(holder, part):
            return False
        holder = getattr(holder, part)
    return True


def test_every_name_in_the_documentation_exists():
    missing = [f"{where}: {name}" for where, module, name in sorted(mentioned()) if not exists(name, module)]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("name", ["theory.bounds.no_such", "analysis.nowhere.frame", "theory.Case.no_field"])
def test_a_name_that_is_gone_is_found(name):
    assert not exists(name)
    assert exists("theory.bounds.evaluate")
    assert exists("evaluate", "theory.bounds")
