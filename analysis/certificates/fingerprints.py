"""Hashes of inputs, data sets and models: what a certificate was made for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["data_fingerprint", "example_digest", "model_fingerprint"]


def example_digest(example: Mapping[str, Any], *, with_label: bool = False) -> str:
    """Return the SHA-256 of an encoded example's input, with its label if asked.

    >>> example_digest({"input_ids": [1, 2], "labels": 0}) == example_digest({"input_ids": [1, 2], "labels": 1})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(example):
        if name == "labels" and not with_label:
            continue
        value = np.asarray(example[name])
        value = value.astype("<i8" if value.dtype.kind in "iub" else "<f4")
        digest.update(f"{name} {value.shape} {value.dtype.str} ".encode() + value.tobytes())
    return digest.hexdigest()


def data_fingerprint(examples: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of a set of labelled examples, whatever their order."""
    digests = sorted(example_digest(example, with_label=True) for example in examples)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def model_fingerprint(model: torch.nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers with their names, in the order of the names."""
    digest = hashlib.sha256()
    state = model.state_dict()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.flatten().view(dtype=_bytes()).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def _bytes() -> torch.dtype:
    return torch.uint8
