"""Sign flips against all patterns, bootstraps against the law they draw from."""

import itertools

import numpy as np
import pytest

from analysis.statistics.resampling import bootstrap_means, interval, sign_flip_p_value


@pytest.mark.parametrize("differences", [[0.5], [0.5, -0.1, 0.3], [1.0, 1.0, -1.0, 2.0], [0.0, 0.0], [-3.0, 1.0]])
def test_sign_flips_count_every_pattern(differences):
    sums = [sum(np.multiply(signs, differences)) for signs in itertools.product((1, -1), repeat=len(differences))]
    reached = sum(total >= sum(differences) - 1e-9 for total in sums)
    assert sign_flip_p_value(differences, replicates=0) == reached / len(sums)


def test_beyond_twenty_pairs_random_patterns_agree_with_the_normal_law():
    # 100 differences of size one, 60 of them positive: the sum of random signs is at least 20 with probability
    # P(Binomial(100, 1/2) >= 60) = 0.02844.
    differences = np.repeat([1.0, -1.0], [60, 40])
    p = sign_flip_p_value(differences, replicates=40_000, seed=3)
    assert abs(p - 0.02844) < 4 * (0.02844 * 0.97156 / 40_000) ** 0.5
    assert p == sign_flip_p_value(differences, replicates=40_000, seed=np.random.default_rng(3))
    assert sign_flip_p_value(np.ones(30), replicates=99) == 0.01


def test_bootstrap_means_have_the_mean_and_spread_of_their_law():
    values = np.array([0.0, 1.0, 5.0, 2.0])
    means = bootstrap_means(values, replicates=50_000, seed=1)
    spread = values.std() / 2
    assert abs(means.mean() - values.mean()) < 4 * spread / 50_000**0.5
    assert abs(means.std() / spread - 1) < 0.02
    low, high = interval(means, confidence=0.95)
    assert 0.0 <= low < values.mean() < high <= 5.0
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(
        bootstrap_means(values, replicates=10, seed=1), bootstrap_means(values, replicates=10, seed=rng)
    )
    assert not np.array_equal(
        bootstrap_means(values, replicates=10, seed=1), bootstrap_means(values, replicates=10, seed=rng)
    )


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(ValueError, match=r"values must be a non-empty vector, got shape \(0,\)"):
        bootstrap_means([])
    with pytest.raises(ValueError, match=r"differences must be a non-empty vector, got shape \(0,\)"):
        sign_flip_p_value([], replicates=9)
