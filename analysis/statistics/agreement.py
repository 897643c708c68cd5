"""Does a measure order runs as their generalization error does? Rank statistics over pairs of runs.

Every statistic here is a ratio of weighted sums over pairs {i, j}, where run i enters with weight w_i
(1, or its multiplicity in a bootstrap sample): all measures and all replicates go through one matrix product.
Sources: Jiang et al., arXiv:1912.02178; Dziugaite et al., arXiv:2010.11924; Kendall (1942) for partial tau.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.pairs import Pairs, all_pairs, axis_pairs, dense_ranks, environment_pairs

__all__ = ["Cells", "granulated_tau", "kendall_tau", "partial_tau", "prepare_cells", "sign_error", "tied_share"]


def _signs(values: ArrayLike, pairs: Pairs) -> NDArray[np.float64]:
    ranks = dense_ranks(values)
    ranks = ranks[:, None] if ranks.ndim == 1 else ranks
    result: NDArray[np.float64] = np.sign(ranks[pairs.left] - ranks[pairs.right]).astype(np.float64)
    return result


def _check(measures: ArrayLike, target: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    measures, target = np.asarray(measures, dtype=np.float64), np.asarray(target, dtype=np.float64)
    measures = measures[:, None] if measures.ndim == 1 else measures
    if target.ndim != 1 or len(measures) != len(target):
        raise ValueError(f"measures {measures.shape} and target {target.shape} must have one row per run")
    return measures, target


def _cell_tau(
    measures: ArrayLike, target: ArrayLike, pairs: Pairs, weights: NDArray[np.float64] | None, variant: str
) -> NDArray[np.float64]:
    measures, target = _check(measures, target)
    if variant not in ("a", "b"):
        raise ValueError(f"variant must be 'a' or 'b', got {variant!r}")
    x, y = _signs(measures, pairs), _signs(target, pairs)
    agreement = pairs.sums(x * y, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        if variant == "a":
            return agreement / pairs.sums(np.ones_like(y), weights)
        return agreement / np.sqrt(pairs.sums(np.abs(x), weights) * pairs.sums(np.abs(y), weights))


def _squeeze(values: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return values[0] if weights is None else values


def kendall_tau(
    measures: ArrayLike, target: ArrayLike, *, variant: str = "b", weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    r"""Kendall's tau between each measure and the target, ties open.

    With s_ij = sign(mu_i - mu_j) and t_ij = sign(g_i - g_j):
    tau-a = mean over pairs of s t (arXiv:1912.02178, eq. 2: a tie counts as no agreement);
    tau-b = sum s t / sqrt(sum s^2 sum t^2), which is 1 for a perfect order among the untied.

    Args:
        measures: shape (runs,) or (runs, measures), no NaN.
        target: shape (runs,), no NaN.
        variant: ``"b"`` or ``"a"``.
        weights: multiplicities of the runs, shape (replicates, runs).

    Returns:
        Shape (measures,), or (replicates, measures) with weights; NaN where tau-b is undefined (a constant).

    Raises:
        ValueError: for shapes that do not fit, NaN, fewer than two runs or an unknown variant.

    >>> kendall_tau([1, 2, 2, 3], [1, 2, 3, 4], variant="a").round(4).tolist()
    [0.8333]
    """
    measures, target = _check(measures, target)
    tau = _cell_tau(measures, target, all_pairs(len(target)), weights, variant)[:, 0]
    return _squeeze(tau, weights)


@dataclass(frozen=True)
class Cells:
    """The pairs of a design by axis, prepared once for many shuffles and bootstrap samples.

    Attributes:
        granulated: axis -> pairs in the cells of granulated tau.
        environments: axis -> the same pairs by the two values that the axis takes.
    """

    granulated: dict[str, Pairs]
    environments: dict[str, Pairs]


def prepare_cells(
    design: pd.DataFrame,
    *,
    axes: Sequence[str],
    fixed: Sequence[str] = (),
    nested: Mapping[str, str] | None = None,
) -> Cells:
    """Find the pairs that differ on one axis alone; arguments as in :func:`granulated_tau`.

    Raises:
        ValueError: if there is no axis, or a column is missing.
    """
    if not axes:
        raise ValueError("axes must name at least one hyper-parameter")
    held = {axis: _held(axis, axes, fixed, nested) for axis in axes}
    return Cells(
        {axis: axis_pairs(design, axis, fixed=others) for axis, others in held.items()},
        {axis: environment_pairs(design, axis, fixed=others) for axis, others in held.items()},
    )


def _held(axis: str, axes: Sequence[str], fixed: Sequence[str], nested: Mapping[str, str] | None) -> list[str]:
    """Columns that are equal within a pair that differs on ``axis``."""
    return [column for column in (*axes, *fixed) if column != axis and (nested or {}).get(column) != axis]


def granulated_tau(
    measures: ArrayLike,
    target: ArrayLike,
    design: pd.DataFrame,
    *,
    axes: Sequence[str],
    fixed: Sequence[str] = (),
    nested: Mapping[str, str] | None = None,
    variant: str = "a",
    weights: NDArray[np.float64] | None = None,
    cells: Cells | None = None,
) -> dict[str, NDArray[np.float64]]:
    r"""Granulated Kendall's tau: agreement when one hyper-parameter moves and all others stand still.

    Source: arXiv:1912.02178, eqs. 5-6. psi_i is tau within each cell in which every axis but i is fixed,
    averaged over cells with equal weight; Psi is the mean of the psi_i. A measure that only knows which
    hyper-parameter was changed cannot score here.

    Args:
        measures: shape (runs,) or (runs, measures).
        target: shape (runs,).
        design: one row per run, with the axes' and fixed columns.
        axes: the hyper-parameters.
        fixed: columns always held fixed as well, such as the seed or the task.
        nested: axis -> the axis it belongs to, for a hyper-parameter that only some values of the other have
            (a chain's length, given the method); it is not held fixed where the other one moves.
        variant: ``"a"`` as in the paper, or ``"b"`` (a cell where the measure is constant is left out).
        weights: multiplicities of the runs, shape (replicates, runs).
        cells: :func:`prepare_cells` of the same design and columns, prepared beforehand.

    Returns:
        psi of each axis and their mean under ``"mean"``; an axis without a single pair is NaN and left out.

    Raises:
        ValueError: for shapes that do not fit, missing columns, or no axis.

    >>> design = pd.DataFrame({"rank": [1, 2, 1, 2], "links": [1, 1, 3, 3]})
    >>> psi = granulated_tau([1, 2, 1, 2], [1, 2, 3, 4], design, axes=["rank", "links"])
    >>> psi["rank"].item(), psi["links"].item(), psi["mean"].item()
    (1.0, 0.0, 0.5)
    """
    measures, target = _check(measures, target)
    cells = prepare_cells(design, axes=axes, fixed=fixed, nested=nested) if cells is None else cells
    replicates = 1 if weights is None else len(weights)
    undefined = np.full((replicates, 1, measures.shape[1]), np.nan)
    psi: dict[str, NDArray[np.float64]] = {}
    for axis, pairs in cells.granulated.items():
        tau = _cell_tau(measures, target, pairs, weights, variant) if len(pairs.left) else undefined
        psi[axis] = _mean(tau, axis=1)
    psi["mean"] = _mean(np.stack(list(psi.values())), axis=0)
    return {axis: _squeeze(value, weights) for axis, value in psi.items()}


def _mean(values: NDArray[np.float64], *, axis: int) -> NDArray[np.float64]:
    """Mean over the defined entries, NaN where there is none."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = np.where(defined, values, 0.0).sum(axis=axis) / defined.sum(axis=axis)
        return result


def sign_error(
    measures: ArrayLike,
    target: ArrayLike,
    design: pd.DataFrame,
    *,
    axes: Sequence[str],
    fixed: Sequence[str] = (),
    nested: Mapping[str, str] | None = None,
    weights: NDArray[np.float64] | None = None,
    num_heldout: int | None = None,
    loss_range: float = 1.0,
    cells: Cells | None = None,
) -> tuple[NDArray[np.float64], tuple[object, ...]]:
    r"""Sign error in every environment; its worst entry is the robust sign error.

    Source: arXiv:2010.11924. Over pairs of runs that differ in one hyper-parameter, the mean of
    (1 - sign(mu_i - mu_j) sign(g_i - g_j)) / 2: 0 is perfect, 1/2 a coin (a tie counts 1/2). An environment is
    an axis with the two values it takes (:func:`environment_pairs`). A measure is a cause only if it does
    well everywhere, so the paper judges by the worst environment, not the mean.

    Args:
        measures: shape (runs,) or (runs, measures).
        target: shape (runs,), a difference of mean losses.
        design: one row per run.
        axes: the hyper-parameters.
        fixed: columns always held fixed as well.
        nested: as in :func:`granulated_tau`.
        weights: multiplicities of the runs, shape (replicates, runs).
        num_heldout: size of the held-out set. If given, a pair whose targets differ by D weighs
            max(0, 1 - 2 exp(-2 n (D / (2 range))^2))^2, cut to zero below 1/2 (Hoeffding, as the paper's
            code does), so that pairs decided by held-out noise do not count.
        loss_range: width of the loss' range, for that weight.
        cells: :func:`prepare_cells` of the same design and columns, prepared beforehand.

    Returns:
        Errors of shape (environments, measures), or (replicates, environments, measures) with weights, NaN
        where no pair weighs anything; and the environments' labels.

    Raises:
        ValueError: for shapes that do not fit, missing columns, or when no environment has a pair.
    """
    measures, target = _check(measures, target)
    errors: list[NDArray[np.float64]] = []
    labels: list[object] = []
    cells = prepare_cells(design, axes=axes, fixed=fixed, nested=nested) if cells is None else cells
    for pairs in cells.environments.values():
        if not len(pairs.left):
            continue
        trust = np.ones((len(pairs.left), 1))
        if num_heldout is not None:
            gap = np.abs(target[pairs.left] - target[pairs.right]) / (2 * loss_range)
            trust[:, 0] = np.maximum(0.0, 1 - 2 * np.exp(-2 * num_heldout * gap**2)) ** 2
            trust = np.maximum(trust - 0.5, 0.0)
        wrong = (1 - _signs(measures, pairs) * _signs(target, pairs)) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            errors.append(pairs.sums(wrong * trust, weights) / pairs.sums(trust, weights))
        labels.extend(pairs.labels)
    if not errors:
        raise ValueError(f"no two runs differ in exactly one of {', '.join(axes)}; nothing can be compared")
    return _squeeze(np.concatenate(errors, axis=1), weights), tuple(labels)


def partial_tau(
    measures: ArrayLike, target: ArrayLike, controls: ArrayLike, *, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    r"""Kendall's partial tau: agreement with the target that the controls do not account for.

    Source: Kendall (1942), Biometrika 32, for one control. tau-b is the cosine of two sign vectors over pairs,
    so the partial version is the cosine of their residuals after projecting on the controls' sign vectors:
    (t_xy - t_xc T_cc^+ t_cy) / sqrt((1 - t_xc T_cc^+ t_cx)(1 - t_yc T_cc^+ t_cy)).
    With one control this is Kendall's formula. Zero partial tau is not conditional independence in general.

    Args:
        measures: shape (runs,) or (runs, measures).
        target: shape (runs,).
        controls: shape (runs,) or (runs, controls), for example training loss and rank.
        weights: multiplicities of the runs, shape (replicates, runs).

    Returns:
        Shape (measures,) or (replicates, measures); NaN where measure or target is ordered by the controls alone.

    Raises:
        ValueError: for shapes that do not fit or NaN.

    >>> partial_tau([1, 2, 3, 4], [1, 2, 4, 3], [1, 1, 2, 2]).round(4).tolist()
    [0.0]
    """
    measures, target = _check(measures, target)
    controls, _ = _check(controls, target)
    pairs = all_pairs(len(target))
    x, y, c = (_signs(values, pairs) for values in (measures, target, controls))
    count = c.shape[1]
    xc = (x[:, :, None] * c[:, None, :]).reshape(len(x), -1)
    cc = (c[:, :, None] * c[:, None, :]).reshape(len(c), -1)
    columns = np.concatenate([x * y, x * x, y * y, y * c, xc, cc], axis=1)
    sizes = np.cumsum([x.shape[1], x.shape[1], 1, count, xc.shape[1]])
    s_xy, s_xx, s_yy, s_yc, s_xc, s_cc = np.split(pairs.sums(columns, weights)[:, 0], sizes, axis=1)
    s_xc = s_xc.reshape(len(s_xy), -1, count)
    inverse = np.linalg.pinv(s_cc.reshape(-1, count, count), hermitian=True)
    explained_xy = np.einsum("bmc,bcd,bd->bm", s_xc, inverse, s_yc)
    rest_x = s_xx - np.einsum("bmc,bcd,bmd->bm", s_xc, inverse, s_xc)
    rest_y = s_yy - np.einsum("bc,bcd,bd->b", s_yc, inverse, s_yc)[:, None]
    # A residual below 1e-9 of the whole is rounding: nothing is left to agree about.
    defined = (rest_x > 1e-9 * s_xx) & (rest_y > 1e-9 * s_yy)
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = np.where(defined, (s_xy - explained_xy) / np.sqrt(rest_x * rest_y), np.nan)
    return _squeeze(tau, weights)


def tied_share(values: ArrayLike) -> NDArray[np.float64]:
    """Share of pairs of runs that each column leaves tied.

    >>> tied_share([1, 1, 2]).round(4).tolist()
    [0.3333]
    """
    values = np.asarray(values, dtype=np.float64)
    pairs = all_pairs(len(values))
    result: NDArray[np.float64] = 1.0 - np.abs(_signs(values, pairs)).mean(axis=0)
    return result
