r"""Singular spectra of weights and updates: W0, dW, W0 + dW; ranks, subspaces, intruders, heavy tails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from analysis.spectra.intruders import BasisCache, Side, cosines, dense_cosines
from analysis.spectra.rounding import count_range
from analysis.spectra.tails import heavy_tail
from analysis.spectra.weights import LayerUpdate

__all__ = [
    "effective_rank",
    "intruder_counts",
    "intruder_dimensions",
    "intruder_total",
    "product_singular_values",
    "singular_values",
    "spectrum_table",
    "stable_rank",
    "subspace_similarity",
    "update_spectrum",
]

Convention = Literal["authors", "paper"]


def singular_values(weight: Tensor, *, count: int | None = None) -> np.ndarray:
    """Return a matrix's singular values, largest first, float64.

    Args:
        weight: shape (m, n), floating point.
        count: how many; None is all min(m, n).

    Raises:
        TypeError: if the weight is not floating point.
        ValueError: if it is no finite matrix, or ``count`` is above min(m, n).
    """
    if not weight.is_floating_point():
        raise TypeError(f"weight is {weight.dtype}, not floating point; dequantise it first")
    if weight.ndim != 2 or not torch.isfinite(weight).all():
        raise ValueError(f"weight must be a finite matrix, got shape {tuple(weight.shape)}")
    _check_count(count, min(weight.shape), "min(m, n)")
    wide = weight.detach() if weight.dtype == torch.float64 else weight.detach().float()
    return torch.linalg.svdvals(wide).double().cpu().numpy()[:count]


def product_singular_values(left: Tensor, right: Tensor, *, count: int | None = None) -> np.ndarray:
    """Return the singular values of left @ right without forming it: two QR and one r x r SVD, in float64.

    Args:
        left: shape (m, r).
        right: shape (r, n).
        count: how many; None is all min(m, n, r).

    Raises:
        ValueError: if the shapes do not fit or ``count`` is above min(m, n, r), the largest possible rank.

    >>> product_singular_values(torch.tensor([[3.0], [0.0]]), torch.tensor([[0.0, 2.0]])).tolist()
    [6.0]
    """
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"factors of shapes {tuple(left.shape)} and {tuple(right.shape)} have no product")
    _check_count(count, min(*left.shape, *right.shape), "the rank of the product, at most")
    first = torch.linalg.qr(left.detach().double(), mode="r").R
    second = torch.linalg.qr(right.detach().double().T, mode="r").R
    return torch.linalg.svdvals(first @ second.T).cpu().numpy()[:count]


def update_spectrum(layer: LayerUpdate) -> np.ndarray:
    """Return the singular values of dW, through its factors where it has them."""
    if layer.left is not None and layer.right is not None:
        return product_singular_values(layer.left, layer.right)
    return singular_values(layer.update)


def _check_count(count: int | None, limit: int, label: str) -> None:
    if count is not None and not 1 <= count <= limit:
        raise ValueError(f"count must lie between 1 and {label} {limit}, got {count}")


def effective_rank(values: Sequence[float] | np.ndarray) -> float:
    r"""Return :math:`\exp H(p)` with :math:`p_i = \sigma_i / \sum_j \sigma_j` (Roy and Vetterli, 2007).

    Between 1 and the number of nonzero values; NaN for a zero matrix, which has no direction.

    >>> round(effective_rank([2.0, 2.0, 2.0, 0.0]), 12)
    3.0
    """
    values = np.asarray(values, dtype=np.float64)
    total = values.sum()
    if not total > 0:
        return math.nan
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def stable_rank(values: Sequence[float] | np.ndarray) -> float:
    r"""Return :math:`\|W\|_F^2 / \|W\|_2^2`; NaN for a zero matrix.

    >>> stable_rank([2.0, 1.0])
    1.25
    """
    values = np.asarray(values, dtype=np.float64)
    top = values.max(initial=0.0)
    return float(((values / top) ** 2).sum()) if top > 0 else math.nan


def subspace_similarity(first: Tensor, second: Tensor) -> np.ndarray:
    r"""Overlap of the leading right singular subspaces of two matrices, for all pairs of dimensions.

    Source: Hu et al., arXiv:2106.09685, section 7.2:
    :math:`\phi(i, j) = \|V_1[:, :i]^\top V_2[:, :j]\|_F^2 / \min(i, j) \in [0, 1]`. For independent random
    subspaces of dimension n its mean is max(i, j) / n. One product and a cumulative sum give all entries.

    Args:
        first: shape (r1, n), for example A of one adapter.
        second: shape (r2, n).

    Returns:
        Shape (min(r1, n), min(r2, n)); entry [i - 1, j - 1] is phi(i, j).

    Raises:
        ValueError: if the widths differ.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"matrices of shapes {tuple(first.shape)} and {tuple(second.shape)} must have one width")
    bases = [torch.linalg.svd(matrix.detach().double(), full_matrices=False).Vh for matrix in (first, second)]
    overlap = (bases[0] @ bases[1].T).square().cpu().numpy().cumsum(axis=0).cumsum(axis=1)
    rows, columns = np.indices(overlap.shape) + 1
    return overlap / np.minimum(rows, columns)


def spectrum_table(updates: Iterable[LayerUpdate], *, cache: BasisCache | None = None) -> pd.DataFrame:
    """Summarise each layer's spectra: norms and ranks of W0, dW and W0 + dW.

    Args:
        updates: from `analysis.spectra.weights`.
        cache: bases of W0, if intruders are wanted too; W0's singular values are then computed once.

    Returns:
        One row per layer: layer, rows, columns, norm_base, norm_update, norm_tuned (spectral norms),
        frobenius_ratio (of dW to W0), effective_rank_base, effective_rank_update, effective_rank_tuned,
        stable_rank_base, stable_rank_update, stable_rank_tuned, tail_exponent_tuned, tail_note.
    """
    rows = []
    for layer in tqdm(updates, desc="spectra", unit="layer", leave=False, delay=2):
        base = singular_values(layer.base) if cache is None else cache.get(layer.base).values.double().cpu().numpy()
        tuned, update = singular_values(layer.tuned), update_spectrum(layer)
        spectra = {"base": base, "update": update, "tuned": tuned}
        tail = heavy_tail(tuned)
        rows.append(
            {
                "layer": layer.name,
                "rows": layer.base.shape[0],
                "columns": layer.base.shape[1],
                **{f"norm_{name}": float(values[0]) for name, values in spectra.items()},
                "frobenius_ratio": _ratio(float(np.linalg.norm(update)), float(np.linalg.norm(base))),
                **{f"effective_rank_{name}": effective_rank(values) for name, values in spectra.items()},
                **{f"stable_rank_{name}": stable_rank(values) for name, values in spectra.items()},
                "tail_exponent_tuned": tail.alpha,
                "tail_note": tail.reason,
            }
        )
    return pd.DataFrame(rows)


def _ratio(update: float, base: float) -> float:
    """|dW| over |W0|; infinite for W0 = 0, NaN where both are zero."""
    return update / base if base > 0 else math.inf if update > 0 else math.nan


def intruder_dimensions(
    updates: Iterable[LayerUpdate],
    *,
    convention: Convention = "authors",
    count: int = 10,
    side: Side = "left",
    cache: BasisCache | None = None,
) -> pd.DataFrame:
    """Match singular vectors of W0 + dW with those of W0, layer by layer.

    Args:
        updates: from `analysis.spectra.weights`; factored ones go through the diagonal + rank-r operator, dense ones
            (full fine-tuning) through a full SVD.
        convention: ``"authors"``: the leading ``count`` vectors, as the code of arXiv:2410.21228 counts.
            ``"paper"``: all vectors, as arXiv:2606.13767 draws counts against epsilon.
        count: k of the authors' convention; cut to min(m, n) for smaller matrices.
        side: ``"left"`` (both papers' code) or ``"right"``.
        cache: bases of W0 kept between adapters of one base.

    Returns:
        One row per vector: layer, index (from 0), value (singular value of W0 + dW), cosine (best match), match (its
        index in W0), gap (relative) and uncertainty (of the cosine, see `analysis.spectra.intruders.Cosines`), route.

    Raises:
        ValueError: if the convention is unknown or ``count`` is below 1.
    """
    if convention not in ("authors", "paper"):
        raise ValueError(f"unknown convention {convention!r}; accepted: authors, paper")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    cache = cache or BasisCache(in_memory=1)
    frames = []
    for layer in tqdm(updates, desc="intruders", unit="layer", leave=False, delay=2):
        basis = cache.get(layer.base)
        wanted = min(count, len(basis.values)) if convention == "authors" else None
        if layer.left is not None and layer.right is not None and min(layer.left.shape) < len(basis.values):
            found = cosines(basis, layer.left, layer.right, count=wanted, side=side)
        else:
            found = dense_cosines(basis, _tuned(layer, basis.values.dtype), count=wanted, side=side)
        frames.append(
            pd.DataFrame(
                {
                    "layer": layer.name,
                    "index": np.arange(len(found.values)),
                    "value": found.values,
                    "cosine": found.cosines,
                    "match": found.match,
                    "gap": found.gap,
                    "uncertainty": found.uncertainty,
                    "route": found.route,
                }
            )
        )
    columns = ["layer", "index", "value", "cosine", "match", "gap", "uncertainty", "route"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _tuned(layer: LayerUpdate, dtype: torch.dtype) -> Tensor:
    """W0 + dW from the weights as they are kept, multiplied and summed in one precision."""
    if layer.left is not None and layer.right is not None:
        return layer.base.to(dtype) + layer.left.to(dtype) @ layer.right.to(dtype)
    return layer.base.to(dtype) + layer.update.to(dtype)


def intruder_counts(vectors: pd.DataFrame, epsilons: Sequence[float] | np.ndarray) -> pd.DataFrame:
    """Count intruders against epsilon, summed over layers.

    Args:
        vectors: from `intruder_dimensions`.
        epsilons: thresholds in (0, 1].

    Returns:
        Columns epsilon, intruders, intruders_low and intruders_high (the counts that rounding leaves open: every cosine
        within its uncertainty of epsilon moved to either side), doubtful (the number of those cosines), share (of all
        vectors looked at).

    Raises:
        ValueError: if a threshold is outside (0, 1].
    """
    epsilons = np.asarray(epsilons, dtype=np.float64)
    if epsilons.size == 0 or not ((epsilons > 0) & (epsilons <= 1)).all():
        raise ValueError(f"epsilons must lie in (0, 1], got {epsilons.tolist()}")
    cosine, moved = vectors["cosine"].to_numpy(), vectors["uncertainty"].to_numpy()
    counts = (cosine[None, :] < epsilons[:, None]).sum(axis=1)
    ends = np.array([count_range(cosine, epsilon, moved) for epsilon in epsilons])
    shares = counts / max(len(vectors), 1)
    columns = {"intruders": counts, "intruders_low": ends[:, 0], "intruders_high": ends[:, 1]}
    columns |= {"doubtful": ends[:, 1] - ends[:, 0], "share": shares}
    return pd.DataFrame({"epsilon": epsilons, **columns})


def intruder_total(vectors: pd.DataFrame, *, epsilon: float = 0.5) -> int:
    """Return the number of intruders summed over matrices (the authors' count at their k and epsilon)."""
    return int(intruder_counts(vectors, [epsilon])["intruders"].iloc[0])
