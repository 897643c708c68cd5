"""The mutation tester makes the changes that it names, one at a time, and leaves looks and messages alone."""

import importlib.util
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
