r"""Worlds like the data: how often a verdict comes up where nothing is true, and where a difference was planted.

The data's own design (which configuration was run with which seed) and its own scatter are kept. Each column is turned
into normal scores; their covariance is split into what configurations, seeds and single runs add, by the mean
products of differences between runs that share a configuration, a seed or neither (Henderson's first method). A world
is drawn from a normal distribution with these covariances. It has no ties but where a measure varies along one way
only, and copies the data's dependence as far as a normal distribution can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.statistics.crossed import Estimate, crossed_tau
from analysis.statistics.resampling import adjust_p_values

__all__ = ["Components", "components", "detectable_difference", "family_verdict", "verdict_rates"]

Floats = NDArray[np.float64]
_NOTHING = 1e-9
"""A share of variance below this is rounding."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """What configurations, seeds and single runs add to the covariance of normal scores; each (columns, columns)."""

    configuration: Floats
    seed: Floats
    run: Floats

    def null(self) -> Components:
        """Return the world in which every measure goes with the target, the first column, equally well.

        It is the mean over all exchanges of the measures, so nobody is ahead and the dependence is an average.
        """
        return Components(**{name: _exchangeable(one) for name, one in vars(self).items()})

    def planted(self, strength: float) -> Components:
        """Return the null world with the second column's configurations closer to the target, the others' farther.

        Args:
            strength: from 0 (the null) to 1 (as close as its own scatter allows, and the others not at all).
        """
        base = self.null()
        one = base.configuration.copy()
        reach = np.sqrt(one[0, 0] * one[1, 1]) - one[0, 1]
        one[0, 1] = one[1, 0] = one[0, 1] + strength * reach
        one[0, 2:] *= 1 - strength
        one[2:, 0] *= 1 - strength
        return Components(configuration=_semidefinite(one), seed=base.seed, run=base.run)

    def draw(self, configuration: NDArray[np.intp], seed: NDArray[np.intp], rng: np.random.Generator) -> Floats:
        """Draw one world's columns for runs with these levels, shape (runs, columns)."""
        total = np.zeros((len(configuration), len(self.run)))
        for covariance, levels in ((self.configuration, configuration), (self.seed, seed), (self.run, None)):
            count = len(total) if levels is None else int(levels.max()) + 1
            effects = rng.standard_normal((count, len(covariance))) @ _root(covariance).T
            total += effects if levels is None else effects[levels]
        return total


def _exchangeable(covariance: Floats) -> Floats:
    made = np.empty_like(covariance)
    rest = covariance[1:, 1:]
    count = len(rest)
    apart = (rest.sum() - np.trace(rest)) / max(count * (count - 1), 1)
    made[1:, 1:] = apart
    np.fill_diagonal(made, np.trace(rest) / count)
    made[0, 0] = covariance[0, 0]
    made[0, 1:] = made[1:, 0] = covariance[0, 1:].mean()
    return made


def _semidefinite(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    result: Floats = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return result


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    result: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return result


def components(columns: ArrayLike, *, configuration: ArrayLike, seed: ArrayLike) -> Components:
    """Split the covariance of normal scores by configuration, seed and run.

    Args:
        columns: the target and the measures, shape (runs, columns), no NaN.
        configuration: each run's label.
        seed: each run's label.

    Raises:
        ValueError: if no two runs share a configuration, a seed, or neither: nothing can be told apart then.
    """
    values = np.asarray(columns, dtype=np.float64)
    scores = stats.norm.ppf((stats.rankdata(values, axis=0) - 0.5) / len(values))
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), np.finfo(float).tiny)
    left, right = np.triu_indices(len(values), 1)
    same = [np.asarray(one)[left] == np.asarray(one)[right] for one in (configuration, seed)]
    kinds = {"configuration": same[0] & ~same[1], "seed": same[1] & ~same[0], "neither": ~same[0] & ~same[1]}
    half = {}
    for name, kept in kinds.items():
        if not kept.any():
            raise ValueError(f"no two runs share {name} alone; runs must cross configurations with seeds")
        apart = scores[left[kept]] - scores[right[kept]]
        half[name] = apart.T @ apart / (2 * kept.sum())
    parts = {
        "configuration": half["neither"] - half["configuration"],
        "seed": half["neither"] - half["seed"],
        "run": half["configuration"] + half["seed"] - half["neither"],
    }
    for one in parts.values():
        still = np.diag(one) < _NOTHING
        one[still] = one[:, still] = 0.0
    return Components(**{name: _semidefinite(one) for name, one in parts.items()})


def family_verdict(
    p_champion: ArrayLike, p_rival: ArrayLike, *, p_equivalent: ArrayLike | None = None, level: float = 0.05
) -> str:
    """Judge one champion against a family of rivals that was fixed beforehand.

    To beat every rival needs no correction, since all must be beaten; that some rival wins is a maximum over the
    family, so Holm's correction stands before it, right under any dependence. Each side has half of the level.

    Args:
        p_champion: per rival, one-sided p-value that the champion is not ahead.
        p_rival: per rival, that the rival is not ahead.
        p_equivalent: per rival, that the two differ by the margin or more, if one was stated beforehand.
        level: of both sides together.

    Returns:
        ``"supported"`` (it beats every rival), ``"contradicted"`` (some rival beats it, it beats none), ``"mixed"``
        (both happen), ``"equivalent"`` (to every rival, within the margin), or ``"undecided"``.

    >>> family_verdict([0.01, 0.02], [0.99, 0.98]), family_verdict([0.99, 0.6], [0.01, 0.4])
    ('supported', 'contradicted')
    """
    first, second = np.asarray(p_champion, dtype=np.float64), np.asarray(p_rival, dtype=np.float64)
    half = level / 2
    if (first <= half).all():
        return "supported"
    if (adjust_p_values(second, method="holm") <= half).any():
        return "mixed" if (adjust_p_values(first, method="holm") <= half).any() else "contradicted"
    if p_equivalent is not None and (np.asarray(p_equivalent) <= level).all():
        return "equivalent"
    return "undecided"


def verdict_rates(
    measures: ArrayLike,
    target: ArrayLike,
    *,
    configuration: ArrayLike,
    seed: ArrayLike,
    strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    worlds: int = 1000,
    draws: int = 0,
    level: float = 0.05,
    margin: float | None = None,
) -> pd.DataFrame:
    """Simulate how often each verdict comes up in worlds like the data.

    Args:
        measures: the champion and its rivals, shape (runs, measures).
        target: shape (runs,).
        configuration: each run's label.
        seed: each run's label.
        strengths: of the planted difference, 0 for the null; see `Components.planted`.
        worlds: drawn per strength.
        draws: seed of the worlds.
        level: as in `family_verdict`.
        margin: of equivalence in tau-b, if one was stated.

    Returns:
        One row per strength: ``difference`` (the mean difference of tau-b over worlds and rivals, which are alike),
        and the share of worlds with each verdict: ``supported``, ``contradicted``, ``mixed``, ``equivalent``,
        ``undecided``. The row of strength 0 holds the verdicts' null rates.

    Raises:
        ValueError: as `components`, or if there is no rival or no world.
    """
    measures, target = np.asarray(measures, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if measures.ndim != 2 or measures.shape[1] < 2:
        raise ValueError(f"measures must hold a champion and a rival at least, got shape {measures.shape}")
    if worlds < 1:
        raise ValueError(f"worlds must be at least 1, got {worlds}")
    fitted = components(np.column_stack([target, measures]), configuration=configuration, seed=seed)
    ways = {
        name: np.unique(np.asarray(one), return_inverse=True)[1]
        for name, one in (("configuration", configuration), ("seed", seed))
    }
    rows = []
    for strength in strengths:
        rng = np.random.default_rng([draws, round(1e6 * strength)])
        world = fitted.planted(strength)
        found: list[str] = []
        total = np.zeros(measures.shape[1] - 1)
        for _ in range(worlds):
            drawn = world.draw(ways["configuration"], ways["seed"], rng)
            above = crossed_tau(drawn[:, 1:], drawn[:, 0], ways)[1]
            total += above.value
            found.append(_verdict(above, level=level, margin=margin))
        shares = {name: found.count(name) / worlds for name in _VERDICTS}
        rows.append({"strength": strength, "difference": (total / worlds).mean(), **shares})
    return pd.DataFrame(rows)


_VERDICTS = ("supported", "contradicted", "mixed", "equivalent", "undecided")


def _verdict(above: Estimate, *, level: float, margin: float | None) -> str:
    near = None if margin is None else above.p_equivalent(margin)
    return family_verdict(above.p_above(), above.p_below(), p_equivalent=near, level=level)


def detectable_difference(rates: pd.DataFrame, *, power: float = 0.8) -> float:
    """Return the smallest difference of tau-b at which the claim would be supported with this power.

    Args:
        rates: from `verdict_rates`; between its rows power is taken to be straight.
        power: share of worlds.

    Returns:
        The difference; infinite where no planted strength reaches the power.
    """
    known = rates.sort_values("difference")
    difference, supported = known["difference"].to_numpy(), np.maximum.accumulate(known["supported"].to_numpy())
    if supported[-1] < power:
        return float("inf")
    return float(np.interp(power, supported, difference))
