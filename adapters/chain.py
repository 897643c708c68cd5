"""Chains that chain: fold the trained link into the frozen sum, reset its moments, move on, resume exactly."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainingArguments, get_scheduler
from transformers.trainer import DEFAULT_CALLBACKS

from adapters.layer import ColumnLayer, whole
from adapters.linked import LinkedFactor, draw_factor, lora_layers

__all__ = ["ChainCallback", "current_link", "last_checkpoint", "link_boundaries", "merge_and_continue", "reset_moments"]

logger = logging.getLogger(__name__)


def link_boundaries(*, max_steps: int, links: int) -> list[int]:
    """Return the optimizer steps after which a chain moves on: ``ceil(k max_steps / links)``, k = 1 .. links - 1.

    Raises:
        ValueError: if some link would get no step.

    >>> link_boundaries(max_steps=10, links=3)
    [4, 7]
    """
    if not 1 <= links <= max_steps:
        raise ValueError(f"links={links} needs at least one optimizer step per link, got max_steps={max_steps}")
    return [-(-k * max_steps // links) for k in range(1, links)]


def current_link(model: nn.Module, *, adapter: str = "default") -> int:
    """Return the number of the live link, from 0, read from the layers.

    Raises:
        ValueError: if the model has no such adapter, or its layers disagree.
    """
    found: set[int] = {layer.beyond_column_sum[adapter].link for _, layer in _column_layers(model, adapter)}
    for _, layer in lora_layers(model, adapter):
        a = layer.lora_A[adapter]
        found.add(a.frozen.shape[0] // a.live.shape[0] if isinstance(a, LinkedFactor) else 0)
    if len(found) != 1:
        raise ValueError(f"adapter {adapter!r} has layers at links {sorted(found)}; one link expected")
    return found.pop()


def merge_and_continue(model: nn.Module, *, optimizer: Optimizer | None = None, adapter: str = "default") -> int:
    """Fold the live link into the frozen sum, start the next one at zero, and reset its optimizer moments.

    The model's function does not change. Collective under FSDP2: call it on every rank, between two steps.

    Args:
        model: a PEFT model of a chained method.
        optimizer: its optimizer; the moments of the new link's parameters, and only theirs, are set to zero.
        adapter: name of the adapter.

    Returns:
        The number of the new link.

    Raises:
        ValueError: if the chain is at its last link, the adapter is no chain, or it is merged; nothing is changed then.
    """
    config: Any = cast(PeftModel, model).peft_config[adapter]
    link, links = current_link(model, adapter=adapter), getattr(config, "links", 1)
    if link + 1 >= links:
        raise ValueError(f"the chain has links={links} and is at link {link}, its last; it cannot move on")
    layers = [*_column_layers(model, adapter), *lora_layers(model, adapter)]
    merged = [name for name, layer in layers if adapter in layer.merged_adapters]
    if merged:
        raise ValueError(f"adapter {adapter!r} is merged into {merged[0]!r}; unmerge before the chain moves on")
    for name, layer in _column_layers(model, adapter):
        shape = tuple(layer.beyond_column_B[adapter].weight.shape)
        if shape != (layer.out_features, layer.r[adapter]):
            raise ValueError(f"B of {name!r} has shape {shape} (sharded by FSDP1?); chains move on under FSDP2 or DDP")
    restarted: list[nn.Parameter] = []
    for _, layer in _column_layers(model, adapter):
        factor = layer.beyond_column_B[adapter].weight
        layer.beyond_column_sum[adapter].fold(whole(factor.detach()))
        restarted.append(factor)
        with torch.no_grad():
            factor.zero_()
    for name, linked in lora_layers(model, adapter):
        a, b = cast(LinkedFactor, linked.lora_A[adapter]), cast(LinkedFactor, linked.lora_B[adapter])
        a.fold(draw_factor(a.live, seed=config.seed, name=name, link=link + 1))
        b.fold(torch.zeros_like(b.live))
        restarted += [a.live, b.live]
    config.link = link + 1
    if optimizer is not None:
        reset_moments(optimizer, restarted)
    return link + 1


def reset_moments(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Set the optimizer's state of ``parameters`` to zero in place (moments and step count), others untouched."""
    state = getattr(optimizer, "optimizer", optimizer).state
    for parameter in parameters:
        for key, value in state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                value.zero_()
            elif isinstance(value, int | float):
                state[parameter][key] = type(value)(0)


class ChainCallback(TrainerCallback):
    """Moves a chain on during `transformers.Trainer` training, and through resumption.

    The chain's state travels inside the adapter's own weights, so a checkpoint needs nothing else. On resumption
    the link of the loaded weights is compared with the step count. A ``chain.json``, written last and atomically,
    marks a checkpoint as complete (see `last_checkpoint`).

    A `Trainer` that is not given one makes its own for every chain that trains (as `trl.SFTTrainer` with a
    ``peft_config``): importing this package puts `AttachedChains` among transformers' default callbacks.

    Args:
        model: the prepared PEFT model.
        links: length of the chain.
        schedule: ``"run"`` (one learning-rate schedule over the whole run) or ``"link"`` (it restarts, warm-up
            included, with every link).
        adapter: name of the adapter.
    """

    def __init__(self, model: nn.Module, *, links: int, schedule: str = "run", adapter: str = "default"):
        self.model, self.links, self.schedule, self.adapter = model, links, schedule, adapter
        self.boundaries: list[int] = []
        self._config().schedule = schedule

    def _config(self) -> Any:
        return cast(PeftModel, self.model).peft_config[self.adapter]

    def on_train_begin(self, args, state, control, **kwargs):
        """Lay out the links, check a resumed chain against them, and restart schedules where asked."""
        self.boundaries = link_boundaries(max_steps=state.max_steps, links=self.links)
        expected = sum(boundary <= state.global_step for boundary in self.boundaries)
        link = current_link(self.model, adapter=self.adapter)
        if link != expected:
            raise ValueError(
                f"the model is at link {link}, but step {state.global_step} of max_steps={state.max_steps} with "
                f"links={self.links} belongs to link {expected}"
            )
        self._config().link, self._config().attended = link, True
        if self.schedule == "link":
            restart_schedule(kwargs["lr_scheduler"], args=args, starts=[0, *self.boundaries], max_steps=state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        """Move on at a boundary; a checkpoint of the same step is written after this."""
        if state.global_step in self.boundaries:
            merge_and_continue(self.model, optimizer=kwargs.get("optimizer"), adapter=self.adapter)

    def on_save(self, args, state, control, **kwargs):
        """Mark the checkpoint complete."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if folder.is_dir():
                mark = {"link": current_link(self.model, adapter=self.adapter), "links": self.links, "schema": 1}
                _write_json(folder / "chain.json", {**mark, "boundaries": self.boundaries, "step": state.global_step})

    def on_train_end(self, args, state, control, **kwargs):
        """Follow the weights when the Trainer put the best checkpoint's adapter back."""
        self._config().link, self._config().attended = current_link(self.model, adapter=self.adapter), False


class AttachedChains(TrainerCallback):
    """Moves on whatever chains a model trains that no `ChainCallback` of its `Trainer` moves.

    At the first epoch's beginning: by then every callback that was given has seen the training begin. A chain that is
    past its first link when a new run begins stays on its link.
    """

    def __init__(self) -> None:
        self._made: list[ChainCallback] | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Forget earlier runs, also those that broke off."""
        self._made = None
        for config in _chains(kwargs.get("model")).values():
            config.attended = False

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Make the callbacks that are missing."""
        if self._made is not None:
            return
        self._made = []
        model: Any = kwargs.get("model")
        for adapter, config in _chains(model).items():
            link = current_link(model, adapter=adapter)
            if not config.attended and link and not state.global_step:
                logger.warning(
                    "the chain %r stays on link %d of %d: this run began there", adapter, link + 1, config.links
                )
            elif not config.attended:
                schedule = getattr(config, "schedule", "run")
                self._made.append(ChainCallback(model, links=config.links, schedule=schedule, adapter=adapter))
                self._made[-1].on_train_begin(args, state, control, **kwargs)

    def on_step_end(self, args, state, control, **kwargs):
        """Move on at a boundary."""
        for one in self._made or ():
            one.on_step_end(args, state, control, **kwargs)

    def on_save(self, args, state, control, **kwargs):
        """Mark the checkpoint complete."""
        for one in self._made or ():
            one.on_save(args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        """Follow the weights when the Trainer put the best checkpoint's adapter back."""
        for one in self._made or ():
            one.on_train_end(args, state, control, **kwargs)


_defaults = cast(list[type[TrainerCallback]], DEFAULT_CALLBACKS)
if AttachedChains not in _defaults:
    _defaults.append(AttachedChains)


def restart_schedule(scheduler: LambdaLR, *, args: TrainingArguments, starts: list[int], max_steps: int) -> None:
    """Make a Trainer's schedule start anew with every link.

    Args:
        scheduler: the Trainer's scheduler, a `LambdaLR` as `transformers.get_scheduler` makes them.
        args: the `TrainingArguments`, for the kind of schedule and its warm-up.
        starts: first step of each link.
        max_steps: last step of the last link.

    Raises:
        ValueError: for any other kind of scheduler.
    """
    scheduler = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(scheduler, LambdaLR):
        raise ValueError(f"schedule='link' needs a LambdaLR scheduler, got {type(scheduler).__name__}")
    ends = [*starts[1:], max_steps]
    pieces = []
    for start, end in zip(starts, ends, strict=True):
        dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        piece = get_scheduler(
            args.lr_scheduler_type,
            optimizer=dummy,
            num_warmup_steps=args.get_warmup_steps(end - start),
            num_training_steps=end - start,
            scheduler_specific_kwargs=cast(dict[str, Any] | None, args.lr_scheduler_kwargs),
        )
        pieces.append(piece.lr_lambdas[0])

    def scale(step: int) -> float:
        link = max(sum(start <= step for start in starts) - 1, 0)
        return pieces[link](step - starts[link])

    scheduler.lr_lambdas = [scale] * len(scheduler.lr_lambdas)
    rates = [base * scale(scheduler.last_epoch) for base in scheduler.base_lrs]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """Return the newest complete checkpoint of a chain under ``folder``, or None.

    A checkpoint is complete when its ``chain.json`` is there: a killed run may leave a half-written one behind.
    """
    marks = sorted(Path(folder).glob("checkpoint-*/chain.json"), key=lambda p: int(p.parent.name.rpartition("-")[2]))
    return str(marks[-1].parent) if marks else None


def _chains(model: Any) -> dict[str, Any]:
    """The configurations of the adapters of a model that are chains and train, by name."""
    configs = getattr(model, "peft_config", None)
    return {
        name: config
        for name, config in (configs.items() if isinstance(configs, dict) else ())
        if getattr(config, "links", 1) > 1 and _trains(model, name)
    }


def _trains(model: nn.Module, adapter: str) -> bool:
    factors = [layer.beyond_column_B[adapter] for _, layer in _column_layers(model, adapter)]
    factors += [layer.lora_B[adapter] for _, layer in lora_layers(model, adapter)]
    return any(p.requires_grad for factor in factors for p in factor.parameters())


def _column_layers(model: nn.Module, adapter: str) -> list[tuple[str, ColumnLayer]]:
    return [
        (name.removeprefix("base_model.model."), module)
        for name, module in model.named_modules()
        if isinstance(module, ColumnLayer) and adapter in module.beyond_column_B
    ]


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
