"""The publishers' own file formats, as they are: encodings, byte-order marks, quoting, line endings.

Each reader takes a folder and returns ``{"train": rows, "heldout": rows}`` (and notes). A data set with
no held-out file returns ``"all"`` instead, which is split by seed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.tasks.presets import Dataset
from analysis.tasks.tables import read_hub_preset
from analysis.tasks.task import DataOptions, RawTask, Rows, Splits, split_by_seed
from theory.registry import resolve

__all__ = [
    "read_clutrr",
    "read_cola",
    "read_django",
    "read_e2e",
    "read_folio",
    "read_logiqa",
    "read_mrpc",
    "read_openbookqa",
    "read_paws",
    "read_published",
    "read_rte",
    "read_stsb",
    "read_trec_coarse",
    "read_trec_fine",
]


def _find(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"folder {str(folder)!r} holds none of {', '.join(names)}")


def _text(path: Path, encoding: str = "utf-8-sig") -> str:
    try:
        return path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"file {str(path)!r} is not {encoding} (byte {error.start}); convert it first") from None


def _tsv(path: Path, columns: tuple[str, ...] | None = None) -> Iterator[dict[str, str]]:
    """Tab-separated without quoting: a quotation mark is part of the text."""
    lines = [line.split("\t") for line in _text(path).replace("\r\n", "\n").split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"file {str(path)!r} is empty")
    header = columns or tuple(lines.pop(0))
    for number, cells in enumerate(lines, start=1 if columns else 2):
        if len(cells) < len(header):
            raise ValueError(f"line {number} of {str(path)!r} has {len(cells)} fields, expected {len(header)}")
        yield dict(zip(header, cells, strict=False))


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {str(path)!r} is no JSON ({error.msg})") from None


def _csv(path: Path) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(io.StringIO(_text(path), newline=""))


def _take(row: dict[str, Any], path: Path, *names: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise ValueError(f"file {str(path)!r} has no column {' or '.join(names)}; it has {', '.join(map(str, row))}")


def _pairs(path: Path, first: str, second: str, label: str, columns: tuple[str, ...] | None = None) -> Rows:
    return [
        {"text": _take(row, path, first), "text_pair": _take(row, path, second), "label": _take(row, path, label)}
        for row in _tsv(path, columns)
    ]


def _trec(path: Path, *, fine: bool) -> Rows:
    rows = []
    for number, line in enumerate(_text(path, "latin-1").splitlines(), start=1):
        if not line.strip():
            continue
        label, _, text = line.partition(" ")
        if ":" not in label:
            raise ValueError(f"line {number} of {str(path)!r} does not begin with LABEL:fine, got {label!r}")
        rows.append({"text": text, "label": label if fine else label.split(":")[0]})
    return rows


def read_trec_coarse(folder: Path) -> Splits:
    """Read TREC with its 6 coarse classes."""
    return _read_trec(folder, fine=False)


def read_trec_fine(folder: Path) -> Splits:
    """Read TREC with its 50 fine classes."""
    return _read_trec(folder, fine=True)


def _read_trec(folder: Path, *, fine: bool) -> Splits:
    train = _find(folder, "train_5500.label", "train.label")
    return {"train": _trec(train, fine=fine), "heldout": _trec(_find(folder, "TREC_10.label"), fine=fine)}


def read_mrpc(folder: Path) -> Splits:
    """Read the paraphrase corpus as Microsoft or GLUE publish it."""
    names = ("#1 String", "#2 String", "Quality")
    return {
        "train": _pairs(_find(folder, "train.tsv", "msr_paraphrase_train.txt"), *names),
        "heldout": _pairs(_find(folder, "test.tsv", "msr_paraphrase_test.txt"), *names),
    }


def read_stsb(folder: Path) -> Splits:
    """Read STS-B as its publisher or GLUE do."""
    columns = ("genre", "filename", "year", "number", "score", "sentence1", "sentence2")
    path = folder / "sts-train.csv"
    names = ("sentence1", "sentence2", "score")
    if path.is_file():
        heldout = _find(folder, "sts-test.csv", "sts-dev.csv")
        return {"train": _pairs(path, *names, columns), "heldout": _pairs(heldout, *names, columns)}
    return {
        "train": _pairs(_find(folder, "train.tsv"), *names),
        "heldout": _pairs(_find(folder, "dev.tsv"), *names),
        "notes": ("held out: dev.tsv, whose labels are public",),
    }


def read_paws(folder: Path) -> Splits:
    """Read PAWS, labelled and final."""
    names = ("sentence1", "sentence2", "label")
    return {
        "train": _pairs(_find(folder, "train.tsv"), *names),
        "heldout": _pairs(_find(folder, "test.tsv"), *names),
    }


def read_cola(folder: Path) -> Splits:
    """Read CoLA as its publisher or GLUE do."""
    columns = ("source", "label", "mark", "sentence")

    def rows(path: Path) -> Rows:
        return [{"text": row["sentence"], "label": row["label"]} for row in _tsv(path, columns)]

    return {
        "train": rows(_find(folder, "in_domain_train.tsv", "train.tsv")),
        "heldout": rows(_find(folder, "in_domain_dev.tsv", "dev.tsv")),
        "notes": ("held out: the in-domain development file; the test labels are not public",),
    }


def read_rte(folder: Path) -> Splits:
    """Read RTE as SuperGLUE or GLUE do."""
    notes = ("held out: the development file; the test labels are not public",)
    if (folder / "train.tsv").is_file():
        names = ("sentence1", "sentence2", "label")
        train, heldout = _pairs(folder / "train.tsv", *names), _pairs(_find(folder, "dev.tsv"), *names)
    else:
        path, held = _find(folder, "train.jsonl"), _find(folder, "val.jsonl", "dev.jsonl")

        def rows(file: Path) -> Rows:
            return [
                {"text": _take(r, file, "premise"), "text_pair": _take(r, file, "hypothesis"), "label": r["label"]}
                for r in _jsonl(file)
            ]

        train, heldout = rows(path), rows(held)
    return {"train": train, "heldout": heldout, "notes": notes}


def read_folio(folder: Path) -> Splits:
    """Read FOLIO."""

    def rows(path: Path) -> Rows:
        found = []
        for row in _jsonl(path):
            premises = _take(row, path, "premises")
            label = str(_take(row, path, "label"))
            found.append(
                {
                    "text": premises if isinstance(premises, str) else " ".join(premises),
                    "text_pair": _take(row, path, "conclusion"),
                    "label": "Uncertain" if label == "Unknown" else label,
                }
            )
        return found

    return {
        "train": rows(_find(folder, "train.jsonl", "folio-train.jsonl", "folio_v2_train.jsonl")),
        "heldout": rows(_find(folder, "validation.jsonl", "folio-validation.jsonl", "folio_v2_validation.jsonl")),
        "notes": ("held out: the validation file; the test labels are not public",),
    }


def read_logiqa(folder: Path) -> Splits:
    """Read blocks of eight lines: empty, the answer's letter, the context, the question, four options."""

    def rows(path: Path) -> Rows:
        lines = _text(path).replace("\r\n", "\n").rstrip("\n").split("\n")
        found = []
        for start in range(0, len(lines), 8):
            block = lines[start : start + 8]
            if len(block) < 8 or block[1].strip().lower() not in ("a", "b", "c", "d"):
                raise ValueError(f"line {start + 2} of {str(path)!r} does not begin a LogiQA question")
            found.append(
                {
                    "text": f"{block[2]} {block[3]}",
                    "choices": [option.partition(".")[2].strip() or option for option in block[4:8]],
                    "label": "abcd".index(block[1].strip().lower()),
                }
            )
        return found

    return {"train": rows(_find(folder, "Train.txt")), "heldout": rows(_find(folder, "Test.txt"))}


def read_clutrr(folder: Path) -> Splits:
    """Read CLUTRR."""

    def rows(paths: list[Path]) -> Rows:
        return [
            {
                "text": _take(row, path, "clean_story", "story"),
                "text_pair": _take(row, path, "text_query", "query"),
                "label": _take(row, path, "text_target", "target_text", "target"),
            }
            for path in paths
            for row in _csv(path)
        ]

    train, test = sorted(folder.glob("*train.csv")), sorted(folder.glob("*test.csv"))
    if not train or not test:
        raise ValueError(f"folder {str(folder)!r} holds no *train.csv and *test.csv")
    return {"train": rows(train), "heldout": rows(test)}


def read_openbookqa(folder: Path) -> Splits:
    """Read OpenBookQA."""

    def rows(path: Path) -> Rows:
        found = []
        for row in _jsonl(path):
            question = _take(row, path, "question")
            labels = [choice["label"] for choice in question["choices"]]
            found.append(
                {
                    "text": question["stem"],
                    "choices": [choice["text"] for choice in question["choices"]],
                    "label": labels.index(row["answerKey"]),
                }
            )
        return found

    return {
        "train": rows(_find(folder, "train.jsonl", "Main/train.jsonl", "Data/Main/train.jsonl")),
        "heldout": rows(_find(folder, "test.jsonl", "Main/test.jsonl", "Data/Main/test.jsonl")),
    }


def read_e2e(folder: Path) -> Splits:
    """Read E2E."""

    def rows(path: Path) -> Rows:
        return [{"text": f"{_take(r, path, 'mr')}\n", "target": _take(r, path, "ref")} for r in _csv(path)]

    train = _find(folder, "trainset.csv", "devset.csv")
    notes = ("trained on devset.csv: the folder holds no trainset.csv",) if train.name == "devset.csv" else ()
    return {"train": rows(train), "heldout": rows(_find(folder, "testset_w_refs.csv")), "notes": notes}


def read_django(folder: Path) -> Splits:
    """Read the two files aligned by line; the customary split is 16,000 / 1,000 / 1,805 in file order."""
    prompts = _text(_find(folder, "all.anno")).split("\n")
    codes = _text(_find(folder, "all.code")).split("\n")
    prompts, codes = ([line.rstrip("\r") for line in lines] for lines in (prompts, codes))
    if len(prompts) != len(codes):
        raise ValueError(f"all.anno has {len(prompts)} lines and all.code {len(codes)}; they must be aligned")
    rows = [
        {"text": f"{prompt.strip()}\n", "target": code.strip()}
        for prompt, code in zip(prompts, codes, strict=True)
        if prompt.strip() and code.strip()
    ]
    if len(rows) < 18_000:
        return {"all": rows, "notes": ("not the full 18,805 lines: split by seed",)}
    return {"train": rows[:16_000], "heldout": rows[17_000:], "notes": ("customary split by line; 1,000 unused",)}


def _read(preset: Dataset, folder: Path) -> Splits:
    reader = resolve(preset.reader)
    if not callable(reader):
        raise TypeError(f"reader of data set {preset.name!r} must be a function of a folder, got {reader!r}")
    splits = reader(folder)
    if not isinstance(splits, dict) or not ({"train", "heldout"} <= set(splits) or "all" in splits):
        raise ValueError(f"reader of data set {preset.name!r} must return train and heldout, or all")
    return splits


def read_published(preset: Dataset, *, data: str | None, options: DataOptions, seed: int) -> RawTask:
    """Read a preset from its publisher's folder, or from the hub when ``data`` is None.

    Raises:
        ValueError: if a file in the folder is missing or malformed, or the hub is out of reach.
    """
    splits = read_hub_preset(preset) if data is None else _read(preset, Path(data).expanduser())
    if "all" in splits:
        splits["train"], splits["heldout"] = split_by_seed(splits["all"], share=options.heldout_share, seed=seed)
    return RawTask(
        kind=preset.kind,
        train=splits["train"],
        heldout=splits["heldout"],
        metric_name=preset.metric_name,
        label_names=preset.label_names,
        label_range=preset.label_range,
        notes=tuple(splits.get("notes", ())),
    )
