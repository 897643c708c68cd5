"""Any data set with named columns: local CSV, TSV, JSON lines or Parquet, a saved data set, or the hub."""

from __future__ import annotations

import codecs
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from analysis.tasks.hub import hub_reachable
from analysis.tasks.kinds import KINDS
from analysis.tasks.presets import Dataset
from analysis.tasks.task import DataOptions, RawTask, Splits, split_by_seed

__all__ = ["read_hub_preset", "read_table"]

_FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_HELDOUT = ("test", "heldout", "validation", "valid", "dev", "val")
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


def _read_file(path: Path, encoding: str) -> datasets.Dataset:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; accepted: utf-8, utf-8-sig, latin-1, cp1252, ...") from None
    kwargs: dict[str, Any] = {}
    if path.suffix in (".csv", ".tsv"):
        kwargs = {"encoding": encoding, "sep": "\t" if path.suffix == ".tsv" else ",", "keep_default_na": False}
    elif path.suffix in (".json", ".jsonl"):
        kwargs = {"encoding": encoding}
    if path.stat().st_size == 0:
        raise ValueError(f"file {str(path)!r} is empty")
    try:
        with _quiet(), tempfile.TemporaryDirectory() as cache:
            loaded = datasets.load_dataset(
                _FORMATS[path.suffix],
                data_files=str(path),
                split="train",
                cache_dir=cache,
                keep_in_memory=True,
                **kwargs,
            )
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        if "corresponds to no data" in str(error):
            raise ValueError(f"file {str(path)!r} has no rows") from None
        cause = _root_cause(error)
        hint = "; give its --encoding, for example latin-1" if "codec can't decode" in str(cause) else ""
        raise ValueError(f"file {str(path)!r} cannot be read as {path.suffix[1:]}: {cause}{hint}") from None
    return loaded


def local_path(data: str) -> Path | None:
    """Return the path of local data, or None for what can only be a hub id.

    Raises:
        ValueError: if it looks like a path, and nothing is there.
    """
    path = Path(data).expanduser()
    if path.exists():
        return path
    if path.suffix in _FORMATS or path.is_absolute() or data.startswith((".", "~")):
        raise ValueError(f"no data at {data!r}")
    return None


def _local_splits(path: Path, encoding: str) -> dict[str, datasets.Dataset]:
    if path.is_file():
        if path.suffix not in _FORMATS:
            raise ValueError(f"file {str(path)!r} has an unknown format; accepted: {', '.join(_FORMATS)}")
        return {"train": _read_file(path, encoding)}
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        loaded = datasets.load_from_disk(str(path))
        return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    files = {file.stem.lower(): file for file in sorted(path.iterdir()) if file.suffix in _FORMATS}
    if "train" not in files:
        raise ValueError(f"folder {str(path)!r} holds no train file; accepted: train{', train'.join(_FORMATS)}")
    return {stem: _read_file(file, encoding) for stem, file in files.items() if stem in ("train", *_HELDOUT)}


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


def _column(table: datasets.Dataset, name: str | None, role: str, source: str) -> list[Any]:
    if name is None:
        raise ValueError(f"{role} is needed: name the column; {source} has {', '.join(table.column_names)}")
    if name not in table.column_names:
        raise ValueError(f"{source} has no column {name!r} for {role}; it has {', '.join(table.column_names)}")
    return list(table[name])


def _rows(table: datasets.Dataset, options: DataOptions, source: str) -> list[dict[str, Any]]:
    if options.kind == "image-classification":
        images, labels = _column(table, options.text, "text", source), _column(table, options.label, "label", source)
        return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]
    columns: dict[str, list[Any]] = {
        "text": ["" if t is None else str(t) for t in _column(table, options.text, "text", source)]
    }
    labels = _column(table, options.label, "label", source)
    if options.kind == "causal-lm":
        columns["target"] = [str(value) for value in labels]
    else:
        columns["label"] = labels
    if options.text_pair is not None:
        columns["text_pair"] = [str(value) for value in _column(table, options.text_pair, "text_pair", source)]
    if options.kind == "multiple-choice":
        if len(options.choices) < 2:
            raise ValueError(f"choices must name at least 2 columns for multiple-choice, got {options.choices}")
        parts = [_column(table, name, "choices", source) for name in options.choices]
        columns["choices"] = [list(choice) for choice in zip(*parts, strict=True)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_table(data: str, *, options: DataOptions, seed: int) -> RawTask:
    """Read a data set with named columns.

    Args:
        data: local file or folder, or hub id.
        options: kind and columns; ``encoding`` for text files.
        seed: seed of the split where the data set has no held-out part.

    Raises:
        ValueError: kind or a column missing, unknown encoding or format, nothing there.
    """
    if options.kind is None:
        raise ValueError(f"kind is needed for a data set that is no preset; accepted: {', '.join(KINDS)}")
    path = local_path(data)
    splits = _hub(data) if path is None else _local_splits(path, options.encoding)
    if "train" not in splits:
        raise ValueError(f"data set {data!r} has no train split; it has {', '.join(splits)}")
    rows = _rows(splits["train"], options, data)
    other = next((name for name in _HELDOUT if name in splits), None)
    notes: tuple[str, ...] = ()
    if other is not None:
        heldout = _rows(splits[other], options, data)
    else:
        rows, heldout = split_by_seed(rows, share=options.heldout_share, seed=seed)
        notes = ("no held-out part of its own: split by seed",)
    return RawTask(
        kind=options.kind,
        train=rows,
        heldout=heldout,
        metric_name=_METRICS.get(options.kind, "accuracy"),
        label_range=options.label_range,
        notes=notes,
    )


def _preset_row(record: dict[str, Any], preset: Dataset, names: list[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for role, column in preset.columns.items():
        value = record[column]
        if role == "choices":
            row["choices"] = list(value["text"]) if isinstance(value, dict) else list(value)
        elif role == "label" and preset.kind != "regression":
            text_label = names[value] if names is not None and isinstance(value, int) else value
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
