"""Resampling over clusters of runs: bootstrap weights, permutations, and corrections for many comparisons.

Runs that differ by seed alone are no independent evidence about a method, a rank or a chain length, so
the unit that is drawn again or shuffled is the cluster (one configuration with all its seeds).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "adjust_p_values",
    "bootstrap_means",
    "bootstrap_weights",
    "cluster_permutations",
    "interval",
    "permutation_p_value",
]


def _codes(labels: ArrayLike, name: str) -> NDArray[np.intp]:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"{name} must be a non-empty vector with one entry per run, got shape {labels.shape}")
    return np.unique(labels, return_inverse=True)[1]


def bootstrap_weights(clusters: ArrayLike, *, replicates: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw how often each run enters each bootstrap sample of clusters.

    Source: the cluster (or block) bootstrap; Efron and Tibshirani, *An Introduction to the Bootstrap*
    (1993), section 8.5. Multiplicities rather than copied rows let a pair statistic leave out the pairs
    that a run would form with its own copy, which are ties by construction and would pull tau to zero.

    Args:
        clusters: label of each run's cluster, shape (runs,).
        replicates: number of bootstrap samples, at least 1.
        seed: seed of the generator.

    Returns:
        Whole numbers as float64, shape (replicates, runs); runs of one cluster share a column's value.

    Raises:
        ValueError: if ``clusters`` is no vector, or ``replicates`` is below 1.

    >>> weights = bootstrap_weights(["a", "a", "b"], replicates=4, seed=0)
    >>> bool((weights[:, 0] == weights[:, 1]).all()), (weights[:, 0] + weights[:, 2]).tolist()
    (True, [2.0, 2.0, 2.0, 2.0])
    """
    codes = _codes(clusters, "clusters")
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    count = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=replicates)
    return drawn[:, codes].astype(np.float64)


def cluster_permutations(
    clusters: ArrayLike, *, replicates: int, seed: int = 0, strata: ArrayLike | None = None
) -> Iterator[NDArray[np.intp]]:
    """Shuffle whole clusters of runs among themselves, within strata if given.

    Clusters change places only with clusters of the same size (and stratum), their runs in order, so the
    dependence inside a cluster is kept: the null is "configurations are exchangeable", not "runs are". A
    cluster whose size occurs once in its stratum stays where it is.

    Args:
        clusters: label of each run's cluster, shape (runs,).
        replicates: number of permutations.
        seed: seed of the generator.
        strata: label of each run's stratum, constant within a cluster; clusters never leave their stratum.

    Yields:
        Index arrays of shape (runs,): ``target[index]`` is the shuffled target.

    Raises:
        ValueError: if a cluster lies in two strata, or no cluster can move.

    >>> sorted({tuple(index.tolist()) for index in cluster_permutations(["a", "a", "b", "b"], replicates=20)})
    [(0, 1, 2, 3), (2, 3, 0, 1)]
    """
    codes = _codes(clusters, "clusters")
    layers = np.zeros_like(codes) if strata is None else _codes(strata, "strata")
    if len(layers) != len(codes):
        raise ValueError(f"strata has {len(layers)} entries, clusters has {len(codes)}")
    groups: dict[tuple[int, int], list[NDArray[np.intp]]] = {}
    for code in range(int(codes.max()) + 1):
        members = np.flatnonzero(codes == code)
        if len(np.unique(layers[members])) > 1:
            raise ValueError(f"strata must be constant within a cluster; cluster number {code} lies in several")
        groups.setdefault((len(members), int(layers[members[0]])), []).append(members)
    blocks = [np.stack(members) for members in groups.values()]
    if all(len(block) < 2 for block in blocks):
        raise ValueError("no two clusters of equal size share a stratum, so nothing can be shuffled")
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        index = np.empty(len(codes), dtype=np.intp)
        for block in blocks:
            index[block] = block[rng.permutation(len(block))]
        yield index


def interval(
    samples: NDArray[np.float64], *, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval of bootstrap replicates, over the first axis, leaving undefined replicates out.

    Args:
        samples: shape (replicates, ...); NaN where a replicate left the statistic undefined.
        confidence: in (0, 1).

    Returns:
        Lower and upper ends, of shape (...); NaN where more than half of the replicates are undefined.

    Raises:
        ValueError: if ``confidence`` is not in (0, 1).

    >>> low, high = interval(np.arange(101.0), confidence=0.9)
    >>> round(float(low), 6), round(float(high), 6)
    (5.0, 95.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    samples = np.asarray(samples, dtype=np.float64)
    flat = samples.reshape(len(samples), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for column in range(flat.shape[1]):
        defined = flat[~np.isnan(flat[:, column]), column]
        if 2 * len(defined) > len(flat):
            ends[:, column] = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = ends.reshape(2, *samples.shape[1:])
    return low, high


def permutation_p_value(observed: ArrayLike, null: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two-sided permutation p-value (1 + #{|null| >= |observed|}) / (1 + replicates).

    Source: Phipson and Smyth (2010), "Permutation p-values should never be zero". Valid (never below its
    level under exchangeability) because the observed arrangement counts as one of the draws.

    Args:
        observed: statistics, shape (...).
        null: their values under shuffled targets, shape (replicates, ...).

    Returns:
        p-values, shape (...); NaN where the observed statistic is undefined.

    >>> permutation_p_value(0.5, np.array([0.1, -0.6, 0.2])).item()
    0.5
    """
    observed = np.asarray(observed, dtype=np.float64)
    # A shuffled value equal to the observed one up to rounding is as extreme as it.
    reached = np.abs(null) >= np.abs(observed) - 1e-12
    p_values = (1.0 + reached.sum(axis=0)) / (1.0 + len(null))
    return np.where(np.isnan(observed), np.nan, p_values)


def adjust_p_values(p_values: ArrayLike, *, method: str = "benjamini-hochberg") -> NDArray[np.float64]:
    """Adjust p-values for the number of comparisons.

    Source: Holm (1979), step-down, family-wise error rate under any dependence; Benjamini and Hochberg
    (1995), step-up, false discovery rate under positive dependence.

    Args:
        p_values: in [0, 1], shape (comparisons,); NaN marks a comparison that could not be made.
        method: ``"benjamini-hochberg"`` or ``"holm"``.

    Returns:
        Adjusted p-values in the same order; NaN stays NaN and does not count as a comparison.

    Raises:
        ValueError: if a p-value leaves [0, 1] or the method is unknown.

    >>> adjust_p_values([0.01, 0.04, 0.03], method="holm").tolist()
    [0.03, 0.06, 0.06]
    >>> [round(p, 6) for p in adjust_p_values([0.01, 0.04, 0.03]).tolist()]
    [0.03, 0.04, 0.04]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p_values))
    if np.any((p_values[known] < 0) | (p_values[known] > 1)):
        raise ValueError(f"p_values must lie in [0, 1], got {p_values.tolist()}")
    order = known[np.argsort(p_values[known], kind="stable")]
    count = len(order)
    rank = np.arange(1, count + 1)
    adjusted = np.full_like(p_values, np.nan)
    if method == "holm":
        adjusted[order] = np.maximum.accumulate((count - rank + 1) * p_values[order])
    elif method == "benjamini-hochberg":
        adjusted[order] = np.minimum.accumulate((p_values[order] * count / rank)[::-1])[::-1]
    else:
        raise ValueError(f"unknown method {method!r}; accepted: 'benjamini-hochberg', 'holm'")
    result: NDArray[np.float64] = np.minimum(adjusted, 1.0)
    return result


def bootstrap_means(values: ArrayLike, *, replicates: int = 2_000, seed: int = 0) -> np.ndarray:
    """Return the means of ``replicates`` bootstrap samples.

    Args:
        values: shape (N,).
        replicates: number of samples.
        seed: seed of the generator.

    Returns:
        Shape (replicates,).
    """
    values = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(replicates)
    chunk = max(1, 4_000_000 // len(values))
    for start in range(0, replicates, chunk):
        count = min(chunk, replicates - start)
        means[start : start + count] = values[rng.integers(len(values), size=(count, len(values)))].mean(axis=1)
    return means
