"""Checks of arguments: each raises one line that names the argument, what came and what is accepted."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "as_floats",
    "check_choice",
    "check_integer",
    "check_norms",
    "check_number",
    "check_probability",
    "check_text",
    "shown",
]

LARGEST_INTEGER = 2**63 - 1
"""What an array of integers holds, and what still divides a float."""


def check_integer(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` as an int between ``minimum`` and ``maximum``, both included; 2^63 - 1 is always the largest.

    Raises:
        TypeError: if it is no integer (booleans are none).
        ValueError: if it is out of range.

    >>> check_integer("rank", 16)
    16
    >>> check_integer("rank", 0)
    Traceback (most recent call last):
    ValueError: rank must be an integer of at least 1, got 0
    """
    if type(value) is int and minimum <= value <= (LARGEST_INTEGER if maximum is None else maximum) <= LARGEST_INTEGER:
        return value
    accepted = f"an integer of at least {minimum}" + (f" and at most {maximum}" if maximum is not None else "")
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name} must be {accepted}, got {shown(value)} of type {type(value).__name__}") from None
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {accepted}, got {shown(number)}")
    if number > LARGEST_INTEGER:
        raise ValueError(f"{name} must be {accepted}, below 2^63, got {shown(number)}")
    return number


def check_number(
    name: str,
    value: object,
    *,
    positive: bool = False,
    finite: bool = True,
    minimum: float = 0.0,
    maximum: float = math.inf,
) -> float:
    """Return ``value`` as a float that is not NaN and lies between ``minimum`` and ``maximum``, both included.

    Args:
        name: the argument's name, for the message.
        value: what came.
        positive: whether zero is refused too.
        finite: whether infinity is refused too.
        minimum: 0 unless said otherwise; minus infinity takes any sign.
        maximum: none unless given.

    Raises:
        TypeError: if it is no real number (booleans, strings and arrays are none).
        ValueError: if it is out of range.

    >>> check_number("sigma", -1.0, positive=True)
    Traceback (most recent call last):
    ValueError: sigma must be a finite number above 0, got -1.0
    """
    if type(value) is float and minimum <= value <= maximum and (value > 0 or not positive) and not math.isinf(value):
        return value
    low = "above 0" if positive else "" if math.isinf(minimum) else f"of at least {minimum:g}"
    accepted = " ".join(part for part in ("a finite number" if finite else "a number", low) if part)
    if not math.isinf(maximum):
        accepted = f"a number in [{minimum:g}, {maximum:g}]"
    number = _real(name, value, accepted)
    if math.isnan(number) or not minimum <= number <= maximum or (positive and number <= 0):
        raise ValueError(f"{name} must be {accepted}, got {number}")
    if finite and math.isinf(number):
        raise ValueError(f"{name} must be {accepted}, got {number}")
    return number


def _real(name: str, value: object, accepted: str) -> float:
    if type(value) is float:
        return value
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(cast(ArrayLike, value)):
            raise TypeError
        return float(cast(SupportsFloat, value))
    except OverflowError:
        raise ValueError(f"{name} must be {accepted}, got {shown(value)}, which no float holds") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {accepted}, got {shown(value)} of type {type(value).__name__}") from None


def check_probability(name: str, value: object) -> float:
    """Return ``value`` as a float strictly between 0 and 1.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is not strictly between 0 and 1.

    >>> check_probability("delta", 1.0)
    Traceback (most recent call last):
    ValueError: delta must lie strictly between 0 and 1, got 1.0
    """
    number = _real(name, value, "a number strictly between 0 and 1")
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
    array = as_floats(name, values)
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
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}; got {shown(value)}")
    return value


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


def as_floats(name: str, values: object) -> NDArray[np.float64]:
    """Return real numbers as a float64 array; what may be NaN or out of range is the caller's question.

    Raises:
        TypeError: if they are no real numbers (booleans, strings and complex numbers are none), or ragged.
        ValueError: if one is too large for a float.

    >>> as_floats("bits", [8, True])
    Traceback (most recent call last):
    TypeError: bits must hold numbers, got a bool among them
    """
    if isinstance(values, (list, tuple)) and _mixed_with_booleans(values):
        raise TypeError(f"{name} must hold numbers, got a bool among them")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O" and not any(isinstance(one, (bool, str, bytes, type(None))) for one in array.flat):
            array = array.astype(np.float64)
    except OverflowError:
        raise ValueError(f"{name} must hold numbers that a float holds, got {shown(values)}") from None
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must hold numbers, got a {type(values).__name__} that is not numeric") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold numbers, got a {type(values).__name__} of {array.dtype}, not numeric")
    return array.astype(np.float64, copy=False)


def _mixed_with_booleans(values: Sequence[object]) -> bool:
    return any(
        isinstance(one, (bool, np.bool_)) or (isinstance(one, (list, tuple)) and _mixed_with_booleans(one))
        for one in values
    )


def shown(value: object) -> str:
    """Return a value as a message shows it: its repr, cut where it is long.

    >>> shown(10**400)[:20]
    'an integer of 1329 b'
    """
    if isinstance(value, int) and abs(value) > 10**30:
        return f"an integer of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
