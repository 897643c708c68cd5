"""The methods as data, and the registry that every other module reads: the eleven, and what packages outside add.

Names and constructions follow arXiv:2606.13767, section 2, and the papers named per method. How to add one:
``theory/ADD_A_METHOD.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from theory.arguments import Count, Positive, checked
from theory.checks import check_choice, check_number, check_text
from theory.descriptions import GAUGE_FIXED, LINKS, SUPPORT, Description
from theory.registry import Registry, check_reference

__all__ = [
    "COLUMNS",
    "DENSE",
    "FACTORS",
    "METHODS",
    "Family",
    "Method",
    "families",
    "get_method",
    "method_keys",
    "register_method",
]

Trains = Literal["weight", "both", "b", "none"]
Selector = Literal["none", "gaussian", "window", "random", "circulant", "shuffled"]
_COLUMN_SELECTORS = ("window", "random", "circulant", "shuffled")


@checked
@dataclass(frozen=True, kw_only=True)
class Family:
    """What methods share that change W in one form: how the change is described, and the code that makes it.

    Attributes:
        name: the ``kind`` of the records that ``adapters.describe`` writes of it.
        hooks: the object that trains it, as ``"package.module:object"``: a `adapters.families.Hooks`. It is imported
            when a model is touched, so that theory needs no torch.
        descriptions: the ways to describe one matrix that hold for it; among them ``links``, all that was trained.

    Raises:
        TypeError, ValueError: for a field that makes no sense; the message names it.
    """

    name: str
    hooks: str
    descriptions: tuple[Description, ...]

    def __post_init__(self) -> None:
        check_text("name", self.name)
        if self.name == "head":
            raise ValueError("name of a family must not be 'head', the kind of what is trained outside the adapter")
        check_reference("hooks", self.hooks)
        found = self.descriptions
        if not isinstance(found, tuple) or not all(isinstance(one, Description) for one in found):
            raise TypeError(f"descriptions must be a tuple of Description, got {found!r}")
        names = [one.name for one in found]
        if "links" not in names or len(set(names)) < len(names):
            raise ValueError(f"descriptions must have distinct names, 'links' among them; got {', '.join(names)}")


DENSE = Family(name="dense", hooks="adapters.families:DENSE", descriptions=(LINKS, SUPPORT))
"""Full fine-tuning: W itself is trained."""

FACTORS = Family(name="factors", hooks="adapters.lora:FACTORS", descriptions=(LINKS, SUPPORT, GAUGE_FIXED))
"""A sum of products B A, on PEFT's own LoRA layers."""

COLUMNS = Family(name="columns", hooks="adapters.columns:COLUMNS", descriptions=(LINKS, SUPPORT))
"""Columns of W, on this project's tuner."""


@checked
@dataclass(frozen=True, kw_only=True)
class Method:
    """One adaptation method, as plain data.

    Attributes:
        key: the name used in code and on the command line.
        name: the name used in tables and figures.
        arxiv: arXiv number of the method's source (empty for full fine-tuning).
        trains: ``"weight"`` (the dense matrix), ``"both"`` (A and B), ``"b"`` (B alone), ``"none"`` of these.
        selector: where A comes from: ``"none"`` (no A), ``"gaussian"`` (random and dense),
            ``"window"`` (the first r columns), ``"random"`` (r distinct columns),
            ``"circulant"`` (consecutive windows modulo in_features), ``"shuffled"``
            (the same windows in random order without replacement).
        family: the form of its update, with the descriptions that hold and the code that trains it.
        chained: whether links are merged and the next link starts anew.
        in_place: whether the columns of W themselves are trained (PaCA); the function is cLA's.
        lr_ratio: lr_B / lr_A (16 for LoRA+, 1 otherwise).
        beside: numbers that one link trains in one layer beside the matrices that ``trains`` names, as a function of
            ``out_features``, ``in_features`` and ``rank`` (symbols pass through it too); None for none.

    Raises:
        TypeError, ValueError: for a field outside its range or two that contradict each other; the message names them.

    >>> Method(key="x", name="X", arxiv="", trains="vectors", selector="none", family=FACTORS)
    Traceback (most recent call last):
    ValueError: trains must be one of weight, both, b, none; got 'vectors'
    """

    key: str
    name: str
    arxiv: str
    trains: Trains
    selector: Selector
    family: Family
    chained: bool = False
    in_place: bool = False
    lr_ratio: Positive = 1.0
    beside: Callable[..., int] | None = None

    def __post_init__(self) -> None:
        check_text("key", self.key)
        check_text("name", self.name)
        if not re.fullmatch(r"[a-z0-9][a-z0-9+_.-]*", self.key):
            raise ValueError(f"key must be lower-case letters, digits and +_.-, got {self.key!r}")
        if not isinstance(self.arxiv, str):
            raise TypeError(f"arxiv must be a string, got {type(self.arxiv).__name__}")
        check_choice("trains", self.trains, get_args(Trains))
        check_choice("selector", self.selector, get_args(Selector))
        if not isinstance(self.family, Family):
            raise TypeError(f"family must be a Family, got {type(self.family).__name__}")
        for field in ("chained", "in_place"):
            if not isinstance(getattr(self, field), bool):
                raise TypeError(f"{field} must be True or False, got {getattr(self, field)!r}")
        check_number("lr_ratio", self.lr_ratio, positive=True)
        if self.beside is not None and not callable(self.beside):
            raise TypeError(f"beside must be a function of out_features, in_features and rank, got {self.beside!r}")
        self._check_together()

    def _check_together(self) -> None:
        if (self.trains == "weight") and (self.selector != "none" or self.chained):
            raise ValueError("selector must be 'none' and chained False where trains is 'weight': there is no A")
        if self.trains in ("both", "b") and self.selector == "none":
            raise ValueError(f"selector must say where A comes from where trains is {self.trains!r}, got 'none'")
        if self.trains == "none" and self.beside is None:
            raise ValueError("beside must count what is trained where trains is 'none', got None")
        if self.lr_ratio != 1 and self.trains != "both":
            raise ValueError(f"lr_ratio must be 1 where trains is {self.trains!r}, got {self.lr_ratio}")
        if self.selects_columns != (self.family == COLUMNS):
            raise ValueError(f"selector {self.selector!r} does not go with family {self.family.name!r}")
        if self.in_place and not self.selects_columns:
            raise ValueError("in_place must be False for a method that selects no columns, got True")

    @property
    def selects_columns(self) -> bool:
        """Whether a link changes at most r columns of W."""
        return self.selector in _COLUMN_SELECTORS

    @checked
    def numbers_trained(self, *, out_features: Count, in_features: Count, rank: Count, links: Count = 1) -> int:
        """Numbers trained in one layer over the whole run, as Table 1 of arXiv:2606.13767 counts them.

        Args:
            out_features: rows of W.
            in_features: columns of W.
            rank: r; ignored by full fine-tuning.
            links: chain length k; ignored by unchained methods.

        Returns:
            m n for dense, r (m + n) for both factors, r n for B alone, and what is trained beside; times k for chains.

        >>> METHODS["c3la"].numbers_trained(out_features=4, in_features=8, rank=2, links=3)
        24
        """
        matrices = {
            "weight": out_features * in_features,
            "both": rank * (out_features + in_features),
            "b": rank * out_features,
            "none": 0,
        }
        per_link = matrices[self.trains]
        if self.beside is not None:
            per_link += self.beside(out_features=out_features, in_features=in_features, rank=rank)
        return per_link * (links if self.chained else 1)


def _check_family(newcomer: Method, known: Mapping[str, Method]) -> None:
    """Refuse a second family of one name: a record's kind would mean two things."""
    for method in known.values():
        if method.family.name == newcomer.family.name and method.family != newcomer.family:
            raise ValueError(
                f"family {newcomer.family.name!r} of method {newcomer.key!r} is another than that of {method.key!r}; "
                "use that one, or give it another name"
            )
        if method.name == newcomer.name and method.key != newcomer.key:
            raise ValueError(f"name {newcomer.name!r} of method {newcomer.key!r} is taken by {method.key!r}")


METHODS: Registry[Method] = Registry(
    "method", group="beyond_lora.methods", accepts=Method, name=lambda method: method.key, check=_check_family
)
"""Every method by its key, the paper's eleven first, in its order."""

register_method = METHODS.register

_PAPER = "2606.13767"
for _method in (
    Method(key="fft", name="FFT", arxiv="", trains="weight", selector="none", family=DENSE),
    Method(key="lora", name="LoRA", arxiv="2106.09685", trains="both", selector="gaussian", family=FACTORS),
    Method(
        key="lora+", name="LoRA+", arxiv="2402.12354", trains="both", selector="gaussian", family=FACTORS, lr_ratio=16.0
    ),
    Method(key="asym", name="Asym-LoRA", arxiv="2402.16842", trains="b", selector="gaussian", family=FACTORS),
    Method(
        key="cola", name="CoLA", arxiv="2401.04151", trains="both", selector="gaussian", family=FACTORS, chained=True
    ),
    Method(
        key="rac", name="RAC-LoRA", arxiv="2410.08305", trains="b", selector="gaussian", family=FACTORS, chained=True
    ),
    Method(key="cla", name="cLA", arxiv=_PAPER, trains="b", selector="window", family=COLUMNS),
    Method(key="r-cla", name="r-cLA", arxiv=_PAPER, trains="b", selector="random", family=COLUMNS),
    Method(key="c3la", name="c3LA", arxiv=_PAPER, trains="b", selector="circulant", family=COLUMNS, chained=True),
    Method(key="r-c3la", name="r-c3LA", arxiv=_PAPER, trains="b", selector="shuffled", family=COLUMNS, chained=True),
    Method(key="paca", name="PaCA", arxiv="2503.01905", trains="b", selector="random", family=COLUMNS, in_place=True),
):
    register_method(_method)


def method_keys() -> tuple[str, ...]:
    """Return the keys of all methods, the paper's eleven first, in its order."""
    return tuple(METHODS)


@checked
def get_method(method: str) -> Method:
    """Look a method up by its key.

    Raises:
        TypeError: if ``method`` is not a string.
        ValueError: if no method has that key; the message lists the keys.

    >>> get_method("cla").name
    'cLA'
    """
    return METHODS.get_named(method)


def families() -> dict[str, Family]:
    """Return the families of all methods by name.

    >>> list(families())[:3]
    ['dense', 'factors', 'columns']
    """
    return {method.family.name: method.family for method in METHODS.values()}
