"""Plain records: what a training run really changed, and what a bound says.

``adapters.describe`` writes them, ``theory.bounds.from_update`` reads them; JSON can hold them.
A bound must go by what was trained, never by the method's name (arXiv:2606.13767's public code
runs methods that differ from the ones it names).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict, get_args

import pandas as pd

from theory.arguments import LogNumber, checked
from theory.checks import check_choice, check_number, check_probability

__all__ = ["Bound", "Quantity", "UpdateRecord", "bounds_frame", "exp_or_inf"]

Quantity = Literal["gap", "risk"]
"""What a bound bounds: the generalization error (population minus empirical risk), or the population risk itself."""


class UpdateRecord(TypedDict):
    """One trained matrix. Norms are spectral norms (largest singular values), float64.

    Keys:
        name: dotted module name in the base model.
        kind: the name of its family in ``theory.methods``: ``"dense"`` (the whole matrix), ``"factors"`` (sum of
            B A), ``"columns"`` (columns of W), or another that was added; or ``"head"`` (a newly initialised or fully
            trained module outside the adapted layers, biases and norms included; counted as bits, ``out_features`` x
            ``in_features`` may be n x 1).
        out_features, in_features: shape of W (rows, columns).
        rank: rank of one link; None for dense and head.
        links: number of links trained, at least 1.
        numbers_trained: numbers trained over all links.
        a_trained: whether A was trained too.
        support: distinct columns of W that can be nonzero in dW, sorted; None when dense.
        bits: bits per stored number (for example 32 for float32).
        side_information_bits: bits of data-dependent choices (0 where the selector ignores the data).
        norm_update: |dW|_2.
        norm_base: |W0|_2.
        norm_merged: |W0 + dW|_2.
        seed: seed of the selector or of A; None where there is none.
    """

    name: str
    kind: str
    out_features: int
    in_features: int
    rank: int | None
    links: int
    numbers_trained: int
    a_trained: bool
    support: list[int] | None
    bits: int
    side_information_bits: float
    norm_update: float
    norm_base: float
    norm_merged: float
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What one bound says, with everything that must be said with its number.

    Give ``value`` or ``log_value``; the other follows. ``value`` is infinite where it exceeds float64,
    ``log_value`` is then still finite.

    Attributes:
        name: short name, unique within a table.
        value: the bound, in ``unit``.
        log_value: its natural logarithm.
        kind: ``"expectation"`` (over the sample and the training's randomness) or ``"high-probability"``.
        source: theorem and arXiv number.
        of: ``"gap"`` (population minus empirical risk) or ``"risk"`` (the population risk itself).
        assumptions: what must hold, one sentence each.
        loss_range: length of the loss's interval; infinite for an unbounded loss.
        unit: ``"loss"`` for a generalization error, else for example ``"nats"``.
        confidence: 1 - delta of a high-probability bound; None in expectation.
        measured: names of the inputs that were measured on data; the rest is known a priori.
        bits: description length that entered, in bits; None where there is none.
        vacuous: whether the value reaches the loss's range (or is infinite), so that it says nothing.

    Raises:
        ValueError: if neither value is given, a number is NaN or negative, or kind and confidence disagree.

    >>> bound = Bound(name="direct", value=21.1, kind="expectation", source="arXiv:1705.07809")
    >>> bound.vacuous, round(bound.log_value, 3)
    (True, 3.049)
    """

    name: str
    kind: Literal["expectation", "high-probability"]
    source: str
    value: float = math.nan
    log_value: float = math.nan
    of: Quantity = "gap"
    assumptions: tuple[str, ...] = ()
    loss_range: float = 1.0
    unit: str = "loss"
    confidence: float | None = None
    measured: tuple[str, ...] = ()
    bits: float | None = None
    vacuous: bool = field(init=False)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("expectation", "high-probability"))
        check_choice("of", self.of, get_args(Quantity))
        check_number("loss_range", self.loss_range, positive=True, finite=False)
        if (self.kind == "expectation") != (self.confidence is None):
            raise ValueError(f"confidence must be given for a high-probability bound alone, got {self.confidence}")
        if self.confidence is not None:
            check_probability("confidence", self.confidence)
        if math.isnan(self.log_value):
            value = check_number("value", self.value, finite=False)
            object.__setattr__(self, "log_value", math.log(value) if value > 0 else -math.inf)
        elif math.isnan(self.value):
            object.__setattr__(self, "value", exp_or_inf(self.log_value))
        vacuous = self.unit == "loss" and (self.value >= self.loss_range or math.isinf(self.value))
        object.__setattr__(self, "vacuous", vacuous)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a plain dictionary that JSON can hold (infinities aside)."""
        return {**asdict(self), "assumptions": list(self.assumptions), "measured": list(self.measured)}


def exp_or_inf(log_value: LogNumber) -> float:
    """Return exp(log_value), infinite where that exceeds float64.

    >>> exp_or_inf(0.0), exp_or_inf(1000.0)
    (1.0, inf)
    """
    try:
        return math.exp(log_value)
    except OverflowError:
        return math.inf


@checked
def bounds_frame(bounds: Iterable[Bound]) -> pd.DataFrame:
    """Return bounds as a pandas data frame, one row each.

    Args:
        bounds: the records.

    Returns:
        A data frame with the columns bound, value, log_value, unit, kind, confidence, loss_range, vacuous,
        bits, of, source, assumptions, measured; the last two joined by semicolons.
    """
    columns = ["bound", "value", "log_value", "unit", "kind", "confidence", "loss_range", "vacuous", "bits"]
    columns += ["of", "source", "assumptions", "measured"]
    rows = []
    for bound in bounds:
        row = bound.to_dict()
        row["bound"] = row.pop("name")
        row["assumptions"] = "; ".join(bound.assumptions)
        row["measured"] = "; ".join(bound.measured)
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)
