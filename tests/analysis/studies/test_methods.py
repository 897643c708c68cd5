"""Methods are compared in pairs that share task, rank and seed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis.studies.methods import compare_pairs, method_table, read_results


def planted(*, shift: float, seed: int = 0) -> pd.DataFrame:
    """Runs in which cLA's gap is LoRA's plus ``shift`` and everything else is shared noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for task in ("a", "b"):
        for number in range(4):
            noise = rng.normal(scale=5.0)
            rows.append({"task": task, "method": "fft", "rank": None, "seed": number, "gap": noise + 1.0})
            for rank in (1, 2):
                rows.append({"task": task, "method": "lora", "rank": rank, "seed": number, "gap": noise})
                rows.append({"task": task, "method": "cla", "rank": rank, "seed": number, "gap": noise + shift})
    return pd.DataFrame(rows).assign(status="done", model="m", links=1)


def test_pairing_removes_the_noise_that_seeds_share():
    table = compare_pairs(planted(shift=-0.1), "gap", pairs=[("cla", "lora"), ("lora", "fft")])
    row = table.loc["cLA - LoRA"]
    assert row["units"] == row["smaller"] == 4
    assert row["mean"] == pytest.approx(-0.1)
    assert row["low"] == pytest.approx(row["high"])
    # Two-sided exact binomial: 2 / 2^4.
    assert row["p"] == pytest.approx(0.125)
    assert table.loc["LoRA - FFT", "mean"] == pytest.approx(-1.0)


def test_ties_are_neither_smaller_nor_decided():
    """Units: -2 (task a), a tie and a difference that rounding alone makes (b), +1 (c)."""
    rows = [("a", 1, 3.0, 1.0), ("b", 1, 0.5, 0.5), ("b", 2, 0.1 + 0.2, 0.3), ("c", 1, 1.0, 2.0)]
    runs = pd.DataFrame(
        [
            {"task": task, "method": method, "rank": rank, "seed": 0, "gap": gap}
            for task, rank, lora, cla in rows
            for method, gap in (("lora", lora), ("cla", cla))
        ]
    )
    published = pd.DataFrame({"cla": [1.0, 2.0, 3.0, 4.0], "lora": [2.0, 2.0, 1.0, np.nan]})
    row = compare_pairs(runs, "gap", pairs=[("cla", "lora")], published=published).loc["cLA - LoRA"]
    assert row[["units", "smaller", "paper_units", "paper_smaller"]].tolist() == [4, 1, 3, 1]
    assert row["mean"] == pytest.approx(-0.25)
    # One of two decided units: either sign is as likely.
    assert row["p"] == 1.0
    nothing = compare_pairs(runs[runs["task"] == "b"], "gap", pairs=[("cla", "lora")]).iloc[0]
    assert (nothing["smaller"], nothing["mean"], nothing["low"], nothing["high"]) == (0, 0.0, 0.0, 0.0)
    assert np.isnan(nothing["p"])


def test_the_papers_rows_are_counted_beside_ours():
    published = pd.DataFrame({"cla": [1.0, 2.0, np.nan], "lora": [2.0, 1.0, 1.0]})
    table = compare_pairs(planted(shift=0.1), "gap", pairs=[("cla", "lora")], published=published)
    assert table.loc["cLA - LoRA", ["paper_units", "paper_smaller", "smaller"]].tolist() == [2, 1, 0]


def test_tables_have_a_row_per_task_and_a_column_per_method_in_order():
    table = method_table(planted(shift=0.0), "gap", rank=2, digits=2)
    assert table.columns.tolist() == ["FFT", "LoRA", "cLA"]
    assert table.index.tolist() == ["a", "b"]
    assert table.loc["a", "LoRA"] == table.loc["a", "cLA"]
    with pytest.raises(ValueError, match="no run of rank 7"):
        method_table(planted(shift=0.0), "gap", rank=7)


def test_a_cell_is_mean_low_and_high_over_seeds_scaled():
    rows = [("t", "cla", 2, seed, value) for seed, value in enumerate([0.25, 0.5])]
    runs = pd.DataFrame([*rows, ("t", "lora", 2, 0, 0.125)], columns=["task", "method", "rank", "seed", "gap"])
    table = method_table(runs, "gap", scale=100.0, digits=1)
    # Student's interval of two seeds: 12.706 standard errors of 12.5 on both sides.
    assert table.loc["t", "cLA"] == "37.5 [-121.3, 196.3]"
    assert table.loc["t", "LoRA"] == "12.5 [nan, nan]"


def test_committed_runs_are_read_together(tmp_path):
    for name in ("digits", "trec"):
        columns = ["task", "model", "method", "rank", "links", "seed", "metric", "num_train"]
        rows = [[name, "m", "c3la", 2, 3, 0, 0.5, 9], [name, "m", "fft", None, 1, 0, 0.5, 9]]
        (tmp_path / f"{name}.json").write_text(json.dumps({"tables": {"runs": {"columns": columns, "rows": rows}}}))
    lengths = [["digits", "m", "c3la", 2, links, 0, 0.5, 9] for links in (2, 3)]
    (tmp_path / "lengths.json").write_text(json.dumps({"tables": {"runs": {"columns": columns, "rows": lengths}}}))
    (tmp_path / "bounds.json").write_text(json.dumps({"tables": {"runs": {"columns": ["n"], "rows": [[1]]}}}))
    assert len(read_results(tmp_path, pattern="lengths.json", links=2)) == 1
    runs = read_results(tmp_path)
    assert runs["task"].tolist() == ["digits", "digits", "trec", "trec"]
    assert runs["rank"].isna().tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="holds no table of runs"):
        read_results(tmp_path, pattern="other.json")
    with pytest.raises(ValueError, match="none of the pairs"):
        compare_pairs(planted(shift=0.0), "gap", pairs=[("cola", "rac")])
