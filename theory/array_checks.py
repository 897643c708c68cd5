"""Checks of arrays, beside ``theory.checks``: shape, emptiness, NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.checks import as_floats

__all__ = ["check_matrix"]


def check_matrix(name: str, value: ArrayLike, *, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Return ``value`` as a finite float64 array of the given shape; None in ``shape`` is any length above zero.

    Raises:
        TypeError: if it is not numeric.
        ValueError: if the shape does not fit, or an entry is NaN or infinite.

    >>> check_matrix("design", [[1.0, float("nan")]], shape=(None, 2))
    Traceback (most recent call last):
    ValueError: design must be finite, got 1 entries that are NaN or infinite
    """
    wanted = " x ".join("any" if length is None else str(length) for length in shape)
    array = as_floats(name, value)
    fits = array.ndim == len(shape) and all(w in (None, got) for w, got in zip(shape, array.shape, strict=True))
    if not fits or array.size == 0:
        raise ValueError(f"{name} must be an array of shape {wanted}, not empty, got shape {array.shape}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} entries that are NaN or infinite")
    return array
