"""Any data set with named columns: local CSV, TSV, JSON lines or Parquet, a saved data set, or the hub."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from analysis.tasks.files import COMPRESSED, Table, read_delimited, read_json_rows
from analysis.tasks.hub import hub_reachable
from analysis.tasks.image_files import read_images
from analysis.tasks.kinds import CLASSIFICATION, HELDOUT, KINDS
from analysis.tasks.presets import Dataset
from analysis.tasks.screen import is_null, screen
from analysis.tasks.task import DataOptions, RawTask, Splits, split_by_seed

__all__ = ["read_hub_preset", "read_table"]

_FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_METRICS = {"regression": "pearson", "causal-lm": "perplexity"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_progress_bars()


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


def _format(path: Path) -> str:
    """Return the ending that says what a file holds, below that of its compression."""
    endings = [suffix.lower() for suffix in path.suffixes]
    if endings and endings[-1] in COMPRESSED:
        endings.pop()
    return endings[-1] if endings else ""


def _read_file(path: Path, options: DataOptions) -> Table:
    ending = _format(path)
    wanted = [name for name in (options.text, options.text_pair, options.label, *options.choices) if name is not None]
    if ending in (".csv", ".tsv"):
        table = read_delimited(
            path, separator=options.separator, quoting=options.quoting, encoding=options.encoding, wanted=wanted
        )
    elif ending in (".json", ".jsonl"):
        table = read_json_rows(path, options.encoding)
    else:
        table = _of_dataset(_read_parquet(path), path.name)
    if len(table.rows) == 0:
        raise ValueError(f"file {str(path)!r} has no rows")
    return table


def _read_parquet(path: Path) -> datasets.Dataset:
    try:
        with _quiet(), tempfile.TemporaryDirectory() as cache:
            return datasets.Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True)
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        raise ValueError(f"file {str(path)!r} cannot be read as parquet: {_root_cause(error)}") from None


def _of_dataset(table: datasets.Dataset, where: str) -> Table:
    """Return a data set's rows, read when asked for, with the names of its classes."""
    named = {name: feature.names for name, feature in table.features.items() if hasattr(feature, "names")}
    return Table(
        where=where,
        columns=tuple(table.column_names),
        rows=table,
        classes={name: tuple(names) for name, names in named.items()},
    )


def local_path(data: str) -> Path | None:
    """Return the path of local data, or None for what can only be a hub id.

    Raises:
        ValueError: if it looks like a path, and nothing is there.
    """
    path = Path(data).expanduser()
    if path.exists():
        return path
    if _format(path) in _FORMATS or path.is_absolute() or data.startswith((".", "~")):
        raise ValueError(f"no data at {data!r}")
    return None


def _local_splits(path: Path, options: DataOptions) -> dict[str, Table]:
    if path.is_file():
        if _format(path) not in _FORMATS:
            raise ValueError(
                f"file {str(path)!r} has an unknown format; accepted: {', '.join(_FORMATS)}, and .csv to .jsonl with "
                f"{', '.join(COMPRESSED)}"
            )
        return {"train": _read_file(path, options)}
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        loaded = datasets.load_from_disk(str(path))
        found = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        return {name: _of_dataset(table, name) for name, table in found.items()}
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        stem = file.name.lower().split(".")[0]
        if _format(file) in _FORMATS and stem in ("train", *HELDOUT):
            if stem in files:
                raise ValueError(f"folder {str(path)!r} holds both {files[stem].name} and {file.name}; leave one")
            files[stem] = file
    if "train" not in files:
        raise ValueError(f"folder {str(path)!r} holds no train file; accepted: train{', train'.join(_FORMATS)}")
    chosen = next((name for name in HELDOUT if name in files), None)
    read = {name: _read_file(files[name], options) for name in ("train", chosen) if name is not None}
    left = sorted(file.name for name, file in files.items() if name not in read)
    if left:
        read["train"] = dataclasses.replace(
            read["train"], remarks=(*read["train"].remarks, f"not read: {', '.join(left)}")
        )
    return read


def _hub(name: str, config: str | None = None) -> dict[str, datasets.Dataset]:
    if not hub_reachable():
        raise ValueError(
            f"data set {name!r} is no local file or folder and cannot be fetched from the hub (offline); "
            "give a local path as data, or one saved by datasets' save_to_disk"
        )
    try:
        with _quiet():
            return dict(datasets.load_dataset(name, config))
    except Exception as error:
        raise ValueError(
            f"data set {name!r} is no local file or folder and cannot be fetched from the hub "
            f"({_root_cause(error)}); give a local path as data"
        ) from None


def _checked(table: Table, name: str | None, role: str) -> str:
    if name is None:
        raise ValueError(f"{role} is needed: name the column; {table.where} has {', '.join(table.columns)}")
    if name not in table.columns:
        raise ValueError(f"{table.where} has no column {name!r} for {role}; it has {', '.join(table.columns)}")
    return name


def _column(table: Table, name: str | None, role: str) -> list[Any]:
    column = _checked(table, name, role)
    values = table.rows[column] if isinstance(table.rows, datasets.Dataset) else [row[column] for row in table.rows]
    return list(values)


def _texts(table: Table, name: str | None, role: str) -> list[Any]:
    """Return a column of texts: lists of words joined, numbers written out, null as it is."""

    def text(value: Any) -> str | None:
        if isinstance(value, dict):
            raise ValueError(f"column {name!r} of {table.where} holds objects, and {role} is a text: {str(value)[:60]}")
        return None if is_null(value) else " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return [text(value) for value in _column(table, name, role)]


def _labels(table: Table, options: DataOptions) -> list[Any]:
    """Return the labels: a class's name for its index where the data set has names, and -1 where there is none."""
    labels = _column(table, options.label, "label")
    names = table.classes.get(str(options.label))
    if names is None or options.kind in ("regression", "multiple-choice"):
        return labels
    return [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in labels]


def _rows(table: Table, options: DataOptions) -> list[dict[str, Any]]:
    if options.kind == "image-classification":
        column, labels = _checked(table, options.text, "text"), _labels(table, options)
        return [{"image": functools.partial(_cell, table, i, column), "label": label} for i, label in enumerate(labels)]
    columns: dict[str, list[Any]] = {"text": _texts(table, options.text, "text")}
    if options.kind == "causal-lm":
        columns["target"] = _texts(table, options.label, "label")
    else:
        columns["label"] = _labels(table, options)
    if options.text_pair is not None:
        columns["text_pair"] = _texts(table, options.text_pair, "text_pair")
    if options.kind == "multiple-choice":
        if len(options.choices) < 2:
            raise ValueError(f"choices must name at least 2 columns for multiple-choice, got {options.choices}")
        parts = [_texts(table, name, "choices") for name in options.choices]
        columns["choices"] = [list(choice) for choice in zip(*parts, strict=True)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _cell(table: Table, index: int, column: str) -> Any:
    value = table.rows[index][column]
    return value() if callable(value) else value


def read_table(data: str, *, options: DataOptions, seed: int) -> RawTask:
    """Read a data set with named columns.

    Args:
        data: local file or folder, or hub id.
        options: kind and columns; what local text files are like, and what becomes of rows that lack something.
        seed: seed of the split where the data set has no held-out part.

    Raises:
        ValueError: kind or a column missing, unknown encoding or format, nothing there, a row that is none.
    """
    if options.kind is None:
        raise ValueError(f"kind is needed for a data set that is no preset; accepted: {', '.join(KINDS)}")
    kind = options.kind
    path = local_path(data)
    if path is not None and path.is_dir() and kind == "image-classification" and options.text is None:
        splits, options = read_images(path), dataclasses.replace(options, text="image", label="label")
    elif path is None:
        splits = {name: _of_dataset(table, name) for name, table in _hub(data).items()}
    else:
        splits = _local_splits(path, options)
    if "train" not in splits:
        raise ValueError(f"data set {data!r} has no train split; it has {', '.join(splits)}")
    other = next((name for name in HELDOUT if name in splits), None)
    parts = tuple(
        screen(
            _rows(splits[name], options),
            kind=kind,
            missing=options.missing,
            where=splits[name].where,
            remarks=splits[name].remarks,
            doubts=splits[name].doubts,
        )
        for name in ("train", other)
        if name is not None
    )
    train, heldout = parts[0].rows, parts[-1].rows
    notes: tuple[str, ...] = ()
    if other is None:
        train, heldout = split_by_seed(train, share=options.heldout_share, seed=seed, stratify=options.stratify)
        notes = ("no held-out part of its own: split by seed",)
    return RawTask(
        kind=kind,
        train=train,
        heldout=heldout,
        metric_name=_METRICS.get(kind, "accuracy"),
        label_names=splits["train"].classes.get(str(options.label)) if kind in CLASSIFICATION else None,
        label_range=options.label_range,
        notes=notes,
        parts=parts,
    )


def _preset_row(record: dict[str, Any], preset: Dataset, names: list[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for role, column in preset.columns.items():
        value = record[column]
        if role == "choices":
            row["choices"] = list(value["text"]) if isinstance(value, dict) else list(value)
        elif role == "label" and preset.kind != "regression" and not is_null(value):
            named = names is not None and isinstance(value, int) and 0 <= value < len(names)
            text_label = names[value] if names is not None and named else value
            row["label"] = value if preset.kind == "multiple-choice" and isinstance(value, int) else str(text_label)
        elif role in ("text", "text_pair") and isinstance(value, list):
            row[role] = " ".join(value)
        else:
            row[role] = value
    if preset.kind == "causal-lm":
        row["text"] = f"{row['text'].strip()}\n"
    if preset.kind == "multiple-choice" and "text_pair" in row:
        row["text"] = f"{row['text']} {row.pop('text_pair')}"
    return row


def read_hub_preset(preset: Dataset) -> Splits:
    """Fetch a preset from the hub.

    Raises:
        ValueError: if the hub is out of reach, or the data set there has other splits or columns.
    """
    if preset.hub is None:
        raise ValueError(f"task {preset.name!r} is on no hub: give the folder of its publisher as data")
    hub, config = preset.hub
    splits = _hub(hub, config)
    train, heldout = preset.splits
    found: dict[str, Any] = {}
    for role, split in (("train", train), ("heldout", heldout)):
        if split not in splits:
            raise ValueError(f"data set {hub!r} has no split {split!r}; it has {', '.join(splits)}")
        table = splits[split]
        missing = [column for column in preset.columns.values() if column not in table.column_names]
        if missing:
            raise ValueError(f"data set {hub!r} has no column {missing[0]!r}; it has {', '.join(table.column_names)}")
        names = list(preset.label_names) if preset.label_names else None
        if names is None and "label" in preset.columns:
            names = getattr(table.features[preset.columns["label"]], "names", None)
        found[role] = [_preset_row(record, preset, names) for record in table]
    return {"all": found["train"]} if train == heldout else found
