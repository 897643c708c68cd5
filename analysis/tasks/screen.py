"""Rows as they were read -> rows that can be examples: what is missing is refused, or dropped and counted."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from analysis.tasks.kinds import Kind

__all__ = ["MISSING", "Missing", "Screened", "is_null", "screen"]

Missing = Literal["refuse", "drop", "keep"]

MISSING: tuple[Missing, ...] = ("refuse", "drop", "keep")
"""What becomes of a row with a missing label, text, pair, choice or target: the reader stops there, or leaves the row
out and counts it. "keep" stops as "refuse" does, but takes -1 and a dash for labels like any other."""

_UNLABELLED = ("-", "-1", "-1.0")
_TEXTS = ("text", "text_pair", "choices", "target", "image")


@dataclass(frozen=True, kw_only=True)
class Screened:
    """One part of a data set after its rows were looked at.

    Attributes:
        where: its name: a split, a file.
        rows: what was kept, in order.
        read: number of rows there were.
        dropped: why rows were left out -> their numbers, from 1.
        remarks: what the reader found or changed.
        doubts: what looks misread.
    """

    where: str
    rows: Sequence[dict[str, Any]]
    read: int
    dropped: dict[str, list[int]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def screen(
    rows: Sequence[dict[str, Any]],
    *,
    kind: Kind,
    missing: Missing,
    where: str,
    remarks: tuple[str, ...] = (),
    doubts: tuple[str, ...] = (),
) -> Screened:
    """Look at every row before anything is drawn, encoded or trained.

    A label is missing where it is null, NaN, empty, the word nan, a dash or, unless it is a regression's, -1. A text
    is missing where it is null or NaN; an empty one is a text. A language model's target is missing where it is empty.

    Args:
        rows: as `analysis.tasks.task.RawTask` has them.
        kind: of the task.
        missing: what becomes of a row in which something is missing.
        where: name of the part, for messages.
        remarks: of the reader, passed on.
        doubts: of the reader, passed on.

    Raises:
        ValueError: if a row lacks something and ``missing`` is not "drop", or a label holds several values; the
            message names the row, from 1.
    """
    kept: list[dict[str, Any]] = []
    dropped: dict[str, list[int]] = {}
    for number, row in enumerate(rows, start=1):
        _refuse_several(row, f"{where} row {number}")
        fault = _fault(row, kind, keep=missing == "keep")
        if fault is None:
            kept.append(row)
        else:
            dropped.setdefault(fault, []).append(number)
    if dropped and missing != "drop":
        fault, numbers = min(dropped.items(), key=lambda item: item[1][0])
        more = f" ({len(numbers)} such rows)" if len(numbers) > 1 else ""
        keep = ", or --missing keep if it is a class" if fault.endswith(tuple(f"is {x!r}" for x in _UNLABELLED)) else ""
        raise ValueError(f"{fault} in {where} row {numbers[0]}{more}; fill it in, or leave such rows out "
                         f"with --missing drop{keep}")  # fmt: skip
    if dropped and not kept:
        raise ValueError(f"{where} has {len(rows)} rows and every one lacks something: {', '.join(dropped)}")
    return Screened(where=where, rows=kept, read=len(rows), dropped=dropped, remarks=remarks, doubts=doubts)


def _refuse_several(row: dict[str, Any], place: str) -> None:
    label = row.get("label")
    if isinstance(label, (list, tuple, set, dict)) or getattr(label, "ndim", 0) > 0:
        raise ValueError(
            f"the label of {place} holds several values ({str(label)[:60]}): a label is one class or number, and "
            "multi-label data is not supported; give a column with one label"
        )


def _fault(row: dict[str, Any], kind: Kind, *, keep: bool) -> str | None:
    """Say what a row lacks, or None."""
    for role in _TEXTS:
        if role in row and (is_null(row[role]) or (role == "choices" and any(map(is_null, row[role])))):
            return f"{'a choice' if role == 'choices' else f'the {role}'} is null"
    if kind == "causal-lm":
        return None if str(row["target"]).strip() else "the target is empty"
    label = row["label"]
    text = str(label).strip()
    if is_null(label) or not text or text.lower() == "nan":
        return "the label is empty"
    if text in (_UNLABELLED[:1] if kind == "regression" else _UNLABELLED) and not keep:
        return f"the label is {text!r}"
    return None


def is_null(value: object) -> bool:
    """Whether a value is none: null, or NaN."""
    return value is None or (isinstance(value, numbers.Real) and math.isnan(value))
