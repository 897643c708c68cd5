r"""Bounds from examples that played no part in the choice of a predictor: exact tails, betting, and whole clusters.

The predictor is fixed before the n examples are looked at, so no code length enters. Give ``bits`` where one of 2^bits
predictors was picked by looking at these very examples: by Kraft's inequality each then has the share delta 2^-bits of
the failures. All bounds are one-sided at delta; the better of two needs half of it each. Beside them stands
``empirical_bernstein``, which has no form without replacement: its proof needs independence.

With ``population_size`` N the n examples were drawn uniformly without replacement from a collection of N, and the bound
is on the mean over the N - n others; without, they are independent draws, and it is on the mean of their law.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from theory.arguments import Fractions, Integer, Integers, NonNegative, Probability, Several, Whole, checked
from theory.assumptions import CLUSTERS_IID, CODE_FIRST, DRAWN, FIXED, IID, IN_RANGE, INDEPENDENT, ZERO_ONE
from theory.counting import log_binomial, upwards
from theory.kl import kl_upper
from theory.records import Bound

__all__ = ["betting_bound", "cluster_bound", "exact_tail_bound", "hoeffding_bound", "improvement_bound"]

GRID = np.concatenate([np.geomspace(0.01, 1, 36, endpoint=False), [0.85, 0.9, 0.95, 0.99]])
"""The fixed grid of c over which wealth is averaged: 40 values in (0, 1)."""

_HALVINGS = 50
_COARSE = 30
Counted = Annotated[int, Integer(2, 10**7)]
"""Examples whose errors are counted: the tail is a sum over them."""


def _nats(bits: float, delta: float) -> float:
    return float(upwards(bits * math.log(2) - math.log(delta)))


def _bound(
    name: str,
    value: float,
    *,
    delta: float,
    bits: float,
    population_size: int | None,
    source: str,
    zero_one: bool = False,
) -> Bound:
    return Bound(
        name=name,
        of="risk",
        about="law" if population_size is None else "others",
        value=value,
        kind="high-probability",
        delta=delta,
        source=source,
        assumptions=(
            IID if population_size is None else DRAWN,
            CODE_FIRST if bits else FIXED,
            ZERO_ONE if zero_one else IN_RANGE,
        ),
        measured=("sample",),
        bits=bits or None,
    )


def _population(population_size: int | None, n: int) -> None:
    if population_size is not None and population_size <= n:
        raise ValueError(f"population_size must be above the {n} examples drawn, got {population_size}")


@checked
def exact_tail_bound(
    errors: Whole,
    *,
    num_examples: Counted,
    delta: Probability,
    bits: NonNegative = 0.0,
    population_size: Several | None = None,
) -> Bound:
    r"""Bound an error rate from a count of errors by the exact tail, binomial or hypergeometric.

    Independent draws: the largest p with :math:`P(\mathrm{Bin}(n, p) \le k) \ge \delta 2^{-b}` (Clopper and Pearson,
    Biometrika 26, 1934; with b > 0 the exact form of the Occam bound, Langford, JMLR 6, 2005). Why: the risk p is above
    the result only if p's own lower tail at k is below :math:`\delta 2^{-b}`, which has at most that probability.

    Without replacement: :math:`K^+` is the largest K with :math:`P(\mathrm{Hyp}(N, K, n) \le k) > \delta 2^{-b}`; the
    same argument, and the N - n others hold at most :math:`K^+ - k` errors. Tails are summed in logarithms, since
    :math:`2^{-b}` is zero past 1,074 bits. The tail falls in K (couple the draws), so bisection finds K+.

    Args:
        errors: k, among the examples.
        num_examples: n.
        delta: probability of failure.
        bits: b, of the code word by which the predictor was named; 0 for one fixed beforehand.
        population_size: N, of the collection from which the n were drawn without replacement.

    Returns:
        A bound on the error of the law, or of the others.

    Raises:
        ValueError: if there are more errors than examples, or the collection is not larger than the sample.

    >>> round(exact_tail_bound(0, num_examples=100, delta=0.05).value, 6), round(1 - 0.05 ** (1 / 100), 6)
    (0.029513, 0.029513)
    """
    if errors > num_examples:
        raise ValueError(f"errors must be at most num_examples = {num_examples}, got {errors}")
    _population(population_size, num_examples)
    nats = _nats(bits, delta)
    if population_size is None:
        value, source = _binomial_upper(errors, num_examples, nats), "exact binomial tail, Clopper and Pearson (1934)"
    else:
        most = _hypergeometric_upper(errors, num_examples, population_size, nats)
        value, source = (most - errors) / (population_size - num_examples), "exact hypergeometric tail"
    return _bound(
        "exact-tail", value, delta=delta, bits=bits, population_size=population_size, source=source, zero_one=True
    )


def _binomial_upper(errors: int, n: int, nats: float) -> float:
    if errors == n:
        return 1.0
    counts = np.arange(errors + 1)
    ways = log_binomial(n, counts)
    slack = 2.0**-45 * (1 + float(ways.max()))
    low, high = errors / n, 1.0
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        tail = float(logsumexp(ways + counts * math.log(p) + (n - counts) * math.log1p(-p)))
        low, high = (p, high) if tail > -nats - slack else (low, p)
    return min(float(upwards(high)), 1.0)


def _hypergeometric_upper(errors: int, n: int, population: int, nats: float) -> int:
    counts, whole = np.arange(errors + 1), float(log_binomial(population, n))

    def tail(total: int) -> float:
        ways = log_binomial(total, counts) + log_binomial(population - total, n - counts)
        return float(logsumexp(ways)) - whole

    slack = 2.0**-45 * (1 + whole)
    low, high = errors, population - (n - errors) + 1  # K+ lies in [low, high): at k it is sure, beyond high impossible
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tail(middle) > -nats - slack else (low, middle)
    return low


@checked
def hoeffding_bound(
    losses: Fractions, *, delta: Probability, bits: NonNegative = 0.0, population_size: Several | None = None
) -> Bound:
    r"""Bound a mean of losses in [0, 1] by the kl form of Hoeffding's inequality.

    :math:`kl(\hat m \| m) \le (b \ln 2 + \ln(1/\delta))/n` (Hoeffding 1963, theorem 1; without replacement theorem 4:
    the moment generating function is no larger). Of a collection it bounds the mean over all N; the others' is then
    :math:`(N m - n \hat m)/(N - n)`.

    Args:
        losses: of the examples, in [0, 1].
        delta: probability of failure.
        bits: as in ``exact_tail_bound``.
        population_size: as in ``exact_tail_bound``.

    Raises:
        ValueError: if a loss is outside [0, 1], there are fewer than 2, or the collection is no larger.

    >>> round(hoeffding_bound([0.0, 1.0] * 50, delta=0.05).value, 3)
    0.621
    """
    values = _row("losses", losses)
    n = values.size
    _population(population_size, n)
    mean = min(float(values.mean()), 1.0)
    value = float(kl_upper(mean, upwards(_nats(bits, delta) / n)))
    if population_size is not None:
        value = _to_others(value, float(values.sum()), n, population_size)
    source = "Hoeffding (1963), theorem " + ("1, kl form" if population_size is None else "4, kl form")
    return _bound("hoeffding-kl", value, delta=delta, bits=bits, population_size=population_size, source=source)


def _row(name: str, values: object) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"{name} must be a row of at least 2 numbers, got shape {array.shape}")
    return array


def _to_others(mean: float, total: float, n: int, population: int) -> float:
    return min(max(float(upwards((population * mean - total) / (population - n))), 0.0), 1.0)


@checked
def betting_bound(
    losses: Fractions, *, delta: Probability, bits: NonNegative = 0.0, population_size: Several | None = None
) -> Bound:
    r"""Bound a mean of losses in [0, 1] by what betting against each candidate mean would have won.

    For a mean m and c in (0, 1) the wealth :math:`\prod_t [1 + \lambda_t (m_t - x_t)]` is a nonnegative martingale if m
    is true: :math:`m_t` is the conditional mean of the next loss, m for independent draws and
    :math:`(N m - \sum_{s<t} x_s)/(N-t+1)` without replacement, where :math:`\lambda_t` depends on t and m_t alone and
    :math:`\lambda_t (1 - m_t) \le 1` keeps every factor at least zero. So is its average over a fixed grid of c, whose
    maximum reaches :math:`2^b/\delta` with probability at most :math:`\delta 2^{-b}` (Ville); m is rejected if it does.
    Betting: arXiv:2010.09686; without replacement: arXiv:2006.04347. Here
    :math:`\lambda_t = \min(c/(1-(t-1)/N), 1/(1-m_t))`, N infinite for independent draws. Without replacement an m whose
    m_t falls below 0 is impossible, and one above 1 rejected at once.

    Wealth rises with m, so that the accepted means are an interval and bisection finds its upper end: each factor does,
    where its lambda is the first of the two, and where it is 1/(1 - m_t) the factor is (1 - x_t)/(1 - m_t). The end is
    found to 1e-9 and taken from above.

    Args:
        losses: in [0, 1], in an order fixed before they were looked at: that of the published draw.
        delta: probability of failure.
        bits: as in ``exact_tail_bound``.
        population_size: as in ``exact_tail_bound``.

    Raises:
        ValueError: as ``hoeffding_bound``.

    >>> round(betting_bound([0.0, 0.1] * 500, delta=0.05).value, 3)
    0.056
    """
    x = _row("losses", losses)
    _population(population_size, x.size)
    nats = _nats(bits, delta)
    total = float(x.sum())
    low, high = float(x.mean()), 1.0
    if population_size is not None:
        low, high = total / population_size, (total + population_size - x.size) / population_size
    for _ in range(_COARSE):
        middle = (low + high) / 2
        if _log_wealth(x, middle, population_size) < nats:
            low = middle
        else:
            high = middle
    value = min(float(upwards(high)), 1.0)
    if population_size is not None:
        value = _to_others(value, total, x.size, population_size)
    source = "betting, arXiv:2010.09686" + ("" if population_size is None else ", arXiv:2006.04347")
    return _bound("betting", value, delta=delta, bits=bits, population_size=population_size, source=source)


def _log_wealth(x: NDArray[np.float64], mean: float, population: int | None) -> float:
    """Return the logarithm of the most that the average wealth reached; infinite where the mean is impossible."""
    n = x.size
    if population is None:
        means, scale = np.full(n, mean), np.ones(n)
    else:
        left = population - np.arange(n)
        before = np.concatenate([[0.0], np.cumsum(x)[:-1]])
        means, scale = (population * mean - before) / left, population / left
    if (means > 1 + 1e-12).any():
        return math.inf
    means = np.clip(means, 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bets = np.minimum(GRID[:, None] * scale, np.where(means < 1, 1 / (1 - means), np.inf))
        wealth = np.cumsum(np.log1p(np.maximum(bets * (means - x), -1.0)), axis=1)
        return float(logsumexp(wealth, axis=0).max() - math.log(GRID.size))


@checked
def cluster_bound(
    losses: Fractions,
    clusters: Annotated[ArrayLike, Integers(-(2**63))],
    *,
    delta: Probability,
    bits: NonNegative = 0.0,
) -> Bound:
    r"""Bound the risk where examples come in clusters (documents, patients) that are independent, their examples not.

    The clusters' mean losses are independent and lie in [0, 1], so ``betting_bound`` holds for them whatever happens
    inside. It is on the risk of a law that picks a cluster, then an example of it, each cluster of the same weight.

    Args:
        losses: of the examples, in [0, 1].
        clusters: a number for each example: its cluster's; they are bet on in order of first appearance.
        delta: probability of failure.
        bits: as in ``exact_tail_bound``.

    Raises:
        ValueError: if the two differ in length, or there are fewer than 2 clusters.

    >>> bound = cluster_bound([0.0, 1.0, 0.0, 0.0], [1, 1, 2, 3], delta=0.1)
    >>> bound.assumptions[0]
    'iid-clusters'
    """
    values, labels = _row("losses", losses), np.asarray(clusters)
    if labels.shape != values.shape:
        raise ValueError(f"clusters must name one for each of the {values.size} losses, got shape {labels.shape}")
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    if first.size < 2:
        raise ValueError(f"clusters must be at least 2, got {first.size}")
    means = np.bincount(place, weights=values) / np.bincount(place)
    found = betting_bound(np.clip(means[np.argsort(first)], 0.0, 1.0), delta=delta, bits=bits)
    return Bound(
        name="clusters",
        of="risk",
        value=found.value,
        kind="high-probability",
        delta=delta,
        source=found.source,
        assumptions=(CLUSTERS_IID, *found.assumptions[1:]),
        measured=found.measured,
        bits=found.bits,
    )


@checked
def improvement_bound(
    losses: Fractions,
    base_losses: Fractions,
    *,
    delta: Probability,
    bits: NonNegative = 0.0,
    population_size: Several | None = None,
) -> Bound:
    r"""Bound from below by how much the risk of W0 + dW lies below that of W0.

    :math:`y = (1 + \ell_W - \ell_{W_0})/2` lies in [0, 1]; an upper bound u on its mean by betting says that the risk
    falls by at least 1 - 2u. What both get wrong cancels, so it can hold where neither risk is known closely.

    Args:
        losses: of the fine-tuned model, in [0, 1], in an order fixed beforehand.
        base_losses: of W0 on the same examples.
        delta: probability of failure.
        bits: as in ``exact_tail_bound``.
        population_size: as in ``exact_tail_bound``.

    Returns:
        A bound of the improvement, negative where none is shown.

    Raises:
        ValueError: if the two differ in length, or as ``betting_bound``.

    >>> improvement_bound([0.0] * 200, [0.0, 1.0] * 100, delta=0.05).vacuous
    False
    """
    new, old = _row("losses", losses), _row("base_losses", base_losses)
    if new.shape != old.shape:
        raise ValueError(f"base_losses must be as many as losses, {new.size}, got {old.size}")
    found = betting_bound((1 + new - old) / 2, delta=delta, bits=bits, population_size=population_size)
    return Bound(
        name="improvement",
        of="improvement",
        about=found.about,
        value=-float(upwards(2 * float(found.value) - 1)) - 2.0**-50,
        kind="high-probability",
        delta=delta,
        source=found.source,
        assumptions=(*found.assumptions, INDEPENDENT),
        measured=found.measured,
        bits=found.bits,
    )
