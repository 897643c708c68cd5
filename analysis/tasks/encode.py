"""Rows of a data set -> encoded examples: labels parsed, text tokenised, batches padded to their longest."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from analysis.tasks.batches import pad_batch, stack_images
from analysis.tasks.kinds import Kind
from analysis.tasks.models import load_image_processor, load_tokenizer, supports_multiple_choice
from analysis.tasks.task import DataOptions, RawTask, Task

__all__ = ["encode_task"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _subsample(rows: Sequence[dict[str, Any]], count: int | None, *, seed: int, name: str) -> Sequence[dict[str, Any]]:
    if count is None:
        return rows
    if count > len(rows):
        raise ValueError(f"{name} must be at most {len(rows)}, the examples there are, got {count}")
    chosen = np.random.default_rng([seed, 2]).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(chosen.tolist())]


def _class_names(raw: RawTask) -> tuple[str, ...]:
    for split in ("train", "heldout"):
        for number, row in enumerate(getattr(raw, split)):
            if row["label"] is None or not str(row["label"]).strip():
                raise ValueError(f"the label of {split} example {number} is empty; fill it in or leave the row out")
    if raw.kind == "multiple-choice":
        names = tuple(_LETTERS[: max(len(row["choices"]) for row in raw.train)])
    else:
        names = raw.label_names or tuple(sorted({str(row["label"]) for row in raw.train}))
    seen = {str(row["label"]) for row in raw.train}
    if len(seen) < 2:
        raise ValueError(f"the training split has one class only ({next(iter(seen))!r}); a classifier needs two")
    return names


def _class_index(row: dict[str, Any], names: tuple[str, ...], split: str, number: int) -> int:
    label = row["label"]
    if "choices" in row and isinstance(label, int):
        if not 0 <= label < len(row["choices"]):
            raise ValueError(f"label {label} of {split} example {number} is none of its {len(row['choices'])} choices")
        return label
    try:
        return names.index(str(label))
    except ValueError:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"label {label!r} of {split} example {number} does not parse; accepted: {shown}") from None


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


def _encode_rows(rows: Sequence[dict[str, Any]], tokenizer: Any, kind: Kind, max_length: int) -> list[dict[str, Any]]:
    if kind == "multiple-choice":
        return [
            dict(
                tokenizer(
                    [row["text"]] * len(row["choices"]), list(row["choices"]), truncation=True, max_length=max_length
                )
            )
            for row in rows
        ]
    if kind == "causal-lm":
        return [_encode_completion(row, tokenizer, max_length) for row in rows]
    pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    encoded = tokenizer([row["text"] for row in rows], pairs, truncation=True, max_length=max_length)
    return [{key: encoded[key][i] for key in encoded} for i in range(len(rows))]


def _encode_completion(row: dict[str, Any], tokenizer: Any, max_length: int) -> dict[str, Any]:
    """Prompt then target then end of text; the loss is on the target alone (its prompt's labels are -100)."""
    prompt = tokenizer(row["text"], truncation=True, max_length=max_length)["input_ids"]
    target = tokenizer(row["target"], add_special_tokens=False, truncation=True, max_length=max_length)["input_ids"]
    if tokenizer.eos_token_id is not None:
        target = [*target, tokenizer.eos_token_id]
    prompt = prompt[: max(1, max_length - len(target))]
    ids = [*prompt, *target][:max_length]
    labels = [*([-100] * len(prompt)), *target][:max_length]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def _identity(row: dict[str, Any]) -> Any:
    return tuple(
        (key, tuple(value) if isinstance(value, list) else value)
        for key, value in sorted(row.items())
        if key in ("text", "text_pair", "choices")
    )


def encode_task(raw: RawTask, *, name: str, model: str, seed: int, options: DataOptions) -> Task:
    """Parse labels, tokenise, and build the task.

    Multiple choice with a model that has no such head (decoders) becomes classification over lettered
    choices in the prompt; the task's notes say so.

    Raises:
        ValueError: an empty split, all texts empty, one class only, a label that does not parse.
    """
    _check_rows(raw)
    names = () if raw.kind in ("regression", "causal-lm") else _class_names(raw)
    raw = dataclasses.replace(
        raw,
        train=_subsample(raw.train, options.num_train, seed=seed, name="num_train"),
        heldout=_subsample(raw.heldout, options.num_heldout, seed=seed, name="num_heldout"),
    )
    kind, notes = raw.kind, raw.notes
    if kind == "image-classification":
        return _image_task(raw, name=name, model=model, seed=seed, names=names)
    tokenizer = load_tokenizer(model)
    encode_as, count = kind, 0
    if kind == "multiple-choice":
        counts = {len(row["choices"]) for split in (raw.train, raw.heldout) for row in split}
        if supports_multiple_choice(model) and len(counts) == 1:
            count = counts.pop()
        else:
            encode_as = "text-classification"
            notes = (*notes, "choices lettered in the prompt, answered by a classification head")
    splits, parsed_labels = {}, {}
    for split, rows in (("train", raw.train), ("heldout", raw.heldout)):
        texts = [{"text": _lettered(row)} for row in rows] if encode_as != kind else rows
        examples = _encode_rows(texts, tokenizer, encode_as, options.max_length or 128)
        if kind == "regression":
            parsed_labels[split] = [_number(row, split, i) for i, row in enumerate(rows)]
        elif kind != "causal-lm":
            parsed_labels[split] = [_class_index(row, names, split, i) for i, row in enumerate(rows)]
        for i, example in enumerate(examples):
            if split in parsed_labels:
                example["labels"] = parsed_labels[split][i]
        splits[split] = examples
    num_labels, max_loss = len(names), math.log(10 * max(len(names), 1))
    loss_name: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    if kind == "regression":
        low, high = options.label_range or raw.label_range or _observed_range(parsed_labels["train"])
        num_labels, loss_name, max_loss = 1, "squared_error", (high - low) ** 2
    elif kind == "causal-lm":
        num_labels = len(tokenizer)
        max_loss = math.log(10 * num_labels)
    seen = {_identity(row) for row in raw.train}
    return Task(
        name=name,
        kind=encode_as,
        train=splits["train"],
        heldout=splits["heldout"],
        num_labels=num_labels,
        label_names=names,
        collate=functools.partial(pad_batch, pad_id=tokenizer.pad_token_id, choices=count),
        metric_name=raw.metric_name,
        loss_name=loss_name,
        max_loss=max_loss,
        model=model,
        seed=seed,
        notes=notes,
        overlap=sum(_identity(row) in seen for row in raw.heldout),
    )


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


def _image_task(raw: RawTask, *, name: str, model: str, seed: int, names: tuple[str, ...]) -> Task:
    processor = load_image_processor(model)
    splits = {
        split: _Images(rows, [_class_index(row, names, split, i) for i, row in enumerate(rows)], processor)
        for split, rows in (("train", raw.train), ("heldout", raw.heldout))
    }
    return Task(
        name=name,
        kind="image-classification",
        train=splits["train"],
        heldout=splits["heldout"],
        num_labels=len(names),
        label_names=names,
        collate=stack_images,
        metric_name=raw.metric_name,
        max_loss=math.log(10 * len(names)),
        model=model,
        seed=seed,
        notes=raw.notes,
    )
