"""Paired comparisons of chains: the exact test and the interval against hand-worked numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from analysis.statistics import claim_values, paired_claim, unchained_partner
from analysis.statistics.rounding import interval_side, same
from theory.methods import METHODS


def frame(differences):
    rows = [{"method": "cla", "seed": seed, "checkpoint": "last", "x": 1.0} for seed in range(len(differences))]
    rows += [
        {"method": "c3la", "seed": seed, "checkpoint": "last", "x": 1.0 + value}
        for seed, value in enumerate(differences)
    ]
    return pd.DataFrame(rows)


def test_every_chain_has_a_partner_that_differs_in_the_chain_alone():
    chains = [key for key, method in METHODS.items() if method.chained]
    assert {key: unchained_partner(key) for key in chains} == {
        "cola": "lora",
        "rac": "asym",
        "c3la": "cla",
        "r-c3la": "r-cla",
    }


@pytest.mark.parametrize(
    ("differences", "p_value"),
    # all four signs alike: 1 of 16 patterns; one small minus among three: patterns + + + + and itself, 2 of 16
    [([1.0, 2.0, 3.0, 4.0], 1 / 16), ([-1.0, 2.0, 3.0, 4.0], 2 / 16), ([0.0, 0.0, 0.0], 1.0), ([-1.0, -1.0], 1.0)],
)
def test_sign_flip_p_value_counts_patterns_exactly(differences, p_value):
    row = paired_claim(frame(differences), ["x"]).iloc[0]
    assert row["p_value"] == pytest.approx(p_value)
    assert row["difference"] == pytest.approx(sum(differences) / len(differences))
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["verdict"] == ("larger" if row["low"] > 0 else "smaller" if row["high"] < 0 else "undecided")


def test_counts_in_doubt_leave_the_number_of_larger_pairs_open_and_the_edge_says_when_the_verdict_tips():
    made = frame([1.0, -1.0, 5.0]).assign(x_low=lambda f: f["x"] - 1, x_high=lambda f: f["x"] + 1)
    row = paired_claim(made, ["x"]).iloc[0]
    assert (row["larger"], row["larger_low"], row["larger_high"]) == (2, 1, 3)
    assert row["edge"] == min(abs(row["low"]), abs(row["high"]))
    certain = paired_claim(frame([1.0, -1.0, 5.0]), ["x"]).iloc[0]
    assert (certain["larger_low"], certain["larger_high"]) == (2, 2)


def test_a_difference_that_rounding_makes_is_none():
    row = paired_claim(frame([1e-16, 3e-16, 2e-16]), ["x"]).iloc[0]
    assert (row["larger"], row["difference"], row["p_value"], row["verdict"]) == (0, 0.0, 1.0, "undecided")


def test_checkpoints_stand_in_the_order_in_which_they_came():
    runs = frame([1.0, 2.0])
    claim = paired_claim(pd.concat([runs, runs.assign(checkpoint="best")]), ["x"])
    assert claim["checkpoint"].tolist() == ["last", "best"]


def test_a_frame_without_pairs_is_refused():
    alone = frame([1.0])
    with pytest.raises(ValueError, match="no chained method"):
        paired_claim(alone[alone["method"] == "c3la"], ["x"])


def test_the_interval_is_the_bootstraps_at_95_per_cent():
    """Units of -1 and 1: a sample's mean is a shifted binomial, whose quantiles are known."""
    units = 400
    row = paired_claim(frame([-1.0, 1.0] * (units // 2)), ["x"], replicates=20_000).iloc[0]
    half = norm.ppf(0.975) / units**0.5
    # One step of the mean is 0.005 and two standard errors of a quantile of 20 000 samples about 0.001.
    assert row["high"] == pytest.approx(half, abs=0.006)
    assert row["low"] == pytest.approx(-half, abs=0.006)
    assert row["edge"] == min(-row["low"], row["high"])


def test_few_units_have_the_extremes_that_the_bootstrap_gives_them():
    """Of 27 samples of (0, 0, 3), 1 has mean 3 and 8 have mean 0: both tails of 2.5 % lie there."""
    row = paired_claim(frame([0.0, 0.0, 3.0]), ["x"]).iloc[0]
    assert (row["low"], row["high"]) == (0.0, 3.0)
    assert (row["units"], row["larger"], row["chain"], row["single"], row["difference"]) == (3, 1, 2.0, 1.0, 1.0)
    assert (row["verdict"], row["edge"]) == ("undecided", 0.0)


def test_beyond_twenty_units_random_patterns_stand_for_all():
    twenty = paired_claim(frame([1.0] * 20), ["x"]).iloc[0]
    assert twenty["p_value"] == pytest.approx(2.0**-20, rel=1e-9)
    more = paired_claim(frame([1.0] * 21), ["x"], replicates=500).iloc[0]
    # The observed pattern is one of those counted, so the least value is one in 501.
    assert more["p_value"] == pytest.approx(1 / 501)
    balanced = paired_claim(frame([-1.0, 1.0] * 12), ["x"], replicates=2000).iloc[0]
    # P(sum of 24 signs >= 0) = (1 + C(24, 12) / 2^24) / 2; three standard errors of 2000 draws are 0.033.
    assert balanced["p_value"] == pytest.approx((1 + 2704156 / 2**24) / 2, abs=0.033)


def test_units_without_a_finite_value_or_a_partner_are_left_out_and_checkpoints_kept_apart():
    made = frame([1.0, 2.0, 4.0, 8.0])
    made.loc[made["method"].eq("c3la") & made["seed"].eq(1), "x"] = np.nan
    made.loc[made["method"].eq("cla") & made["seed"].eq(2), "x"] = np.inf
    alone = pd.DataFrame([{"method": "c3la", "seed": 9, "checkpoint": "last", "x": 50.0}])
    best = frame([-1.0]).assign(checkpoint="best")
    rows = paired_claim(pd.concat([made, alone, best]), ["x"]).set_index("checkpoint")
    assert rows.loc["last", ["units", "difference", "larger"]].tolist() == [2, 4.5, 2]
    assert rows.loc["best", ["units", "difference", "larger", "verdict"]].tolist() == [1, -1.0, 0, "smaller"]
    with pytest.raises(ValueError, match="'x' is not finite in any pair at checkpoint 'last'"):
        paired_claim(frame([np.nan, np.nan]), ["x"])


def test_a_claim_is_named_by_task_measure_checkpoint_and_column():
    claim = paired_claim(frame([1.0, 2.0]), ["x"])
    values = claim_values(claim, task="digits")
    row = claim.iloc[0]
    assert len(values) == 10
    assert values["digits/x/last/difference"] == row["difference"] == 1.5
    assert values["digits/x/last/verdict"] == "larger"
    assert values["digits/x/last/edge"] == row["low"]


def test_sides_and_sameness_allow_64_units_in_the_last_place():
    unit = np.finfo(np.float64).eps
    assert [bool(same(1.0, 1.0 + k * unit)) for k in (63, 66)] == [True, False]
    assert bool(same(-1000.0, -1000.0 * (1 + 63 * unit)))
    assert same([np.inf, 0.0, 1.0], [np.inf, 0.0, -1.0]).tolist() == [True, True, False]
    assert not same(np.nan, np.nan)
    assert [interval_side(k * unit * 8, 100.0, scale=8.0) for k in (63, 65)] == [0, 1]
    assert [interval_side(-100.0, -k * unit * 8, scale=8.0) for k in (63, 65)] == [0, -1]
    assert interval_side(np.nan, np.nan, scale=1.0) == 0
