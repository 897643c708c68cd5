"""Bounds from held-out examples: closed forms, brute force, coverage on every kind of draw, and what they gain."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta, hypergeom

from theory.certificates import (
    betting_bound,
    cluster_bound,
    empirical_bernstein,
    exact_tail_bound,
    fold_bound,
    hoeffding_bound,
    improvement_bound,
    occam_bound,
    recursive_bound,
)

DELTA = 0.1


@pytest.mark.parametrize(("errors", "n"), [(0, 10), (3, 10), (10, 10), (40, 400), (1, 5000)])
def test_the_exact_tail_is_clopper_pearsons(errors, n):
    found = exact_tail_bound(errors, num_examples=n, delta=0.05)
    expected = 1.0 if errors == n else beta.ppf(0.95, errors + 1, n - errors)
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert (found.of, found.about, found.delta) == ("risk", "law", 0.05)


@pytest.mark.parametrize(("errors", "n", "population"), [(0, 5, 12), (2, 6, 20), (6, 6, 9), (5, 30, 50), (0, 99, 100)])
@pytest.mark.parametrize("bits", [0, 3])
def test_the_hypergeometric_tail_is_that_of_brute_force_in_rationals(errors, n, population, bits):
    def tail(total):
        ways = sum(math.comb(total, j) * math.comb(population - total, n - j) for j in range(errors + 1))
        return Fraction(ways, math.comb(population, n))

    share = Fraction(DELTA) / 2**bits
    most = max(total for total in range(errors, population - n + errors + 1) if tail(total) > share)
    found = exact_tail_bound(errors, num_examples=n, delta=DELTA, bits=bits, population_size=population)
    assert found.value == pytest.approx((most - errors) / (population - n), abs=1e-12)
    assert found.about == "others"


def test_a_tail_below_the_smallest_float_is_still_a_tail():
    # 2^-2000 is no float; the bound lies between the one at 1,000 bits and 1.
    less, more = (exact_tail_bound(10, num_examples=5000, delta=0.05, bits=bits).value for bits in (1000, 2000))
    assert 0 < less < more < 1
    assert more <= occam_bound(10 / 5000, bits=2000, num_examples=5000, delta=0.05).value * (1 + 1e-12)


def test_the_exact_tail_is_never_above_the_kl_form_of_the_same_code():
    for errors, bits in ((0, 0), (5, 40), (60, 200)):
        exact = exact_tail_bound(errors, num_examples=1000, delta=0.05, bits=bits).value
        kl = occam_bound(errors / 1000, bits=bits, num_examples=1000, delta=0.05).value
        assert 0.6 * kl < exact <= kl * (1 + 1e-12)


def worlds(law, rng, count, n):
    """Rows of losses of one law, with the law's mean."""
    if law == "coin":
        return (rng.random((count, n)) < 0.1).astype(float), 0.1
    if law == "beta":
        return rng.beta(2, 8, size=(count, n)), 0.2
    return np.where(rng.random((count, n)) < 0.02, 1.0, 0.05), 0.02 + 0.98 * 0.05


BOUNDS = {
    "exact": lambda x, **kw: exact_tail_bound(int(x.sum()), num_examples=len(x), **kw),
    "betting": betting_bound,
    "hoeffding": hoeffding_bound,
    "bernstein": lambda x, **kw: empirical_bernstein(x, complexity=0.0, **kw),
}


def misses(name, law, *, experiments, n, population, seed=0):
    """Return how often the bound lies below the truth, and the median of bound minus truth."""
    rng = np.random.default_rng([seed, n, population or 0])
    found, truth = [], []
    size = population or n
    rows, mean = worlds(law, rng, experiments, size)
    if population:  # one fixed collection, drawn from anew each time
        rows = np.stack([rng.permutation(rows[0]) for _ in range(experiments)])
    for row in rows:
        extra = {"population_size": population} if population else {}
        found.append(BOUNDS[name](row[:n], delta=DELTA, **extra).value)
        truth.append(row[n:].mean() if population else mean)
    found, truth = np.array(found), np.array(truth)
    return (found < truth - 1e-12).mean(), np.median(found - truth)


CASES = [
    (name, law, population)
    for name in BOUNDS
    for law in ("coin", "beta", "rare")
    for population in (None, 180)
    if not (name == "exact" and law != "coin") and not (name == "bernstein" and population)
]


@pytest.mark.parametrize(("name", "law", "population"), CASES)
def test_a_bound_misses_no_more_often_than_it_says(name, law, population):
    rate, gap = misses(name, law, experiments=40, n=60, population=population)
    assert rate <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / 40)
    assert gap < 0.5


@pytest.mark.full
@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize(("name", "law", "population"), CASES)
def test_a_bound_misses_no_more_often_than_it_says_in_2000_experiments(name, law, population, n):
    rate, _ = misses(name, law, experiments=2000, n=n, population=population and 3 * n, seed=1)
    assert rate <= DELTA


def test_the_exact_tail_misses_as_often_as_it_says_and_not_much_less():
    # Exact by summing over the counts: P(bound < p) for p = 0.1, n = 400, and of a collection of 600 with 60 errors.
    counts = np.arange(401)
    upper = np.array([exact_tail_bound(int(k), num_examples=400, delta=DELTA).value for k in counts[:80]])
    missed = np.array([math.comb(400, int(k)) * 0.1**k * 0.9 ** (400 - k) for k in counts[:80]])[upper < 0.1].sum()
    assert DELTA / 2 < missed <= DELTA
    weights = hypergeom(600, 60, 400).pmf(counts[:61])
    others = np.array(
        [exact_tail_bound(int(k), num_examples=400, delta=DELTA, population_size=600).value for k in counts[:61]]
    )
    missed = weights[others < (60 - counts[:61]) / 200 - 1e-12].sum()
    assert DELTA / 2 < missed <= DELTA


def test_betting_gains_on_kl_where_the_variance_is_small():
    """The simulation of a variable with mean 0.46 and standard deviation 0.17, n of N, 500 bits of code."""
    rng = np.random.default_rng(5)
    losses = np.clip(rng.normal(0.46, 0.17, size=4000), 0, 1)
    setting = {"delta": 0.05, "bits": 100, "population_size": 9000}
    betting, kl = betting_bound(losses, **setting).value, hoeffding_bound(losses, **setting).value
    ideal = 0.46 + 0.17 * math.sqrt(2 * (100 * math.log(2) + math.log(20)) * 9000 / (4000 * 5000))
    assert ideal - 0.02 < betting < 0.5 * (kl + ideal)


def test_clusters_count_as_one_each():
    rng = np.random.default_rng(11)
    wrong = 0
    naive = 0
    for _ in range(40):
        rates = (rng.random(30) < 0.3).astype(float)  # a cluster is right or wrong as a whole
        losses, clusters = np.repeat(rates, 10), np.repeat(np.arange(30), 10)
        wrong += cluster_bound(losses, clusters, delta=DELTA).value < 0.3
        naive += betting_bound(losses, delta=DELTA).value < 0.3
    assert wrong <= 40 * DELTA + 3 * math.sqrt(40 * DELTA * (1 - DELTA))
    assert naive > 8


def test_an_improvement_is_shown_where_both_risks_are_uncertain():
    rng = np.random.default_rng(3)
    misses, shown = 0, 0
    for _ in range(40):
        old = (rng.random(150) < 0.5).astype(float)
        new = np.where(rng.random(150) < 0.4, 0.0, old)  # mends 40 % of the errors, makes none: the truth is 0.2
        found = improvement_bound(new, old, delta=DELTA)
        misses += found.value > 0.2
        shown += not found.vacuous
    assert misses <= 40 * DELTA + 3 * math.sqrt(40 * DELTA * (1 - DELTA))
    assert shown > 30
    assert improvement_bound(new, old, delta=DELTA).of == "improvement"
    assert improvement_bound(old, old, delta=DELTA).vacuous


def test_a_fold_of_a_collection_speaks_of_the_unseen_and_the_recursion_of_the_others():
    """A link that errs exactly on the first fold: read as a bound on the collection, its fold bound always fails."""
    errors = np.zeros((3, 80))
    errors[2, :40] = 1  # W_2 errs on fold 1 alone, all of which it has seen
    setting = {"fold_sizes": [40, 40], "delta": DELTA, "population_size": 100}
    folds = fold_bound([errors[1, :40].mean(), errors[2, 40:].mean()], bits=[1, 1], **setting)
    collection = (errors[2].sum() + 0) / 100
    assert folds.about == "unseen"
    assert folds.value[1] < collection
    found = recursive_bound(errors, bits=[1, 1], **setting)
    assert found.about == "others"
    assert (found.value >= 0).all()
    assert recursive_bound(errors, bits=[1, 1], fold_sizes=[40, 40], delta=DELTA).about == "law"


def test_the_recursion_covers_the_others_of_a_fixed_collection():
    rng = np.random.default_rng(21)
    base = (rng.random(200) < 0.4).astype(float)
    missed = 0
    for _ in range(60):
        order = rng.permutation(200)
        new = np.where(rng.random((4, 200)) < 0.7, base, 0.0)
        first = new[new[:, order[:60]].mean(axis=1).argmin()]
        newer = np.where(rng.random((4, 200)) < 0.7, first, 0.0)
        second = newer[newer[:, order[:120]].mean(axis=1).argmin()]
        errors = np.stack([base, first, second])[:, order]
        found = recursive_bound(
            errors[:, :120], bits=[2, 2], fold_sizes=[60, 60], delta=DELTA, population_size=200
        ).value
        missed += (found < errors[:, 120:].mean(axis=1) - 1e-12).any()
    assert missed <= 60 * DELTA + 3 * math.sqrt(60 * DELTA * (1 - DELTA))
