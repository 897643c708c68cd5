"""What was read, kept, dropped, repeated and cut before a run trains on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from analysis.tasks.screen import Screened

__all__ = ["DataReport", "SplitReport", "report_data", "shown_image"]

_SHOWN_CLASSES = 12
_SHOWN_LETTERS = 400


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """One split of a task.

    Attributes:
        examples: how many there are.
        classes: examples of each class, by name; empty for regression and causal LM.
        empty: examples with an empty text, by role.
        repeated: examples that are equal to an earlier one, label or target included.
        ambiguous: examples whose inputs an earlier one has, with another label or target.
        cut: examples that are longer than the model is shown; None for images.
        longest: tokens of the longest example as the model sees it; None for images.
    """

    examples: int
    classes: dict[str, int]
    empty: dict[str, int]
    repeated: int
    ambiguous: int
    cut: int | None = None
    longest: int | None = None


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What became of a data set on its way to a task.

    Attributes:
        kind: of the task.
        parts: per file or split: rows read and kept, and why others were dropped (reason -> their number).
        train: the training examples.
        heldout: the held-out examples.
        overlap: held-out examples whose inputs are among the training examples.
        only_heldout: classes of held-out examples that no training example has.
        absent: classes of the data set that no training example has.
        max_length: tokens shown of an example; None for images.
        shown: one example of either split as the model sees it, its label behind it.
        remarks: what a reader found or changed.
        doubts: what looks misread.
        content: names the examples by what is in them: 12 hexadecimal digits. A run's key knows its data by the names
            and sizes of the files alone.
    """

    kind: str
    parts: tuple[dict[str, Any], ...]
    train: SplitReport
    heldout: SplitReport
    overlap: int
    only_heldout: tuple[str, ...]
    absent: tuple[str, ...]
    max_length: int | None
    shown: tuple[str, ...]
    remarks: tuple[str, ...]
    doubts: tuple[str, ...]
    content: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may spoil a result, one sentence each; ``strict`` refuses it."""
        found = list(self.doubts)
        for name, split in (("training", self.train), ("held-out", self.heldout)):
            n = split.examples
            found += [f"{_of(count, n)} {name} examples have an empty {role}" for role, count in split.empty.items()]
            if split.repeated:
                found.append(f"{_of(split.repeated, n)} {name} examples repeat an earlier one")
            if split.ambiguous and self.kind != "causal-lm":
                found.append(f"{_of(split.ambiguous, n)} {name} examples have an earlier one's inputs, another label")
            if split.cut:
                found.append(f"{_of(split.cut, n)} {name} examples are cut to {self.max_length} tokens")
        if self.overlap:
            found.append(
                f"{_of(self.overlap, self.heldout.examples)} held-out examples have a training example's inputs"
            )
        if self.only_heldout:
            found.append(f"classes seen only in held-out data: {_listed(self.only_heldout)}")
        absent = [name for name in self.absent if name not in self.only_heldout]
        if absent:
            found.append(f"classes without a training example: {_listed(absent)}")
        return tuple(found)

    def as_record(self) -> dict[str, Any]:
        """Return the report as plain values, its warnings included."""
        return {**asdict(self), "warnings": list(self.warnings)}

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        told = [_told(part) for part in self.parts]
        for name, split in (("train", self.train), ("held out", self.heldout)):
            length = "" if split.longest is None else f", the longest of {split.longest} tokens"
            references = ""
            if self.kind == "causal-lm" and split.ambiguous:
                references = f", {split.ambiguous} of them further targets of a prompt"
            told.append(f"{name}: {split.examples} examples{length}{references}")
        if self.train.classes:
            told.append(f"classes (train, held out): {self._table()}")
        told += [f"as the model sees it: {text}" for text in self.shown]
        told += [f"note: {remark}" for remark in self.remarks]
        return [*told, *(f"warning: {warning}" for warning in self.warnings)]

    def _table(self) -> str:
        names = list(self.train.classes)
        shown = [f"{name} {self.train.classes[name]}, {self.heldout.classes[name]}" for name in names[:_SHOWN_CLASSES]]
        return "; ".join(shown) + (f"; and {len(names) - _SHOWN_CLASSES} more" if names[_SHOWN_CLASSES:] else "")


def _told(part: Mapping[str, Any]) -> str:
    dropped = "".join(f", {count} dropped because {reason}" for reason, count in part["dropped"].items())
    return f"{part['where']}: {part['read']} rows read, {part['kept']} kept{dropped}"


def _of(count: int, total: int) -> str:
    return f"{count} of {total} ({count / total:.1%})"


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if names[_SHOWN_CLASSES:] else ""
    return ", ".join(names[:_SHOWN_CLASSES]) + more


def _split_report(
    rows: Sequence[Mapping[str, Any]],
    *,
    inputs: Sequence[Hashable],
    classes: Sequence[str],
    names: Sequence[str],
    lengths: Sequence[int] | None,
    cut: int | None,
) -> SplitReport:
    full = [(given, str(row.get("target", row.get("label")))) for given, row in zip(inputs, rows, strict=True)]
    repeated = len(full) - len(set(full))
    counts = Counter(classes)
    empty = Counter(role for row in rows for role in ("text", "text_pair") if role in row and not row[role].strip())
    return SplitReport(
        examples=len(rows),
        classes={name: counts[name] for name in names} if classes else {},
        empty=dict(empty),
        repeated=repeated,
        ambiguous=len(inputs) - len(set(inputs)) - repeated,
        cut=cut,
        longest=None if lengths is None else max(lengths),
    )


def _content(rows: Mapping[str, Sequence[Mapping[str, Any]]], inputs: Mapping[str, Sequence[Hashable]]) -> str:
    digest = hashlib.sha256()
    for split in ("train", "heldout"):
        for row, given in zip(rows[split], inputs[split], strict=True):
            digest.update(repr((given, str(row.get("target", row.get("label"))))).encode(errors="surrogatepass"))
    return digest.hexdigest()[:12]


def report_data(
    *,
    kind: str,
    parts: Sequence[Screened],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    inputs: Mapping[str, Sequence[Hashable]],
    classes: Mapping[str, Sequence[str]],
    names: Sequence[str],
    shown: Sequence[str],
    lengths: Mapping[str, Sequence[int]] | None = None,
    cut: Mapping[str, int] | None = None,
    max_length: int | None = None,
) -> DataReport:
    """Count what a reader of a result should know of its data.

    Args:
        kind: of the task.
        parts: what was read.
        rows: of "train" and "heldout", after any split and draw.
        inputs: what identifies an example but its label, as ``rows``.
        classes: name of each example's class, as ``rows``; empty for regression and causal LM.
        names: of all classes.
        shown: examples as the model sees them.
        lengths: tokens of each example, as ``rows``; None for images.
        cut: number of examples that were cut, by split.
        max_length: tokens shown of an example.
    """
    splits = {
        split: _split_report(
            rows[split],
            inputs=inputs[split],
            classes=classes[split],
            names=names,
            lengths=None if lengths is None else lengths[split],
            cut=None if cut is None else cut[split],
        )
        for split in ("train", "heldout")
    }
    known, seen = set(inputs["train"]), set(classes["train"])
    return DataReport(
        kind=kind,
        parts=tuple(
            {
                "where": part.where,
                "read": part.read,
                "kept": len(part.rows),
                "dropped": {reason: len(numbers) for reason, numbers in part.dropped.items()},
                "first_dropped": {reason: numbers[0] for reason, numbers in part.dropped.items()},
            }
            for part in parts
        ),
        **splits,
        overlap=sum(given in known for given in inputs["heldout"]),
        only_heldout=tuple(dict.fromkeys(name for name in classes["heldout"] if name not in seen)),
        absent=tuple(name for name in names if name not in seen),
        max_length=max_length,
        shown=tuple(text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..." for text in shown),
        remarks=tuple(f"{part.where}: {remark}" for part in parts for remark in part.remarks),
        doubts=tuple(f"{part.where}: {doubt}" for part in parts for doubt in part.doubts),
        content=_content(rows, inputs),
    )


def shown_image(pixels: torch.Tensor, label: str) -> str:
    """Say what a model sees of an image: its shape, and the range of its values."""
    low, high = pixels.aminmax()
    return f"{' x '.join(map(str, pixels.shape))} values in [{float(low):.3g}, {float(high):.3g}] -> {label}"
