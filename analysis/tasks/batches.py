"""Batches of encoded examples."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["pad_batch", "stack_images"]


def pad_batch(examples: list[dict[str, Any]], *, pad_id: int, choices: int = 0) -> dict[str, torch.Tensor]:
    """Pad encoded examples on the right to the longest of the batch.

    Args:
        examples: dictionaries of token lists and ``"labels"``.
        pad_id: id that fills ``input_ids``; labels are filled with -100, all else with 0.
        choices: choices per example of a multiple-choice task, else 0.

    Returns:
        Tensors of shape (batch, length), or (batch, choices, length).
    """
    keys = [key for key in examples[0] if key != "labels"]
    fills = {"input_ids": pad_id}
    batch: dict[str, torch.Tensor] = {}
    for key in keys:
        lists = [part for example in examples for part in (example[key] if choices else [example[key]])]
        length = max(len(part) for part in lists)
        padded = torch.tensor([[*part, *[fills.get(key, 0)] * (length - len(part))] for part in lists])
        batch[key] = padded.view(len(examples), choices, length) if choices else padded
    labels = [example["labels"] for example in examples]
    if isinstance(labels[0], list):
        length = max(len(part) for part in labels)
        labels = [[*part, *[-100] * (length - len(part))] for part in labels]
    batch["labels"] = torch.tensor(labels)
    return batch


def stack_images(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack images of one size into a batch."""
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["labels"] for example in examples]),
    }
