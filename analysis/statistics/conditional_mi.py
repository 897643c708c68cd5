"""The conditional-mutual-information criterion: what a measure says beyond which hyper-parameters were set.

Two conventions, named: that of the paper, Jiang et al., arXiv:1912.02178, section 4.3, and that of the scorer
of the contest "Predicting Generalization in Deep Learning" (PGDL, NeurIPS 2020), which differs in five ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.pairs import check_design, dense_ranks

__all__ = ["Cells", "conditional_cells", "conditional_mutual_information"]


@dataclass(frozen=True)
class Cells:
    """Ordered pairs of runs and, for every conditioning set, the cell that each pair falls into.

    Attributes:
        convention: whose sets and pairs these are.
        left, right: indices of the two runs, shape (pairs,).
        codes: conditioning set -> number of each pair's cell.
        counts: conditioning set -> number of cells, seen or not.
    """

    convention: str
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    codes: dict[str, NDArray[np.intp]]
    counts: dict[str, int]


def conditional_cells(design: pd.DataFrame, *, axes: Sequence[str], convention: str = "jiang") -> Cells:
    """Prepare the conditioning sets of a design once, for many measures, shuffles and bootstrap samples.

    Args:
        design: one row per run.
        axes: the hyper-parameters.
        convention: ``"jiang"`` or ``"pgdl"``, see :func:`conditional_mutual_information`.

    Raises:
        ValueError: for an unknown convention, a missing column, or fewer than two axes under pgdl.
    """
    if convention not in ("jiang", "pgdl"):
        raise ValueError(f"convention must be 'jiang' or 'pgdl', got {convention!r}")
    if convention == "pgdl" and len(axes) < 2:
        raise ValueError(f"the PGDL convention conditions on two hyper-parameters, got axes {list(axes)}")
    check_design(design, axes)
    left, right = np.divmod(np.arange(len(design) ** 2), len(design))
    if convention == "jiang":
        left, right = left[left != right], right[left != right]
    codes, counts = {}, {}
    for size in (2,) if convention == "pgdl" else (0, 1, 2):
        for subset in combinations(axes, size):
            setting, count = _settings(design, subset)
            name = " + ".join(subset) or "none"
            codes[name], counts[name] = setting[left] * count + setting[right], count * count
    return Cells(convention, left, right, codes, counts)


def conditional_mutual_information(
    measure: ArrayLike,
    target: ArrayLike,
    design: pd.DataFrame,
    *,
    axes: Sequence[str],
    convention: str = "jiang",
    ties: str | None = None,
    weights: NDArray[np.float64] | None = None,
    cells: Cells | None = None,
) -> pd.Series:
    r"""Normalised conditional mutual information I(V_mu; V_g | U_S) / H(V_g | U_S) for every set S.

    Over ordered pairs of runs, V_mu and V_g are the signs of the differences in measure and target, and U_S
    the values that both runs give to the hyper-parameters in S. The criterion is the least entry over S
    (``.min()``): 1 if the measure decides the order whatever is known, 0 if some S explains it away.

    ``convention="jiang"``: all S with at most two members, cells weighted by their share of pairs, no run
    paired with itself. ``convention="pgdl"``: S with exactly two members, I and H averaged over cells with
    equal weight before dividing, each run paired with itself too, and a tie counted as minus; a design with an
    empty cell has no value (the scorer divides 0 by 0), so it is refused here.

    The plug-in estimate is biased upwards, the more the smaller the cells: read it beside its permutation null.

    Args:
        measure: shape (runs,), no NaN.
        target: shape (runs,), no NaN.
        design: one row per run.
        axes: the hyper-parameters.
        convention: ``"jiang"`` or ``"pgdl"``.
        ties: ``"symbol"`` (a tie is a third letter: it says nothing, and a constant measure scores 0),
            ``"minus"`` (a tie counts as minus, in both directions) or ``"drop"`` (tied pairs are left out);
            by default ``"symbol"`` for jiang (which the paper leaves open) and ``"minus"`` for pgdl.
        weights: multiplicities of the runs, shape (runs,), for one bootstrap sample.
        cells: :func:`conditional_cells` of the same design, axes and convention, prepared beforehand.

    Returns:
        One entry per S, named by its members joined with ``" + "`` (``"none"`` for the empty set); NaN where
        the target's order is known from S alone. Base-free (a ratio of nats to nats).

    Raises:
        ValueError: for shapes that do not fit, NaN, an unknown convention or ties, fewer than two axes or an
            empty cell under pgdl, or when no pair is left.

    >>> design = pd.DataFrame({"rank": [1, 2, 4, 8], "links": [1, 2, 1, 2]})
    >>> conditional_mutual_information([1, 2, 3, 4], [2, 4, 6, 8], design, axes=["links"]).round(6).tolist()
    [1.0, 1.0]
    """
    cells = conditional_cells(design, axes=axes, convention=convention) if cells is None else cells
    ties = ties or {"jiang": "symbol", "pgdl": "minus"}[cells.convention]
    if ties not in ("symbol", "minus", "drop"):
        raise ValueError(f"ties must be 'symbol', 'minus' or 'drop', got {ties!r}")
    ranks = dense_ranks(np.stack([np.asarray(measure, float), np.asarray(target, float)], axis=1))
    if len(design) != len(ranks):
        raise ValueError(f"design has {len(design)} rows, measure and target have {len(ranks)}")
    signs = np.sign(ranks[cells.left] - ranks[cells.right])
    kept = (signs != 0).all(axis=1) if ties == "drop" else slice(None)
    if ties == "minus":
        signs = np.where(signs > 0, 1, -1)
    letters = ((signs[:, 0] + 1) * 3 + signs[:, 1] + 1)[kept]
    if not len(letters):
        raise ValueError("no pair of runs is left: every pair is tied")
    pair_weights = None
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        pair_weights = (weights[cells.left] * weights[cells.right])[kept]
    values = {}
    for name, code in cells.codes.items():
        count = cells.counts[name]
        counted = np.bincount(code[kept] * 9 + letters, weights=pair_weights, minlength=9 * count)
        table = counted.astype(np.float64).reshape(-1, 3, 3)
        values[name] = _normalised(table, uniform=cells.convention == "pgdl", name=name)
    return pd.Series(values, dtype=np.float64)


def _settings(design: pd.DataFrame, subset: Sequence[str]) -> tuple[NDArray[np.intp], int]:
    """Number the joint values of the columns; all combinations count, seen or not."""
    code, cells = np.zeros(len(design), dtype=np.intp), 1
    for column in subset:
        level, values = pd.factorize(design[column])
        code, cells = code * len(values) + level, cells * len(values)
    return code, cells


def _entropy(counts: NDArray[np.float64], totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in nats of counts along the last axis, cell by cell."""
    share = counts / np.where(totals > 0, totals, 1.0)[:, None]
    result: NDArray[np.float64] = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=-1)
    return result


def _normalised(table: NDArray[np.float64], *, uniform: bool, name: str) -> float:
    totals = table.sum(axis=(1, 2))
    if uniform and (totals == 0).any():
        raise ValueError(
            f"the PGDL convention needs every pair of settings of {name}; "
            f"{int((totals == 0).sum())} of {len(totals)} cells are empty (the design is not a full grid)"
        )
    target_entropy = _entropy(table.sum(axis=1), totals)
    joint_entropy = _entropy(table.reshape(len(table), 9), totals)
    information = _entropy(table.sum(axis=2), totals) + target_entropy - joint_entropy
    share = np.ones(len(totals)) if uniform else totals / totals.sum()
    entropy = float(share @ target_entropy)
    # Entropies are sums of terms of order one: what is below 1e-12 is rounding.
    return float(share @ information) / entropy if entropy > 1e-12 else float("nan")
