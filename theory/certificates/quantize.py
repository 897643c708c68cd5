"""Quantised numbers: uniform and learned levels, and LoRA factors with their gauge fixed."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from theory.arguments import Count, Integer, Matrix, Reals, Several, checked
from theory.checks import check_choice, check_integer

__all__ = ["STEP_CODES", "Gauge", "Quantizer", "fit_levels", "fix_gauge", "nearest", "uniform_levels"]

Quantizer = Literal["uniform", "learned"]
STEP_CODES = 64
StepCode = Annotated[int, Integer(0, STEP_CODES - 1)]


@checked
def uniform_levels(num_levels: Several, *, step_code: StepCode) -> NDArray[np.float64]:
    """Return equally spaced levels around zero with the step 2^((step_code - 48) / 4).

    Six bits span steps from 2^-12 to 13 in ratios of 19 percent. An odd number of levels includes zero.

    Raises:
        ValueError: if there are fewer than 2 levels or the code is not in [0, 64).

    >>> uniform_levels(3, step_code=48)
    array([-1.,  0.,  1.])
    """
    num_levels = check_integer("num_levels", num_levels, minimum=2)
    step_code = check_integer("step_code", step_code, minimum=0, maximum=STEP_CODES - 1)
    result: NDArray[np.float64] = (np.arange(num_levels) - (num_levels - 1) / 2) * 2.0 ** ((step_code - 48) / 4)
    return result


@checked
def nearest(values: Reals, levels: Reals) -> NDArray[np.int64]:
    """Return the index of the nearest level for each value; ``levels`` ascend. Ties go up.

    >>> nearest([-3.0, 0.4, 0.6], [-1.0, 0.0, 1.0]).tolist()
    [0, 1, 2]
    """
    levels = np.asarray(levels, dtype=np.float64)
    if levels.ndim != 1 or levels.size < 2 or not (np.diff(levels) >= 0).all():
        raise ValueError("levels must ascend and be at least 2")
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, np.asarray(values, np.float64), side="right")


@checked
def fit_levels(
    values: Reals, num_levels: Several, *, quantizer: Quantizer = "uniform", iterations: Count = 50
) -> tuple[NDArray[np.float64], int | None]:
    """Choose the levels that lose least, in squared error, among those that the code can write.

    Uniform levels: the best of the 64 steps. Learned levels: Lloyd's iterations (Lloyd 1982; each step
    cannot raise the error) from quantiles, then rounded to 16-bit floats.

    Args:
        values: the numbers to quantise, any shape, finite, not empty.
        num_levels: L.
        quantizer: ``"uniform"`` or ``"learned"``.
        iterations: Lloyd's iterations.

    Returns:
        The levels, ascending, and the step's code (None for learned levels).

    Raises:
        ValueError: if a value is not finite or there is none.

    >>> fit_levels([-1.0, 0.0, 1.0, 1.0], 3)[0]
    array([-1.,  0.,  1.])
    """
    check_choice("quantizer", quantizer, ("uniform", "learned"))
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("values must be finite and not empty")
    if quantizer == "uniform":
        tables = [uniform_levels(num_levels, step_code=code) for code in range(STEP_CODES)]
        errors = [np.square(array - table[nearest(array, table)]).sum() for table in tables]
        best = int(np.argmin(errors))
        return tables[best], best
    num_levels = check_integer("num_levels", num_levels, minimum=2)
    levels = np.quantile(array, (np.arange(num_levels) + 0.5) / num_levels)
    for _ in range(iterations):
        symbols = nearest(array, levels)
        counts = np.bincount(symbols, minlength=num_levels)
        sums = np.bincount(symbols, weights=array, minlength=num_levels)
        levels = np.sort(np.where(counts > 0, sums / np.maximum(counts, 1), levels))
    return np.asarray(levels, dtype=np.float16).astype(np.float64), None


class Gauge(NamedTuple):
    """LoRA factors with their gauge fixed: ``left @ right`` is the update, ``right[:, pivots]`` the identity.

    Attributes:
        left: out x r, the update's own pivot columns.
        right: r x in.
        pivots: r column indices, ascending.
    """

    left: NDArray[np.float64]
    right: NDArray[np.float64]
    pivots: NDArray[np.int64]


@checked
def fix_gauge(left: Matrix, right: Matrix) -> Gauge:
    r"""Write dW = B A with A the identity on r pivot columns, so that no number is stored twice.

    B A = (B M)(M^{-1} A) for every invertible M: r^2 of the r(m+n) numbers carry nothing. With
    M = A[:, pivots], the factors are dW's pivot columns and coefficients of the other columns:
    r(m+n-r) numbers and a subset, log2 C(m, r) bits. Pivots come from QR with column pivoting, which
    keeps the coefficients small.

    Args:
        left: B, out x r.
        right: A, r x in with r <= in, of full rank.

    Raises:
        ValueError: if the shapes do not fit or A has not full rank.

    >>> gauge = fix_gauge([[1.0], [2.0]], [[2.0, 4.0]])
    >>> gauge.left.ravel().tolist(), gauge.right.ravel().tolist(), gauge.pivots.tolist()
    ([4.0, 8.0], [0.5, 1.0], [1])
    """
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0] or right.shape[0] > right.shape[1]:
        raise ValueError(f"left and right must be (out, r) and (r, in), r <= in; got {left.shape} and {right.shape}")
    rank = right.shape[0]
    _, triangle, order = qr(right, mode="economic", pivoting=True)
    if not abs(triangle[-1, -1]) > 1e-12 * abs(triangle[0, 0]):
        raise ValueError("right must have full rank: give the factors of a smaller rank")
    pivots = np.sort(order[:rank])
    block = right[:, pivots]
    fixed = np.linalg.solve(block, right)
    fixed[:, pivots] = np.eye(rank)
    return Gauge(left @ block, fixed, pivots)
