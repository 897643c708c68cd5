"""Write any adapter of ours as a plain LoRA adapter that PEFT loads without this package."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters.config import say_how_many_links
from adapters.describe import ROOT, factors
from adapters.layer import PREFIX, layer_shape
from adapters.model import check_adapter_name
from adapters.snapshot import Snapshot
from adapters.targets import target_parameters
from adapters.updates import active_adapter

__all__ = ["export_to_lora", "load_adapter", "save_adapter"]


def load_adapter(model: nn.Module, folder: str | os.PathLike, *, adapter: str = "default", **arguments) -> PeftModel:
    """Load a saved adapter, after reading all of it: whatever raises leaves ``model`` as it was, to the bit.

    `peft.PeftModel.from_pretrained` loads the same folders, but wraps the model before it opens the weights.

    Args:
        model: the base model.
        folder: what ``save_pretrained``, a Trainer checkpoint or `export_to_lora` wrote.
        adapter: name to give the adapter.
        **arguments: passed on to `peft.PeftModel.from_pretrained`.

    Raises:
        ValueError: if a file is missing, truncated, of a newer version, or for a base of other shapes; for a name
            that no adapter can have.
    """
    folder = Path(folder)
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise ValueError(f"folder must hold adapter_config.json and adapter_model.safetensors, got {str(folder)!r}")
    config = PeftConfig.from_pretrained(str(folder))
    check_adapter_name(adapter, config)
    try:
        with safe_open(weights, framework="pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a complete safetensors file: {error}") from error
    holders = {name.rpartition(".")[0] for name in target_parameters(model, config.target_parameters or [])}
    for key, shape in shapes.items():
        name, _, rest = key.removeprefix(ROOT).partition(".lora_" if ".lora_" in key else f".{PREFIX}")
        if name.replace(".base_layer", "") in holders:
            continue
        if rest.startswith(("A.", "B.", "A", "B")) and rest.endswith("weight"):
            try:
                base = layer_shape(model.get_submodule(name))
            except AttributeError:
                base = None
            features = None if base is None else base[1] if rest.startswith("A") else base[0]
            if features not in shape:
                raise ValueError(f"the saved adapter is for another base: {key} has shape {shape}, the base {base}")
    config.inference_mode = not arguments.pop("is_trainable", False)
    with Snapshot.undone(model, on_error_alone=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return PeftModel.from_pretrained(
            model, str(folder), adapter_name=adapter, config=config, is_trainable=not config.inference_mode, **arguments
        )


def save_adapter(
    model: nn.Module, folder: str | os.PathLike, *, adapter: str = "default", lora_twin: bool = False
) -> Path:
    """Save one adapter as ``save_pretrained`` does, with a plain LoRA adapter of the same function beside it if asked.

    Args:
        model: a PEFT model.
        folder: where to write; as in PEFT, an adapter of another name than ``"default"`` goes to a folder of its name.
        adapter: name of the adapter.
        lora_twin: also write what `export_to_lora` writes, into the folder ``lora`` beside the adapter's files.

    Returns:
        The folder that holds the adapter's files.

    Raises:
        TypeError: if ``model`` is no PEFT model.
        ValueError: if it has no such adapter; with ``lora_twin``, also if adapters are merged.
    """
    if not isinstance(model, PeftModel):
        raise TypeError(f"model must be a PeftModel, got {type(model).__name__}")
    if adapter not in model.peft_config:
        raise ValueError(f"adapter must be one of the model's ({', '.join(model.peft_config)}), got {adapter!r}")
    written = Path(folder) if adapter == "default" else Path(folder) / adapter
    if lora_twin:
        export_to_lora(model, written / "lora", adapter=adapter)
    model.save_pretrained(str(folder), selected_adapters=[adapter])
    return written


@torch.no_grad()
def export_to_lora(model: nn.Module, folder: str | os.PathLike, *, adapter: str | None = None) -> Path:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` of an equal LoRA adapter.

    A column selector is a legal A (rows of the identity), so the export is exact: rank r, or the number of
    distinct columns visited by a chain; ``lora_alpha`` equals the rank, the scale is folded into B. Layers of
    different rank go to ``rank_pattern``. Modules to save are written as they are.

    Parameters such as fused experts go to ``target_parameters``.

    Args:
        model: a PEFT model with layers of a known family.
        folder: where to write; made if missing. Each file is renamed into place when complete.
        adapter: name of the adapter; None is the active one.

    Returns:
        The folder.

    Raises:
        ValueError: if the model has no layer with that adapter, or adapters are merged.
    """
    adapter = active_adapter(model) if adapter is None else adapter
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    parameters: list[str] = []
    modules = {name.removeprefix(ROOT): module for name, module in model.named_modules()}
    names = {module: name for name, module in modules.items()}
    transposed = False
    for layer, found in itertools.groupby(factors(model, adapter=adapter), key=lambda item: item.layer):
        items = list(found)
        left, right = zip(*(item.hooks.export(item.left, item.right) for item in items), strict=True)
        fused = hasattr(layer, "parameter_name")
        target = items[0].parameter if fused else items[0].name
        parameters += [target] if fused else []
        ranks[target] = right[0].shape[0]
        transposed |= isinstance(layer.get_base_layer(), Conv1D)
        # PEFT lays A of fused experts out as (experts, rank, in), and B as (out, rank, experts).
        tensors[f"{ROOT}{names[layer]}.lora_A.weight"] = torch.cat(right).cpu().contiguous()
        tensors[f"{ROOT}{names[layer]}.lora_B.weight"] = torch.stack(left, -1).flatten(1).cpu().contiguous()
    if not ranks:
        raise ValueError(f"the model has no layer with an adapter named {adapter!r}")
    ours: Any = cast(PeftModel, model).peft_config[adapter]
    say_how_many_links(ours, "exporting")
    for name, module in modules.items():
        if isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save:
            for key, value in module.modules_to_save[adapter].state_dict().items():
                tensors[f"{ROOT}{name}.{key}"] = value.cpu().contiguous()
    rank = max(ranks.values())
    other = {name: value for name, value in ranks.items() if value != rank}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=other,
        alpha_pattern=dict(other),
        target_modules=sorted(set(ranks) - set(parameters)),
        target_parameters=parameters or None,
        modules_to_save=ours.modules_to_save,
        task_type=ours.task_type,
        base_model_name_or_path=ours.base_model_name_or_path,
        fan_in_fan_out=transposed,
        inference_mode=True,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        config.save_pretrained(scratch)
        save_file(tensors, Path(scratch) / "adapter_model.safetensors", metadata={"format": "pt"})
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            (Path(scratch) / name).replace(folder / name)
    return folder
