"""Time per step with the device's clock synchronised, and peak memory, each with its definition."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from analysis.records import atomic_write_json, read_json

__all__ = ["PeakMemory", "StepClock", "saved_activation_bytes", "synchronise"]


def synchronise() -> None:
    """Wait for the device, where there is one, so that a clock read next tells its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class StepClock(TrainerCallback):
    """Seconds of each optimizer step, forward to update, the device synchronised at both ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        synchronise()
        self._start = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the clock."""
        synchronise()
        self.seconds.append(time.perf_counter() - self._start)

    def save(self, folder: Path) -> None:
        """Write the times into a checkpoint's folder."""
        atomic_write_json(folder / "seconds.json", {"seconds": self.seconds})

    def load(self, folder: Path) -> None:
        """Take them back."""
        self.seconds = list(read_json(folder / "seconds.json")["seconds"])

    def summary(self) -> dict[str, float]:
        """Return the number of steps, and the median seconds of a step without the first two (warm-up)."""
        steady = self.seconds[2:] or self.seconds
        return {"steps": len(self.seconds), "seconds_per_step": float(np.median(steady)) if steady else float("nan")}


class PeakMemory:
    """Peak memory between construction and :meth:`read`.

    On CUDA: the allocator's peak of allocated bytes. Elsewhere: growth of the process's peak resident set
    (Linux resets the peak through ``/proc/self/clear_refs``; where that is denied, the growth of the
    process-lifetime peak, a lower estimate).

    Args:
        host: measure the process even where there is a CUDA device.

    Attributes:
        start: bytes held at construction (0 on CUDA, where the peak itself is read).
    """

    def __init__(self, *, host: bool = False) -> None:
        self.cuda = torch.cuda.is_available() and not host
        self.start = 0
        if self.cuda:
            self.kind = "CUDA peak allocated bytes"
            torch.cuda.reset_peak_memory_stats()
            return
        self._resettable = True
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._resettable = False
        lifetime = "" if self._resettable else " of the process's lifetime"
        self.kind = f"growth of the peak resident set{lifetime}, bytes"
        self.start = self._resident()

    def _resident(self) -> int:
        if self._resettable:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def read(self) -> int:
        """Return the peak in bytes."""
        if self.cuda:
            return int(torch.cuda.max_memory_allocated())
        return max(0, self._resident() - self.start)


def saved_activation_bytes(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> int:
    """Count the bytes that one forward pass keeps for its backward pass, parameters and buffers left out.

    Storages are counted once and whole: a view keeps all of its storage alive.

    Args:
        model: run in training mode; its mode and the random state are restored.
        batch: a collated batch with labels.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    training = model.training
    device = next(model.parameters()).device
    model.train()
    try:
        with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            given = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
            loss = model(**given).loss
        del loss
    finally:
        model.train(training)
    return sum(kept.values())
