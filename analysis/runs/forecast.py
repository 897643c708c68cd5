"""What a run will take, measured on a step of its own before it begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from analysis.runs.instruments import saved_activation_bytes, synchronise
from analysis.tasks import Task

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run will take, about.

    Attributes:
        steps: optimizer steps.
        seconds: of training and of the evaluation after it.
        weights: bytes of the model's parameters and buffers.
        trained: bytes of gradients and AdamW's two moments.
        activations: bytes that the longest batch's forward pass keeps for its backward pass.
        available: bytes that are free on the device, or in this machine's memory; None where that is not known.
    """

    steps: int
    seconds: float
    weights: int
    trained: int
    activations: int
    available: int | None

    def line(self) -> str:
        """Return the forecast as one line, with a warning where memory will not do."""
        needed = self.weights + self.trained + self.activations
        parts = f"weights {_gib(self.weights)}, gradients and moments {_gib(self.trained)}"
        text = (
            f"{self.steps} steps, about {_clock(self.seconds)} with evaluation; about {_gib(needed)} GiB "
            f"({parts}, activations {_gib(self.activations)})"
        )
        if self.available is None:
            return text
        free = f", {_gib(self.available)} GiB free"
        return text + free + ("" if needed <= self.available else ": warning: that is not enough")


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f}"


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def forecast(model: torch.nn.Module, task: Task, *, evaluated: int, steps: int, batch_size: int) -> Forecast:
    """Take one forward and backward pass, and say what a run of many will take; nothing of the model is changed.

    Args:
        model: ready to train; its mode, gradients and the random state are left as they were.
        task: what is trained on.
        evaluated: number of examples that are evaluated afterwards.
        steps: optimizer steps of the run.
        batch_size: examples of a step.
    """
    order = list(range(len(task.train)))
    if task.kind != "image-classification":  # whose examples are of one size, and decoded when asked for
        order.sort(key=lambda i: _length(task.train[i]))
    middle = max(0, len(order) // 2 - batch_size // 2)
    usual = task.collate([task.train[i] for i in order[middle : middle + batch_size]])
    longest = task.collate([task.train[i] for i in order[-batch_size:]])
    training = model.training
    model.train()
    try:
        with torch.random.fork_rng():
            _pass(model, usual, backward=True)  # the first one also makes room
            step = _pass(model, usual, backward=True)
            with torch.no_grad():
                forward = _pass(model, usual, backward=False)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
    passes = evaluated / (batch_size * _examples(task))
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    held = [*model.parameters(), *model.buffers()]
    return Forecast(
        steps=steps,
        seconds=steps * step + passes * forward,
        weights=sum(tensor.numel() * tensor.element_size() for tensor in held),
        trained=3 * trained,
        activations=saved_activation_bytes(model, longest),
        available=_available(next(model.parameters()).device),
    )


def _length(example: Any) -> int:
    """Return the tokens of an example, over its choices, or of a block of several."""
    if isinstance(example, list):
        return sum(map(_length, example))
    ids = example["input_ids"]
    return sum(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)


def _examples(task: Task) -> float:
    """Return the examples of a training sequence, on average."""
    first = task.train[0]
    return sum(map(len, task.train)) / len(task.train) if isinstance(first, list) else 1.0


def _pass(model: torch.nn.Module, batch: Mapping[str, Any], *, backward: bool) -> float:
    device = next(model.parameters()).device
    given = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
    synchronise()
    start = time.perf_counter()
    loss = model(**given).loss
    if backward:
        loss.backward()
    synchronise()
    return time.perf_counter() - start


def _available(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
