"""Several examples of a language model in one sequence, so that little of a batch is padding.

Each example keeps positions of its own, counted from 0, and sees no other: transformers masks attention between
sequences that begin at position 0 where no attention mask is given. `check_packing` looks whether a model does so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from analysis.tasks import Task

__all__ = ["check_packing", "collate_packed", "pack", "packed_task"]

Block = list[dict[str, Any]]


def pack(examples: Sequence[dict[str, Any]], *, length: int) -> list[Block]:
    """Put examples into blocks of at most ``length`` tokens, in their order, each into the first block with room.

    Args:
        examples: token lists under ``"input_ids"`` and ``"labels"``.
        length: tokens of a block; a longer example has one of its own.

    >>> blocks = pack([{"input_ids": [0] * size} for size in (3, 4, 1, 2)], length=5)
    >>> [[len(example["input_ids"]) for example in block] for block in blocks]
    [[3, 1], [4], [2]]
    """
    blocks: list[Block] = []
    room: list[int] = []
    for example in examples:
        size = len(example["input_ids"])
        place = next((i for i, free in enumerate(room) if free >= size), None)
        if place is None:
            blocks.append([])
            room.append(length)
            place = len(blocks) - 1
        blocks[place].append(example)
        room[place] -= size
    return blocks


def collate_packed(blocks: Sequence[Block]) -> dict[str, Any]:
    """Join the examples of each block and fill up to the longest block, with tokens that nothing sees or predicts.

    Returns:
        ``input_ids``, ``position_ids`` and ``labels``, each of shape (blocks, length), and ``use_cache`` False, without
        which transformers would not look at the positions. The first token of an example has no label: what stands
        before it is another example.
    """
    rows = [
        {
            "input_ids": [token for example in block for token in example["input_ids"]],
            "position_ids": [i for example in block for i in range(len(example["input_ids"]))],
            "labels": [label for example in block for label in [-100, *example["labels"][1:]]],
        }
        for block in blocks
    ]
    longest = max(len(row["input_ids"]) for row in rows)
    for row in rows:
        missing = longest - len(row["input_ids"])
        row["input_ids"] += [0] * missing
        row["position_ids"] += range(missing)
        row["labels"] += [-100] * missing
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]} | {"use_cache": False}


def packed_task(task: Task, *, length: int) -> Task:
    """Return the task with blocks for training examples."""
    blocks: Any = pack(task.train, length=length)  # each stands where an example stood, and is collated as such
    collate: Any = collate_packed
    return dataclasses.replace(task, train=blocks, collate=collate)


def check_packing(model: torch.nn.Module, blocks: Sequence[Block]) -> None:
    """Refuse a model in which an example sees the one before it in its block.

    The second example's logits are compared with those that it has alone, and with those of a model that is shown
    the first one: they have to be nearer to the former.

    Args:
        model: its mode is left as it was.
        blocks: from `pack`; the first one of several examples is looked at, cut to its first two.

    Raises:
        ValueError: if it does.
    """
    pair = next((block[:2] for block in blocks if len(block) > 1), None)
    if pair is None:
        return
    together, alone = collate_packed([pair]), collate_packed([pair[1:]])
    shown = {**together, "attention_mask": torch.ones_like(together["input_ids"])}
    training, start = model.training, len(pair[0]["input_ids"])
    model.eval()
    try:
        with torch.no_grad():
            packed, seen = (_logits(model, batch)[start:] for batch in (together, shown))
            own = _logits(model, alone)
    finally:
        model.train(training)
    moved, leak = float((packed - own).abs().max()), float((seen - own).abs().max())
    if moved > 64 * torch.finfo(torch.float32).eps * float(own.abs().max()) and not moved < leak / 2:
        raise ValueError(
            f"packing: in this model an example sees the one before it in its sequence (its logits move by {moved:.3g})"
            "; leave packing out"
        )


def _logits(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    device = next(model.parameters()).device
    given = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
    return model(**given).logits[0].double()
