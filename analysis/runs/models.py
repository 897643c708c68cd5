"""Anyone's trained models told as finished runs: a base with adapters, or checkpoints, and any data a run takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from peft import PeftConfig, PeftModel

from adapters.updates import moves_base
from analysis.records import config_key
from analysis.runs.loading import LoadedRun
from analysis.tasks import DataOptions, Task, load_model, load_task

__all__ = ["load_models"]


def load_models(
    model: str,
    *,
    adapters: Sequence[str | Path] = (),
    checkpoints: Sequence[str | Path] = (),
    task: str = "custom",
    data: str | None = None,
    options: DataOptions | None = None,
    seed: int = 0,
) -> Iterator[LoadedRun]:
    """Yield trained models, each with the examples it is looked at with.

    Args:
        model: the base: a local folder, a hub id, or what else `analysis.tasks.load_model` takes.
        adapters: folders of PEFT adapters on that base; one model each.
        checkpoints: folders of one training's checkpoints, oldest first, PEFT's or whole models': one model, the last
            of them, with the path that leads to it.
        task: ``"custom"`` with ``options`` that name kind and columns, or a preset.
        data: as `analysis.tasks.load_task` takes it.
        options: how the data is read.
        seed: of the split.

    Raises:
        ValueError: if both or neither of ``adapters`` and ``checkpoints`` are given, a folder is missing, an adapter
            does not fit the base, or the data cannot be read.
    """
    if bool(adapters) == bool(checkpoints):
        raise ValueError("give one of adapters and checkpoints: folders of adapters, or of one training's checkpoints")
    folders = [Path(folder) for folder in (*adapters, *checkpoints)]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"no folder at {str(folder)!r}; give what save_pretrained or a Trainer wrote")
    examples = load_task(task, data=data, model=model, seed=seed, options=options)
    for folder in folders if adapters else folders[-1:]:
        base, state = _base(folder, examples, seed)
        yield LoadedRun(
            record={
                "key": config_key({"model": model, "folder": str(folder)}),
                "title": folder.name,
                "config": {"method": folder.name, "seed": seed},
            },
            model=_load(folder, base, examples, seed),
            task=examples,
            folder=folder,
            weights=folder,
            base_state=state,
            data=data,
            base=model,
            snapshots=tuple(folders[:-1] if checkpoints else ()),
            read=lambda place: _load(place, _base(place, examples, seed)[0], examples, seed),
        )


def _base(folder: Path, task: Task, seed: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Load the base and its state; a copy of it where loading the adapter will write to it."""
    base = load_model(task, seed=seed)
    adapted = (folder / "adapter_config.json").is_file()
    copied = adapted and moves_base(PeftConfig.from_pretrained(str(folder))) is not None
    return base, {name: value.clone() if copied else value for name, value in base.state_dict().items()}


def _load(folder: Path, base: torch.nn.Module, task: Task, seed: int) -> torch.nn.Module:
    """Load an adapter onto its base, or a whole model."""
    if not (folder / "adapter_config.json").is_file():
        whole = load_model(task, model=str(folder), seed=seed)
        if missing := cast(Sequence[str], whole.missing_keys):
            raise ValueError(f"checkpoint {str(folder)!r} lacks {missing[0]!r}: it is no {task.kind} model")
        return whole.requires_grad_(True).eval()
    with warnings.catch_warnings():
        # PEFT up to 0.21 reads the model's attribute by the name that transformers 5 deprecates.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(base, str(folder)).eval()
        except (RuntimeError, UserWarning, OSError) as error:
            raise ValueError(
                f"adapter {str(folder)!r} does not fit the base: {str(error).splitlines()[0][:300]}"
            ) from None
