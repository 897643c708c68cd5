"""Updates of a saved PEFT adapter on a base's weight files, one matrix at a time."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters import ColumnConfig
from adapters.updates import base_name, layer_updates, moves_base
from analysis.spectra.files import WeightFiles, layer_types, type_of
from analysis.spectra.weights import LayerUpdate, check_float, from_model, matrices

__all__ = ["from_adapter"]

_ROOT = "base_model.model."
_FACTOR = re.compile(r"\.(lora_|beyond_column_)")


def from_adapter(folder: str | Path, base: str | Path, *, left_out: list[str] | None = None) -> Iterator[LayerUpdate]:
    """Yield the updates of a saved PEFT adapter on a base's weight files.

    PEFT itself loads the adapter. LoRA in all its forms and this project's adapters go onto a skeleton whose weights
    take no memory, and base weights are read one at a time; PiSSA and OLoRA make each layer's residual anew, as
    PEFT does when it loads them. Any other method is loaded with all of its base, which then needs its config.json.

    Args:
        folder: what ``save_pretrained`` wrote.
        base: file or folder of the base model's weights. A config.json there says what each layer is; without one an
            adapter's own shapes do.
        left_out: what is not of the adapter's matrices is appended here by name.

    Raises:
        TypeError: if a base weight is not floating point.
        ValueError: if files are missing or truncated, shapes do not fit each other, the method has no dW, or its start
            cannot be made again from the base alone.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no adapter_config.json; give a folder written by save_pretrained")
    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.peft_type not in ("LORA", ColumnConfig().peft_type):
        yield from _on_whole_base(folder, base, config, left_out)
        return
    saved = WeightFiles(folder)
    layers = sorted({_FACTOR.split(name.removeprefix(_ROOT))[0] for name in saved.names if _FACTOR.search(name)})
    if not layers:
        raise ValueError(f"adapter {str(folder)!r} holds no low-rank factors; accepted: LoRA and column adapters")
    if left_out is not None:
        others = [base_name(name) for name in saved.names if not _FACTOR.search(name) and ".base_layer." not in name]
        left_out += [f"{name}: trained beside the adapter" for name in others]
    start = moves_base(config)
    if start is not None and start.lower() not in ("pissa", "olora"):
        raise ValueError(
            f"adapter {str(folder)!r} was started by {start!r}, whose residual the base alone does not give; convert "
            "it with save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    yield from _on_skeleton(folder, WeightFiles(base), config, saved, layers, start, left_out)


def _on_whole_base(folder: Path, base: str | Path, config: Any, left_out: list[str] | None) -> Iterator[LayerUpdate]:
    """Load the base with the head that the adapter was trained on, and the adapter onto it."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning:
        raise ValueError(f"PEFT method {kind} changes activations, not weights, so it has no dW")
    if not (Path(base) / "config.json").is_file():
        raise ValueError(f"PEFT method {kind} needs all of its base: {str(base)!r} must be a folder with a config.json")
    tasks = {"SEQ_CLS": "SequenceClassification", "CAUSAL_LM": "CausalLM", "TOKEN_CLS": "TokenClassification"}
    task = str(getattr(config.task_type, "value", config.task_type))
    named = (config.auto_mapping or {}).get("base_model_class")
    factory: Any = getattr(transformers, str(named), getattr(transformers, f"AutoModelFor{tasks.get(task, '')}", None))
    model = (factory or transformers.AutoModel).from_pretrained(str(base))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(model, str(folder))
    yield from from_model(model, state, left_out=left_out)


def _on_skeleton(
    folder: Path,
    files: WeightFiles,
    config: Any,
    saved: WeightFiles,
    layers: list[str],
    start: str | None,
    left_out: list[str] | None,
) -> Iterator[LayerUpdate]:
    flipped, types = bool(getattr(config, "fan_in_fan_out", False)), layer_types(files.path)
    kinds = {layer: _kind(layer, types, saved, flipped=flipped) for layer in layers}
    parameters = _parameters(config, layers)
    places = {layer: _find(files, layer, parameters.get(layer, "weight")) for layer in layers}
    shapes = {layer: files.shape(places[layer]) for layer in layers}
    for name in saved.names:
        _check_factor(name, saved.shape(name), shapes, kinds)
    config.modules_to_save, config.task_type = None, None
    config.target_modules = [layer for layer in layers if layer not in parameters]
    config.init_lora_weights = True  # the residual, where there is one, is made below, of each layer's own W0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(_skeleton(shapes, kinds, parameters), config)
        of_adapter = {name: saved.read(name) for name in saved.names if _FACTOR.search(name)}
        set_peft_model_state_dict(model, of_adapter)
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            short = base_name(name)
            parameter = parameters.get(short, "weight")
            weight = files.read(places[short])
            check_float(weight, places[short])
            base = {f"{short}.{parameter}": weight}
            own = f"{name}.base_layer.weight"  # an embedding's, which PEFT saves along and loads over the base's
            with (
                torch.no_grad(),
                _weight_of(layer, parameter, saved.read(own) if own in saved.names else weight.clone()),
            ):
                if start is not None:
                    _remake_residual(layer, start)
                for item in layer_updates(layer, ["default"], name=name, place=short, base=base):
                    yield from matrices(item, left_out)


def _find(files: WeightFiles, layer: str, parameter: str) -> str:
    """Return the name of a layer's weight; a head that is tied to the embedding is stored under that one's name."""
    try:
        return files.find(layer, parameter)
    except ValueError:
        embeddings = [name for name in files.names if name.endswith(("embed_tokens.weight", "wte.weight"))]
        if layer.rpartition(".")[2] != "lm_head" or len(embeddings) != 1:
            raise
        return embeddings[0]


@contextlib.contextmanager
def _weight_of(layer: BaseTunerLayer, parameter: str, weight: Tensor) -> Iterator[None]:
    """Put W0 into a layer of the skeleton, and take it out again."""
    inner: Any = layer.get_base_layer()
    empty = getattr(inner, parameter)
    setattr(inner, parameter, nn.Parameter(weight, requires_grad=False))
    try:
        yield
    finally:
        setattr(inner, parameter, empty)


def _remake_residual(layer: Any, start: str) -> None:
    """Let PEFT put its residual where W0 is, and keep the factors as they were loaded."""
    kept = [(holder["default"], holder["default"].weight.detach().clone()) for holder in (layer.lora_A, layer.lora_B)]
    if start.lower() == "pissa":
        layer.pissa_init("default", start)
    else:
        layer.olora_init("default")
    for linear, value in kept:
        linear.weight.data = value


def _kind(layer: str, types: dict[str, type[nn.Module]], saved: WeightFiles, *, flipped: bool) -> type[nn.Module]:
    """What a layer is: by the base's config.json, else by the adapter's own tensors and its fan_in_fan_out."""
    known = type_of(layer, types)
    if known is not None and issubclass(known, (Conv1D, nn.Embedding, nn.Linear, nn.modules.conv._ConvNd)):
        return known
    mine = {name for name in saved.names if _FACTOR.split(name.removeprefix(_ROOT))[0] == layer}
    if any(".lora_embedding_" in name for name in mine):
        return nn.Embedding
    if any(len(saved.shape(name)) > 2 for name in mine):
        return {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[max(len(saved.shape(name)) for name in mine)]
    return Conv1D if flipped else nn.Linear


def _parameters(config: Any, layers: list[str]) -> dict[str, str]:
    """Name the parameter of each layer that the configuration's target_parameters, not its target_modules, names."""
    found: dict[str, str] = {}
    for target in getattr(config, "target_parameters", None) or ():
        module, _, parameter = target.rpartition(".")
        found |= {layer: parameter for layer in layers if layer == module or layer.endswith(f".{module}")}
    return found


def _check_factor(
    name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, type[nn.Module]]
) -> None:
    layer = _FACTOR.split(name.removeprefix(_ROOT))[0]
    if layer not in shapes or not name.endswith("weight") or len(shapes[layer]) != 2 or len(shape) != 2:
        return
    rows, columns = shapes[layer][:: -1 if issubclass(kinds[layer], Conv1D) else 1]
    wanted, found = (columns, shape[-1]) if ".lora_A" in name else (rows, shape[0])
    if wanted != found:
        raise ValueError(f"adapter tensor {name!r} of shape {shape} does not fit the base's {(rows, columns)}")


def _skeleton(
    shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, type[nn.Module]], parameters: Mapping[str, str]
) -> nn.Module:
    """Build a module tree with layers of the given kinds, whose weights share one zero."""
    root = nn.Module()
    for layer, shape in shapes.items():
        *parents, last = layer.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        leaf = nn.Module() if layer in parameters else _layer(kinds[layer], shape)
        setattr(leaf, parameters.get(layer, "weight"), nn.Parameter(torch.zeros(()).expand(shape), requires_grad=False))
        module.add_module(last, leaf)
    return root


def _layer(kind: type[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    with torch.device("meta"):
        if issubclass(kind, Conv1D):
            layer: Any = Conv1D(shape[1], shape[0])
        elif issubclass(kind, nn.Embedding):
            layer = nn.Embedding(shape[0], shape[1])
        elif len(shape) > 2:
            named: Any = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[len(shape)]
            layer = named(shape[1], shape[0], shape[2:], bias=False)
        else:
            layer = nn.Linear(shape[1], shape[0], bias=False)
    layer.bias = None
    return layer
