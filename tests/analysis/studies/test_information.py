"""Estimated bounds per configuration: the table that compare joins, and how loose each inequality is."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.studies.information import joinable, looseness


def estimates():
    rows = [("cla", 2, 1, 0.3, 0.2), ("cla", 4, 1, 0.2, 0.1), ("c3la", 2, 3, 0.1, -0.1)]
    table = [
        {"task": "t", "method": m, "rank": r, "links": k, "quantity": q, "bound": scale * bound, "gap": gap}
        for m, r, k, bound, gap in rows
        for q, scale in (("ld-mi", 2.0), ("e-cmi", 1.0), ("fast-rate", 0.5))
    ]
    return pd.DataFrame(table)


def test_ratios_are_over_positive_gaps_and_counts_over_all():
    found = looseness(estimates())
    assert (found["ld-mi/above"], found["e-cmi/above"], found["fast-rate/above"]) == (3, 3, 2)
    assert found["e-cmi/least-ratio"] == pytest.approx(1.5)
    assert found["e-cmi/largest-ratio"] == pytest.approx(2.0)
    assert found["e-cmi/median-ratio"] == pytest.approx(1.75)
    assert all(math.isnan(looseness(estimates().assign(gap=0.0))[f"{q}/median-ratio"]) for q in ("ld-mi", "e-cmi"))


def test_the_joined_table_has_a_row_per_configuration_with_the_masked_gap_beside_the_bounds():
    table = joinable(estimates())
    assert table[["method", "rank", "links"]].to_numpy().tolist() == [["cla", 2, 1], ["cla", 4, 1], ["c3la", 2, 3]]
    assert table["ld-mi"].tolist() == [0.6, 0.4, 0.2]
    assert table["masked-gap"].tolist() == [0.2, 0.1, -0.1]
