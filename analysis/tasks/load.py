"""Data sets and base models: the bundled digits, publishers' own formats, local files, the hub.

A task is two fixed lists of encoded examples, how to batch them, and what is measured on them.
The held-out list is never used to choose anything; whatever selects must carve its own split out
of ``train`` (:func:`analysis.tasks.carve`).
"""

from __future__ import annotations

import functools
from pathlib import Path

from transformers import PreTrainedModel

from analysis.tasks.clusters import redrawn
from analysis.tasks.digits import digits_model, digits_task
from analysis.tasks.encode import encode_task
from analysis.tasks.models import load_pretrained, resolve_model
from analysis.tasks.presets import DATASETS
from analysis.tasks.publishers import read_published
from analysis.tasks.tables import local_path, read_table
from analysis.tasks.task import DataOptions, Task
from analysis.tasks.tiny_models import check_tiny

__all__ = ["check_places", "load_model", "load_task", "task_names"]


def task_names() -> tuple[str, ...]:
    """Return the names :func:`load_task` knows: digits, custom, and the presets."""
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
        for column in ("text", "text_pair", "label"):
            if getattr(options, column) is not None:
                given = f"{column}={getattr(options, column)!r}"
                raise ValueError(f"task 'digits' is bundled and has no columns, got {given}; use task 'custom'")
        return digits_task(model=model, seed=seed, options=options)

    assert model is not None
    if name == "custom":
        assert data is not None
        raw = read_table(data, options=options, seed=seed)
    else:
        raw = read_published(DATASETS[name], data=data, options=options, seed=seed)
    if options.split == "seed":
        raw = redrawn(raw, seed=seed)
    return encode_task(raw, name=name, model=model, seed=seed, options=options)


def load_model(task: Task, *, model: str | Path | None = None, seed: int = 0) -> PreTrainedModel:
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
    spec = str(model) if model is not None else task.model
    if spec is None:
        return digits_model(num_labels=task.num_labels, seed=seed)
    return load_pretrained(spec, kind=task.kind, num_labels=task.num_labels, seed=seed)
