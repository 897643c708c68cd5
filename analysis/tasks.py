"""Data sets and base models: the bundled digits, publishers' own formats, local files, the hub.

A task is two fixed lists of encoded examples, how to batch them, and what is measured on them.
The held-out list is never used to choose anything; whatever selects must carve its own split out
of ``train`` (:func:`carve`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["KINDS", "DataOptions", "Kind", "Task", "carve", "check_places", "load_model", "load_task", "task_names"]

Kind = Literal["image-classification", "text-classification", "multiple-choice", "regression", "causal-lm"]
KINDS: tuple[Kind, ...] = (
    "image-classification",
    "text-classification",
    "multiple-choice",
    "regression",
    "causal-lm",
)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How to read a data set that is not a preset, and how much of any data set to take.

    Attributes:
        kind: one of :data:`KINDS`; needed for data sets that are not presets.
        text: column of the text (of the prompt, of the question).
        text_pair: column of the second text, if any.
        label: column of the label (of the target text for ``"causal-lm"``).
        choices: columns of the choices of a multiple-choice question.
        encoding: encoding of local text files.
        num_train: training examples kept, drawn by seed; None keeps all (200 for digits).
        num_heldout: held-out examples kept, drawn by seed; None keeps all.
        heldout_share: share held out, by seed, when the data set has no split of its own.
        max_length: tokens per example; longer ones are cut; None takes the settings' (128 without any).
        label_range: the range of a regression's label; None takes the training split's.
    """

    kind: Kind | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    choices: tuple[str, ...] = ()
    encoding: str = "utf-8"
    num_train: int | None = None
    num_heldout: int | None = None
    heldout_share: float = 0.2
    max_length: int | None = None
    label_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse what no data set could satisfy."""
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; accepted: {', '.join(KINDS)}")
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


def task_names() -> tuple[str, ...]:
    """Return the names :func:`load_task` knows: digits, custom, and the presets."""
    from analysis.presets import DATASETS

    return ("digits", "custom", *DATASETS)


def check_places(name: str, *, data: str | Path | None, model: str | Path | None) -> None:
    """Check that a task's data and model are given and, where they look like a path, there; nothing is loaded.

    Args:
        name: as in :func:`load_task`.
        data: as there.
        model: as there.

    Raises:
        ValueError: unknown name, missing data or model, or a path that leads nowhere.

    >>> check_places("trec", data=None, model=None)
    Traceback (most recent call last):
        ...
    ValueError: task 'trec' needs a base model: give a local folder, a hub id or tiny:bert as model
    """
    from analysis.local_data import local_path
    from analysis.models import resolve_model
    from analysis.tiny_models import check_tiny

    if name not in task_names():
        raise ValueError(f"unknown task {name!r}; accepted: {', '.join(task_names())}")
    if name == "digits":
        if data is not None:
            raise ValueError(f"task 'digits' is bundled and takes no data, got data={data!r}")
    elif model is None:
        raise ValueError(f"task {name!r} needs a base model: give a local folder, a hub id or tiny:bert as model")
    elif name == "custom":
        if data is None:
            raise ValueError("task 'custom' needs data: a local file or folder, or a hub id")
        local_path(str(data))
    elif data is not None and not Path(data).expanduser().is_dir():
        raise ValueError(f"data of task {name!r} must be a folder in its publisher's format, got {data!r}")
    if str(model).startswith("tiny:"):
        check_tiny(str(model).removeprefix("tiny:"))
    elif model is not None:
        resolve_model(str(model))


def load_task(
    name: str = "digits",
    *,
    data: str | Path | None = None,
    model: str | Path | None = None,
    seed: int = 0,
    options: DataOptions | None = None,
) -> Task:
    """Load a task: the bundled digits, a preset, or any data set with named columns.

    Args:
        name: ``"digits"``, a preset (:func:`task_names`), or ``"custom"``.
        data: a preset's folder in its publisher's own format, or for ``"custom"`` a local CSV, TSV,
            JSON-lines or Parquet file, a folder of such files named train/test, a data set saved by
            ``datasets``, or a hub id. A preset without ``data`` is fetched from the hub.
        model: local folder or hub id of the base model, whose tokenizer encodes the text.
        seed: seed of splits and subsampling.
        options: columns and sizes.

    Returns:
        The task; the same object for the same arguments within one process.

    Raises:
        ValueError: unknown name, missing data or model, missing columns, an empty split, a single
            class, labels that do not parse, texts that are all empty, an unknown encoding, a hub id
            while offline.

    >>> load_task("no-such-task")
    Traceback (most recent call last):
        ...
    ValueError: unknown task 'no-such-task'; accepted: digits, custom, ...
    """
    return _load_task(
        name,
        None if data is None else str(data),
        None if model is None else str(model),
        seed,
        options or DataOptions(),
    )


@functools.lru_cache(maxsize=8)
def _load_task(name: str, data: str | None, model: str | None, seed: int, options: DataOptions) -> Task:
    check_places(name, data=data, model=model)
    if name == "digits":
        from analysis.digits import digits_task

        for column in ("text", "text_pair", "label"):
            if getattr(options, column) is not None:
                given = f"{column}={getattr(options, column)!r}"
                raise ValueError(f"task 'digits' is bundled and has no columns, got {given}; use task 'custom'")
        return digits_task(model=model, seed=seed, options=options)
    from analysis.encode import encode_task
    from analysis.local_data import read_table
    from analysis.presets import DATASETS
    from analysis.readers import read_published

    assert model is not None
    if name == "custom":
        assert data is not None
        raw = read_table(data, options=options, seed=seed)
    else:
        raw = read_published(DATASETS[name], data=data, options=options, seed=seed)
    return encode_task(raw, name=name, model=model, seed=seed, options=options)


def load_model(task: Task, *, model: str | Path | None = None, seed: int = 0) -> torch.nn.Module:
    """Load the task's base model with a new head drawn by ``seed``.

    Args:
        task: what the head is for.
        model: overrides ``task.model``.
        seed: seed of the new head's weights; the pretrained weights do not depend on it.

    Returns:
        A transformers model in eval mode whose ``forward`` takes a collated batch.

    Raises:
        ValueError: if the model is neither a local folder nor reachable on the hub.
    """
    from analysis.models import load_pretrained

    spec = str(model) if model is not None else task.model
    if spec is None:
        from analysis.digits import digits_model

        return digits_model(num_labels=task.num_labels, seed=seed)
    return load_pretrained(spec, kind=task.kind, num_labels=task.num_labels, seed=seed)


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
    order = np.random.default_rng([seed, 1]).permutation(len(task.train))
    chosen, kept = sorted(order[:count].tolist()), sorted(order[count:].tolist())
    return dataclasses.replace(task, train=[task.train[i] for i in kept]), [task.train[i] for i in chosen]
