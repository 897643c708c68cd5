"""What every public function takes, said in its signature and checked before any work: one mechanism for all of them.

    @checked
    def direct(bits: NonNegative, *, num_examples: Count, sigma: Positive = 0.5) -> Bound: ...

``checked`` reads the annotations once, when the function is first called, and from then on looks at every argument that
comes: a number, an array of numbers, a choice, an instance. What does not fit is refused in one line that names the
argument, what came and what is accepted. A kind below says more than a type: its range, and whether NaN or infinity
make sense. Checked numbers arrive as ``int`` and ``float``, checked arrays as float64. Plain annotations are taken at
their word too: ``int`` refuses 2.0 and True, ``float`` NaN and infinity, ``ArrayLike`` whatever is not finite.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.array_checks import check_matrix
from theory.checks import as_floats, check_choice, check_integer, check_number, check_probability, shown

__all__ = ["Integer", "Integers", "Number", "Numbers", "OpenUnit", "OpenUnits", "Table", "check_of", "checked"]

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Integer:
    """An integer; booleans and whole floats are none."""

    minimum: int = 1
    maximum: int | None = None

    def __call__(self, name: str, value: object) -> int:
        """Return it, or raise."""
        return check_integer(name, value, minimum=self.minimum, maximum=self.maximum)


@dataclass(frozen=True)
class Number:
    """One real number that is not NaN; at least 0 and finite unless it says otherwise."""

    positive: bool = False
    finite: bool = True
    minimum: float = 0.0
    maximum: float = float("inf")

    def __call__(self, name: str, value: object) -> float:
        """Return it as a float, or raise."""
        return check_number(
            name, value, positive=self.positive, finite=self.finite, minimum=self.minimum, maximum=self.maximum
        )


@dataclass(frozen=True)
class OpenUnit:
    """One number strictly between 0 and 1."""

    def __call__(self, name: str, value: object) -> float:
        """Return it as a float, or raise."""
        return check_probability(name, value)


@dataclass(frozen=True)
class OpenUnits:
    """Numbers of any shape strictly between 0 and 1."""

    def __call__(self, name: str, value: object) -> NDArray[np.float64]:
        """Return them as float64, or raise."""
        array = as_floats(name, value)
        fits = (array > 0) & (array < 1)
        if array.size == 0 or not fits.all():
            wrong = array[~fits].flat[0] if array.size else "none"
            raise ValueError(f"{name} must lie strictly between 0 and 1, got {wrong}")
        return array


@dataclass(frozen=True)
class Numbers:
    """Real numbers of any shape, one alone included, each in the range of a ``Number``; not empty.

    Where they end at 1, an array of booleans is one of zeros and ones: an error is a 0-1 loss.
    """

    positive: bool = False
    finite: bool = True
    minimum: float = 0.0
    maximum: float = float("inf")

    def __call__(self, name: str, value: object) -> NDArray[np.float64]:
        """Return them as float64, or raise."""
        errors = self.maximum == 1 and isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype == np.bool_
        array = as_floats(name, value.astype(np.float64) if errors else value)  # type: ignore[attr-defined]
        if array.size == 0:
            raise ValueError(f"{name} must hold at least one number, got an array of shape {array.shape}")
        fits = (array >= self.minimum) & (array <= self.maximum)
        if self.positive:
            fits &= array > 0
        if self.finite:
            fits &= np.isfinite(array)
        if not fits.all():
            wrong = array[~fits].flat[0]
            place = f" at position {int(np.flatnonzero(~fits)[0])}" if array.ndim == 1 else ""
            if not np.isinf(self.maximum):
                accepted = f"lie in [{self.minimum:g}, {self.maximum:g}]; rescale by the range first"
            else:
                low = "above 0" if self.positive else "" if np.isinf(self.minimum) else f"of at least {self.minimum:g}"
                accepted = " ".join(part for part in ("hold", "finite" * self.finite, "numbers", low) if part)
            raise ValueError(f"{name} must {accepted}, got {wrong}{place}")
        return array


@dataclass(frozen=True)
class Integers:
    """Integers of any shape, not empty unless it says so; no whole floats, booleans only where they are asked for."""

    minimum: int = 0
    maximum: int | None = None
    booleans: bool = False
    empty: bool = False

    def __call__(self, name: str, value: object) -> NDArray[Any]:
        """Return them as an array of integers (or booleans), or raise."""
        array = np.asarray(value) if isinstance(value, np.ndarray) and self.booleans else None
        if array is None or array.dtype.kind != "b":
            as_floats(name, value)
            array = np.asarray(value)
        if array.size == 0 and self.empty:
            return array.astype(np.int64)
        if array.size == 0:
            raise ValueError(f"{name} must hold at least one integer, got an array of shape {array.shape}")
        accepted = f"integers of at least {self.minimum}" + (
            "" if self.maximum is None else f", at most {self.maximum}"
        )
        if array.dtype.kind not in "iub":
            raise TypeError(f"{name} must hold {accepted}, got numbers of {array.dtype}")
        least, most = int(array.min()), int(array.max())
        if least < self.minimum or (self.maximum is not None and most > self.maximum):
            raise ValueError(f"{name} must hold {accepted}, got values from {least} to {most}")
        return array


@dataclass(frozen=True)
class Table:
    """Finite numbers of one given number of dimensions, none of them empty."""

    dimensions: int

    def __call__(self, name: str, value: object) -> NDArray[np.float64]:
        """Return them as float64, or raise."""
        return check_matrix(name, typing.cast(ArrayLike, value), shape=(None,) * self.dimensions)


Count = Annotated[int, Integer(1)]
Whole = Annotated[int, Integer(0)]
Several = Annotated[int, Integer(2)]
Positive = Annotated[float, Number(positive=True)]
NonNegative = Annotated[float, Number()]
Extended = Annotated[float, Number(finite=False)]
Fraction = Annotated[float, Number(maximum=1.0)]
Real = Annotated[float, Number(minimum=-float("inf"))]
LogNumber = Annotated[float, Number(minimum=-float("inf"), finite=False)]
Range = Annotated[float, Number(positive=True, finite=False)]
Probability = Annotated[float, OpenUnit()]
NonNegatives = Annotated[ArrayLike, Numbers()]
Extendeds = Annotated[ArrayLike, Numbers(finite=False)]
Positives = Annotated[ArrayLike, Numbers(positive=True)]
Fractions = Annotated[ArrayLike, Numbers(maximum=1.0)]
Probabilities = Annotated[ArrayLike, OpenUnits()]
Reals = Annotated[ArrayLike, Numbers(minimum=-float("inf"))]
Matrix = Annotated[ArrayLike, Table(2)]


def checked(function: F) -> F:
    """Check every argument of a function, or of a class's constructor, by its annotation; see the module's head.

    Defaults are taken as they stand. What Python itself refuses (an argument that is missing or unknown) it refuses.

    Raises:
        TypeError: when called, if an argument is of the wrong type; the message names it.
        ValueError: when called, if it is out of its range; the message names it.

    >>> @checked
    ... def root(value: NonNegative) -> float:
    ...     return value**0.5
    >>> root(4)
    2.0
    >>> root(float("nan"))
    Traceback (most recent call last):
    ValueError: value must be a finite number of at least 0, got nan
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    parameters = inspect.signature(function).parameters.values()
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    rest = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), "")
    plan: dict[str, Check] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not plan:
            plan.update(_plan(function))
        if args:
            places = (*names, *[rest] * (len(args) - len(names)))
            args = tuple(
                plan[name](name, value) if name in plan else value for name, value in zip(places, args, strict=False)
            )
        for name, value in kwargs.items():
            if name in plan:
                kwargs[name] = plan[name](name, value)
        return function(*args, **kwargs)

    return typing.cast(F, call)


def _plan(function: Callable[..., Any]) -> dict[str, Check]:
    hints = typing.get_type_hints(function, include_extras=True)
    spread = {one.name for one in inspect.signature(function).parameters.values() if one.kind is one.VAR_KEYWORD}
    found = {name: check_of(hint) for name, hint in hints.items() if name not in spread | {"return"}}
    return {name: check for name, check in found.items() if check is not None} or {"": _anything}


def _anything(name: str, value: Any) -> Any:
    return value


_PLAIN: dict[Any, Check] = {
    int: Integer(-(2**63)),
    float: Number(minimum=-float("inf")),
    ArrayLike: Numbers(minimum=-float("inf")),
}


def check_of(hint: object) -> Check | None:
    """Return the check that an annotation asks for; None where anything is accepted."""
    if hint in (Any, object) or isinstance(hint, TypeVar):
        return None
    if get_origin(hint) is Annotated:
        kinds = [one for one in get_args(hint)[1:] if callable(one)]
        return typing.cast(Check, kinds[0]) if kinds else check_of(get_args(hint)[0])
    if typing.is_typeddict(hint):
        return functools.partial(_mapping, None)
    try:
        if hint in _PLAIN:
            return _PLAIN[hint]
    except TypeError:  # an annotation that cannot be hashed holds no plain type
        pass
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return functools.partial(_choice, inside)
    if origin in (Union, types.UnionType):
        return functools.partial(_either, hint, tuple((one, check_of(one)) for one in inside))
    if origin is tuple and inside[-1] is not Ellipsis:
        return functools.partial(_each_of, tuple(map(check_of, inside)))
    if origin in (tuple, list) or origin in _ITERABLES:
        return functools.partial(_several, origin, check_of(inside[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return functools.partial(_mapping, check_of(inside[1]))
    if origin in (Callable, typing.get_origin(Callable[[], None])):
        return _callable
    return functools.partial(_instance, origin or hint)


_ITERABLES = (Sequence, Iterable, *(get_origin(one) for one in (typing.Collection[int], typing.Iterator[int])))


def _choice(accepted: tuple[str, ...], name: str, value: Any) -> Any:
    return check_choice(name, value, accepted)


def _callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {shown(value)} of type {type(value).__name__}")
    return value


_WORDS: dict[Any, str] = {str: "a string", bytes: "bytes"}


def _instance(accepted: Any, name: str, value: Any) -> Any:
    if accepted is bool and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)} of type {type(value).__name__}")
    if isinstance(accepted, type) and not getattr(accepted, "_is_protocol", False) and not isinstance(value, accepted):
        raise TypeError(
            f"{name} must be {_WORDS.get(accepted, f'a {accepted.__name__}')}, got {shown(value)} "
            f"of type {type(value).__name__}"
        )
    if accepted is int or not isinstance(value, bool) or accepted is bool:
        return value
    raise TypeError(f"{name} must be a {accepted.__name__}, got {value!r}")


def _several(kind: Any, check: Check | None, name: str, value: Any) -> Any:
    listed = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    if not listed or (kind is not Iterable and not hasattr(value, "__len__")) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a list, got {shown(value)} of type {type(value).__name__}")
    items = tuple(value)
    return items if check is None else tuple(check(f"{name}[{place}]", one) for place, one in enumerate(items))


def _each_of(checks: tuple[Check | None, ...], name: str, value: Any) -> Any:
    if not isinstance(value, (tuple, list)) or len(value) != len(checks):
        raise TypeError(f"{name} must hold {len(checks)} entries, got {shown(value)}")
    pairs = enumerate(zip(checks, value, strict=True))
    return tuple(one if check is None else check(f"{name}[{place}]", one) for place, (check, one) in pairs)


def _mapping(check: Check | None, name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, got {shown(value)} of type {type(value).__name__}")
    return value if check is None else {key: check(f"{name}[{key!r}]", one) for key, one in value.items()}


def _either(hint: Any, ways: tuple[tuple[Any, Check | None], ...], name: str, value: Any) -> Any:
    if value is None and any(one is type(None) for one, _ in ways):
        return None
    refused: list[Exception] = []
    for one, check in ways:
        if one is type(None):
            continue
        if check is None:
            return value
        try:
            return check(name, value)
        except (TypeError, ValueError) as error:
            refused.append(error)
    if len(refused) == 1:
        raise refused[0]
    told = [error for error in refused if isinstance(error, ValueError)] or refused
    raise type(told[0])("; or ".join(dict.fromkeys(str(error) for error in told)))
