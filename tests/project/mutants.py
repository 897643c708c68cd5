"""Can the tests of a room fail? ``python tests/project/mutants.py [ROOM ...]``, or ``make mutants``.

A mutant is the room's code with one small change, of the kind that a slip of the keyboard makes: a comparison, a sign,
a constant, a keyword left out. A seeded sample of all mutants is tried against the room's own tests and doctests; a
mutant that they let pass shows a line that nothing holds. What survives is written to ``mutants.json`` beside this
file; a ``reason`` written there, by hand, for a survivor that behaves as the original does is kept by later runs.

One process imports torch, pandas and the rest once and is forked for each mutant. The change is made as the module is
loaded, so no file of the tree is ever written, and only the tests that reach the changed function, by a call or by
asking for its signature, are run, quickest first.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import inspect
import json
import os
import platform
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("mutants.json")
ROOMS = ("statistics", "plots", "measures")

_WARM = (
    "accelerate", "adapters", "datasets", "joblib", "matplotlib", "numpy", "pandas", "peft", "pyarrow", "scipy",
    "seaborn", "sklearn", "sympy", "theory", "torch", "tqdm", "transformers",
)  # fmt: skip
"""Packages that the forking process imports beforehand; never one that is mutated, nor a plug-in of pytest."""

_LOOKS = frozenset({
    "alpha", "aspect", "bbox_to_anchor", "capsize", "columnspacing", "desc", "disable", "dpi", "elinewidth", "fontsize",
    "frameon", "handlelength", "handletextpad", "height", "labelpad", "labelsize", "leave", "linewidth", "loc", "lw",
    "markeredgewidth", "markersize", "ncols", "panel_height", "shrink", "unit", "width", "zorder",
})  # fmt: skip
"""Keywords that change what a figure or a progress bar looks like and nothing that it says."""

_LOOKS_OF = frozenset({"_legend_below", "figure", "tqdm"})
"""Functions whose arguments are looks."""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place where a module can be changed.

    Attributes:
        node: what is replaced.
        other: what takes its place.
        slot: the node that holds it, the field, and the position there (None where the field is no list).
        shown: the part of the code in which the change is shown.
        function: first line of the innermost function around it, decorators included; None in the module's body.
    """

    node: ast.AST
    other: ast.AST
    slot: tuple[ast.AST, str, int | None]
    shown: ast.AST
    function: int | None

    def apply(self) -> None:
        """Make the change in the tree that the site belongs to."""
        holder, field, position = self.slot
        ast.copy_location(self.other, self.node)
        if position is None:
            setattr(holder, field, self.other)
        else:
            getattr(holder, field)[position] = self.other
        ast.fix_missing_locations(self.other)


def sites(tree: ast.Module) -> list[Site]:
    """List every change that can be made in a module, in the order of its text."""
    return list(_sites(tree, None, None))


def _sites(holder: ast.AST, shown: ast.AST | None, function: int | None) -> Iterator[Site]:
    for field, value in ast.iter_fields(holder):
        if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for position, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or _skipped(node):
                continue
            slot = (holder, field, position if isinstance(value, list) else None)
            here = node if isinstance(node, ast.expr | ast.keyword | ast.Return | ast.Expr) else shown
            inside = function
            if isinstance(node, ast.FunctionDef):
                inside = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            for other in _others(node, holder, field):
                context = shown if isinstance(node, ast.Constant) and shown is not None else node
                yield Site(node=node, other=other, slot=slot, shown=context, function=inside)
            yield from _sites(node, here, inside)


def _skipped(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
        return True
    if isinstance(node, ast.keyword):
        return node.arg in _LOOKS
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _LOOKS_OF


def _changed(node: ast.AST, **fields: Any) -> Any:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _others(node: ast.AST, holder: ast.AST, field: str) -> Iterator[ast.AST]:
    """Yield what may take a node's place."""
    match node:
        case ast.Compare(ops=ops):
            for position, op in enumerate(ops):
                yield _changed(node, ops=[*ops[:position], _COMPARISONS[type(op)](), *ops[position + 1 :]])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OPERATORS:
            yield _changed(node, op=_OPERATORS[type(op)]())
        case ast.BoolOp(op=op):
            yield _changed(node, op=ast.And() if isinstance(op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Call(args=args, keywords=keywords):
            plain = [k for k, argument in enumerate(args) if not isinstance(argument, ast.Starred)]
            if len(plain) > 1 and plain[:2] == [0, 1]:
                yield _changed(node, args=[args[1], args[0], *args[2:]])
            for position, keyword in enumerate(keywords):
                if keyword.arg is not None and keyword.arg not in _LOOKS:
                    yield _changed(node, keywords=[*keywords[:position], *keywords[position + 1 :]])
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None:
                yield _changed(node, lower=None)
            if upper is not None:
                yield _changed(node, upper=None)
        case ast.Return(value=value) if value is not None:
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
    if field in ("test", "ifs") and isinstance(holder, ast.If | ast.While | ast.IfExp | ast.comprehension):
        flips = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.In)
        if not flips and not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
            yield ast.UnaryOp(ast.Not(), node)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A change, and where.

    Attributes:
        file: path under the root.
        line: where it is.
        index: its place among the module's sites.
        function: first line of the function around it, or None.
        change: the code before and after.
    """

    file: str
    line: int
    index: int
    function: int | None
    change: str

    def code(self, root: Path) -> CodeType:
        """Compile the changed module."""
        path = root / self.file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        sites(tree)[self.index].apply()
        return compile(tree, str(path), "exec", dont_inherit=True)


def all_mutants(root: Path, source: str) -> list[Mutant]:
    """List the mutants of every module under a folder.

    Args:
        root: of the tree.
        source: folder under it.
    """
    found = []
    for path in sorted((root / source).rglob("*.py")):
        found += _of_module(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    return found


def _of_module(file: str, text: str) -> list[Mutant]:
    tree = ast.parse(text)
    found = []
    for index, site in enumerate(sites(tree)):
        before = _shown(site.shown)
        holder, field, position = site.slot
        site.apply()
        after = _shown(site.shown if site.shown is not site.node else site.other)
        if position is None:
            setattr(holder, field, site.node)
        else:
            getattr(holder, field)[position] = site.node
        line = getattr(site.node, "lineno", 0) or getattr(holder, "lineno", 0)
        found.append(Mutant(file=file, line=line, index=index, function=site.function, change=f"{before}  ->  {after}"))
    return found


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


@dataclass(frozen=True, kw_only=True)
class Test:
    """What one test of the room costs and reaches.

    Attributes:
        name: pytest's node id.
        seconds: of the whole test.
        reached: (file, first line) of every function of the room that it calls or asks the signature of; line 0 for a
            class whose making is generated, as a dataclass's.
    """

    name: str
    seconds: float
    reached: frozenset[tuple[str, int]]


def _definition(asked: Any) -> tuple[str, int]:
    """Return the file and first line of what a signature is asked of; line 0 for a class whose making is generated."""
    asked = inspect.unwrap(asked)
    code = getattr(asked.__init__ if isinstance(asked, type) else asked, "__code__", None)
    if isinstance(code, CodeType) and code.co_filename != "<string>":
        return code.co_filename, code.co_firstlineno
    return getattr(sys.modules.get(getattr(asked, "__module__", None) or ""), "__file__", None) or "", 0


class _Watch:
    """A plug-in of pytest that notes each test's time, and the functions that it calls or whose signature it reads."""

    def __init__(self, root: Path, source: str) -> None:
        self.inside, self.root = str(root / source) + os.sep, root
        self.seconds: dict[str, float] = {}
        self.reached: dict[str, set[tuple[str, int]]] = {}
        self.shared: dict[str, set[tuple[str, int]]] = {}
        self.calls: set[tuple[str, int]] = set()

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        file, line = frame.f_code.co_filename, frame.f_code.co_firstlineno
        if frame.f_code is inspect.signature.__code__:  # a default is held by reading it, without a call
            file, line = _definition(frame.f_locals["obj"])
        if file.startswith(self.inside):
            self.calls.add((file[len(str(self.root)) + 1 :], line))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.calls = set()
        sys.setprofile(self._profile)

    def pytest_runtest_logreport(self, report: Any) -> None:
        name, module = report.nodeid, report.nodeid.partition("::")[0]
        if report.when == "setup":
            self.shared.setdefault(module, set()).update(self.calls)
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        self.reached[name] = set(self.calls)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.setprofile(None)

    def tests(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "seconds": self.seconds[name],
                "reached": sorted(self.reached[name] | self.shared.get(name.partition("::")[0], set())),
            }
            for name in self.seconds
        ]


_OPTIONS = (
    "-q", "-x", "--assert=plain", "--hypothesis-seed=0", "-p", "no:cacheprovider", "-p", "no:nbmake", "-p", "no:xdist",
)  # fmt: skip
"""Plain assertions, since pytest loads the modules that it rewrites by itself, the doctests' among them."""


def _forked(work: Callable[[], int], *, cpu_seconds: float, wall_seconds: float) -> int | None:
    """Run work in a fork of this process; return its exit status, or None where it was stopped."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            limit = max(1, int(cpu_seconds))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            quiet = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            status = work()
        finally:
            os._exit(status)
    end = time.monotonic() + wall_seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def baseline(root: Path, source: str, tests: Sequence[str]) -> tuple[list[Test], float]:
    """Run the unchanged room's tests once.

    Args:
        root: of the tree.
        source: folder of the room.
        tests: files or folders of its tests.

    Returns:
        The tests, quickest first, and the seconds of processor time that all of them took.

    Raises:
        ValueError: if they do not pass.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "baseline.json"

        def work() -> int:
            import pytest

            watch = _Watch(root, source)
            status = pytest.main([*_OPTIONS, *tests], plugins=[watch])
            loaded = [name for name in sys.modules if name.partition(".")[0] in _WARM]
            written.write_text(json.dumps({"tests": watch.tests(), "modules": loaded}))
            return int(status)

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if _forked(work, cpu_seconds=3600, wall_seconds=3600) != 0:
            raise ValueError(f"the tests of {source} do not pass as they are: pytest {' '.join(tests)}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads(written.read_text())
    for name in found["modules"]:
        if name.partition(".")[0] != source.partition("/")[0]:
            importlib.import_module(name)
    made = [
        Test(name=t["name"], seconds=t["seconds"], reached=frozenset((f, n) for f, n in t["reached"]))
        for t in found["tests"]
    ]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return sorted(made, key=lambda test: test.seconds), cpu


def chosen_tests(mutant: Mutant, tests: Sequence[Test]) -> list[str]:
    """Name the tests that reach a mutant; all that reach its file where it is in no function.

    Args:
        mutant: the change.
        tests: from `baseline`.
    """
    if mutant.function is not None:
        return [test.name for test in tests if (mutant.file, mutant.function) in test.reached]
    by_file = [test.name for test in tests if any(file == mutant.file for file, _ in test.reached)]
    return by_file or [test.name for test in tests]


def survives(mutant: Mutant, tests: Sequence[str], *, root: Path, cpu_seconds: float) -> bool:
    """Say whether the tests pass with the change made; endless work counts as noticed.

    Args:
        mutant: the change.
        tests: node ids.
        root: of the tree.
        cpu_seconds: after which the tests are stopped.
    """
    if not tests:
        return True

    def work() -> int:
        import pytest

        changed, path, load = mutant.code(root), str(root / mutant.file), SourceFileLoader.get_code

        def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
            return changed if self.path == path else load(self, fullname)

        SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
        return int(pytest.main([*_OPTIONS, *tests]))

    status = _forked(work, cpu_seconds=cpu_seconds, wall_seconds=20 * cpu_seconds)
    if status in (3, 4, 5):
        raise RuntimeError(f"pytest ended with {status} at {mutant.file}:{mutant.line}: {mutant.change}")
    return status == 0


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def examine(
    room: str, *, count: int, seed: int, root: Path = ROOT, only: str = "", before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Try a sample of a room's mutants.

    Args:
        room: folder of analysis.
        count: mutants drawn; all of them where there are fewer.
        seed: of the draw.
        root: of the tree.
        only: keep to files whose name holds this.
        before: an earlier result of the same code and draw; what it killed is not tried again.

    Returns:
        ``room``, ``sites`` (all mutants there are), ``mutants`` (drawn), ``killed``, ``survived``, ``seconds``,
        ``sources`` (a digest of the room's code) and ``survivors``, each with ``file``, ``line``, ``change``, ``tests``
        (how many reach it) and ``reason`` (empty).

    Raises:
        ValueError: if ``before`` is of other code or another draw, or the unchanged room's tests do not pass.
    """
    source = f"analysis/{room}"
    every = [mutant for mutant in all_mutants(root, source) if only in mutant.file]
    drawn = random.Random(seed).sample(every, min(count, len(every)))
    drawn.sort(key=lambda mutant: (mutant.file, mutant.index))
    digest = _digest(root / source)
    tried = drawn
    if before is not None:
        if (before["sources"], before["mutants"], before["seed"]) != (digest, len(drawn), seed):
            raise ValueError(
                f"the earlier result of {room} is of other code or another draw; try all its mutants again"
            )
        lived = {(one["file"], one["line"], one["change"]) for one in before["survivors"]}
        tried = [mutant for mutant in drawn if (mutant.file, mutant.line, mutant.change) in lived]
    started = time.monotonic()
    tests, cpu = baseline(root, source, [f"tests/analysis/{room}", source])
    survivors = []
    for number, mutant in enumerate(tried, 1):
        names = chosen_tests(mutant, tests)
        if survives(mutant, names, root=root, cpu_seconds=30 + 5 * cpu):
            survivors.append(
                {"file": mutant.file, "line": mutant.line, "change": mutant.change, "tests": len(names), "reason": ""}
            )
            print(f"  {mutant.file}:{mutant.line} [{len(names)} tests] {mutant.change}", flush=True)
        print(f"{room}: {number} of {len(tried)}, {len(survivors)} survive", end="\r", file=sys.stderr, flush=True)
    return {
        "room": room,
        "sites": len(every),
        "mutants": len(drawn),
        "killed": len(drawn) - len(survivors),
        "survived": len(survivors),
        "seconds": round(time.monotonic() - started) + (before["seconds"] if before is not None else 0),
        "sources": digest,
        "survivors": survivors,
    }


def with_reasons(found: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a room's result with the reasons that an earlier one gives for the same survivors.

    Args:
        found: from `examine`.
        before: the earlier one; may be empty.
    """
    known = {(one["file"], one["change"]): one["reason"] for one in before.get("survivors", ())}
    survivors = [one | {"reason": known.get((one["file"], one["change"]), "")} for one in found["survivors"]]
    return found | {"survivors": survivors}


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine rooms, write what was found, print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"folders of analysis (default: {' '.join(ROOMS)})")
    parser.add_argument("--count", type=int, default=200, help="mutants drawn in each room (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose path holds TEXT; nothing is written")
    parser.add_argument(
        "--survivors", action="store_true", help="try again only what survived, after tests were added to the room"
    )
    options = parser.parse_args(arguments)
    rooms = options.rooms or list(ROOMS)
    unknown = [room for room in rooms if not (ROOT / "tests" / "analysis" / room).is_dir()]
    if unknown:
        parser.error(f"unknown room {unknown[0]!r}; it has no tests under tests/analysis")
    if options.count < 1:
        parser.error(f"count must be at least 1, got {options.count}")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    storage = tempfile.TemporaryDirectory()
    os.environ |= {"HYPOTHESIS_STORAGE_DIRECTORY": storage.name, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rooms": []}
    by_name = {one["room"]: one for one in results["rooms"]}
    for room in rooms:
        before = by_name.get(room) if options.survivors else None
        found = examine(room, count=options.count, seed=options.seed, only=options.only, before=before)
        found = with_reasons(found, by_name.get(room, {}))
        explained = sum(bool(one["reason"]) for one in found["survivors"])
        print(
            f"{room}: {found['killed']} of {found['mutants']} mutants killed, {found['survived']} survive, "
            f"{explained} of them for a stated reason ({found['seconds']} s)"
        )
        if options.only:
            continue
        by_name[room] = found | {"seed": options.seed, "python": platform.python_version()}
        text = {"command": "make mutants", "rooms": [by_name[name] for name in sorted(by_name)]}
        RESULTS.write_text(json.dumps(text, indent=1) + "\n")
    storage.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main())
