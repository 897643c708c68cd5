"""One run with transformers.Trainer -> one record: metric, measured G(W), time, memory, what was trained."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

import adapters
from adapters import Prepared
from analysis.records import RunFailure, atomic_write_json, check_writable, provenance, read_json, run_once
from analysis.runs.config import RunConfig
from analysis.runs.forecast import forecast
from analysis.runs.generalization import heldout_fingerprint, measured_gap
from analysis.runs.generation import check_bleu, generate
from analysis.runs.instruments import PeakMemory, StepClock, saved_activation_bytes
from analysis.runs.loading import LoadedRun, load_run
from analysis.runs.packing import check_packing, packed_task
from analysis.runs.resuming import Resumable, last_complete
from analysis.runs.scalars import run_scalars
from analysis.runs.trainer import BestOnSelection, Snapshots, epoch_history, make_trainer, save_weights
from analysis.tasks import Outputs, Task, carve, evaluate, load_model, load_task, metric
from theory.methods import get_method

__all__ = ["ConfigurationError", "LoadedRun", "RunConfig", "check_links", "load_run", "prepare_run", "run", "run_cell"]


Announce = Callable[[str], None]


class ConfigurationError(ValueError):
    """A configuration that does not fit its data or model, found before training."""


@functools.lru_cache(maxsize=1)
def _base_provenance() -> dict[str, Any]:
    return provenance("", ())


def prepare_run(config: RunConfig, task: Task) -> tuple[Prepared, dict[str, torch.Tensor]]:
    """Load the base model and make it ready to train.

    Args:
        config: resolved.
        task: the configuration's task.

    Returns:
        What ``adapters.prepare`` returns, and a copy of the base's state (a reference where no copy is needed).

    Raises:
        ValueError: if the targets are not found, or rank exceeds a target's width.
    """
    assert config.alpha is not None
    assert config.links is not None
    assert config.learning_rate is not None
    assert config.weight_decay is not None
    model = load_model(task, seed=config.seed)
    dense = get_method(config.method).trains == "weight"
    base = {name: value.clone() if dense else value for name, value in model.state_dict().items()}
    targets = None if config.target_modules is None else list(config.target_modules)
    if config.layers is not None:
        targets = adapters.in_layers(model, adapters.target_names(model, targets), config.layers)
    prepared = adapters.prepare(
        model,
        config.method,
        rank=config.rank,
        alpha=config.alpha,
        target_modules=targets,
        links=config.links,
        learning_rate=config.learning_rate,
        head_learning_rate=config.head_learning_rate,
        weight_decay=config.weight_decay,
        lr_ratio=config.lr_ratio,
        schedule=config.chain_schedule,
        seed=config.seed,
    )
    return prepared, base


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _steps_per_epoch(config: RunConfig, examples: int) -> int:
    return math.ceil(examples / ((config.batch_size or 1) * _processes()))


def check_links(config: RunConfig, examples: int) -> None:
    """Refuse a chain with more links than a run on so many examples has optimizer steps.

    Args:
        config: resolved.
        examples: number of training examples.

    Raises:
        ValueError: if a link would get no step.
    """
    steps = math.ceil(_steps_per_epoch(config, examples) * (config.epochs or 1))
    if (config.links or 1) > steps:
        raise ValueError(
            f"links={config.links} needs an optimizer step per link, but {examples} examples in batches of "
            f"{config.batch_size} make {steps} steps in {config.epochs:g} epochs; give fewer links or more epochs"
        )


def _summary(outputs: Outputs, name: str) -> dict[str, float]:
    return {
        f"{name}_loss": float(np.average(outputs.losses, weights=outputs.weights)),
        f"{name}_error": float(outputs.errors.mean()),
    }


def _results(task: Task, train: Outputs, heldout: Outputs) -> dict[str, Any]:
    gap = functools.partial(measured_gap, clusters=task.clusters)
    gaps: dict[str, Any] = {task.loss_name: gap(train.clipped, heldout.clipped, loss_range=task.max_loss).as_record()}
    if task.kind != "regression":
        gaps["zero_one"] = gap(train.errors, heldout.errors, loss_range=1.0).as_record()
    return {
        "metrics": {
            task.metric_name: metric(heldout, task.metric_name),
            f"train_{task.metric_name}": metric(train, task.metric_name),
            **_summary(train, "train"),
            **_summary(heldout, "heldout"),
        },
        "generalization": gaps,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trained:
    """A run whose training is over.

    Attributes:
        config: resolved.
        task: with all its training examples.
        trained_on: the task without the examples that choose the step.
        sequences: what an epoch passes over: its training examples, or the sequences that they are packed into.
        model: as it stands after the last step, or at the step that was chosen.
        base: the base model's state.
        chooser: what chose the step; None where the last one is taken.
        selection: number of examples that it chose on.
        step: of the model.
        losses: of every optimizer step.
        timing: steps, seconds and memory of training.
        first: whether this process is the one that writes.
    """

    config: RunConfig
    task: Task
    trained_on: Task
    sequences: int
    model: torch.nn.Module
    base: dict[str, torch.Tensor]
    chooser: BestOnSelection | None
    selection: int
    step: int
    losses: list[float]
    timing: dict[str, Any]
    first: bool


def _announce(trained: Prepared, config: RunConfig, task: Task, whole: Task, announce: Announce) -> None:
    """Say what a run will take, before it begins."""
    steps = math.ceil(_steps_per_epoch(config, len(task.train)) * (config.epochs or 1))
    told = forecast(
        trained.model,
        task,
        evaluated=len(whole.train) + len(whole.heldout),
        steps=steps,
        batch_size=min(config.batch_size or 1, len(task.train)),
    )
    announce(told.line())


def _train(config: RunConfig, folder: Path, *, progress: bool, report_to: str, announce: Announce | None) -> _Trained:
    try:
        task = load_task(config.task, data=config.data, model=config.model, seed=config.seed, options=config.options)
        training_task, selection = task, None
        if config.select == "best":
            training_task, selection = carve(task, share=config.selection_share, seed=config.seed)
        trained_on = training_task
        if config.packing:
            training_task = packed_task(training_task, length=config.options.max_length or 128)
        check_links(config, len(training_task.train))
        prepared, base = prepare_run(config, task)
        if config.packing:
            check_packing(prepared.model, cast(Any, training_task.train))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(str(error)) from error
    resumed = last_complete(folder / "trainer", processes=_processes())
    if announce is not None and resumed is None:
        _announce(prepared, config, training_task, task, announce)
    clock, memory = StepClock(), PeakMemory()
    chooser = None if selection is None else BestOnSelection(prepared.model, task, selection)
    snapshots = Snapshots(prepared.model, folder / "checkpoints", count=config.save_checkpoints)
    parts: list[Resumable] = [clock, *([chooser] if chooser else [])]
    trainer = make_trainer(
        prepared,
        config,
        training_task,
        folder=folder,
        callbacks=[clock, *([chooser] if chooser else []), *([snapshots] if config.save_checkpoints else [])],
        parts=parts,
        resumed=resumed,
        progress=progress,
        report_to=report_to,
    )
    trainer.train(resume_from_checkpoint=resumed)
    timing = {
        **clock.summary(),
        "train_seconds": float(sum(clock.seconds)),
        "peak_memory_bytes": memory.read(),
        "peak_memory_kind": memory.kind,
        "resumed_from": None if resumed is None else Path(resumed).name,
    }
    return _Trained(
        config=config,
        task=task,
        trained_on=trained_on,
        sequences=len(training_task.train),
        model=prepared.model if chooser is None or chooser.best is None else chooser.best,
        base=base,
        chooser=chooser,
        selection=0 if selection is None else len(selection),
        step=trainer.state.global_step if chooser is None else chooser.step,
        losses=[float(loss) for loss in trainer.losses],
        timing=timing,
        first=trainer.is_world_process_zero(),
    )


def _generated(trained: _Trained) -> dict[str, Any]:
    """Return what the model writes after held-out prompts, where that is asked for."""
    if not trained.config.generate:
        return {}
    return {"generation": generate(trained.model, trained.task, count=trained.config.generate)}


def _measure(trained: _Trained) -> dict[str, Any]:
    """Return what a record says of the trained model, and the bytes that a step saves for its backward pass."""
    model, task, examples = trained.model, trained.task, trained.trained_on.train
    train = evaluate(model, task, examples)
    heldout = evaluate(model, task, task.heldout)
    updates = adapters.describe(model, trained.base)
    batch = task.collate([examples[i] for i in range(min(trained.config.batch_size or 1, len(examples)))])
    saved = saved_activation_bytes(model, batch)
    return {
        "parameters": {
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "total": sum(p.numel() for p in model.parameters()),
        },
        **_results(task, train, heldout),
        **_generated(trained),
        "measures": run_scalars(model, base_state=trained.base, updates=updates, train=train),
        "timing": {**trained.timing, "saved_activation_bytes": saved},
        "updates": updates,
    }


def _keep(trained: _Trained, folder: Path) -> None:
    """Write the weights, drop the checkpoints of training, and note where data and model were."""
    if trained.config.save_adapter:
        save_weights(cast(PreTrainedModel | PeftModel, trained.model), folder / "adapter")
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    atomic_write_json(folder / "paths.json", {"data": trained.config.data, "model": trained.config.model})


def _content(asked: RunConfig, trained: _Trained, measured: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
    config, task, chooser = trained.config, trained.task, trained.chooser
    per_epoch = _steps_per_epoch(config, trained.sequences)
    return {
        "config": config.as_record(),
        "provenance": {**_base_provenance(), "command": asked.command(), "seeds": [config.seed]},
        "task": {
            "kind": task.kind,
            "num_train": len(trained.trained_on.train),
            "num_heldout": len(task.heldout),
            "num_labels": task.num_labels,
            "loss": task.loss_name,
            "max_loss": task.max_loss,
            "metric": task.metric_name,
            "overlap": task.overlap,
            "heldout": heldout_fingerprint(task),
            "notes": list(task.notes),
        },
        "data": task.report.as_record(),
        "selection": {
            "rule": config.select,
            "candidates": 1 if chooser is None else chooser.candidates,
            "examples": trained.selection,
            "step": trained.step,
            **({} if chooser is None else {"margin": chooser.margin, "doubtful": chooser.doubtful}),
        },
        **measured,
        "timing": {**measured["timing"], "total_seconds": seconds},
        "history": epoch_history(trained.losses, steps_per_epoch=per_epoch),
    }


def run_cell(
    values: Mapping[str, Any],
    folder: Path,
    *,
    progress: bool = False,
    report_to: str = "none",
    announce: Announce | None = None,
) -> dict[str, Any]:
    """Train one configuration and return its record's content.

    Args:
        values: a :class:`RunConfig` as plain values.
        folder: the cell's own folder, for weights and checkpoints.
        progress: whether to show the Trainer's progress bar.
        report_to: "none", "tensorboard" or "wandb".
        announce: told before training what it will take, as one line; asking takes a step's time.

    Returns:
        Everything of the record but schema, key and status.

    Raises:
        NonFiniteLoss: if the training loss is NaN or infinite.
        ConfigurationError: if the configuration does not fit the data or the model.
    """
    started = time.perf_counter()
    asked = RunConfig.from_mapping(values)
    trained = _train(asked.resolve(), folder, progress=progress, report_to=report_to, announce=announce)
    measured = _measure(trained)
    if trained.first:
        _keep(trained, folder)
    return _content(asked, trained, measured, seconds=time.perf_counter() - started)


def is_first_process() -> bool:
    """Return whether this is the process that writes and prints, under ``torchrun`` or alone."""
    return int(os.environ.get("RANK", "0")) == 0


def run(
    config: RunConfig,
    *,
    folder: str | Path,
    retry_failed: bool = True,
    progress: bool = False,
    report_to: str = "none",
    announce: Announce | None = None,
) -> dict[str, Any]:
    """Train one configuration into ``<folder>/<key>/record.json``, or return the record that is there.

    Under ``torchrun`` or ``accelerate launch`` every process trains and the first one records.

    Args:
        config: the run.
        folder: where runs are kept.
        retry_failed: whether a run recorded as failed is run again.
        progress: whether to show the Trainer's progress bar.
        report_to: "none", "tensorboard" or "wandb".
        announce: see :func:`run_cell`.

    Returns:
        The record; its ``status`` is "done".

    Raises:
        ValueError: if the configuration, data or model is wrong (nothing is recorded), or another process is
            computing the same run.
        RunFailure: if training failed; the record says where.
    """
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise ValueError(f"report_to={report_to!r} is not installed; pip install {report_to}, or leave it out")
    if config.generate:
        check_bleu()
    folder = check_writable(folder)
    values = dataclasses.asdict(config)
    function = functools.partial(run_cell, progress=progress, report_to=report_to, announce=announce)
    if not is_first_process():
        record_path = folder / config.key() / "record.json"
        return read_json(record_path) if record_path.exists() else function(values, folder / config.key())
    record = run_once(
        function, values, folder=folder, key=config.key(), retry_failed=retry_failed, refuse=ConfigurationError
    )
    if record is None:
        raise ValueError(f"run {config.key()} is being computed by another process under {str(folder)!r}")
    if record["status"] == "failed":
        failure = record["failure"]
        raise RunFailure(
            f"run {config.key()} failed: {failure['message']}; see {folder / config.key() / 'record.json'}"
        )
    return record
