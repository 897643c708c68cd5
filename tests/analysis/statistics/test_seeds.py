"""Means over seeds and their intervals."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import across_seeds


def runs(values: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        {"task": "t", "model": "m", "method": method, "rank": 2, "links": 1, "status": "done", "metric": v}
        for method, results in values.items()
        for v in results
    ]
    return pd.DataFrame(rows)


def test_seeds_are_averaged_with_students_interval():
    table = across_seeds(runs({"cla": [0.1, 0.2, 0.3], "lora": [0.5]}), columns=("metric",)).set_index("method")
    row = table.loc["cla"]
    assert (row["seeds"], row["metric"]) == (3, pytest.approx(0.2))
    # Student's t with two degrees of freedom: 4.302653 * 0.1 / sqrt(3).
    assert row["metric_high"] - row["metric"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert np.isnan(table.loc["lora", "metric_low"])


def test_averaging_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no column 'loss'"):
        across_seeds(runs({"cla": [0.1]}), columns=("loss",))
    with pytest.raises(ValueError, match="no finished run"):
        across_seeds(runs({"cla": [0.1]}).assign(status="failed"))


def test_the_interval_follows_the_confidence_that_is_asked_for():
    row = across_seeds(runs({"cla": [0.0, 1.0, 5.0]}), columns=("metric",), confidence=0.8).iloc[0]
    # Student's t with two degrees of freedom: 1.885618 * std / sqrt(3) at 0.8; the squares sum to 14.
    assert row["metric_std"] == pytest.approx(7**0.5)
    assert row["metric_low"] == pytest.approx(2.0 - 1.885618 * (7 / 3) ** 0.5, rel=1e-6)
    assert row["metric_high"] == pytest.approx(2.0 + 1.885618 * (7 / 3) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_are_covered_as_often_as_is_said(seeds: int):
    rng = np.random.default_rng(seeds)
    frame = runs({f"method {i}": rng.normal(1.0, 2.0, seeds).tolist() for i in range(1000)})
    table = across_seeds(frame, columns=("metric",), by=("method",))
    covered = ((table["metric_low"] <= 1.0) & (table["metric_high"] >= 1.0)).mean()
    # Four standard errors of a share of 0.95 in 1,000 are 0.028.
    assert covered == pytest.approx(0.95, abs=0.028)


def test_two_seeds_have_ends_and_one_has_none():
    table = across_seeds(runs({"cla": [1.0, 2.0], "lora": [4.0]}), columns=("metric",)).set_index("method")
    assert table.loc["cla", ["seeds", "metric"]].tolist() == [2, 1.5]
    # Student's t with one degree of freedom: 12.7062 * sqrt(1/2) / sqrt(2).
    assert table.loc["cla", "metric_high"] == pytest.approx(1.5 + 12.7062 / 2, rel=1e-5)
    assert table.loc["lora", ["metric_low", "metric_high", "metric_std"]].isna().all()
    assert table.loc["lora", ["seeds", "metric"]].tolist() == [1, 4.0]


def test_configurations_are_told_apart_by_every_column_an_undefined_rank_included():
    frame = pd.concat([runs({"cla": [1.0]}), runs({"fft": [3.0, 5.0]}).assign(rank=np.nan)])
    unfinished = runs({"cla": [100.0]}).assign(status="failed")
    table = across_seeds(pd.concat([frame, unfinished, runs({"cla": [7.0]}).assign(links=3)]), columns=("metric",))
    assert table["method"].tolist() == ["cla", "fft", "cla"]
    assert table["metric"].tolist() == [1.0, 4.0, 7.0]
    plain = across_seeds(frame.drop(columns="status"), columns=("metric",), by=("method",))
    assert plain["metric"].tolist() == [1.0, 4.0]
