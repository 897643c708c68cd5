"""Simulated worlds scatter as the data do, nobody is ahead in the null, and verdicts err as rarely as they say."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import crossed_tau, detectable_difference, family_verdict, verdict_rates
from analysis.statistics.worlds import Components, components

C, K = 12, 5
CONFIGURATION, SEED = np.repeat(np.arange(C), K), np.tile(np.arange(K), C)


def matrix(variance, covariance, *, measures=3):
    made = np.full((measures + 1, measures + 1), covariance)
    np.fill_diagonal(made, variance)
    return made


MADE = Components(configuration=matrix(0.6, 0.3), seed=matrix(0.3, 0.1), run=matrix(0.1, 0.0))


def test_components_of_many_runs_are_those_that_made_them():
    rng = np.random.default_rng(0)
    configuration, seed = np.repeat(np.arange(60), 60), np.tile(np.arange(60), 60)
    found = components(MADE.draw(configuration, seed, rng), configuration=configuration, seed=seed)
    for name, one in vars(found).items():
        # 60 levels: a covariance of 0.6 has a standard error of 0.6 sqrt(2 / 60) = 0.11.
        assert np.abs(one - getattr(MADE, name)).max() < 0.35, name
    assert np.diag(found.configuration).mean() > np.diag(found.seed).mean() > np.diag(found.run).mean()


def test_what_varies_along_one_way_alone_has_no_part_in_the_others():
    rng = np.random.default_rng(1)
    columns = np.stack([rng.normal(size=C * K), rng.normal(size=C)[CONFIGURATION], rng.normal(size=K)[SEED]], axis=1)
    found = components(columns, configuration=CONFIGURATION, seed=SEED)
    assert not found.run[1:, 1:].any()
    assert not found.seed[1].any()
    assert not found.configuration[2].any()
    drawn = found.draw(CONFIGURATION, SEED, rng)
    assert np.ptp(drawn[CONFIGURATION == 0, 1]) < 1e-12


def test_in_the_null_every_measure_goes_with_the_target_equally_well():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(4, 4))
    given = Components(configuration=root @ root.T, seed=matrix(0.3, 0.1), run=matrix(0.1, 0.0))
    null = given.null()
    assert np.ptp(null.configuration[0, 1:]) == 0
    assert null.configuration[0, 1] == pytest.approx(given.configuration[0, 1:].mean())
    assert np.trace(null.configuration) == pytest.approx(np.trace(given.configuration))
    for name, one in vars(null).items():
        assert np.linalg.eigvalsh(one).min() > -1e-12, name
        assert one[1:, 1:].sum() == pytest.approx(getattr(given, name)[1:, 1:].sum())
    planted = given.planted(0.5).configuration
    assert planted[0, 1] > null.configuration[0, 1]
    assert np.linalg.eigvalsh(planted).min() > -1e-9
    assert given.planted(0.0).configuration == pytest.approx(null.configuration, abs=1e-9)


@pytest.mark.parametrize("shape", [(11, 3), (C, K)])
def test_null_verdicts_come_up_at_most_as_often_as_the_level(shape):
    """Twelve rivals, seeds with an effect of their own: what a bootstrap over configurations decides in one of four."""
    rng = np.random.default_rng(3)
    ways = {"configuration": np.repeat(np.arange(shape[0]), shape[1]), "seed": np.tile(np.arange(shape[1]), shape[0])}
    null = Components(
        configuration=matrix(0.5, 0.2, measures=13),
        seed=matrix(0.4, 0.1, measures=13),
        run=matrix(0.1, 0.0, measures=13),
    )
    decided, worlds = 0, 300
    for _ in range(worlds):
        drawn = null.draw(*ways.values(), rng)
        above = crossed_tau(drawn[:, 1:], drawn[:, 0], ways)[1]
        decided += family_verdict(above.p_above(), above.p_below()) != "undecided"
    # At most 0.05; three standard errors of 300 worlds are 0.038.
    assert decided / worlds <= 0.088


def test_rates_grow_with_what_is_planted_and_repeat():
    large = Components(configuration=matrix(0.9, 0.4), seed=matrix(0.05, 0.0), run=matrix(0.05, 0.0))
    configuration, seed = np.repeat(np.arange(30), 3), np.tile(np.arange(3), 30)
    drawn = large.draw(configuration, seed, np.random.default_rng(4))
    options = {"configuration": configuration, "seed": seed, "worlds": 60, "strengths": (0.0, 1.0)}
    rates = verdict_rates(drawn[:, 1:], drawn[:, 0], **options)
    null, planted = rates.iloc[0], rates.iloc[1]
    verdicts = ["supported", "contradicted", "mixed", "equivalent", "undecided"]
    assert rates[verdicts].sum(axis=1).tolist() == pytest.approx([1.0, 1.0])
    assert null["supported"] + null["contradicted"] <= 0.15
    assert abs(null["difference"]) < 0.1
    assert planted["difference"] > 0.3
    assert planted["supported"] > 0.5
    pd.testing.assert_frame_equal(rates, verdict_rates(drawn[:, 1:], drawn[:, 0], **options))
    wide = verdict_rates(drawn[:, 1:], drawn[:, 0], **options, margin=10.0).iloc[0]
    assert wide["equivalent"] > 0.9


def test_the_power_is_that_of_new_worlds_with_the_planted_difference():
    drawn = MADE.draw(CONFIGURATION, SEED, np.random.default_rng(5))
    fitted = components(drawn, configuration=CONFIGURATION, seed=SEED)
    rates = verdict_rates(
        drawn[:, 1:], drawn[:, 0], configuration=CONFIGURATION, seed=SEED, worlds=400, strengths=(0.6,)
    )
    rng, hits, planted = np.random.default_rng(6), 0, fitted.planted(0.6)
    for _ in range(400):
        world = planted.draw(CONFIGURATION, SEED, rng)
        above = crossed_tau(world[:, 1:], world[:, 0], {"configuration": CONFIGURATION, "seed": SEED})[1]
        hits += bool((above.p_above() <= 0.025).all())
    # Two shares of 400 worlds differ by at most three standard errors, 0.106, at one half.
    assert hits / 400 == pytest.approx(rates["supported"].item(), abs=0.106)


def test_the_detectable_difference_is_where_power_crosses():
    rates = pd.DataFrame({"difference": [0.0, 0.2, 0.4], "supported": [0.02, 0.6, 1.0]})
    assert detectable_difference(rates) == pytest.approx(0.3)
    assert detectable_difference(rates.iloc[:2]) == math.inf


@pytest.mark.parametrize(
    ("champion", "rival", "verdict"),
    [
        ([0.02, 0.02, 0.02], [0.98, 0.98, 0.98], "supported"),
        ([0.5, 0.5, 0.5], [0.02, 0.5, 0.5], "undecided"),  # 0.06 by Holm
        ([0.99, 0.5, 0.5], [0.008, 0.5, 0.5], "contradicted"),
        ([0.99, 0.008, 0.5], [0.008, 0.99, 0.5], "mixed"),
        ([0.02, 0.02, 0.03], [0.98, 0.98, 0.97], "undecided"),
    ],
)
def test_beating_all_needs_no_correction_and_one_winner_among_many_does(champion, rival, verdict):
    assert family_verdict(champion, rival) == verdict


def test_equivalence_needs_every_rival_inside_the_margin():
    assert family_verdict([0.5, 0.5], [0.5, 0.5], p_equivalent=[0.04, 0.05]) == "equivalent"
    assert family_verdict([0.5, 0.5], [0.5, 0.5], p_equivalent=[0.04, 0.06]) == "undecided"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measures": np.zeros((4, 1))}, "a champion and a rival at least"),
        ({"worlds": 0}, "worlds must be at least 1, got 0"),
        ({"seed": [0, 0, 0, 0]}, "share configuration alone|share neither alone|share seed alone"),
    ],
)
def test_what_cannot_be_simulated_is_refused(change, message):
    given = {
        "measures": np.arange(8.0).reshape(4, 2), "target": np.arange(4.0), "configuration": [0, 0, 1, 1],
        "seed": [0, 1, 0, 1],
    }  # fmt: skip
    given |= change
    with pytest.raises(ValueError, match=message):
        verdict_rates(given.pop("measures"), given.pop("target"), **given)
