"""The words of every data set: kinds, options, fixed splits of encoded examples.

The held-out list is never used to choose anything; whatever selects must carve its own split out of ``train``
(:func:`carve`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from analysis.tasks.files import Quoting
from analysis.tasks.kinds import KINDS, Kind
from analysis.tasks.report import DataReport
from analysis.tasks.screen import MISSING, Missing, Screened

__all__ = ["DataOptions", "RawTask", "Rows", "Splits", "Task", "carve", "choose", "split_by_seed"]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How to read a data set that is not a preset, and how much of any data set to take.

    Attributes:
        kind: one of :data:`KINDS`; needed for data sets that are not presets.
        text: column of the text (of the prompt, of the question).
        text_pair: column of the second text, if any.
        label: column of the label (of the target text for ``"causal-lm"``).
        choices: columns of the choices of a multiple-choice question.
        encoding: encoding of local text files; a byte-order mark is found.
        separator: between the fields of local text files; None finds it by the columns' names.
        quoting: what a quotation mark is in local text files: "double" quotes a field, "none" is a letter; None takes
            "none" where tabs separate.
        missing: what becomes of a row in which something is missing, see :data:`analysis.tasks.screen.MISSING`.
        num_train: training examples kept, drawn by seed; None keeps all (200 for digits).
        num_heldout: held-out examples kept, drawn by seed; None keeps all.
        heldout_share: share held out, by seed, when the data set has no split of its own.
        split: "published" keeps a data set's own splits; "seed" pools them and holds out as many rows anew with every
            seed, those that share a text together. What has no split of its own is drawn by seed either way.
        stratify: whether what is drawn by seed (held out, kept, carved out for selection) has the classes' shares.
        strict: whether what the data report warns about is refused.
        max_length: tokens per example; longer ones are cut; None takes the settings' (128 without any).
        label_range: the range of a regression's label; None takes the training split's.
    """

    kind: Kind | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    choices: tuple[str, ...] = ()
    encoding: str = "utf-8"
    separator: str | None = None
    quoting: Quoting | None = None
    missing: Missing = "refuse"
    num_train: int | None = None
    num_heldout: int | None = None
    heldout_share: float = 0.2
    split: Literal["published", "seed"] = "published"
    stratify: bool = False
    strict: bool = False
    max_length: int | None = None
    label_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse what no data set could satisfy."""
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; accepted: {', '.join(KINDS)}")
        for name, accepted in (("missing", MISSING), ("quoting", (None, "double", "none"))):
            if getattr(self, name) not in accepted:
                shown = ", ".join(value for value in accepted if value)
                raise ValueError(f"{name} must be one of {shown}, got {getattr(self, name)!r}")
        if self.separator is not None and len(self.separator) != 1:
            raise ValueError(f"separator must be one character, got {self.separator!r}")
        if self.stratify and self.kind in ("regression", "causal-lm"):
            raise ValueError(f"stratify needs classes; kind {self.kind!r} has none")
        if self.split not in ("published", "seed"):
            raise ValueError(f"split must be one of published, seed, got {self.split!r}")
        if self.split == "seed" and self.stratify:
            raise ValueError("split='seed' keeps rows that share a text together and cannot stratify; leave one out")
        for name in ("num_train", "num_heldout"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"{name} must be at least 2, got {value}")
        if not 0 < self.heldout_share < 1:
            raise ValueError(f"heldout_share must lie in (0, 1), got {self.heldout_share}")
        if self.max_length is not None and self.max_length < 4:
            raise ValueError(f"max_length must be at least 4 tokens, got {self.max_length}")
        if self.label_range is not None and not self.label_range[0] < self.label_range[1]:
            raise ValueError(f"label_range must be (low, high) with low < high, got {self.label_range}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Fixed splits of one data set, encoded for one model.

    Attributes:
        name: the task's name.
        kind: one of :data:`KINDS`.
        train: encoded training examples, each a dictionary with ``"labels"``.
        heldout: encoded held-out examples, never used for selection.
        num_labels: classes (1 for regression, the vocabulary's size for causal LM).
        label_names: names of the classes, by index.
        collate: list of examples -> batch of tensors, padded to its longest example.
        metric_name: ``"accuracy"``, ``"matthews"``, ``"pearson"`` or ``"perplexity"``.
        loss_name: ``"cross_entropy"`` (nats) or ``"squared_error"``.
        max_loss: where the loss is clipped before G(W) is measured; its range is [0, max_loss].
            Cross-entropy: ln(10 num_labels), the true class's probability floored at a tenth of
            chance. Squared error: the squared length of the label's range.
        model: the base model's local folder or hub id; None for the bundled digits.
        seed: the seed of the split and of any subsampling.
        notes: what a reader of a result must know about the data.
        overlap: held-out inputs that also occur in the training split.
        pad_id: token that fills up a batch of texts.
        decode: token ids -> text without special tokens, of texts.
        report: what was read, kept, dropped, repeated and cut on the way here.
        stratify: whether a split carved out of the training examples has the classes' shares.
        clusters: label of each held-out example's cluster, of those that share a text; None where all are apart.
    """

    name: str
    kind: Kind
    train: Sequence[dict[str, Any]]
    heldout: Sequence[dict[str, Any]]
    num_labels: int
    label_names: tuple[str, ...]
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]] = field(repr=False)
    metric_name: str
    loss_name: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    max_loss: float
    model: str | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()
    overlap: int = 0
    pad_id: int = 0
    decode: Callable[[Sequence[int]], str] = field(default=str, repr=False)
    report: DataReport
    stratify: bool = False
    clusters: tuple[int, ...] | None = None


def carve(task: Task, *, share: float, seed: int) -> tuple[Task, Sequence[dict[str, Any]]]:
    """Carve a selection split out of the training examples; the held-out ones stay untouched.

    Args:
        task: the task.
        share: share of the training examples to set aside, in (0, 1).
        seed: seed of the draw.

    Returns:
        The task with fewer training examples, and the selection examples.

    Raises:
        ValueError: if either part would be empty.
    """
    count = round(share * len(task.train))
    if not 0 < count < len(task.train):
        raise ValueError(f"selection_share of {share} leaves nothing of {len(task.train)} training examples")
    labels = [example["labels"] for example in task.train] if task.stratify else None
    chosen = choose(len(task.train), count, labels=labels, rng=np.random.default_rng([seed, 1]))
    kept = sorted(set(range(len(task.train))) - set(chosen))
    return dataclasses.replace(task, train=[task.train[i] for i in kept]), [task.train[i] for i in chosen]


def choose(
    total: int,
    count: int,
    *,
    labels: Sequence[Hashable] | None,
    rng: np.random.Generator,
    every_class: bool = False,
) -> list[int]:
    """Choose some of a number of examples.

    Args:
        total: how many there are.
        count: how many are chosen.
        labels: class of each, of which the chosen ones get their shares, rounded by largest remainders; None draws
            without looking at them.
        rng: of the draw.
        every_class: whether a class whose share rounds to none gets one, from the class with the most.

    Returns:
        Their places, in order.

    >>> choose(6, 3, labels="aaaabb", rng=np.random.default_rng(0))
    [2, 3, 5]
    """
    order = rng.permutation(total).tolist()
    if labels is None:
        return sorted(order[:count])
    classes = {label: [i for i in order if labels[i] == label] for label in dict.fromkeys(labels)}
    shares = {label: count * len(members) / total for label, members in classes.items()}
    quota = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: quota[label] - shares[label])
    for label in by_remainder[: count - sum(quota.values())]:
        quota[label] += 1
    for label in by_remainder if every_class and count >= len(quota) else ():
        if quota[label] == 0:
            quota[max(quota, key=lambda other: quota[other])] -= 1
            quota[label] = 1
    return sorted(i for label, members in classes.items() for i in members[: quota[label]])


@dataclass(frozen=True, kw_only=True)
class RawTask:
    """A data set as rows of plain Python values.

    Attributes:
        kind: kind of task.
        train: rows. Keys by kind: ``text``, ``text_pair`` (optional), ``label``; ``choices`` (a list) for
            multiple choice, whose label is an index; ``target`` for causal LM; ``image`` (PIL) for images.
        heldout: rows of the held-out split.
        metric_name: as in :class:`analysis.tasks.load.Task`.
        label_names: classes in the order of their index; None sorts the training split's labels.
        label_range: range of a regression's label; None takes the training split's.
        notes: what a reader of a result must know.
        parts: what was read, before any of it was split by seed.
    """

    kind: Kind
    train: Sequence[dict[str, Any]]
    heldout: Sequence[dict[str, Any]]
    metric_name: str
    label_names: tuple[str, ...] | None = None
    label_range: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[Screened, ...] = ()


Rows = list[dict[str, Any]]


Splits = dict[str, Any]


def split_by_seed(
    rows: Sequence[dict[str, Any]], *, share: float, seed: int, stratify: bool = False
) -> tuple[Rows, Rows]:
    """Split rows into training and held-out ones.

    Raises:
        ValueError: if either would be empty.
    """
    count = round(share * len(rows))
    if not 0 < count < len(rows):
        raise ValueError(f"a held-out share of {share} leaves an empty split of {len(rows)} rows")
    labels = [str(row["label"]) for row in rows] if stratify else None
    heldout = choose(len(rows), count, labels=labels, rng=np.random.default_rng([seed, 3]))
    chosen = set(heldout)
    return [row for i, row in enumerate(rows) if i not in chosen], [rows[i] for i in heldout]
