r"""Statistics of runs that share configurations and seeds: intervals, p-values and equivalence when both are drawn.

All configurations of a study share its few seeds, and with a seed the split of the data, so runs are independent along
neither way. An interval that draws configurations alone is too narrow, and a percentile bootstrap that draws both
counts the interaction three times (Owen 2007, "The pigeonhole bootstrap", arXiv:0712.1111) while it shrinks the
variance of K seeds by (K - 1)/K. Here the variance is the sum of two delete-one jackknives,

.. math:: V = \frac{C-1}{C} \sum_c (\theta_{-c} - \bar\theta)^2 + \frac{K-1}{K} \sum_k (\theta_{-k} - \bar\theta)^2,

each of which is on average not below the variance that its way adds (Efron and Stein 1981); Student's t has
Satterthwaite's degrees of freedom, :math:`V^2 / (V_C^2/(C-1) + V_K^2/(K-1))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.statistics.pairs import dense_ranks

__all__ = ["Estimate", "crossed", "crossed_tau"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A statistic with its uncertainty; every field of shape (...), the statistic's own.

    Attributes:
        value: of all runs.
        variances: way -> what it adds to the variance.
        degrees: of freedom; infinite where nothing varies.
    """

    value: Floats
    variances: Mapping[str, Floats]
    degrees: Floats

    @property
    def standard_error(self) -> Floats:
        """The square root of the variances' sum."""
        total: Floats = np.sqrt(np.sum(list(self.variances.values()), axis=0))
        return total

    def interval(self, *, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Return Student's interval.

        Raises:
            ValueError: if ``confidence`` is not in (0, 1).
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
        half = stats.t.ppf((1 + confidence) / 2, self.degrees) * self.standard_error
        return self.value - half, self.value + half

    def p_above(self, limit: float = 0.0) -> Floats:
        """Return the one-sided p-value of "the true value is at most ``limit``"; small where it is larger.

        Where nothing varies it is 0, 1/2 or 1: above, at or below.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (self.value - limit) / self.standard_error
        result: Floats = stats.t.sf(np.where(np.isnan(t) & ~np.isnan(self.value), 0.0, t), self.degrees)
        return result

    def p_below(self, limit: float = 0.0) -> Floats:
        """Return the one-sided p-value of "the true value is at least ``limit``"; small where it is smaller."""
        return 1.0 - self.p_above(limit)

    def p_equivalent(self, margin: float) -> Floats:
        """Return the p-value of "the true value lies ``margin`` or more from zero"; small where it is near zero.

        Two one-sided tests (Schuirmann 1987); below 0.05 where the 90 % interval lies inside the margin.

        Raises:
            ValueError: if the margin is not above 0. It must be stated before the data are looked at.
        """
        if not margin > 0:
            raise ValueError(f"margin must be above 0, got {margin}")
        return np.maximum(self.p_above(-margin), self.p_below(margin))


def crossed(
    statistic: Callable[[Floats], Floats], ways: Mapping[str, ArrayLike], *, strata: ArrayLike | None = None
) -> Estimate:
    """Estimate a statistic of runs that are clustered in several crossed ways.

    Args:
        statistic: takes weights of the runs, shape (replicates, runs), to values of shape (replicates, ...), as
            ``kendall_tau`` and the others of `analysis.statistics.agreement` do. Here weights are 0 and 1.
        ways: name -> each run's label, shape (runs,): ``{"configuration": ..., "seed": ...}``.
        strata: each run's label, shape (runs,), where levels were drawn stratum by stratum: the tasks of a study
            whose seeds are drawn anew on each. A level that lies in several strata is one draw for all of them.

    Returns:
        The estimate; NaN where the statistic is undefined with all runs or without one level.

    Raises:
        ValueError: if there is no way, labels differ in number, or a way has fewer than two levels in its strata.

    >>> def mean(weights):
    ...     return weights @ np.array([1.0, 2.0, 3.0, 4.0]) / weights.sum(1)
    >>> found = crossed(mean, {"configuration": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})
    >>> found.value.item(), {name: round(v.item(), 9) for name, v in found.variances.items()}
    (2.5, {'configuration': 1.0, 'seed': 0.25})
    """
    codes, layers = _codes(ways, strata)
    without = [one[None] != np.arange(one.max() + 1)[:, None] for one in codes.values()]
    values = statistic(np.concatenate([np.ones((1, len(layers))), *without]).astype(np.float64))
    places = np.cumsum([1, *map(len, without)])
    left_out = {name: values[a:b] for name, a, b in zip(codes, places, places[1:], strict=False)}
    return _estimate(values[0], left_out, codes, layers)


def crossed_tau(measures: ArrayLike, target: ArrayLike, ways: Mapping[str, ArrayLike]) -> tuple[Estimate, Estimate]:
    """Estimate each measure's tau-b with the target, and how much the first measure's is above each other's.

    The same numbers as ``crossed`` with ``kendall_tau``, in one pass over the pairs.

    Args:
        measures: shape (runs, measures), no NaN.
        target: shape (runs,), no NaN.
        ways: as in `crossed`.

    Returns:
        The taus, shape (measures,), and the differences, shape (measures - 1,).

    Raises:
        ValueError: as `crossed`, and for NaN.
    """
    codes, layers = _codes(ways, None)
    x = _signs(measures)
    y = _signs(np.asarray(target)[:, None])
    parts = [_sums(one, codes) for one in (x * y, np.abs(x), np.abs(y))]
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = [agree / np.sqrt(in_x * in_y) for agree, in_x, in_y in zip(*parts, strict=True)]
    left_out = dict(zip(codes, tau[1:], strict=True))
    above = {name: values[:, :1] - values[:, 1:] for name, values in left_out.items()}
    first = tau[0][0]
    return _estimate(first, left_out, codes, layers), _estimate(first[:1] - first[1:], above, codes, layers)


def _signs(values: ArrayLike) -> NDArray[np.float32]:
    """Return the sign of every pair's difference, shape (columns, runs, runs)."""
    ranks = dense_ranks(values).T.astype(np.float32)
    result: NDArray[np.float32] = np.sign(ranks[:, :, None] - ranks[:, None, :])
    return result


def _sums(pairs: NDArray[np.float32], codes: Mapping[str, NDArray[np.intp]]) -> list[Floats]:
    """Sum symmetric terms over all pairs, (1, columns), and, way by way, without each level, (levels, columns)."""
    rows = pairs.sum(axis=2, dtype=np.float64)
    total = rows.sum(axis=1)
    found = [total[None]]
    for one in codes.values():
        member = (one[None] == np.arange(one.max() + 1)[:, None]).astype(np.float64)
        inside = (pairs * (one[:, None] == one[None])).sum(axis=2, dtype=np.float64)
        found.append(total - 2 * member @ rows.T + member @ inside.T)
    return found


def _codes(
    ways: Mapping[str, ArrayLike], strata: ArrayLike | None
) -> tuple[dict[str, NDArray[np.intp]], NDArray[np.intp]]:
    """Number the levels of each way, and the strata."""
    if not ways:
        raise ValueError("ways must name at least one way in which runs are clustered")
    codes = {name: np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1) for name, labels in ways.items()}
    runs = len(next(iter(codes.values())))
    layers = np.zeros(runs, dtype=np.intp) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    for name, one in (*codes.items(), ("strata", layers)):
        if len(one) != runs:
            raise ValueError(f"{name} has {len(one)} labels, {next(iter(codes))} has {runs}")
    return codes, layers


def _estimate(
    value: Floats, left_out: Mapping[str, Floats], codes: Mapping[str, NDArray[np.intp]], layers: NDArray[np.intp]
) -> Estimate:
    found = {name: _jackknife(left_out[name], _strata_of(codes[name], layers), name) for name in codes}
    variances = {name: variance for name, (variance, _) in found.items()}
    total, weighted = (np.sum([one[k] for one in found.values()], axis=0) for k in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        degrees = np.where(total > 0, total**2 / weighted, np.where(np.isnan(total), np.nan, np.inf))
    return Estimate(value=value, variances=variances, degrees=degrees)


def _strata_of(codes: NDArray[np.intp], layers: NDArray[np.intp]) -> NDArray[np.intp]:
    """Label each level by the strata that it lies in."""
    patterns = [tuple(np.unique(layers[codes == level])) for level in range(codes.max() + 1)]
    known = {pattern: place for place, pattern in enumerate(dict.fromkeys(patterns))}
    return np.array([known[pattern] for pattern in patterns], dtype=np.intp)


def _jackknife(left_out: Floats, strata: NDArray[np.intp], name: str) -> tuple[Floats, Floats]:
    """Return the variance, summed over strata, and the sum of squared variances over their degrees of freedom."""
    variance, weighted = np.zeros(left_out.shape[1:]), np.zeros(left_out.shape[1:])
    for stratum in range(strata.max() + 1):
        part = left_out[strata == stratum]
        if len(part) < 2:
            raise ValueError(f"{name} has one level only in a stratum; an interval needs two at least")
        added = (len(part) - 1) * part.var(axis=0)
        variance += added
        weighted += added**2 / (len(part) - 1)
    return variance, weighted
