"""Intervals over two crossed ways: equal to the definition, as wide as they must be, and what their p-values say."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import crossed, crossed_tau, kendall_tau
from analysis.statistics.crossed import Estimate

C, K = 7, 4
WAYS = {"configuration": np.repeat(np.arange(C), K), "seed": np.tile(np.arange(K), C)}


def world(rng, *, shares=(0.6, 0.3, 0.1), along=0.6, shape=(C, K)):
    """Target and measure of crossed runs: correlated effects of configurations, seeds' and runs' own."""
    c, k = shape
    mix = np.linalg.cholesky([[1, along], [along, 1]])
    effects = rng.standard_normal((c, 2)) @ mix.T, rng.standard_normal((k, 2)), rng.standard_normal((c * k, 2))
    parts = (np.repeat(effects[0], k, axis=0), np.tile(effects[1], (c, 1)), effects[2])
    return sum(np.sqrt(share) * part for share, part in zip(shares, parts, strict=True))


def test_it_is_two_jackknives_and_satterthwaites_degrees():
    z = world(np.random.default_rng(0))
    found = crossed(lambda w: kendall_tau(z[:, 1], z[:, 0], weights=w)[:, 0], WAYS)
    parts = {}
    for name, labels in WAYS.items():
        left = [kendall_tau(z[labels != one, 1], z[labels != one, 0]).item() for one in np.unique(labels)]
        parts[name] = (len(left) - 1) / len(left) * np.sum((left - np.mean(left)) ** 2)
    assert found.value == pytest.approx(kendall_tau(z[:, 1], z[:, 0]).item())
    assert found.variances == pytest.approx(parts)
    total = sum(parts.values())
    assert found.standard_error == pytest.approx(total**0.5)
    freedom = total**2 / (parts["configuration"] ** 2 / (C - 1) + parts["seed"] ** 2 / (K - 1))
    assert found.degrees == pytest.approx(freedom)
    half = stats.t.ppf(0.95, freedom) * total**0.5
    assert found.interval(confidence=0.9) == pytest.approx((found.value - half, found.value + half))


def test_taus_in_one_pass_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 9, C * K).astype(float)  # with ties
    measures = np.stack([rng.integers(0, 5, C * K), WAYS["configuration"] % 3, target + rng.normal(size=C * K)], axis=1)
    tau, above = crossed_tau(measures, target, WAYS)
    want = crossed(lambda w: kendall_tau(measures, target, weights=w), WAYS)
    for name in WAYS:
        assert tau.variances[name] == pytest.approx(want.variances[name])
    assert tau.value == pytest.approx(want.value)
    assert tau.degrees == pytest.approx(want.degrees)

    def differences(w):
        values = kendall_tau(measures, target, weights=w)
        return values[:, :1] - values[:, 1:]

    assert above.standard_error == pytest.approx(crossed(differences, WAYS).standard_error)
    assert above.value == pytest.approx(want.value[0] - want.value[1:])


def test_it_covers_where_configurations_and_seeds_are_drawn_and_one_way_alone_does_not():
    rng, shares, worlds = np.random.default_rng(2), (0.3, 0.6, 0.1), 400
    truth = np.mean([kendall_tau(*world(rng, shares=shares).T).item() for _ in range(3000)])
    hits = {"both": 0, "configurations alone": 0}
    for _ in range(worlds):
        z = world(rng, shares=shares)
        both, _ = crossed_tau(z[:, 1:], z[:, 0], WAYS)
        alone = {"configuration": both.variances["configuration"]}
        one_way = Estimate(value=both.value, variances=alone, degrees=np.array([C - 1.0]))
        for name, found in zip(hits, (both, one_way), strict=True):
            low, high = found.interval()
            hits[name] += int(low.item() <= truth <= high.item())
    # Three standard errors of a share of 400 worlds at 0.95 are 0.033.
    assert hits["both"] / worlds > 0.91
    assert hits["configurations alone"] / worlds < 0.9


def test_p_values_say_on_which_side_and_how_near():
    one = Estimate(value=np.array([0.3]), variances={"seed": np.array([0.01])}, degrees=np.array([8.0]))
    assert one.p_above().item() == pytest.approx(stats.t.sf(3, 8))
    assert one.p_below().item() == pytest.approx(stats.t.cdf(3, 8))
    assert one.p_above(0.3).item() == pytest.approx(0.5)
    low, high = one.interval(confidence=0.9)
    for margin, inside in ((high.item() + 1e-6, True), (high.item() - 1e-6, False)):
        assert (one.p_equivalent(margin).item() < 0.05) is inside
    assert low > 0
    still = Estimate(value=np.array([0.0, 0.2, -0.2]), variances={"seed": np.zeros(3)}, degrees=np.full(3, np.inf))
    assert still.p_above().tolist() == [0.5, 0.0, 1.0]


@pytest.mark.parametrize(
    ("ways", "strata", "message"),
    [
        ({}, None, "at least one way"),
        ({"configuration": [0, 1], "seed": [0]}, None, "seed has 1 labels, configuration has 2"),
        ({"configuration": [0, 1], "seed": [0, 0]}, None, "seed has one level only"),
        ({"configuration": [0, 1], "seed": [0, 1]}, ["a", "b"], "one level only in a stratum"),
    ],
)
def test_what_has_no_interval_is_refused(ways, strata, message):
    with pytest.raises(ValueError, match=message):
        crossed(lambda w: w.sum(1), ways, strata=strata)


def test_seeds_of_each_task_are_their_own_and_shared_configurations_are_one_draw():
    task = np.repeat(["a", "b"], C * K)
    configuration = np.tile(WAYS["configuration"], 2)
    seed = [f"{t}{k}" for t, k in zip(task, np.tile(WAYS["seed"], 2), strict=True)]
    values = np.random.default_rng(4).normal(size=2 * C * K)

    def mean_of_tasks(w):
        return sum((w * (task == one)) @ values / (w * (task == one)).sum(1) for one in "ab") / 2

    found = crossed(mean_of_tasks, {"configuration": configuration, "seed": seed}, strata=task)
    alone = [crossed(lambda w, part=values[task == one]: w @ part / w.sum(1), WAYS).variances["seed"] for one in "ab"]
    assert found.variances["seed"] == pytest.approx(sum(alone) / 4)
    both = (values[task == "a"] + values[task == "b"]) / 2
    together = crossed(lambda w: w @ both / w.sum(1), WAYS).variances["configuration"]
    assert found.variances["configuration"] == pytest.approx(together)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_is_above_zero(margin):
    one = Estimate(value=np.zeros(1), variances={"seed": np.ones(1)}, degrees=np.ones(1))
    with pytest.raises(ValueError, match="margin must be above 0"):
        one.p_equivalent(margin)
