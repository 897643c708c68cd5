"""The benchmark of the bounds covers every method, and its closed form is the paper's sum."""

from analysis.benchmarks.bounds import run
from analysis.benchmarks.harness import targets
from analysis.records import read_json
from theory.methods import METHODS


def test_every_method_is_timed_and_the_closed_form_equals_the_papers_sum(tmp_path):
    found = run(results=tmp_path / "bench_bounds.json", quick=True, repeats=1)
    assert list(found["timings"]["every bound, Llama3-8B"]) == ["every method", *METHODS]
    assert list(found["timings"]["correction, 6 layers"]) == ["2^L terms", "recursion in rationals", "closed form"]
    # Six logarithms of numbers below 2 and one exponential, as in the theory's own test.
    assert found["values"]["correction, 6 layers/relative error"] < 1e-13
    written = read_json(tmp_path / "bench_bounds.json")
    assert written["values"]["correction by depth/10 layers"] == 1.0
    assert {f"target/{what}" for what in targets("bounds")} <= written["values"].keys()
    assert written["provenance"]["command"] == "python -m analysis bench bounds"
