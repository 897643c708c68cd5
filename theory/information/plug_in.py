"""Mutual information of counts: the plug-in estimate, resampled over runs.

Its bias is upwards, about (cells - 1) / (2 samples) nats; ``theory.information.cmi`` shows it beside every estimate.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from theory.arguments import Integers, NonNegatives, Numbers, Positive, checked
from theory.checks import check_choice
from theory.information import inequalities as bound_of
from theory.records import Bound

__all__ = [
    "coded",
    "count_tables",
    "individual_sample_estimate",
    "joint_information",
    "plug_in",
    "resampled_information",
]

Counts = NDArray[np.float64]
Weights = Annotated[Counts, Numbers()]
Codes = Annotated[NDArray[np.intp], Integers()]
Symbols = Annotated[ArrayLike, Integers(-(2**63))]
Correction = Literal["none", "miller-madow"]


@checked
def plug_in(counts: NonNegatives, *, correction: Correction = "none") -> NDArray[np.float64]:
    """Return the mutual information of tables of counts, over the last two axes, in nats.

    Args:
        counts: ... x symbols x symbols; a table of zeros gives 0.
        correction: ``"none"``, or ``"miller-madow"``, which adds (cells seen - 1) / (2 samples) to each entropy.

    >>> round(float(plug_in([[2, 0], [0, 2]])), 6)
    0.693147
    """
    check_choice("correction", correction, ("none", "miller-madow"))
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim < 2 or not np.isfinite(table).all() or (table < 0).any():
        raise ValueError(f"counts must be tables of finite numbers of at least 0, got shape {table.shape}")
    total = table.sum((-1, -2))
    samples = np.maximum(total, 1e-300)
    joint = table / samples[..., None, None]
    left, right = joint.sum(-1), joint.sum(-2)
    value = entr(left).sum(-1) + entr(right).sum(-1) - entr(joint).sum((-1, -2))
    if correction == "miller-madow":
        cells = (left > 0).sum(-1) + (right > 0).sum(-1) - (joint > 0).sum((-1, -2)) - 1
        value = value + np.where(total > 0, cells / (2 * samples), 0.0)
    result: NDArray[np.float64] = np.maximum(value, 0.0)
    return result


@checked
def coded(symbols: NDArray[np.float64] | NDArray[np.intp]) -> NDArray[np.intp]:
    """Number the distinct vectors along the last axis, keeping the leading axes.

    >>> coded(np.array([[0.5, 0.0], [0.1, 1.0], [0.5, 0.0]])).tolist()
    [1, 0, 1]
    """
    flat = symbols.reshape(-1, symbols.shape[-1])
    return np.unique(flat, axis=0, return_inverse=True)[1].reshape(symbols.shape[:-1])


@checked
def count_tables(left: Codes, right: Codes, *, pooled: bool) -> Counts:
    """Return counts per run: runs x groups x symbols x symbols, one group when pooled and one per row otherwise."""
    runs, rows = left.shape
    shape = (runs, 1 if pooled else rows, int(left.max()) + 1, int(right.max()) + 1)
    run, row = np.indices((runs, rows))
    index = np.ravel_multi_index((run, np.zeros_like(row) if pooled else row, left, right), shape)
    return np.bincount(index.ravel(), minlength=math.prod(shape)).astype(np.float64).reshape(shape)


@checked
def resampled_information(counts: Weights, weights: Weights, *, correction: Correction = "none") -> NDArray[np.float64]:
    """Return the mean information over groups for each row of run weights."""
    blocks = []
    for part in np.array_split(weights, max(1, len(weights) * counts[0].size // 4_000_000 + 1)):
        tables = (part @ counts.reshape(len(counts), -1)).reshape(len(part), *counts.shape[1:])
        blocks.append(plug_in(tables, correction=correction).mean(-1))
    return np.concatenate(blocks)


@checked
def joint_information(
    left: Codes, right: Codes, weights: Weights, *, correction: Correction = "none"
) -> NDArray[np.float64]:
    """Return the plug-in information between two symbols per run, for each row of run weights (nats).

    Args:
        left: one number per run.
        right: likewise.
        weights: resamples x runs, how often each run counts.
        correction: as in ``plug_in``.
    """
    both = coded(np.stack([left, right], -1))
    total = weights.sum(1)
    values = np.zeros(len(weights))
    for codes, sign in ((left, 1), (right, 1), (both, -1)):
        counts = np.stack([np.bincount(codes, weights=row) for row in weights])
        entropy = entr(counts / total[:, None]).sum(1)
        if correction == "miller-madow":
            entropy += ((counts > 0).sum(1) - 1) / (2 * total)
        values += sign * entropy
    return np.maximum(values, 0.0)


@checked
def individual_sample_estimate(
    hypotheses: Symbols, examples: Symbols, *, sigma: Positive = 0.5, correction: Correction = "none"
) -> tuple[float, Bound]:
    """Estimate I(W;Z_I) for a learned hypothesis and examples that are both discrete, pooled over the examples.

    Args:
        hypotheses: one integer per run.
        examples: runs x n integers, the training examples.
        sigma: sub-Gaussian parameter of the loss.
        correction: as in ``plug_in``.

    Returns:
        The information in nats, and the bound of arXiv:1901.04609 at it.

    Raises:
        ValueError: if shapes or types do not fit.

    >>> information, bound = individual_sample_estimate([0, 1, 0, 1], [[0], [1], [0], [1]])
    >>> round(information, 6), round(bound.value, 6)
    (0.693147, 0.588705)
    """
    learned, data = np.asarray(hypotheses), np.asarray(examples)
    for name, array, dimension in (("hypotheses", learned, 1), ("examples", data, 2)):
        if array.ndim != dimension or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must be integers of {dimension} dimensions, got {array.dtype}{array.shape}")
    if len(learned) != len(data):
        raise ValueError(f"examples must have one row per hypothesis, {len(learned)}, got {len(data)}")
    left = np.broadcast_to(coded(learned[:, None])[:, None], data.shape)
    counts = count_tables(left, coded(data[..., None]), pooled=True)
    value = float(plug_in(counts.sum((0, 1)), correction=correction))
    return value, bound_of.individual_sample(value, sigma=sigma)
