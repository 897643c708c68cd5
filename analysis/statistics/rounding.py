"""What rounding alone can make of numbers that should agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["interval_side", "same"]


_ULPS = 64
"""Units in the last place that a mean, a difference or a ratio of up to as many float64 numbers may be off."""


def interval_side(low: float, high: float, *, scale: float) -> int:
    """Say on which side of zero an interval lies; ends that are zero up to rounding touch it.

    Args:
        low: lower end; NaN lies on no side.
        high: upper end.
        scale: size of the numbers whose differences the ends are.

    Returns:
        1 above zero, -1 below, 0 if it holds zero.

    >>> interval_side(1e-17, 2.0, scale=1.0), interval_side(0.1, 2.0, scale=1.0), interval_side(-2, -1, scale=1.0)
    (0, 1, -1)
    """
    zero = _ULPS * float(np.finfo(np.float64).eps) * scale
    return int(low > zero) - int(high < -zero)


def same(first: ArrayLike, second: ArrayLike) -> NDArray[np.bool_]:
    """Say where two float64 numbers agree but for the rounding of the few operations that made them.

    Args:
        first: any shape.
        second: the same shape.

    >>> bool(same(0.1 + 0.2, 0.3)), bool(same(1.0, 1.0 + 1e-12))
    (True, False)
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    scale = np.maximum(np.abs(first), np.abs(second))
    with np.errstate(invalid="ignore"):
        result: NDArray[np.bool_] = (first == second) | (
            np.abs(first - second) <= _ULPS * np.finfo(np.float64).eps * scale
        )
        return result
