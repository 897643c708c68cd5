"""Plain records: what a training run really changed, and what a bound says.

``adapters.describe`` writes them, ``theory.bounds.from_update`` reads them; JSON can hold them.
A bound must go by what was trained, never by the method's name (arXiv:2606.13767's public code
runs methods that differ from the ones it names).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, TypedDict, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theory.arguments import LogNumber, Numbers, Probability, Range, checked
from theory.assumptions import check_codes, explain
from theory.checks import check_text

__all__ = ["Bound", "BoundsFrame", "Population", "Quantity", "UpdateRecord", "bounds_frame", "exp_or_inf"]

Quantity = Literal["gap", "risk", "excess", "improvement"]
"""What a bound bounds: population minus empirical risk; the population risk; from above, how far it is above W0's; from
below, how far it is below W0's."""

Population = Literal["law", "collection", "others", "unseen", "sample"]
"""Whose risk: that of the law behind i.i.d. examples; the mean over a fixed collection; over those of it that were not
drawn; over those that no fold before the stage's own holds; over the sample at hand."""

Values = float | NDArray[np.float64]
_NOT_GIVEN = math.nan


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


@checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """What one bound says, with everything that must be said with its number; the same record for every family.

    Give ``value`` or ``log_value``, the other follows; two that disagree are refused. ``value`` is infinite where it
    exceeds float64, ``log_value`` is then still finite. Where a bound was evaluated for arrays, ``value``,
    ``log_value``, ``bits`` and ``vacuous`` are arrays: as many bounds of one kind, each of which holds on its own.

    Attributes:
        name: short name, unique within a table.
        value: the bound, in ``unit``.
        log_value: its natural logarithm; NaN where the value is negative, as an excess or an improvement may be.
        kind: ``"expectation"`` (over the sample and the training's randomness) or ``"high-probability"``.
        source: theorem and arXiv number.
        of: what is bounded, see ``Quantity``: from above, an improvement from below.
        about: whose risk, see ``Population``.
        assumptions: what must hold, as codes of ``theory.assumptions``.
        loss_range: length of the loss's interval; infinite for an unbounded loss.
        unit: ``"loss"`` for a generalization error, else for example ``"nats"``.
        delta: probability of failure of a high-probability bound; None in expectation.
        measured: names of the inputs that were measured on data; the rest is known a priori.
        bits: description length that entered, in bits; None where there is none.
        confidence: 1 - delta, below 1 also where float64 cannot hold the difference; None in expectation.
        vacuous: whether it says nothing: the value reaches the loss's range (or is infinite); of an improvement,
            whether it is not above 0.

    Raises:
        TypeError, ValueError: if neither value is given or two disagree, a number is NaN or negative, an assumption is
            not known, or kind and delta disagree; the message names it.

    >>> bound = Bound(name="direct", value=21.1, kind="expectation", source="arXiv:1705.07809")
    >>> bound.vacuous, round(bound.log_value, 3)
    (True, 3.049)
    """

    name: str
    kind: Literal["expectation", "high-probability"]
    source: str
    value: Annotated[Values, Numbers(minimum=-math.inf, finite=False)] = _NOT_GIVEN
    log_value: Annotated[Values, Numbers(minimum=-math.inf, finite=False)] = _NOT_GIVEN
    of: Quantity = "gap"
    about: Population = "law"
    assumptions: tuple[str, ...] = ()
    loss_range: Range = 1.0
    unit: str = "loss"
    delta: Probability | None = None
    measured: tuple[str, ...] = ()
    bits: Annotated[Values, Numbers()] | None = None
    confidence: float | None = field(init=False)
    vacuous: bool | NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("name", "source", "unit"):
            check_text(name, getattr(self, name))
        check_codes("assumptions", self.assumptions)
        if (self.kind == "expectation") != (self.delta is None):
            raise ValueError(f"delta must be given for a high-probability bound alone, got {self.delta}")
        if self.value is _NOT_GIVEN and self.log_value is _NOT_GIVEN:
            raise ValueError("value must be given, or log_value; got neither")
        signed = self.of in ("excess", "improvement")
        if self.value is not _NOT_GIVEN:
            value = np.asarray(self.value, dtype=np.float64)
            if not signed and (value < 0).any():
                raise ValueError(f"value must be at least 0 for a {self.of}, got {value[value < 0].flat[0]}")
            with np.errstate(divide="ignore", invalid="ignore"):
                log_value = np.log(value)
            if self.log_value is not _NOT_GIVEN:
                stated = np.asarray(self.log_value, dtype=np.float64)
                if not np.allclose(
                    stated[np.isfinite(value)], log_value[np.isfinite(value)], 1e-9, 1e-9, equal_nan=True
                ):
                    raise ValueError(f"log_value must be the logarithm of value {self.value}, got {self.log_value}")
                log_value = stated
        else:
            log_value = np.asarray(self.log_value, dtype=np.float64)
            with np.errstate(over="ignore"):
                value = np.exp(log_value) * (1 + 2.0**-51)
        says = value > 0 if self.of == "improvement" else (value < self.loss_range) & ~np.isinf(value)
        confidence = None if self.delta is None else min(1 - self.delta, math.nextafter(1.0, 0.0))
        derived = {
            "value": _plain(value),
            "log_value": _plain(log_value),
            "bits": None if self.bits is None else _plain(np.asarray(self.bits, dtype=np.float64)),
            "confidence": confidence,
            "vacuous": _plain(~says) if self.unit == "loss" else _plain(np.zeros_like(says)),
        }
        for name, one in derived.items():
            object.__setattr__(self, name, one)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a plain dictionary that JSON can hold (infinities aside); arrays become lists."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        arrays = {name: value.tolist() for name, value in found.items() if isinstance(value, np.ndarray)}
        lists = {name: list(value) for name, value in found.items() if isinstance(value, tuple)}
        return found | arrays | lists

    def explain(self) -> str:
        """Return the assumptions in full, a line each."""
        return "\n".join(f"{code}: {explain(code)}" for code in self.assumptions)


def _plain(array: NDArray[Any]) -> Any:
    return array.item() if array.ndim == 0 else array


@checked
def exp_or_inf(log_value: LogNumber) -> float:
    """Return exp(log_value), infinite where that exceeds float64.

    >>> exp_or_inf(0.0), exp_or_inf(1000.0)
    (1.0, inf)
    """
    try:
        return math.exp(log_value)
    except OverflowError:
        return math.inf


class BoundsFrame(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """A data frame of bounds; whatever pandas does with one, and a LaTeX table that fits a column."""

    @property
    def _constructor(self) -> type[BoundsFrame]:
        return BoundsFrame

    def to_latex(self) -> str:  # type: ignore[override]
        r"""Return a booktabs ``tabular`` for a column of 3.3 inches at ``\scriptsize``, the codes explained below it.

        A number that says nothing carries a star. Gap and risk stand in columns of their own.

        Raises:
            ValueError: if the columns that a table of bounds needs were dropped.
        """
        shown = [name for name in get_args(Quantity) if name in self]
        missing = {"bound", "vacuous", "confidence", "assumptions"} - set(self.columns)
        if missing or not shown:
            lacking = ", ".join(sorted(missing)) or "a value"
            raise ValueError(f"the frame must hold the columns of bounds_frame, lacks {lacking}")
        codes = list(dict.fromkeys(code for text in self["assumptions"] for code in text.split("; ") if code))
        letters = {code: chr(ord("a") + place % 26) * (1 + place // 26) for place, code in enumerate(codes)}
        lines = [rf"\begin{{tabular}}{{l{'r' * len(shown)}rl}}", r"\toprule"]
        lines += [" & ".join(["Bound", *shown, r"conf.", "if"]) + r" \\", r"\midrule"]
        for _, row in self.iterrows():
            star = "*" * bool(row["vacuous"])
            numbers = ["" if math.isnan(row[name]) else f"{row[name]:.3g}{star}" for name in shown]
            held = "mean" if row["confidence"] is None or math.isnan(row["confidence"]) else f"{row['confidence']:.3g}"
            held_if = ",".join(letters[code] for code in row["assumptions"].split("; ") if code)
            lines.append(" & ".join([str(row["bound"]), *numbers, held, held_if]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [rf"% {letters[code]}: {code}: {explain(code)}" for code in codes]
        return "\n".join(lines) + "\n"


@checked
def bounds_frame(bounds: Iterable[Bound]) -> BoundsFrame:
    """Return bounds as a pandas data frame, one row each; a bound that was evaluated for arrays takes a row an entry.

    Args:
        bounds: the records.

    Returns:
        A data frame with the columns bound, then one column for each ``Quantity`` that occurs (a gap and a risk never
        share one), about, kind, confidence, loss_range, unit, vacuous, bits, source, assumptions (codes) and
        measured; the last two joined by semicolons.
    """
    found = tuple(bounds)
    quantities = [name for name in get_args(Quantity) if any(bound.of == name for bound in found)] or ["gap"]
    columns = ["bound", *quantities, "about", "kind", "confidence", "loss_range", "unit", "vacuous", "bits"]
    rows = []
    for bound in found:
        values, vacuous = (np.asarray(one) for one in (bound.value, bound.vacuous))
        lengths = np.broadcast_to(np.asarray(math.nan if bound.bits is None else bound.bits), values.shape)
        same = {name: getattr(bound, name) for name in ("about", "kind", "confidence", "loss_range", "unit", "source")}
        same |= {"assumptions": "; ".join(bound.assumptions), "measured": "; ".join(bound.measured)}
        for place in np.ndindex(values.shape):
            label = bound.name + (str(list(place)) if place else "")
            row = {"bound": label, bound.of: values[place], "vacuous": bool(vacuous[place])}
            rows.append({**same, **row, "bits": lengths[place]})
    return BoundsFrame(rows, columns=[*columns, "source", "assumptions", "measured"])
