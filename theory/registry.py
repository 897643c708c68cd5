"""What others add: a registry is a mapping from names to things that say about themselves all that is asked of them.

A package outside the tree adds to a registry through an entry point of its group, which names the thing itself::

    [project.entry-points."beyond_lora.methods"]
    dora = "my_package:DORA"

Entry points are read when somebody first looks into the registry, so importing costs nothing. One that cannot be
loaded, or that is refused, is warned of by name and left out: it must not take the rest down.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

__all__ = ["Registry", "check_reference", "resolve"]

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to registered things, in the order in which they came; the shipped ones first.

    Args:
        kind: what it holds, for messages: ``"method"``.
        group: the entry points' group: ``"beyond_lora.methods"``.
        accepts: the class of what it holds.
        name: the name of a thing, under which it is found.
        check: called with a newcomer and what is there already; raises ValueError where they do not go together.

    >>> numbers = Registry("number", group="no.such.group", accepts=int, name=str)
    >>> numbers.register(7)
    7
    >>> dict(numbers)
    {'7': 7}
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str,
        accepts: type[T],
        name: Callable[[T], str],
        check: Callable[[T, Mapping[str, T]], None] | None = None,
    ):
        self.kind, self.group = kind, group
        self._accepts, self._name, self._check = accepts, name, check
        self._found: dict[str, T] = {}
        self._waiting = True
        self._lock = threading.RLock()

    def register(self, item: T) -> T:
        """Add one thing and return it, so that it can be used as a decorator of what makes one.

        Raises:
            TypeError: if it is not of the registry's class.
            ValueError: if its name is taken by another, or it does not go together with what is there.
        """
        if not isinstance(item, self._accepts):
            raise TypeError(f"{self.kind} must be a {self._accepts.__name__}, got {type(item).__name__}")
        name = self._name(item)
        if name in self._found and self._found[name] != item:
            raise ValueError(f"{self.kind} {name!r} is registered already; give the new one another name")
        if self._check is not None:
            self._check(item, self._found)
        self._found[name] = item
        return item

    def get_named(self, name: str) -> T:
        """Look one up by its name.

        Raises:
            TypeError: if the name is not a string.
            ValueError: if nothing has that name; the message lists the names.
        """
        if not isinstance(name, str):
            raise TypeError(f"{self.kind} must be a string, got {type(name).__name__}; accepted: {', '.join(self)}")
        if name not in self:
            raise ValueError(f"unknown {self.kind} {name!r}; accepted: {', '.join(self)}")
        return self[name]

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> ItemsView[str, T]:
        """Return the names and things: one look into the registry, where ``Mapping`` takes one a name."""
        return self._all().items()

    def values(self) -> ValuesView[T]:
        """Return the things, as ``items`` does."""
        return self._all().values()

    def _all(self) -> dict[str, T]:
        with self._lock:
            if self._waiting:
                self._waiting = False  # what an entry point's module looks up while it is imported must not start anew
                for point in entry_points(group=self.group):
                    self._load(point)
        return self._found

    def _load(self, point: EntryPoint) -> None:
        try:
            self.register(point.load())
        except Exception as error:  # whatever a package outside does wrong when it is imported
            package = "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
            warnings.warn(
                f"entry point {point.name!r} = {point.value!r} of {self.group!r} ({package}) is left out: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=4,
            )


def check_reference(name: str, value: object) -> str:
    """Return ``value`` if it names an object as entry points do, ``"package.module:object"``.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is not of that form.

    >>> check_reference("reader", "my_package.readers:read")
    'my_package.readers:read'
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string 'package.module:object', got {type(value).__name__}")
    module, colon, attribute = value.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise ValueError(f"{name} must be of the form 'package.module:object', got {value!r}")
    return value


def resolve(reference: str) -> object:
    """Import what a reference names.

    Raises:
        ImportError, AttributeError: if there is no such module or object in it.

    >>> resolve("math:pi")
    3.141592653589793
    """
    return EntryPoint(name=reference, value=reference, group="").load()
