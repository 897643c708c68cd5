"""Checks of arguments: each raises one line that names the argument, what came and what is accepted."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_choice", "check_integer", "check_norms", "check_number", "check_probability", "check_text"]


def check_integer(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` as an int between ``minimum`` and ``maximum``, both included.

    Raises:
        TypeError: if it is no integer (booleans are none).
        ValueError: if it is out of range.

    >>> check_integer("rank", 16)
    16
    >>> check_integer("rank", 0)
    Traceback (most recent call last):
    ValueError: rank must be an integer of at least 1, got 0
    """
    accepted = f"an integer of at least {minimum}" + (f" and at most {maximum}" if maximum is not None else "")
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name} must be {accepted}, got {value!r} of type {type(value).__name__}") from None
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {accepted}, got {number}")
    return number


def check_number(name: str, value: object, *, positive: bool = False, finite: bool = True) -> float:
    """Return ``value`` as a float that is not NaN and not negative.

    Args:
        name: the argument's name, for the message.
        value: what came.
        positive: whether zero is refused too.
        finite: whether infinity is refused too.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is out of range.

    >>> check_number("sigma", -1.0, positive=True)
    Traceback (most recent call last):
    ValueError: sigma must be a finite number above 0, got -1.0
    """
    accepted = ("a finite number " if finite else "a number ") + ("above 0" if positive else "of at least 0")
    try:
        if isinstance(value, (bool, np.bool_, str)):
            raise TypeError
        number = float(cast(SupportsFloat, value))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {accepted}, got {value!r} of type {type(value).__name__}") from None
    if math.isnan(number) or number < 0 or (positive and number == 0) or (finite and math.isinf(number)):
        raise ValueError(f"{name} must be {accepted}, got {number}")
    return number


def check_probability(name: str, value: object) -> float:
    """Return ``value`` as a float strictly between 0 and 1.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is not strictly between 0 and 1.

    >>> check_probability("delta", 1.0)
    Traceback (most recent call last):
    ValueError: delta must lie strictly between 0 and 1, got 1.0
    """
    number = check_number(name, value, finite=False)
    if not 0 < number < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {number}")
    return number


def check_norms(name: str, values: ArrayLike, *, length: int | None = None) -> NDArray[np.float64]:
    """Return one finite nonnegative number per layer as a float64 array; a single number stands for all layers.

    Args:
        name: the argument's name, for the message.
        values: one number per layer, or one for all.
        length: number of layers; at least one by default.

    Raises:
        TypeError: if the values are no real numbers.
        ValueError: if one is NaN, infinite or negative, or their number does not fit.

    >>> check_norms("base_norms", [1.0, float("nan")])
    Traceback (most recent call last):
    ValueError: base_norms must hold finite numbers of at least 0, got nan at position 1
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(values).__name__
        raise TypeError(f"{name} must hold finite numbers of at least 0, got a {kind} that is not numeric") from None
    if array.ndim == 0 and length is not None:
        array = np.full(length, float(array))
    if array.ndim != 1 or array.size == 0 or (length is not None and array.size != length):
        accepted = f"{length} numbers, one per layer" if length is not None else "one number per layer, at least one"
        raise ValueError(f"{name} must hold {accepted}, got an array of shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array) | (array < 0))
    if bad.size:
        position = int(bad[0])
        raise ValueError(f"{name} must hold finite numbers of at least 0, got {array[position]} at position {position}")
    return array


def check_choice(name: str, value: object, accepted: Sequence[str]) -> str:
    """Return ``value`` if it is one of the accepted words.

    Raises:
        ValueError: if it is not.
    """
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}; got {value!r}")
    return str(value)


def check_text(name: str, value: object) -> str:
    """Return ``value`` if it is a string that says something.

    Raises:
        TypeError: if it is no string.
        ValueError: if it is empty or blank.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty, got {value!r}")
    return value
