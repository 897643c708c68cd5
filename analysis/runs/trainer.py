"""transformers.Trainer with what a measured run needs: every loss watched, snapshots, declared selection."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from adapters import Prepared
from analysis.records import replacing
from analysis.runs.config import RunConfig
from analysis.tasks import Task, evaluate, forward_error, lowest, mean_error, quiet_transformers

__all__ = [
    "BestOnSelection",
    "NonFiniteLoss",
    "Snapshots",
    "WatchedTrainer",
    "last_complete",
    "make_trainer",
    "save_weights",
]

_CUDA_CHECK_EVERY = 16


class NonFiniteLoss(FloatingPointError):
    """The training loss became NaN or infinite; ``details`` says when."""

    def __init__(self, *, step: int, epoch: float, value: float) -> None:
        super().__init__(f"the training loss is {value} at step {step} (epoch {epoch:.2f}); the run was stopped")
        self.details = {"step": step, "epoch": epoch, "value": value}


class WatchedTrainer(Trainer):
    """A Trainer that keeps each step's loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[torch.Tensor] = []

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take a step and keep its loss, not synchronising the device."""
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss.detach())
        return loss


class _StopOnNonFinite(TrainerCallback):
    def __init__(self, trainer: WatchedTrainer) -> None:
        self.trainer, self.checked = trainer, 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        new = self.trainer.losses[self.checked :]
        if not new or (new[-1].is_cuda and len(new) < _CUDA_CHECK_EVERY and state.global_step < state.max_steps):
            return
        values = torch.stack(new).double().cpu()
        bad = (~torch.isfinite(values)).nonzero()
        self.checked = len(self.trainer.losses)
        if len(bad):
            step = state.global_step - len(new) + 1 + int(bad[0])
            epoch = (state.epoch or 0.0) * step / max(state.global_step, 1)
            raise NonFiniteLoss(step=step, epoch=epoch, value=float(values[int(bad[0])]))


def save_weights(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Save a PEFT adapter, or a whole model, as safetensors into a folder that appears whole or not at all."""
    with replacing(folder) as new, quiet_transformers():
        model.save_pretrained(str(new))


class Snapshots(TrainerCallback):
    """Saves the weights at the start and at ``count`` evenly spaced steps, the last one included."""

    def __init__(self, model: torch.nn.Module, folder: Path, *, count: int) -> None:
        self.model, self.folder, self.count = model, folder, count
        self.steps: set[int] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lay out the steps and save the start."""
        self.steps = {math.ceil(i * state.max_steps / self.count) for i in range(1, self.count + 1)}
        if state.global_step == 0:
            self._save(state, 0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save where a snapshot is due."""
        if state.global_step in self.steps:
            self._save(state, state.global_step)

    def _save(self, state: Any, step: int) -> None:
        if state.is_world_process_zero:
            save_weights(cast(PreTrainedModel, self.model), self.folder / f"step-{step:06d}")


class BestOnSelection(TrainerCallback):
    """Keeps a copy of the model of the epoch with the smallest mean clipped loss on the selection split.

    Attributes:
        candidates: number of models compared; a bound that holds for the chosen one pays ln(candidates).
        best: the chosen model.
        step: its step.
    """

    def __init__(self, model: torch.nn.Module, task: Task, examples: Sequence[dict[str, Any]]) -> None:
        self.model, self.task, self.examples = model, task, examples
        self.candidates, self.step, self.loss = 0, 0, math.inf
        self.best: torch.nn.Module | None = None
        self._losses: list[float] = []
        self._errors: list[float] = []

    @property
    def margin(self) -> float:
        """Second smallest loss minus the smallest, in nats; inf for one candidate."""
        return lowest(self._losses, self._errors)[0]

    @property
    def doubtful(self) -> bool:
        """Whether rounding in a forward pass of these very weights can reverse the two smallest losses.

        Training anew, which rounds in every step, is another run.
        """
        return lowest(self._losses, self._errors)[1]

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare this epoch's model with the best so far."""
        outputs = evaluate(self.model, self.task, self.examples)
        loss = float(outputs.clipped.mean())
        self.candidates += 1
        self._losses.append(loss)
        off = forward_error(self.model, outputs.largest_logit)
        self._errors.append(mean_error(outputs.clipped, off, squared=self.task.kind == "regression"))
        if self.best is None or loss < self.loss:
            self.best, self.step, self.loss = copy.deepcopy(self.model), state.global_step, loss


class _MarkComplete(TrainerCallback):
    """Marks a resumable checkpoint when all of it is on disk: a killed run may leave a part of one behind."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            (folder / "complete").touch()


def last_complete(folder: Path) -> str | None:
    """Return the newest complete resumable checkpoint under a folder, or None."""
    marks = sorted(folder.glob("checkpoint-*/complete"), key=lambda mark: int(mark.parent.name.rpartition("-")[2]))
    return str(marks[-1].parent) if marks else None


def make_trainer(
    prepared: Prepared,
    config: RunConfig,
    task: Task,
    *,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    progress: bool,
    report_to: str,
) -> WatchedTrainer:
    """Build the Trainer of a resolved configuration; text is batched by length and padded to the batch's longest."""
    text = task.kind in ("text-classification", "regression", "causal-lm")
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=cast(float, config.epochs),
        per_device_train_batch_size=cast(int, config.batch_size),
        lr_scheduler_type=cast(str, config.lr_scheduler),
        warmup_steps=cast(float, config.warmup),
        learning_rate=cast(float, config.learning_rate),
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        train_sampling_strategy="group_by_length" if text else "random",
        logging_strategy="no" if report_to == "none" else "epoch",
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.checkpoint_every else "no",
        save_steps=config.checkpoint_every or 500,
        save_total_limit=2,
        report_to=[] if report_to == "none" else [report_to],
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        seed=config.seed,
        **_checkpointing(config.gradient_checkpointing),
    )
    _quiet_startup()
    trainer = WatchedTrainer(
        model=prepared.model,
        args=arguments,
        train_dataset=task.train,
        data_collator=task.collate,
        optimizers=(prepared.create_optimizer(), None),
        callbacks=[*prepared.callbacks, *callbacks, _MarkComplete()],
    )
    trainer.add_callback(_StopOnNonFinite(trainer))
    trainer.remove_callback(PrinterCallback)
    return trainer


def _checkpointing(wanted: bool) -> dict[str, Any]:
    """Name gradient checkpointing as this release of transformers does (it was renamed in the fifth)."""
    if not wanted:
        return {}
    new = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def _quiet_startup() -> None:
    """Drop the Trainer's remark that the tokenizer's special tokens were aligned: there is nothing to act on."""
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)


def epoch_history(losses: Sequence[float], *, steps_per_epoch: int) -> list[dict[str, float]]:
    """Return the mean training loss (training mode, weights moving) of each epoch."""
    history = []
    for start in range(0, len(losses), steps_per_epoch):
        part = losses[start : start + steps_per_epoch]
        history.append({"step": start + len(part), "loss": sum(part) / len(part)})
    return history
