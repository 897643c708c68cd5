r"""How far rounding can move what is counted at a threshold or picked as the smallest.

A count of values below a threshold is the same on every processor only if none of the values lies within its rounding
error of it. So every such count comes with a range: the count with every doubtful value moved to either side. A
recount elsewhere has to overlap it; a count outside is a real difference.

Singular vectors. LAPACK's SVD is backward stable (LAPACK Users' Guide, 3rd ed., section 4.9): what is computed is
exact for :math:`M + E`, :math:`\|E\|_2 \le p(m, n)\, \varepsilon\, \|M\|_2`, with a modestly growing p, taken here as
max(m, n), as the usual tolerance of a numerical rank does. By the sine theorem (Wedin 1972; Stewart and Sun, *Matrix
Perturbation Theory*, V.4) on the Jordan-Wielandt matrix, whose perturbation of a pair of vectors has Frobenius norm at
most :math:`\sqrt2 \|E\|_2`, a vector turns by :math:`\sin\theta \le \sqrt2 \|E\|_2 / (g - \|E\|_2)`, where g is the
computed distance of its singular value to the nearest other one (to zero as well if the matrix is not square). Unit
vectors at angle theta are at most :math:`2 \sin(\theta/2) \le \sqrt2 \sin\theta` apart, and a cosine moves by no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = ["best_match", "clusters", "count_range", "gaps", "near", "svd_error", "turn"]


def svd_error(shape: Sequence[int], dtype: torch.dtype, norm: float) -> float:
    """Return the spectral norm of the backward error of a computed SVD, or of a sum of products of that inner size.

    Args:
        shape: (m, n); the larger one is the p(m, n) of the module's text.
        dtype: precision of the computation.
        norm: spectral norm of the matrix, or the product of the factors' norms.

    >>> import torch
    >>> svd_error((384, 384), torch.float64, 1.0) < 1e-13
    True
    """
    return max(shape) * torch.finfo(dtype).eps * norm


def gaps(values: ArrayLike, *, square: bool) -> NDArray[np.float64]:
    """Return each singular value's distance to the nearest other one, and to zero where the matrix is not square.

    Args:
        values: largest first, shape (k,).
        square: whether m = n; else the complement has singular value zero.

    >>> gaps([4.0, 2.0, 1.0], square=True).tolist()
    [2.0, 1.0, 1.0]
    """
    values = np.asarray(values, dtype=np.float64)
    padded = np.concatenate([[np.inf], values, [-np.inf]])
    found = np.minimum(padded[:-2] - padded[1:-1], padded[1:-1] - padded[2:])
    return found if square else np.minimum(found, values)


def turn(error: ArrayLike, gap: ArrayLike, dimension: ArrayLike = 1) -> NDArray[np.float64]:
    r"""Return how far a cosine with a computed singular vector (or the norm of a projection) can be off.

    :math:`2 \sqrt d\, \|E\| / (g - \|E\|)`, at most 1. Where the gap is not above the error the vector is undefined,
    and a cosine can be anything in [0, 1].

    Args:
        error: spectral norm of E.
        gap: computed distance to the nearest singular value outside.
        dimension: d, of the subspace.

    >>> turn(1e-3, [1.0, 1e-3]).round(6).tolist()
    [0.002002, 1.0]
    """
    error, gap = np.broadcast_arrays(np.asarray(error, dtype=np.float64), np.asarray(gap, dtype=np.float64))
    room = gap - error
    moved = 2 * np.sqrt(np.asarray(dimension, dtype=np.float64)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 0, np.minimum(moved / room, 1.0), np.where(error > 0, 1.0, 0.0))


def near(shape: Sequence[int], dtype: torch.dtype, norm: float) -> float:
    r"""Return how far apart computed singular values may be that are one: :math:`2 \sqrt{p}\, \varepsilon\, \sigma_1`.

    Rounding errors that do not conspire grow with the root of a sum's length p (Higham and Mary, 2019), so this is what
    equal values are apart, while `svd_error` bounds what they can be apart.

    Args:
        shape: (m, n); p is the larger one.
        dtype: precision of the computation.
        norm: spectral norm of the matrix.
    """
    return 2 * math.sqrt(max(shape)) * torch.finfo(dtype).eps * norm


def clusters(values: ArrayLike, tolerance: float) -> NDArray[np.int64]:
    """Number the clusters of (nearly) equal values, from the largest on: neighbours within the tolerance are together.

    Args:
        values: largest first, shape (k,).
        tolerance: largest distance of neighbours.

    >>> clusters([3.0, 1.0, 1.0, 0.5], 1e-9).tolist()
    [0, 1, 1, 2]
    """
    values = np.asarray(values, dtype=np.float64)
    return np.concatenate([[0], np.cumsum(values[:-1] - values[1:] > tolerance)])[: len(values)].astype(np.int64)


def _outside(values: NDArray[np.float64], starts: NDArray[np.int64], *, square: bool) -> NDArray[np.float64]:
    """Each cluster's distance to the nearest value outside it, and to zero where the matrix is not square."""
    ends = np.concatenate([starts[1:], [len(values)]]) - 1
    apart = values[ends[:-1]] - values[starts[1:]]
    found = np.minimum(np.concatenate([[np.inf], apart]), np.concatenate([apart, [np.inf]]))
    return found if square else np.minimum(found, values[ends])


def best_match(
    vectors: NDArray[np.float64],
    tuned: ArrayLike,
    values: ArrayLike,
    *,
    errors: tuple[NDArray[np.float64] | float, float],
    tolerances: tuple[float, float],
    square: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    r"""Match singular vectors u_j of W0 + dW with those of W0, and bound how far rounding moves each cosine.

    Vectors whose singular values are equal are defined as a subspace alone. So a cosine is that with a cluster of W0's
    (nearly) equal singular values, :math:`\|P_C u_j\|`, the largest over clusters: :math:`\max_i |\cos(u_j, u^0_i)|`
    where all are apart. Where u_j has such company of its own, its cosine may be that of any unit vector of their
    subspace. The directions that W0 sends to zero are no singular vectors of its own: only what W0 + dW sends to zero
    as well is matched with them.

    Each cosine moves by the turn of both sides. Clusters of W0 a little further apart, up to
    :math:`\sqrt{\|E\| \sigma_1}`, may also be turned among each other: the best of d such has a cosine between
    :math:`\|P u_j\| / \sqrt d` and :math:`\|P u_j\|`, so that what is undefined in W0 makes those cosines doubtful that
    lie near it, not all of them, and a group turns by no more than the root of the relative error.

    Args:
        vectors: u_j in W0's basis, shape (p, K).
        tuned: singular values of W0 + dW, as many as are known, largest first; at least K.
        values: singular values of W0, largest first, shape (p,).
        errors: spectral norms of the errors of the SVDs of W0 + dW (one number, or K) and of W0.
        tolerances: distances of neighbouring singular values of W0 + dW and of W0 that count as equal.
        square: whether W0 is square.

    Returns:
        Cosines, indices of the best single vectors, and bounds in [0, 1]; shape (K,) each.
    """
    values, tuned = np.asarray(values, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    count = vectors.shape[1]
    numbers = clusters(values, tolerances[1])
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    sizes = np.diff(np.concatenate([starts, [len(values)]]))
    inner = np.abs(vectors)
    projected = np.sqrt(np.add.reduceat(inner**2, starts, axis=0)) if (sizes > 1).any() else inner
    if values[-1] <= tolerances[1]:
        projected[-1, tuned[:count] > tolerances[0]] = 0.0
    best, at = projected.max(axis=0), projected.argmax(axis=0)
    match = np.array([starts[c] + inner[starts[c] : starts[c] + sizes[c], j].argmax() for j, c in enumerate(at)])

    alone = turn(errors[1], _outside(values, starts, square=square), sizes)[:, None]
    ends = starts + sizes - 1
    split = values[ends[:-1]] - values[starts[1:]] > np.sqrt(errors[1] * values[0])
    groups = np.concatenate([[0], np.flatnonzero(split) + 1])
    members = np.diff(np.concatenate([groups, [len(starts)]]))
    wholes = np.add.reduceat(sizes, groups)
    together = turn(errors[1], _outside(values, starts[groups], square=square), wholes)[:, None]
    joint = np.sqrt(np.add.reduceat(projected**2, groups, axis=0))
    upper = np.minimum(projected + alone, np.repeat(joint + together, members, axis=0)).max(axis=0)
    lower = np.maximum((projected - alone).max(axis=0), (joint / np.sqrt(members)[:, None] - together).max(axis=0))
    own = _own_turn(vectors, tuned, best, starts, errors=errors[0], tolerance=tolerances[0], square=square)
    return best, match, np.clip(np.maximum(upper - best, best - lower) + own, 0.0, 1.0)


def _own_turn(
    vectors: NDArray[np.float64],
    tuned: NDArray[np.float64],
    best: NDArray[np.float64],
    starts: NDArray[np.int64],
    *,
    errors: NDArray[np.float64] | float,
    tolerance: float,
    square: bool,
) -> NDArray[np.float64]:
    """How far a cosine moves because u_j is off, or one of several vectors that share a singular value."""
    count = vectors.shape[1]
    error = np.broadcast_to(errors, (count,))
    own = turn(error, gaps(tuned, square=square)[:count])
    numbers = clusters(tuned, tolerance)
    for number in np.flatnonzero(np.bincount(numbers[:count]) > 1):
        members = np.flatnonzero(numbers == number)
        if members[-1] >= count or (members[-1] == len(tuned) - 1 and len(tuned) < len(vectors)):
            continue  # not all of the subspace is known: the vectors can be anything, as their gap says
        blocks = np.split(vectors[:, members], starts[1:])
        reach = [np.linalg.svd(block, compute_uv=False) for block in blocks]
        highest = max(float(found[0]) for found in reach)
        lowest = max((float(found[-1]) for found in reach if len(found) == len(members)), default=0.0)
        first = np.flatnonzero(np.diff(numbers, prepend=-1))
        outside = _outside(tuned, first, square=square)[number]
        spread = np.maximum(highest - best[members], best[members] - lowest)
        own[members] = np.minimum(spread + turn(error[members], outside, len(members)), 1.0)
    return own


def count_range(values: ArrayLike, threshold: float, uncertainty: ArrayLike) -> tuple[int, int]:
    """Count the values strictly below a threshold, every doubtful one moved to either side.

    Args:
        values: shape (N,); NaN is not below.
        threshold: what they are compared with.
        uncertainty: how far each may be off, one number or shape (N,).

    Returns:
        The least and the largest count.

    Raises:
        ValueError: if an uncertainty is negative or NaN.

    >>> count_range([0.2, 0.5, 0.7], 0.5, 1e-9)
    (1, 2)
    """
    values, uncertainty = np.asarray(values, dtype=np.float64), np.asarray(uncertainty, dtype=np.float64)
    if not (uncertainty >= 0).all():
        raise ValueError(f"uncertainty must not be negative or NaN, got {uncertainty.min()}")
    return int((values + uncertainty < threshold).sum()), int((values - uncertainty < threshold).sum())
