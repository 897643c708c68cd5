"""Intervals for bounded means: exact where they can be, never blind to what was not seen."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import bounded_mean_interval


def test_zeros_and_ones_have_clopper_and_pearsons_interval():
    values = np.repeat([0.0, 2.0], [93, 7])
    # Beta quantiles: 7 of 100, the ends times the largest value.
    expected = [2 * stats.beta.ppf(0.025, 7, 94), 2 * stats.beta.ppf(0.975, 8, 93)]
    assert bounded_mean_interval(values, largest=2.0) == pytest.approx(expected)


def test_other_values_have_the_same_interval_in_the_limit_of_zeros_and_ones():
    near = np.repeat([1e-9, 1.0], [93, 7])
    exact = bounded_mean_interval(np.round(near), largest=1.0)
    # Two quantiles of 40,000 draws: their standard error is 0.0006 at a spread of 0.026.
    assert bounded_mean_interval(near, largest=1.0, replicates=40_000) == pytest.approx(exact, abs=0.0025)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.2])
def test_rare_large_losses_are_covered_and_the_interval_is_no_wider_than_that_takes(share: float):
    rng = np.random.default_rng(0)
    truth = share * 3.0 + (1 - share) * 0.01
    covered, widths, trials = 0, [], 300
    for trial in range(trials):
        losses = np.where(rng.random(100) < share, rng.uniform(2, 4, 100), rng.exponential(0.01, 100))
        low, high = bounded_mean_interval(losses, largest=4.0, replicates=400, seed=trial)
        covered += low <= truth <= high
        widths.append(high - low)
    assert covered / trials >= 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5
    # The exact interval of 100 s errors of size 4 is what a bounded loss can do at worst.
    worst = bounded_mean_interval(4.0 * (np.arange(100) < 100 * share), largest=4.0)
    assert np.mean(widths) < 1.1 * (worst[1] - worst[0])


def test_clustered_values_are_covered_where_independent_ones_would_not_be():
    rng = np.random.default_rng(1)
    covered = {"clusters": 0, "values": 0}
    trials, truth = 200, 0.3
    for trial in range(trials):
        sizes = rng.integers(1, 12, 60)
        labels = np.repeat(np.arange(60), sizes)
        levels = rng.beta(0.6, 1.4, 60)  # mean 0.3, whatever the size
        values = np.clip(levels[labels] + rng.uniform(-0.02, 0.02, len(labels)), 0, 1)
        for name, clusters in (("clusters", labels), ("values", None)):
            low, high = bounded_mean_interval(values, largest=1.0, clusters=clusters, replicates=300, seed=trial)
            covered[name] += low <= truth <= high
    assert covered["clusters"] / trials >= 0.90
    assert covered["values"] / trials < 0.75


def test_labels_of_single_values_change_nothing_and_names_will_do():
    values = np.random.default_rng(2).random(30)
    alone = bounded_mean_interval(values, largest=1.0)
    assert bounded_mean_interval(values, largest=1.0, clusters=[f"row {i}" for i in range(30)]) == pytest.approx(alone)


def test_a_nan_leaves_no_interval():
    assert np.isnan(bounded_mean_interval([0.1, np.nan], largest=1.0)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": []}, "values must be a non-empty vector"),
        ({"values": [1.5]}, r"values must lie in \[0, 1\], got 1.5"),
        ({"values": [0.5], "confidence": 0.0}, "confidence must lie in"),
        ({"values": [0.5, 0.6], "clusters": [1]}, "clusters must have one label per value, 2"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    values = arguments.pop("values")
    with pytest.raises(ValueError, match=message):
        bounded_mean_interval(values, largest=1.0, **arguments)
