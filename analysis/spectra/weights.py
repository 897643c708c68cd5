"""Weights of a base and an update, one matrix at a time: from a live model, an adapter folder, or checkpoint files.

Safetensors files are read tensor by tensor, so an 8B model needs the memory of its largest matrix.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

import adapters
from adapters import factors

__all__ = ["LayerUpdate", "WeightFiles", "from_adapter", "from_checkpoints", "from_model"]

_ROOT = "base_model.model."
_FACTOR = re.compile(r"\.(lora_|beyond_column_)")
_BLOCK = 1024  # rows subtracted at a time, so that only the difference is held in float32


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerUpdate:
    """One weight before and after: W0, and either low-rank factors or a dense dW.

    Attributes:
        name: the layer's dotted name in the base model.
        base: W0, shape (out_features, in_features).
        left, right: dW = left @ right, shapes (m, r) and (r, n); None when dense.
        delta: dense dW in float32 or better; None when factored.
    """

    name: str
    base: Tensor
    left: Tensor | None = None
    right: Tensor | None = None
    delta: Tensor | None = None

    @property
    def update(self) -> Tensor:
        """The dense dW, in float32 or better."""
        if self.left is not None and self.right is not None:
            return self.left @ self.right
        if self.delta is None:
            raise ValueError(f"layer {self.name!r} has neither factors nor a dense update")
        return self.delta

    @property
    def tuned(self) -> Tensor:
        """W0 + dW, summed in float32 or better: in bfloat16 the sum loses much of a small update."""
        update = self.update
        return self.base.to(torch.promote_types(update.dtype, torch.float32)) + update


def from_model(model: nn.Module, base_state: Mapping[str, Tensor] | None = None) -> Iterator[LayerUpdate]:
    """Yield the updates of a live model: of its adapter, or against the state it started from.

    Args:
        model: a PEFT model (column or LoRA adapters), or any module with ``base_state``.
        base_state: state dict before training; needed without adapters. Only two-dimensional weights that
            changed are yielded.

    Raises:
        TypeError: if a weight is not floating point.
        ValueError: if there are neither adapters nor ``base_state``, or the two do not match.
    """
    if hasattr(model, "peft_config"):
        for layer in factors(model):
            _check_float(layer.base_weight, layer.name)
            yield LayerUpdate(name=layer.name, base=layer.base_weight, left=layer.left, right=layer.right)
        return
    if base_state is None:
        raise ValueError("a model without adapters needs base_state, the state dict before training")
    transposed = {f"{name}.weight" for name, module in model.named_modules() if type(module).__name__ == "Conv1D"}
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            if name not in base_state:
                raise ValueError(f"base_state has no {name!r}: base and tuned model do not match")
            found = _difference(name, base_state[name], weight.detach(), transpose=name in transposed)
            if found is not None:
                yield found


class WeightFiles:
    """Tensors by name in one safetensors file, or in a folder of them (with or without an index).

    Args:
        path: ``model.safetensors``, another safetensors file, or a folder holding some.

    Raises:
        ValueError: if there is none, one is truncated, or two hold the same name.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ValueError(f"no safetensors weights at {str(path)!r}; give a .safetensors file or a folder of them")
        self.path = path
        self._where: dict[str, Path] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as handle:
                    names = list(handle.keys())
            except (SafetensorError, OSError) as error:
                raise ValueError(f"weights {str(file)!r} are damaged or truncated: {error}") from None
            for name in names:
                if name in self._where:
                    raise ValueError(f"{name!r} is in both {self._where[name].name!r} and {file.name!r}")
                self._where[name] = file

    @property
    def names(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        with safe_open(self._where[name], framework="pt") as handle:
            return tuple(handle.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        with safe_open(self._where[name], framework="pt") as handle:
            return handle.get_tensor(name)

    def find(self, layer: str) -> str:
        """Return the name of a layer's weight, whatever prefix the file puts before it.

        Raises:
            ValueError: if no name, or more than one, ends in the layer's.
        """
        exact = f"{layer}.weight"
        if exact in self._where:
            return exact
        ends = [
            name
            for name in self._where
            if name.endswith("." + exact) or (name.endswith(".weight") and exact.endswith("." + name))
        ]
        if len(ends) != 1:
            found = "no weight" if not ends else f"{len(ends)} weights"
            raise ValueError(f"{str(self.path)!r} has {found} for layer {layer!r}: base and adapter do not match")
        return ends[0]


def from_checkpoints(base: str | Path, tuned: str | Path, *, include: str = "") -> Iterator[LayerUpdate]:
    """Yield the matrices that differ between two checkpoints on disk, one at a time.

    Args:
        base: file or folder of W0.
        tuned: file or folder of W0 + dW.
        include: regular expression that names must contain; embeddings of large models are big, leave them out so.

    Raises:
        TypeError: if a weight is not floating point.
        ValueError: if a file is missing or truncated, shapes differ, or no matrix is in both.
    """
    before, after = WeightFiles(base), WeightFiles(tuned)
    shared = [name for name in after.names if name in set(before.names) and re.search(include, name)]
    shared = [name for name in shared if len(after.shape(name)) == 2]
    if not shared:
        raise ValueError(f"{str(base)!r} and {str(tuned)!r} share no matrix named like {include!r}")
    for name in shared:
        if before.shape(name) != after.shape(name):
            raise ValueError(
                f"{name!r} has shape {before.shape(name)} in the base and {after.shape(name)} in the other"
            )
    for name in shared:
        found = _difference(name, before.read(name), after.read(name))
        if found is not None:
            yield found


def _difference(name: str, base: Tensor, tuned: Tensor, *, transpose: bool = False) -> LayerUpdate | None:
    if base.shape != tuned.shape:
        raise ValueError(f"{name!r} has shape {tuple(base.shape)} in the base and {tuple(tuned.shape)} in the other")
    _check_float(base, name)
    _check_float(tuned, name)
    if base.dtype == tuned.dtype and torch.equal(base, tuned):
        return None
    wide = torch.float64 if tuned.dtype == torch.float64 else torch.float32
    delta = torch.empty_like(tuned, dtype=wide)
    for out, after, before in zip(*(part.split(_BLOCK) for part in (delta, tuned, base)), strict=True):
        torch.sub(after.to(wide), before.to(wide), out=out)
    if not delta.any():
        return None
    if transpose:
        base, delta = base.T, delta.T
    return LayerUpdate(name=name.removesuffix(".weight"), base=base, delta=delta)


def from_adapter(folder: str | Path, base: str | Path) -> Iterator[LayerUpdate]:
    """Yield the updates of a saved PEFT adapter (LoRA or this project's) on a base's weight files.

    PEFT itself loads the adapter, onto a skeleton whose weights take no memory, so scales, rank patterns and
    chains mean what they mean there; base weights are read one at a time.

    Args:
        folder: what ``save_pretrained`` wrote.
        base: safetensors file or folder of the base model.

    Raises:
        TypeError: if a base weight is not floating point.
        ValueError: if files are missing or truncated, or shapes do not fit each other.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no adapter_config.json; give a folder written by save_pretrained")
    config: Any = PeftConfig.from_pretrained(str(folder))
    saved = WeightFiles(folder / "adapter_model.safetensors")
    layers = sorted({_FACTOR.split(name.removeprefix(_ROOT))[0] for name in saved.names if _FACTOR.search(name)})
    if not layers:
        raise ValueError(f"adapter {str(folder)!r} holds no low-rank factors; accepted: LoRA and column adapters")
    files = WeightFiles(base)
    flipped = bool(getattr(config, "fan_in_fan_out", False))
    places = {layer: files.find(layer) for layer in layers}
    shapes = {layer: files.shape(places[layer])[:: -1 if flipped else 1] for layer in layers}
    for name in saved.names:
        _check_factor(name, saved.shape(name), shapes)
    config.modules_to_save, config.task_type, config.target_modules = None, None, layers
    if hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(_skeleton(shapes), str(folder), config=config)
    for item in adapters.factors(model):
        if not item.hooks.additive:
            raise ValueError(
                f"adapter {str(folder)!r} of family {item.family!r} does not add to W0; load it with its base"
            )
        weight = files.read(places[item.name])
        _check_float(weight, places[item.name])
        yield LayerUpdate(name=item.name, base=weight.T if flipped else weight, left=item.left, right=item.right)


def _check_factor(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> None:
    layer = _FACTOR.split(name.removeprefix(_ROOT))[0]
    if layer not in shapes or not name.endswith("weight"):
        return
    rows, columns = shapes[layer]
    wanted, found = (columns, shape[-1]) if ".lora_A" in name else (rows, shape[0])
    if wanted != found:
        raise ValueError(f"adapter tensor {name!r} of shape {shape} does not fit the base's {(rows, columns)}")


def _skeleton(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Build a module tree with linear layers at the given names, whose weights share one zero."""
    root = nn.Module()
    for layer, (rows, columns) in shapes.items():
        *parents, last = layer.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        linear = nn.Linear(columns, rows, bias=False, device="meta")
        linear.weight = nn.Parameter(torch.zeros(()).expand(rows, columns), requires_grad=False)
        module.add_module(last, linear)
    return root


def _check_float(weight: Tensor, name: str) -> None:
    if not weight.is_floating_point():
        raise TypeError(f"weight {name!r} is {weight.dtype}, not floating point; dequantise the model first")
