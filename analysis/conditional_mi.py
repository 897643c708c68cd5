"""The conditional-mutual-information criterion: what a measure says beyond which hyper-parameters were set.

Two conventions, named: that of the paper, Jiang et al., arXiv:1912.02178, section 4.3, and that of the scorer
of the contest "Predicting Generalization in Deep Learning" (PGDL, NeurIPS 2020), which differs in five ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.pairs import check_design, dense_ranks

__all__ = ["conditional_mutual_information"]


def conditional_mutual_information(
    measure: ArrayLike,
    target: ArrayLike,
    design: pd.DataFrame,
    *,
    axes: Sequence[str],
    convention: str = "jiang",
    ties: str | None = None,
    weights: NDArray[np.float64] | None = None,
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
    if convention not in ("jiang", "pgdl"):
        raise ValueError(f"convention must be 'jiang' or 'pgdl', got {convention!r}")
    ties = ties or {"jiang": "symbol", "pgdl": "minus"}[convention]
    if ties not in ("symbol", "minus", "drop"):
        raise ValueError(f"ties must be 'symbol', 'minus' or 'drop', got {ties!r}")
    if convention == "pgdl" and len(axes) < 2:
        raise ValueError(f"the PGDL convention conditions on two hyper-parameters, got axes {list(axes)}")
    check_design(design, axes)
    ranks = dense_ranks(np.stack([np.asarray(measure, float), np.asarray(target, float)], axis=1))
    runs = len(ranks)
    if len(design) != runs:
        raise ValueError(f"design has {len(design)} rows, measure and target have {runs}")
    left, right = np.divmod(np.arange(runs * runs), runs)
    if convention == "jiang":
        left, right = left[left != right], right[left != right]
    signs = np.sign(ranks[left] - ranks[right])
    if ties == "drop":
        decided = (signs != 0).all(axis=1)
        left, right, signs = left[decided], right[decided], signs[decided]
    elif ties == "minus":
        signs = np.where(signs > 0, 1, -1)
    if not len(left):
        raise ValueError("no pair of runs is left: every pair is tied")
    letters = (signs[:, 0] + 1) * 3 + signs[:, 1] + 1
    pair_weights = None if weights is None else np.asarray(weights, float)[left] * np.asarray(weights, float)[right]
    sizes = (2,) if convention == "pgdl" else (0, 1, 2)
    values = {}
    for subset in (chosen for size in sizes for chosen in combinations(axes, size)):
        setting, cells = _settings(design, subset)
        code = (setting[left] * cells + setting[right]) * 9 + letters
        table = np.bincount(code, weights=pair_weights, minlength=9 * cells * cells).reshape(-1, 3, 3).astype(float)
        values[" + ".join(subset) or "none"] = _normalised(table, uniform=convention == "pgdl", name=subset)
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
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=-1)


def _normalised(table: NDArray[np.float64], *, uniform: bool, name: Sequence[str]) -> float:
    totals = table.sum(axis=(1, 2))
    if uniform and (totals == 0).any():
        raise ValueError(
            f"the PGDL convention needs every pair of settings of {' + '.join(name)}; "
            f"{int((totals == 0).sum())} of {len(totals)} cells are empty (the design is not a full grid)"
        )
    target_entropy = _entropy(table.sum(axis=1), totals)
    joint_entropy = _entropy(table.reshape(len(table), 9), totals)
    information = _entropy(table.sum(axis=2), totals) + target_entropy - joint_entropy
    share = np.ones(len(totals)) if uniform else totals / totals.sum()
    entropy = float(share @ target_entropy)
    # Entropies are sums of terms of order one: what is below 1e-12 is rounding.
    return float(share @ information) / entropy if entropy > 1e-12 else float("nan")
