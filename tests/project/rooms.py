"""The rooms of the house and the arrows between them: ``python tests/project/rooms.py [ROOT]``.

A room is a folder of a package, or a file that lies beside the folders; an arrow is an import of one room's code by
another's, imports inside functions and those for type checkers included. A room stands one floor above the highest
room that it imports when it is loaded; an arrow that does not lead down by that count runs upwards.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("theory", "adapters", "analysis")

ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "theory": {
        "ground": (),
        "information": ("ground",),
        "networks": ("ground",),
        "printing": ("ground",),
        "certificates": ("ground",),
        "solvable": ("information", "ground"),
        "expectation": ("information", "networks", "certificates", "ground"),
        "bounds": ("expectation", "networks", "ground"),
    },
    "analysis": {
        "records": (),
        "statistics": (),
        "tasks": ("records",),
        "geometry": ("records",),
        "spectra": ("records",),
        "runs": ("tasks", "statistics", "records"),
        "certificates": ("tasks", "records"),
        "measures": ("runs", "tasks", "geometry", "spectra", "records"),
        "studies": ("measures", "runs", "tasks", "geometry", "spectra", "statistics", "records"),
        "plots": ("geometry", "statistics", "records"),
        "benchmarks": ("runs", "geometry", "spectra", "records"),
        "commands": (
            "benchmarks", "plots", "studies", "measures", "certificates", "runs", "spectra", "geometry", "tasks",
            "statistics", "records",
        ),
        "__main__": ("commands",),
    },
}  # fmt: skip
"""Which rooms of its own package a room may import. The README shows the same table."""

NO_TORCH = ("theory", "analysis.statistics", "analysis.plots")
"""Rooms that never import torch, whatever a user does with them."""


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a dotted name of a module that exists."""

    source: str
    target: str
    line: int
    at_load: bool


def modules(root: Path) -> dict[str, Path]:
    """Return the dotted name of every module of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str, root: Path) -> str:
    """Return the room of a module: ``package.folder``, ``package.file`` or, for theory's single files, its ground."""
    package, *rest = module.split(".")
    if not rest:
        return f"{package}.__init__"
    lone = not (root / package / rest[0]).is_dir()
    if package == "theory" and lone and rest[0] != "bounds" and (root / "theory" / "expectation").is_dir():
        return "theory.ground"
    return f"{package}.{rest[0]}"


@functools.cache
def imports(root: Path) -> tuple[Import, ...]:
    """Return every import of the packages by the packages, wherever it stands."""
    return tuple(_imports(root))


def _imports(root: Path) -> Iterator[Import]:
    known = modules(root)
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_load = {id(node) for node in _loaded(tree.body)}
        for node in ast.walk(tree):
            for target in _targets(node, known):
                yield Import(name, target, node.lineno, id(node) in at_load)


def _loaded(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is loaded; those under TYPE_CHECKING do not."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from _loaded(getattr(node, part, []))


def _targets(node: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom) and node.module in known and not node.level:
        for alias in node.names:
            inside = f"{node.module}.{alias.name}"
            yield inside if inside in known else node.module


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of rooms that import each other in a loop."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(arrows.get(start, ()))
        while ahead:
            room = ahead.pop()
            if room not in seen:
                seen.add(room)
                ahead += arrows.get(room, ())
        return seen

    beyond = {room: reached(room) for room in arrows}
    found: list[set[str]] = []
    for room in arrows:
        loop = {other for other in beyond[room] if room in beyond.get(other, ())}
        if loop and loop not in found:
            found.append(loop)
    return found


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Return each room's floor, the ground being 1.

    Raises:
        graphlib.CycleError: if rooms import each other when they are loaded.
    """
    found: dict[str, int] = {}
    for room in TopologicalSorter(arrows).static_order():
        found[room] = 1 + max((found[below] for below in arrows.get(room, ())), default=0)
    return found


def plan(root: Path, package: str) -> dict[str, object]:
    """Count a package's rooms, floors, arrows, arrows that run upwards, and circles."""
    names = {room_of(module, root) for module in modules(root) if module.split(".")[0] == package}
    every: dict[str, set[str]] = {room: set() for room in names if not room.endswith(("__init__", "__main__"))}
    loaded = {room: set() for room in every}
    for item in imports(root):
        source, target = room_of(item.source, root), room_of(item.target, root)
        if source != target and source in every and target in every:
            every[source].add(target)
            if item.at_load:
                loaded[source].add(target)
    try:
        storey = floors(loaded)
    except CycleError:
        storey = {}
    upwards = [(a, b) for a in every for b in every[a] if storey and storey[b] >= storey[a]]
    return {
        "rooms": len(every),
        "floors": max(storey.values(), default="none: a circle at loading"),
        "arrows": sum(map(len, every.values())),
        "upwards": len(upwards),
        "circles": len(circles(every)),
    }


def main(argv: list[str]) -> int:
    """Print one line a package."""
    root = Path(argv[0]) if argv else Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        print(f"{package:9}" + "".join(f"  {name} {value}" for name, value in plan(root, package).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
