"""Resumable checkpoints: what the Trainer does not keep of a run is kept beside it, so that resuming changes nothing.

The Trainer's own checkpoint holds weights, optimizer, schedule and random state. What callbacks have gathered (losses,
times, the best step so far) and the order of the examples would be lost with the process. The first is written into
every checkpoint; the second is a function of seed and epoch alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

__all__ = ["ByLength", "Checkpoints", "Resumable", "last_complete"]


class Resumable(Protocol):
    """What has to outlive the process beside the Trainer's own state."""

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint's folder."""

    def load(self, folder: Path) -> None:
        """Take it back from there; the model holds the checkpoint's weights by then."""


class ByLength(LengthGroupedSampler):
    """Batches of like length in an order that seed and epoch decide, on every process and however often it is resumed.

    transformers' own draws from the global generator, which dropout has moved on by the second epoch; a resumed run and
    each of several processes would go through the examples in an order of its own.
    """

    def __init__(self, *, lengths: list[int], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the epoch's indices."""
        drawn = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint32)
        self.generator.manual_seed(int(drawn[0]))
        return super().__iter__()


class Checkpoints(TrainerCallback):
    """Writes the parts of a run into each checkpoint, marks it complete, and takes them back.

    The last step gets no checkpoint: the Trainer, resumed there in the midst of an epoch, would take one step more.

    Args:
        parts: what else has to outlive the process.
        resumed: the checkpoint that the run goes on from; None for a fresh one.
    """

    def __init__(self, parts: Sequence[Resumable], *, resumed: str | None) -> None:
        self.parts, self.resumed = parts, resumed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the parts back."""
        if self.resumed is not None:
            for part in self.parts:
                part.load(Path(self.resumed))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the sampler its epoch: accelerate does not reach it where several processes resume in mid-epoch."""
        sampler = kwargs["train_dataloader"].batch_sampler
        while not hasattr(sampler, "set_epoch"):
            sampler = sampler.batch_sampler if hasattr(sampler, "batch_sampler") else sampler.sampler
        sampler.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save nothing at the last step."""
        control.should_save = control.should_save and state.global_step < state.max_steps

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the parts, and then, each process for itself, the mark that all of its files are there."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            for part in self.parts:
                part.save(folder)
        (folder / _mark(args.process_index, args.world_size)).touch()


def _mark(process: int, processes: int) -> str:
    return f"complete-{process}-of-{processes}"


def last_complete(folder: Path, *, processes: int = 1) -> str | None:
    """Return the newest checkpoint that as many processes have written in full; what is newer is removed.

    A killed run may leave a part of a checkpoint, or a checkpoint of another number of processes, which goes on
    otherwise.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while found and not all((found[-1] / _mark(process, processes)).exists() for process in range(processes)):
        shutil.rmtree(found.pop(), ignore_errors=True)
    return str(found[-1]) if found else None
