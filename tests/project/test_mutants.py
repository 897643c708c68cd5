"""The mutation tester makes the changes that it names, one at a time, and leaves looks and messages alone."""

import importlib.util
import inspect
import sys
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("mutants_under_test", Path(__file__).with_name("mutants.py"))


@pytest.fixture(scope="module")
def mutants():
    module = importlib.util.module_from_spec(SPEC)
    sys.modules[SPEC.name] = module
    SPEC.loader.exec_module(module)
    yield module
    del sys.modules[SPEC.name]


def changes(mutants, tmp_path, text):
    (tmp_path / "room").mkdir(exist_ok=True)
    (tmp_path / "room" / "code.py").write_text(text)
    found = mutants.all_mutants(tmp_path, "room")
    return found, [mutant.change for mutant in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b", ["a < b  ->  a <= b"]),
        ("a == b", ["a == b  ->  a != b"]),
        ("a - b", ["a - b  ->  a + b"]),
        ("not a", ["not a  ->  a"]),
        ("x = True", ["True  ->  False"]),
        ("a or b", ["a or b  ->  a and b"]),
        ("a[b:]", ["b:  ->  :"]),
        ("x = f(a, b)", ["f(a, b)  ->  f(b, a)"]),
        ("x = f(k=a)", ["f(k=a)  ->  f()"]),
        ("f(a)", ["f(a)  ->  pass"]),
        ("def f():\n    return a", ["return a  ->  return None"]),
        ("x = a if b else c", ["b  ->  not b"]),
        ("x = f(fontsize=9)", []),
        ("def f(a: int = b) -> int:\n    'Text 1.'\n    raise ValueError(1 + 1)", []),
    ],
)
def test_each_kind_of_change(text, expected, mutants, tmp_path):
    assert changes(mutants, tmp_path, text)[1] == expected


def test_a_constant_moves_by_one_each_way_and_the_code_is_the_changed_one(mutants, tmp_path):
    found, shown = changes(mutants, tmp_path, "x = 7\ny = 1 + 1\n")
    assert shown[:2] == ["7  ->  8", "7  ->  6"]
    results = []
    for mutant in found:
        names = {}
        exec(mutant.code(tmp_path), names)  # the two lines above
        results.append((names["x"], names["y"]))
    assert results == [(8, 2), (6, 2), (7, 0), (7, 3), (7, 1), (7, 3), (7, 1)]
    assert (tmp_path / "room" / "code.py").read_text() == "x = 7\ny = 1 + 1\n"


def test_reasons_are_kept_for_the_same_survivor_alone(mutants):
    one = {"file": "a.py", "line": 3, "change": "a  ->  b", "tests": 1, "reason": ""}
    before = {"survivors": [one | {"line": 2, "reason": "the same"}]}
    kept = mutants.with_reasons({"survivors": [one, one | {"change": "a  ->  c"}]}, before)
    assert [survivor["reason"] for survivor in kept["survivors"]] == ["the same", ""]


def test_tests_are_chosen_by_the_function_that_they_reach(mutants):
    make = lambda name, *reached: mutants.Test(name=name, seconds=1.0, reached=frozenset(reached))  # noqa: E731
    tests = [make("first", ("a.py", 3)), make("second", ("a.py", 9)), make("third", ("b.py", 1))]
    mutant = lambda line: mutants.Mutant(file="a.py", line=4, index=0, function=line, change="")  # noqa: E731
    assert mutants.chosen_tests(mutant(3), tests) == ["first"]
    assert mutants.chosen_tests(mutant(None), tests) == ["first", "second"]
    assert mutants.chosen_tests(mutant(5), tests) == []


ROOM = """
import dataclasses, functools

@functools.cache
def mean(x, *, replicates: int = 2000):
    return x

def other(x):
    return x

@dataclasses.dataclass
class Options:
    seed: int = 0

class Maker:
    def __init__(self, *, size: int = 30):
        self.size = size
"""


FUNCTION, FIELD, MADE = ({f"{value}  ->  {value + 1}", f"{value}  ->  {value - 1}"} for value in (2000, 0, 30))


@pytest.mark.parametrize(
    ("act", "tried"),
    [
        (lambda room: inspect.signature(room.mean), FUNCTION | FIELD),
        (lambda room: room.mean(1), FUNCTION | FIELD),
        (lambda room: inspect.signature(room.Options), FIELD),
        (lambda room: inspect.signature(room.Maker), MADE | FIELD),
        (lambda room: room.Maker(), MADE | FIELD),
        (lambda room: room.other(1), FIELD),  # a field stands in no function: whatever reaches the file tries it
        (lambda room: inspect.signature(lambda x=room.mean: x), set()),
    ],
)
def test_a_default_is_tried_by_tests_that_call_the_function_or_read_its_signature(
    act, tried, mutants, tmp_path, monkeypatch
):
    found, _ = changes(mutants, tmp_path, ROOM)
    spec = importlib.util.spec_from_file_location("room_of_defaults", tmp_path / "room" / "code.py")
    room = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, room)
    spec.loader.exec_module(room)
    watch = mutants._Watch(tmp_path, "room")
    watch.pytest_runtest_logstart("test")
    try:
        act(room)
    finally:
        watch.pytest_runtest_logfinish("test")
    nothing = mutants.Test(name="nothing", seconds=1.0, reached=frozenset())
    test = mutants.Test(name="test", seconds=1.0, reached=frozenset(watch.calls))
    defaults = [mutant for mutant in found if mutant.change in FUNCTION | FIELD | MADE]
    assert len(defaults) == 6
    chosen = {mutant.change for mutant in defaults if mutants.chosen_tests(mutant, [test, nothing]) == ["test"]}
    assert chosen == tried
