"""Tasks appear when their results are there, with Student's intervals, beside what the paper printed."""

import numpy as np
import pytest

from report.tasks import TASKS, means, methods_table, present_tasks
from theory.methods import METHODS

VALUES = ("metric", "gap_cross_entropy")


def runs(*, skip=(), links=(3,)):
    ends = ("", "_low", "_high")
    columns = ["method", "rank", "links", *(f"{name}{end}" for name in VALUES for end in ends)]
    rows = []
    for key, method in METHODS.items():
        for length in links if method.chained else (1,):
            if key not in skip:
                rank = None if key == "fft" else 16.0
                rows.append([key, rank, length, 0.9, 0.8, 0.99, 0.05, -0.0001, "nan"])
    return {"columns": columns, "rows": rows}


@pytest.fixture
def results():
    printed = {"columns": ["model", "dataset", "fft", "cla"], "rows": [["DeBERTa v3 Base", "TREC-50", 90.15, 86.04]]}
    errors = {"columns": ["model", "dataset", "fft", "cla"], "rows": [["DeBERTa v3 Base", "TREC50", 0.456, 0.225]]}
    return {
        "tables": {
            "trec50/means": runs(links=(2, 3), skip=("paca",)),
            "published_agreement/performance": printed,
            "published_agreement/generalization_error": errors,
        }
    }


def test_a_task_without_results_is_left_out(results):
    assert [task.key for task in present_tasks(results)] == ["trec50"]
    assert present_tasks({"tables": {}}) == []
    assert len({task.key for task in TASKS}) == len(TASKS)


def test_intervals_are_students_and_chains_have_one_length(results):
    frame = means(results, "trec50", rank=16)
    assert frame["method"].is_unique
    assert set(frame.loc[frame["method"].map(lambda key: METHODS[key].chained), "links"]) == {3}
    assert (frame["metric_low"] == 0.8).all()
    assert np.isnan(frame["gap_cross_entropy_high"].to_numpy(dtype=float)).all()
    assert means(results, "trec50", rank=8)["method"].tolist() == ["fft"]


def test_the_table_has_ours_beside_the_papers(results):
    table = methods_table(results)
    assert table["columns"] == [
        "Method",
        "TREC-50\nacc. %",
        "TREC-50\nG(W)",
        "Paper, TREC-50\nacc. %",
        "Paper, TREC-50\nG(W)",
    ]
    rows = {row[0]: row[1:] for row in table["rows"]}
    assert list(rows) == [method.name for method in METHODS.values()]
    assert rows["cLA"] == ["90.0\n[80.0, 99.0]", "0.050\n[0.000, nan]", "86.04", "0.225"]
    assert rows["PaCA"] == ["–"] * 4
