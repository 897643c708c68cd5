"""Pairs of runs, the cells in which they are compared, and ranks with open ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

__all__ = ["Pairs", "all_pairs", "axis_pairs", "check_design", "dense_ranks", "environment_pairs"]

_CHUNK = 2_000_000


@dataclass(frozen=True)
class Pairs:
    """Unordered pairs of runs, sorted by the cell in which they are compared.

    Attributes:
        left, right: indices of the two runs, shape (pairs,).
        starts: position of each cell's first pair, shape (cells,).
        labels: what names each cell.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    starts: NDArray[np.intp]
    labels: tuple[object, ...]

    def sums(self, columns: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Sum columns over the pairs of each cell, pair {i, j} weighted by w_i w_j.

        Args:
            columns: shape (pairs, columns).
            weights: shape (replicates, runs); every pair once when left out.

        Returns:
            Shape (replicates, cells, columns).
        """
        if weights is None:
            return np.add.reduceat(columns, self.starts, axis=0)[None]
        out = np.empty((len(weights), len(self.starts), columns.shape[1]))
        width = 1 if len(self.starts) == 1 else columns.shape[1]
        step = max(1, _CHUNK // (len(self.left) * width))
        for begin in range(0, len(weights), step):
            chunk = weights[begin : begin + step]
            pair_weights = chunk[:, self.left] * chunk[:, self.right]
            if len(self.starts) == 1:
                out[begin : begin + step, 0] = pair_weights @ columns
            else:
                out[begin : begin + step] = np.add.reduceat(pair_weights[:, :, None] * columns, self.starts, axis=1)
        return out


def all_pairs(runs: int) -> Pairs:
    """Every pair of runs, in one cell.

    Raises:
        ValueError: if there are fewer than two runs.

    >>> len(all_pairs(4).left)
    6
    """
    if runs < 2:
        raise ValueError(f"a rank statistic needs at least two runs, got {runs}")
    left, right = np.triu_indices(runs, 1)
    return Pairs(left, right, np.zeros(1, dtype=np.intp), ("all",))


def check_design(design: pd.DataFrame, columns: Sequence[str]) -> None:
    """Make sure that a design names every column and leaves no entry out.

    Raises:
        ValueError: naming the columns that are missing or have missing values.
    """
    missing = [column for column in columns if column not in design.columns]
    if missing:
        known = ", ".join(map(str, design.columns))
        raise ValueError(f"the design has no column {', '.join(map(repr, missing))}; it has {known}")
    empty = [column for column in columns if design[column].isna().any()]
    if empty:
        raise ValueError(f"the design has missing values in {', '.join(map(repr, empty))}; fill them or drop the runs")


def axis_pairs(design: pd.DataFrame, axis: str, *, fixed: Sequence[str]) -> Pairs:
    """Pairs that differ on one axis and agree on every column held fixed: the cells of granulated tau.

    Args:
        design: one row per run.
        axis: the hyper-parameter that differs within a pair.
        fixed: columns that are equal within a pair; their values name the cell.

    Returns:
        The pairs; none at all when no two runs qualify.

    Raises:
        ValueError: if a column is missing.

    >>> frame = pd.DataFrame({"rank": [1, 2, 1, 2], "seed": [0, 0, 1, 1]})
    >>> axis_pairs(frame, "rank", fixed=["seed"]).labels
    ((0,), (1,))
    """
    check_design(design, [axis, *fixed])
    level = pd.factorize(design[axis])[0]
    if fixed:
        cell, names = pd.MultiIndex.from_frame(design[list(fixed)]).factorize()
    else:
        cell, names = np.zeros(len(design), dtype=np.intp), [()]
    left, right = np.triu_indices(len(design), 1)
    keep = (cell[left] == cell[right]) & (level[left] != level[right])
    return _in_cells(left[keep], right[keep], cell[left[keep]], list(names))


def environment_pairs(design: pd.DataFrame, axis: str, *, fixed: Sequence[str]) -> Pairs:
    """The same pairs, gathered by the two values that the axis takes: environments of the robust sign error.

    An environment asks "does the measure predict what changing this hyper-parameter from a to b does?",
    averaged over everything else. Labels are (axis, a, b).

    >>> frame = pd.DataFrame({"rank": [1, 2, 4], "seed": [0, 0, 0]})
    >>> environment_pairs(frame, "rank", fixed=["seed"]).labels
    (('rank', 1, 2), ('rank', 1, 4), ('rank', 2, 4))
    """
    pairs = axis_pairs(design, axis, fixed=fixed)
    level, values = pd.factorize(design[axis], sort=True)
    low = np.minimum(level[pairs.left], level[pairs.right])
    high = np.maximum(level[pairs.left], level[pairs.right])
    names = [(axis, a, b) for a in values for b in values]
    return _in_cells(pairs.left, pairs.right, low * len(values) + high, names)


def _in_cells(
    left: NDArray[np.intp], right: NDArray[np.intp], cell: NDArray[np.intp], names: Sequence[object]
) -> Pairs:
    order = np.argsort(cell, kind="stable")
    kept, starts = np.unique(cell[order], return_index=True)
    return Pairs(left[order], right[order], starts, tuple(names[code] for code in kept))


def dense_ranks(values: ArrayLike, *, digits: int = 10) -> NDArray[np.int64]:
    """Rank each column; values that agree to some significant digits share a rank.

    So two evaluations of one formula, equal but for float noise, are a tie rather than an order. Neighbours are
    compared, not rounded: a grid of rounded values would part two that lie on both sides of a step of the grid.
    Infinite values are ordered as such.

    Args:
        values: shape (runs,) or (runs, columns).
        digits: significant decimal digits in which neighbours have to differ.

    Raises:
        ValueError: if a value is NaN; leave such runs out first.

    >>> dense_ranks([0.3, 0.1 + 0.2, np.inf, -1.0]).tolist()
    [1, 1, 2, 0]
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("values holds NaN; leave runs without a value out before ranking")
    if values.ndim == 1:
        return dense_ranks(values[:, None], digits=digits)[:, 0]
    whole = np.abs(values) < 2**53
    exact = np.all(whole & (values == np.floor(np.where(whole, values, 0.0))))
    order = np.argsort(values, axis=0, kind="stable")
    sorted_values = np.take_along_axis(values, order, axis=0)
    before, after = sorted_values[:-1], sorted_values[1:]
    with np.errstate(invalid="ignore"):
        near = after - before <= 10.0**-digits * np.maximum(np.abs(before), np.abs(after))
    near &= np.isfinite(before) & np.isfinite(after) & (not exact)
    apart = (before != after) & ~near
    ranks = np.zeros(values.shape, dtype=np.int64)
    np.put_along_axis(ranks, order[1:], np.cumsum(apart, axis=0), axis=0)
    return ranks
