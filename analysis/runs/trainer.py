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
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from adapters import Prepared, current_link
from analysis.records import atomic_write_json, read_json, replacing
from analysis.runs.config import RunConfig
from analysis.runs.resuming import ByLength, Checkpoints, Resumable
from analysis.tasks import Task, evaluate, forward_error, lowest, mean_error, quiet_transformers

__all__ = [
    "BestOnSelection",
    "NonFiniteLoss",
    "Snapshots",
    "WatchedTrainer",
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

    def save(self, folder: Path) -> None:
        """Write losses and weights into a checkpoint's folder.

        The Trainer's own weights are not enough: a model that ``save_pretrained`` writes under other names than its
        own (a ViT is one) is resumed by the Trainer from the base's weights, without a word.
        """
        atomic_write_json(folder / "losses.json", {"losses": [float(loss) for loss in self.losses]})
        save_file(_moved(cast(torch.nn.Module, self.model)), folder / "weights.safetensors")

    def load(self, folder: Path) -> None:
        """Take them back."""
        kept = read_json(folder / "losses.json")["losses"]
        self.losses = [torch.tensor(float(loss), dtype=torch.float64) for loss in kept]
        _put_back(cast(torch.nn.Module, self.model), folder / "weights.safetensors")

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        return ByLength(
            lengths=[len(example["input_ids"]) for example in cast(Sequence[dict[str, Any]], self.train_dataset)],
            batch_size=self.args.train_batch_size,
            seed=self.args.seed,
        )


class _StopOnNonFinite(TrainerCallback):
    def __init__(self, trainer: WatchedTrainer) -> None:
        self.trainer, self.checked = trainer, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.checked = len(self.trainer.losses)  # what a checkpoint holds was looked at before it was written

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        new = self.trainer.losses[self.checked :]
        due = len(new) >= _CUDA_CHECK_EVERY or control.should_save or state.global_step >= state.max_steps
        if not new or (new[-1].is_cuda and not due):
            return
        values = torch.stack([loss.double() for loss in new]).cpu()
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
        best: the chosen model.
        step: its step.
    """

    def __init__(self, model: torch.nn.Module, task: Task, examples: Sequence[dict[str, Any]]) -> None:
        self.model, self.task, self.examples = model, task, examples
        self.step = 0
        self.best: torch.nn.Module | None = None
        self._losses: list[float] = []
        self._errors: list[float] = []

    @property
    def candidates(self) -> int:
        """Number of models compared; a bound that holds for the chosen one pays ln(candidates)."""
        return len(self._losses)

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

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Compare the model with the best so far where an epoch ends, before a checkpoint of that step is written."""
        if not float(state.epoch or 0).is_integer() and state.global_step < state.max_steps:
            return
        outputs = evaluate(self.model, self.task, self.examples)
        loss = float(outputs.clipped.mean())
        off = forward_error(self.model, outputs.largest_logit)
        if self.best is None or loss < min(self._losses):
            self.best, self.step = copy.deepcopy(self.model), state.global_step
        self._losses.append(loss)
        self._errors.append(mean_error(outputs.clipped, off, squared=self.task.kind == "regression"))

    def save(self, folder: Path) -> None:
        """Write the comparisons so far and the chosen weights into a checkpoint's folder."""
        kept = {"step": self.step, "losses": self._losses, "errors": self._errors}
        atomic_write_json(folder / "selection.json", kept)
        if self.best is not None:
            save_file(_moved(self.best), folder / "selection.safetensors")

    def load(self, folder: Path) -> None:
        """Take them back."""
        kept = read_json(folder / "selection.json")
        self.step = kept["step"]
        self._losses, self._errors = ([float(value) for value in kept[name]] for name in ("losses", "errors"))
        if not self._losses:
            return
        self.best = copy.deepcopy(self.model)
        _put_back(self.best, folder / "selection.safetensors")
        config: Any = self.best.peft_config["default"] if isinstance(self.best, PeftModel) else None
        if hasattr(config, "link"):
            config.link = current_link(self.best)


def _moved(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the part of the model's state that training moves: all but frozen parameters, each tensor its own."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value.clone().contiguous() for name, value in model.state_dict().items() if name not in frozen}


def _put_back(model: torch.nn.Module, file: Path) -> None:
    kept = load_file(file)
    if kept.keys() != _moved(model).keys():
        raise ValueError(f"{str(file)!r} holds the weights of another model; remove its folder to begin anew")
    model.load_state_dict(kept, strict=False)


def make_trainer(
    prepared: Prepared,
    config: RunConfig,
    task: Task,
    *,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    parts: Sequence[Resumable] = (),
    resumed: str | None = None,
    progress: bool,
    report_to: str,
) -> WatchedTrainer:
    """Build the Trainer of a resolved configuration; text is batched by length and padded to the batch's longest.

    Args:
        prepared: model and optimizer.
        config: resolved.
        task: its training examples are trained on.
        folder: of the run.
        callbacks: besides the method's own.
        parts: what has to be kept in resumable checkpoints beside the losses.
        resumed: the checkpoint that the run goes on from; None for a fresh one.
        progress: whether to show a bar.
        report_to: "none", "tensorboard" or "wandb".
    """
    text = task.kind in ("text-classification", "regression", "causal-lm") and not config.packing
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
        callbacks=[*prepared.callbacks, *callbacks],
    )
    trainer.add_callback(Checkpoints([trainer, *parts], resumed=resumed))
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
