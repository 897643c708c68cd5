"""Rows of a data set -> encoded examples: labels parsed, text tokenised, batches padded to their longest."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analysis.tasks.batches import pad_batch, stack_images
from analysis.tasks.clusters import text_clusters
from analysis.tasks.image_files import identify
from analysis.tasks.kinds import Kind
from analysis.tasks.models import load_image_processor, load_tokenizer, supports_multiple_choice
from analysis.tasks.report import report_data, shown_image
from analysis.tasks.task import DataOptions, RawTask, Task, choose

__all__ = ["encode_task"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _subsample(
    rows: Sequence[dict[str, Any]], count: int | None, *, seed: int, name: str, stratify: bool
) -> Sequence[dict[str, Any]]:
    if count is None:
        return rows
    if count > len(rows):
        raise ValueError(f"{name} must be at most {len(rows)}, the examples there are, got {count}")
    labels = [_label_text(row["label"]) for row in rows] if stratify else None
    rng = np.random.default_rng([seed, 2])
    return [rows[i] for i in choose(len(rows), count, labels=labels, rng=rng, every_class=name == "num_train")]


def _label_text(label: object) -> str:
    """Write a class out; a whole number stays one where a column of numbers was read as floats."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _class_names(raw: RawTask) -> tuple[str, ...]:
    """Name the classes: the data set's own, or those that occur in either split."""
    if raw.kind == "multiple-choice":
        names = tuple(_LETTERS[: max(len(row["choices"]) for row in (*raw.train, *raw.heldout))])
    else:
        labels = {_label_text(row["label"]) for row in (*raw.train, *raw.heldout)}
        names = raw.label_names or tuple(sorted(labels))
    seen = {_label_text(row["label"]) for row in raw.train}
    if len(seen) < 2:
        raise ValueError(f"the training split has one class only ({next(iter(seen))!r}); a classifier needs two")
    return names


def _class_index(row: dict[str, Any], names: tuple[str, ...], split: str, number: int) -> int:
    text = _label_text(row["label"])
    if "choices" in row:
        count = len(row["choices"])
        index = int(text) if re.fullmatch(r"-?\d+", text) else _LETTERS[:count].find(text.upper())
        if not 0 <= index < count or (len(text) != 1 and not text.isdigit()):
            raise ValueError(
                f"label {row['label']!r} of {split} example {number} is none of its {count} choices; "
                f"accepted: 0 to {count - 1} or A to {_LETTERS[count - 1]}"
            )
        return index
    try:
        return names.index(text)
    except ValueError:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(
            f"label {row['label']!r} of {split} example {number} is no class of this data set; accepted: {shown}"
        ) from None


def _number(row: dict[str, Any], split: str, number: int) -> float:
    try:
        value = float(row["label"])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"label {row['label']!r} of {split} example {number} is no finite number")
    return value


def _check_rows(raw: RawTask) -> None:
    for split in ("train", "heldout"):
        rows = getattr(raw, split)
        if len(rows) == 0:
            raise ValueError(f"the {split} split is empty")
        if "text" in rows[0] and not any(row["text"].strip() for row in rows):
            raise ValueError(f"the text of every {split} example is empty")


def _lettered(row: dict[str, Any]) -> str:
    return " ".join(
        [row["text"], *(f"({letter}) {choice}" for letter, choice in zip(_LETTERS, row["choices"], strict=False))]
    )


@dataclasses.dataclass(frozen=True)
class _Encoded:
    """Examples as token lists, and which of them were cut."""

    examples: list[dict[str, Any]]
    cut: list[bool]

    def lengths(self) -> list[int]:
        ids = [example["input_ids"] for example in self.examples]
        return [max(map(len, one)) if one and isinstance(one[0], list) else len(one) for one in ids]


def _cut(encoded: Any, limit: int) -> list[bool]:
    """Say of each text of a batch whether it was cut; a tokenizer in plain Python leaves "is as long as allowed"."""
    if encoded.encodings is not None:
        return [bool(one.overflowing) for one in encoded.encodings]
    return [len(ids) >= limit for ids in encoded["input_ids"]]


def _encode_rows(rows: Sequence[dict[str, Any]], tokenizer: Any, kind: Kind, max_length: int) -> _Encoded:
    limit: dict[str, Any] = {"truncation": True, "max_length": max_length}
    if kind == "multiple-choice":
        questions = [tokenizer([row["text"]] * len(row["choices"]), [*row["choices"]], **limit) for row in rows]
        return _Encoded([dict(one) for one in questions], [any(_cut(one, max_length)) for one in questions])
    if kind == "causal-lm":
        return _encode_completions(rows, tokenizer, limit)
    pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    encoded = tokenizer([row["text"] for row in rows], pairs, **limit)
    return _Encoded([{key: encoded[key][i] for key in encoded} for i in range(len(rows))], _cut(encoded, max_length))


def _encode_completions(rows: Sequence[dict[str, Any]], tokenizer: Any, limit: dict[str, Any]) -> _Encoded:
    """Prompt then target then end of text; the loss is on the target alone (its prompt's labels are -100)."""
    longest = limit["max_length"]
    prompts = tokenizer([row["text"] for row in rows], **limit)
    targets = tokenizer([row["target"] for row in rows], add_special_tokens=False, **limit)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    examples, cut = [], [a or b for a, b in zip(_cut(prompts, longest), _cut(targets, longest), strict=True)]
    for i, (prompt, target) in enumerate(zip(prompts["input_ids"], targets["input_ids"], strict=True)):
        kept = prompt[: max(1, longest - len(target) - len(end))]
        ids = [*kept, *target, *end][:longest]
        labels = [*([-100] * len(kept)), *target, *end][:longest]
        cut[i] = cut[i] or len(ids) < len(prompt) + len(target) + len(end)
        examples.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return _Encoded(examples, cut)


def _identity(row: dict[str, Any]) -> Any:
    return tuple(
        (key, tuple(value) if isinstance(value, list) else value)
        for key, value in sorted(row.items())
        if key in ("text", "text_pair", "choices")
    )


def _shown(example: dict[str, Any], name: str, tokenizer: Any) -> str:
    """Decode one example as the model sees it, special tokens and all."""
    ids = example["input_ids"]
    if ids and isinstance(ids[0], list):
        text = " | ".join(tokenizer.decode(one) for one in ids)
    elif isinstance(example["labels"], list):
        start = next((i for i, label in enumerate(example["labels"]) if label != -100), len(ids))
        return f"{tokenizer.decode(ids[:start])!r} -> {tokenizer.decode(ids[start:])!r}"
    else:
        text = tokenizer.decode(ids)
    return f"{text!r} -> {name or example['labels']}"


def encode_task(raw: RawTask, *, name: str, model: str, seed: int, options: DataOptions) -> Task:
    """Parse labels, tokenise, and build the task.

    Multiple choice with a model that has no such head (decoders) becomes classification over lettered
    choices in the prompt; the task's notes say so.

    Raises:
        ValueError: an empty split, all texts empty, one class only, a label that does not parse; or what the data
            report warns about, where the options are strict.
    """
    _check_rows(raw)
    if options.stratify and raw.kind in ("regression", "causal-lm"):
        raise ValueError(f"stratify needs classes; task {name!r} of kind {raw.kind!r} has none")
    names = () if raw.kind in ("regression", "causal-lm") else _class_names(raw)
    draw = functools.partial(_subsample, seed=seed, stratify=options.stratify)
    raw = dataclasses.replace(
        raw,
        train=draw(raw.train, options.num_train, name="num_train"),
        heldout=draw(raw.heldout, options.num_heldout, name="num_heldout"),
    )
    built = functools.partial(Task, name=name, model=model, seed=seed, stratify=options.stratify, label_names=names)
    if raw.kind == "image-classification":
        task = _image_task(raw, built, load_image_processor(model), names)
    else:
        task = _text_task(raw, built, model, names, options)
    if options.strict and task.report.warnings:
        more = f" (and {len(task.report.warnings) - 1} more)" if task.report.warnings[1:] else ""
        raise ValueError(f"strict: {task.report.warnings[0]}{more}; mend the data, or leave strict out")
    return task


def _text_task(
    raw: RawTask, built: Callable[..., Task], model: str, names: tuple[str, ...], options: DataOptions
) -> Task:
    kind, notes, tokenizer, max_length = raw.kind, raw.notes, load_tokenizer(model), options.max_length or 128
    encode_as, count = kind, 0
    if kind == "multiple-choice":
        counts = {len(row["choices"]) for split in (raw.train, raw.heldout) for row in split}
        if supports_multiple_choice(model) and len(counts) == 1:
            count = counts.pop()
        else:
            encode_as = "text-classification"
            notes = (*notes, "choices lettered in the prompt, answered by a classification head")
    rows = {"train": raw.train, "heldout": raw.heldout}
    encoded, labels = {}, {}
    for split, members in rows.items():
        texts = [{"text": _lettered(row)} for row in members] if encode_as != kind else members
        encoded[split] = _encode_rows(texts, tokenizer, encode_as, max_length)
        if kind != "causal-lm":
            labels[split] = [
                _number(row, split, i) if kind == "regression" else _class_index(row, names, split, i)
                for i, row in enumerate(members)
            ]
            for example, label in zip(encoded[split].examples, labels[split], strict=True):
                example["labels"] = label
    inputs = {split: [_identity(row) for row in members] for split, members in rows.items()}
    classes = {split: [names[int(i)] for i in labels[split]] if names else [] for split in rows}
    report = report_data(
        kind=kind,
        parts=raw.parts,
        rows=rows,
        inputs=inputs,
        classes=classes,
        names=names,
        shown=[_shown(encoded[s].examples[0], classes[s][0] if names else "", tokenizer) for s in rows],
        lengths={split: encoded[split].lengths() for split in rows},
        cut={split: sum(encoded[split].cut) for split in rows},
        max_length=max_length,
    )
    return built(
        kind=encode_as,
        train=encoded["train"].examples,
        heldout=encoded["heldout"].examples,
        collate=functools.partial(pad_batch, pad_id=tokenizer.pad_token_id, choices=count),
        metric_name=raw.metric_name,
        notes=notes,
        overlap=report.overlap,
        pad_id=tokenizer.pad_token_id,
        decode=functools.partial(tokenizer.decode, skip_special_tokens=True),
        report=report,
        clusters=text_clusters(raw.heldout),
        **_loss(raw, names, len(tokenizer), labels.get("train"), options),
    )


def _loss(
    raw: RawTask, names: tuple[str, ...], vocabulary: int, labels: list[Any] | None, options: DataOptions
) -> dict[str, Any]:
    """Return the loss of a task, where it is clipped, and the number of the model's outputs."""
    if raw.kind == "regression":
        low, high = options.label_range or raw.label_range or _observed_range(labels or [])
        return {"loss_name": "squared_error", "max_loss": (high - low) ** 2, "num_labels": 1}
    count = vocabulary if raw.kind == "causal-lm" else len(names)
    return {"loss_name": "cross_entropy", "max_loss": math.log(10 * count), "num_labels": count}


def _observed_range(labels: list[float]) -> tuple[float, float]:
    low, high = min(labels), max(labels)
    if low == high:
        raise ValueError(f"every training label is {low}; a regression needs two different labels")
    return low, high


class _Images(Sequence):
    """Encoded images, decoded when asked for."""

    def __init__(self, rows: Sequence[dict[str, Any]], labels: list[int], processor: Any) -> None:
        self.rows, self.labels, self.processor = rows, labels, processor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        image = self.rows[index]["image"]
        image = image() if callable(image) else image
        pixels = self.processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": self.labels[index]}


def _image_task(raw: RawTask, built: Callable[..., Task], processor: Any, names: tuple[str, ...]) -> Task:
    rows = {"train": raw.train, "heldout": raw.heldout}
    labels = {s: [_class_index(row, names, s, i) for i, row in enumerate(members)] for s, members in rows.items()}
    splits = {split: _Images(members, labels[split], processor) for split, members in rows.items()}
    classes = {split: [names[i] for i in labels[split]] for split in rows}
    report = report_data(
        kind=raw.kind,
        parts=raw.parts,
        rows=rows,
        inputs=dict(zip(rows, identify([[row["image"] for row in members] for members in rows.values()]), strict=True)),
        classes=classes,
        names=names,
        shown=[shown_image(splits[split][0]["pixel_values"], classes[split][0]) for split in rows],
    )
    return built(
        kind="image-classification",
        train=splits["train"],
        heldout=splits["heldout"],
        num_labels=len(names),
        collate=stack_images,
        metric_name=raw.metric_name,
        max_loss=math.log(10 * len(names)),
        notes=raw.notes,
        overlap=report.overlap,
        report=report,
    )
