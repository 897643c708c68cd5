"""The publishers' own file formats, as they are: encodings, byte-order marks, quoting, line endings.

Each reader takes a folder and returns ``{"train": rows, "heldout": rows}`` (and notes). A data set with
no held-out file returns ``"all"`` instead, which is split by seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.tasks.files import find_file, read_delimited, read_json_rows, read_text
from analysis.tasks.presets import Dataset
from analysis.tasks.screen import screen
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


def _tsv(path: Path, columns: tuple[str, ...] | None = None, *, more_fields: bool = False) -> Rows:
    """Read tab-separated fields without quoting: a quotation mark is part of the text."""
    found = read_delimited(path, separator="\t", quoting="none", columns=columns, more_fields=more_fields)
    return [dict(row) for row in found.rows]


def _take(row: Mapping[str, Any], path: Path, *names: str) -> Any:
    """Return the first of these columns that a row has; null where it has one but no value in it."""
    there = [name for name in names if name in row]
    if not there:
        raise ValueError(f"file {str(path)!r} has no column {' or '.join(names)}; it has {', '.join(map(str, row))}")
    return next((row[name] for name in there if row[name] is not None), None)


def _pairs(path: Path, first: str, second: str, label: str, columns: tuple[str, ...] | None = None) -> Rows:
    return [
        {"text": _take(row, path, first), "text_pair": _take(row, path, second), "label": _take(row, path, label)}
        for row in _tsv(path, columns, more_fields=columns is not None)
    ]


def _lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Return a file's lines; only line feeds end one, whatever else a letter of the encoding may mean elsewhere."""
    return read_text(path, encoding).replace("\r\n", "\n").removesuffix("\n").split("\n")


def _trec(path: Path, *, fine: bool) -> Rows:
    rows = []
    for number, line in enumerate(_lines(path, "latin-1"), start=1):
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
    train = find_file(folder, "train_5500.label", "train.label")
    return {"train": _trec(train, fine=fine), "heldout": _trec(find_file(folder, "TREC_10.label"), fine=fine)}


def read_mrpc(folder: Path) -> Splits:
    """Read the paraphrase corpus as Microsoft or GLUE publish it."""
    names = ("#1 String", "#2 String", "Quality")
    return {
        "train": _pairs(find_file(folder, "train.tsv", "msr_paraphrase_train.txt"), *names),
        "heldout": _pairs(find_file(folder, "test.tsv", "msr_paraphrase_test.txt"), *names),
    }


def read_stsb(folder: Path) -> Splits:
    """Read STS-B as its publisher or GLUE do."""
    columns = ("genre", "filename", "year", "number", "score", "sentence1", "sentence2")
    names = ("sentence1", "sentence2", "score")
    if any(folder.glob("sts-train.csv*")):
        path = find_file(folder, "sts-train.csv")
        heldout = find_file(folder, "sts-test.csv", "sts-dev.csv")
        return {"train": _pairs(path, *names, columns), "heldout": _pairs(heldout, *names, columns)}
    return {
        "train": _pairs(find_file(folder, "train.tsv"), *names),
        "heldout": _pairs(find_file(folder, "dev.tsv"), *names),
        "notes": ("held out: dev.tsv, whose labels are public",),
    }


def read_paws(folder: Path) -> Splits:
    """Read PAWS, labelled and final."""
    names = ("sentence1", "sentence2", "label")
    return {
        "train": _pairs(find_file(folder, "train.tsv"), *names),
        "heldout": _pairs(find_file(folder, "test.tsv"), *names),
    }


def read_cola(folder: Path) -> Splits:
    """Read CoLA as its publisher or GLUE do."""
    columns = ("source", "label", "mark", "sentence")

    def rows(path: Path) -> Rows:
        return [{"text": row["sentence"], "label": row["label"]} for row in _tsv(path, columns)]

    return {
        "train": rows(find_file(folder, "in_domain_train.tsv", "train.tsv")),
        "heldout": rows(find_file(folder, "in_domain_dev.tsv", "dev.tsv")),
        "notes": ("held out: the in-domain development file; the test labels are not public",),
    }


def read_rte(folder: Path) -> Splits:
    """Read RTE as SuperGLUE or GLUE do."""
    notes = ("held out: the development file; the test labels are not public",)
    if any(folder.glob("train.tsv*")):
        names = ("sentence1", "sentence2", "label")
        train, heldout = _pairs(find_file(folder, "train.tsv"), *names), _pairs(find_file(folder, "dev.tsv"), *names)
    else:
        names = ("premise", "hypothesis", "label")
        path, held = find_file(folder, "train.jsonl"), find_file(folder, "val.jsonl", "dev.jsonl")

        def rows(file: Path) -> Rows:
            return [
                dict(zip(("text", "text_pair", "label"), (_take(r, file, n) for n in names), strict=True))
                for r in read_json_rows(file).rows
            ]

        train, heldout = rows(path), rows(held)
    return {"train": train, "heldout": heldout, "notes": notes}


def read_folio(folder: Path) -> Splits:
    """Read FOLIO."""

    def rows(path: Path) -> Rows:
        found = []
        for row in read_json_rows(path).rows:
            premises = _take(row, path, "premises")
            label = _take(row, path, "label")
            found.append(
                {
                    "text": " ".join(premises) if isinstance(premises, list) else premises,
                    "text_pair": _take(row, path, "conclusion"),
                    "label": "Uncertain" if label == "Unknown" else label,
                }
            )
        return found

    return {
        "train": rows(find_file(folder, "train.jsonl", "folio-train.jsonl", "folio_v2_train.jsonl")),
        "heldout": rows(find_file(folder, "validation.jsonl", "folio-validation.jsonl", "folio_v2_validation.jsonl")),
        "notes": ("held out: the validation file; the test labels are not public",),
    }


def read_logiqa(folder: Path) -> Splits:
    """Read blocks of eight lines: empty, the answer's letter, the context, the question, four options."""

    def rows(path: Path) -> Rows:
        lines = _lines(path)
        while lines and not lines[-1].strip():
            lines.pop()
        found = []
        for start in range(0, len(lines), 8):
            block = lines[start : start + 8]
            if len(block) < 8 or block[1].strip().lower() not in ("a", "b", "c", "d"):
                raise ValueError(f"line {start + 2} of {str(path)!r} does not begin a LogiQA question")
            found.append(
                {
                    "text": f"{block[2]} {block[3]}",
                    "choices": [re.sub(r"^[A-D]\s*\.\s*", "", option) for option in block[4:8]],
                    "label": "abcd".index(block[1].strip().lower()),
                }
            )
        return found

    return {"train": rows(find_file(folder, "Train.txt")), "heldout": rows(find_file(folder, "Test.txt"))}


def read_clutrr(folder: Path) -> Splits:
    """Read CLUTRR as its generator or the hub's copy writes it.

    The generator's ``text_query`` is always empty and its ``text_target`` a list of sentences; the question is its
    ``query`` and the class the relation in ``target``. The hub's copy has the relation in ``target_text`` and a number
    in ``target``.
    """

    def rows(paths: list[Path]) -> Rows:
        found = []
        for path in paths:
            for number, row in enumerate(read_delimited(path, quoting="double").rows, start=1):
                relation = str(_take(row, path, "target_text", "target")).strip()
                if re.fullmatch(r"[a-z]+(-[a-z]+)*", relation) is None:
                    raise ValueError(f"row {number} of {str(path)!r} has target {relation[:60]!r}, expected a relation")
                question = _take(row, path, "query")
                found.append(
                    {"text": _take(row, path, "clean_story", "story"), "text_pair": question, "label": relation}
                )
        return found

    train, test = (
        sorted(path for name in (f"*{split}.csv", f"*{split}.csv.*") for path in folder.glob(name))
        for split in ("train", "test")
    )
    if not train or not test:
        raise ValueError(f"folder {str(folder)!r} holds no *train.csv and *test.csv")
    return {"train": rows(train), "heldout": rows(test)}


def read_openbookqa(folder: Path) -> Splits:
    """Read OpenBookQA."""

    def rows(path: Path) -> Rows:
        found = []
        for number, row in enumerate(read_json_rows(path).rows, start=1):
            question, key = _take(row, path, "question"), row.get("answerKey")
            labels = [choice["label"] for choice in question["choices"]]
            if key and key not in labels:
                raise ValueError(
                    f"row {number} of {str(path)!r} has answerKey {key!r}, none of its {', '.join(labels)}"
                )
            found.append(
                {
                    "text": question["stem"],
                    "choices": [choice["text"] for choice in question["choices"]],
                    "label": labels.index(key) if key else None,
                }
            )
        return found

    return {
        "train": rows(find_file(folder, "train.jsonl", "Main/train.jsonl", "Data/Main/train.jsonl")),
        "heldout": rows(find_file(folder, "test.jsonl", "Main/test.jsonl", "Data/Main/test.jsonl")),
    }


def read_e2e(folder: Path) -> Splits:
    """Read E2E."""

    def rows(path: Path) -> Rows:
        table = read_delimited(path, quoting="double")
        return [{"text": f"{_take(r, path, 'mr')}\n", "target": _take(r, path, "ref")} for r in table.rows]

    train = find_file(folder, "trainset.csv", "devset.csv")
    notes = ("trained on devset.csv: the folder holds no trainset.csv",) if train.name == "devset.csv" else ()
    return {"train": rows(train), "heldout": rows(find_file(folder, "testset_w_refs.csv")), "notes": notes}


def read_django(folder: Path) -> Splits:
    """Read the two files aligned by line; the customary split is 16,000 / 1,000 / 1,805 in file order."""
    prompts, codes = (_lines(find_file(folder, name)) for name in ("all.anno", "all.code"))
    if len(prompts) != len(codes):
        raise ValueError(f"all.anno has {len(prompts)} lines and all.code {len(codes)}; they must be aligned")
    pairs = [(prompt.strip(), code.strip()) for prompt, code in zip(prompts, codes, strict=True)]
    rows = [{"text": f"{prompt}\n", "target": code} for prompt, code in pairs if prompt and code]
    lacking = len(pairs) - len(rows)
    notes = (f"{lacking} lines without annotation or code left out",) if lacking else ()
    if len(rows) < 18_000:
        return {"all": rows, "notes": ("not the full 18,805 lines: split by seed", *notes)}
    return {
        "train": rows[:16_000],
        "heldout": rows[17_000:],
        "notes": ("customary split by line; 1,000 unused", *notes),
    }


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
    names = ("all",) if "all" in splits else ("train", "heldout")
    parts = tuple(screen(splits[name], kind=preset.kind, missing=options.missing, where=name) for name in names)
    train, heldout = parts[0].rows, parts[-1].rows
    if "all" in splits:
        train, heldout = split_by_seed(train, share=options.heldout_share, seed=seed, stratify=options.stratify)
    return RawTask(
        kind=preset.kind,
        train=train,
        heldout=heldout,
        metric_name=preset.metric_name,
        label_names=preset.label_names,
        label_range=preset.label_range,
        notes=tuple(splits.get("notes", ())),
        parts=parts,
    )
