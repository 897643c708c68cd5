"""The coverage study finds what covers and what does not; the committed table holds the promise."""

from pathlib import Path

import pytest

from analysis.records import frame_of, read_json
from analysis.studies import coverage

RESULT = Path(__file__).resolve().parents[3] / "report" / "results" / "coverage.json"


def test_a_bootstrap_of_few_errors_is_caught(monkeypatch):
    monkeypatch.setattr(coverage, "SIZES", (100,))
    monkeypatch.setattr(coverage, "WORLDS", {"zero_one": {"error 0.01": coverage.WORLDS["zero_one"]["error 0.01"]}})
    row = coverage.gap_coverage(trials=150, replicates=100, progress=False).iloc[0]
    # 0.366 of all samples hold no error; standard errors of 150 trials are 0.04 and 0.02.
    assert row["bootstrap_coverage"] == pytest.approx(0.63, abs=0.16)
    assert row["coverage"] >= 0.90


def test_too_few_trials_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="trials must be at least 100, got 10"):
        coverage.write_coverage(tmp_path / "c.json", trials=10, replicates=10)


@pytest.mark.committed
def test_every_interval_of_the_committed_table_covers_and_sizes_are_the_reports():
    result = read_json(RESULT)
    gaps, clusters, seeds = (frame_of(result["tables"][name]) for name in ("gaps", "clusters", "seeds"))
    assert min(part["coverage"].min() for part in (gaps, clusters)) >= 0.93
    # Student's interval is exact for normal scatter; scatter without tails, which three seeds cannot show, costs 0.03.
    assert seeds[seeds["scatter"] != "uniform"]["coverage"].min() >= 0.93
    assert seeds["coverage"].min() >= 0.90
    assert set(gaps["size"]) == set(coverage.SIZES)
    assert set(seeds["seeds"]) == set(coverage.SEEDS)
    # What is no wider than it must be: with many errors and examples the widths agree within a tenth.
    plenty = gaps[(gaps["size"] == 1000) & gaps["world"].isin(["error 0.3", "0.2 confident mistakes"])]
    assert (plenty["width"] / plenty["bootstrap_width"]).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
