"""Weights of a base and an update, one matrix at a time: from a live model or checkpoint files.

Files are read tensor by tensor, so an 8B model needs the memory of its largest matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters import WeightUpdate, updates
from analysis.spectra.files import WeightFiles, common_prefix, layer_types, type_of

__all__ = ["LayerUpdate", "check_float", "from_checkpoints", "from_model", "matrices"]

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


def from_model(
    model: nn.Module,
    base_state: Mapping[str, Tensor] | None = None,
    *,
    adapter: str | None = None,
    left_out: list[str] | None = None,
) -> Iterator[LayerUpdate]:
    """Yield the updates of a live model: of its adapter, or against the state it started from.

    A convolution is the matrix (out, in * kernel), an expert a matrix of its own, an embedding (tokens, features).

    Args:
        model: a model with adapters of any PEFT method that has a dW (`adapters.updates`), or any module with
            ``base_state``.
        base_state: state dict before training; needed without adapters, and for adapters whose start moved the base.
        adapter: name of the adapter; None takes the active ones, together.
        left_out: what is changed but no matrix, or not of the adapter, is appended here by name.

    Raises:
        TypeError: if a weight is not floating point.
        ValueError: if there are neither adapters nor ``base_state``, the two do not match, or an adapter changes no
            matrix.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()) or hasattr(model, "peft_config"):
        found = False
        for item in updates(model, adapter=adapter, base=base_state, left_out=left_out):
            for layer in matrices(item, left_out):
                found = True
                yield layer
        if not found:
            raise ValueError("the adapter changes no matrix, biases and other vectors alone: it has no spectrum")
        return
    if base_state is None:
        raise ValueError("a model without adapters needs base_state, the state dict before training")
    transposed = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            if name not in base_state:
                raise ValueError(f"base_state has no {name!r}: base and tuned model do not match")
            yield from _difference(name, base_state[name], weight.detach(), transpose=name in transposed)
        elif left_out is not None and name in base_state and not torch.equal(weight, base_state[name]):
            left_out.append(f"{name}: a vector")


def matrices(item: WeightUpdate, left_out: list[str] | None) -> Iterator[LayerUpdate]:
    """Cut a changed tensor into matrices (out, in); a vector is appended to ``left_out``."""
    check_float(item.base, f"{item.name}.{item.parameter}")
    name = item.name if item.parameter == "weight" else f"{item.name}.{item.parameter.removesuffix('.weight')}"
    if item.left is not None:
        base = item.base.T if item.transposed else item.base
        yield LayerUpdate(name=name, base=base, left=item.left, right=item.right)
    elif item.base.ndim < 2:
        if left_out is not None:
            left_out.append(f"{item.name}.{item.parameter}: a vector")
    elif item.stacked:
        for number, (base, delta) in enumerate(zip(item.base, item.update, strict=True)):
            pair = (base.T, delta.T) if item.transposed else (base, delta)
            yield LayerUpdate(name=f"{name}[{number}]", base=pair[0], delta=pair[1])
    else:
        base, delta = item.base.flatten(1), item.update.flatten(1)
        pair = (base.T, delta.T) if item.transposed else (base, delta)
        yield LayerUpdate(name=name, base=pair[0], delta=pair[1])


def from_checkpoints(
    base: str | Path, tuned: str | Path, *, include: str = "", left_out: list[str] | None = None
) -> Iterator[LayerUpdate]:
    """Yield the matrices that differ between two checkpoints on disk, one at a time.

    A bare encoder is matched with its classifier's checkpoint through the prefix that most names share. A config.json
    beside either says which weights are stored (in, out), as GPT-2's; without one all are taken as (out, in). Weights
    that agree once both are rounded to the coarser of their types are not called changed.

    Args:
        base: file or folder of W0.
        tuned: file or folder of W0 + dW.
        include: regular expression that names must contain; embeddings of large models are big, leave them out so.
        left_out: what is in one file only, no matrix, or equal but for its type is appended here by name.

    Raises:
        TypeError: if a weight is not floating point.
        ValueError: if a file is missing or truncated, shapes differ, or no matrix is in both.
    """
    before, after = WeightFiles(base), WeightFiles(tuned)
    types = layer_types(tuned) or layer_types(base)
    pairs = {name: other for name, other in common_prefix(after.names, before.names) if re.search(include, name)}
    if left_out is not None:
        left_out += [f"{name}: in the tuned weights alone" for name in after.names if name not in pairs and not include]
        left_out += [f"{name}: a vector" for name in pairs if len(after.shape(name)) < 2]
    pairs = {name: other for name, other in pairs.items() if len(after.shape(name)) >= 2}
    if not pairs:
        raise ValueError(f"{str(base)!r} and {str(tuned)!r} share no matrix named like {include!r}")
    for name, other in pairs.items():
        if before.shape(other) != after.shape(name):
            raise ValueError(
                f"{name!r} has shape {before.shape(other)} in the base and {after.shape(name)} in the other"
            )
    for name, other in pairs.items():
        transpose = type_of(name.removesuffix(".weight"), types) is Conv1D
        yield from _difference(name, before.read(other), after.read(name), transpose=transpose, left_out=left_out)


def _difference(
    name: str, base: Tensor, tuned: Tensor, *, transpose: bool = False, left_out: list[str] | None = None
) -> Iterator[LayerUpdate]:
    if base.shape != tuned.shape:
        raise ValueError(f"{name!r} has shape {tuple(base.shape)} in the base and {tuple(tuned.shape)} in the other")
    check_float(base, name)
    check_float(tuned, name)
    narrow = max(base.dtype, tuned.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    if torch.equal(base.to(narrow), tuned.to(narrow)):
        if base.dtype != tuned.dtype and left_out is not None and not torch.equal(base.double(), tuned.double()):
            left_out.append(f"{name}: equal once rounded to {narrow}")
        return
    wide = torch.float64 if tuned.dtype == torch.float64 else torch.float32
    delta = torch.empty_like(tuned, dtype=wide)
    for out, after, before in zip(*(part.split(_BLOCK) for part in (delta, tuned, base)), strict=True):
        torch.sub(after.to(wide), before.to(wide), out=out)
    short = name.removesuffix(".weight")
    if base.ndim == 3:
        for number, (one, change) in enumerate(zip(base, delta, strict=True)):
            if change.any():
                yield LayerUpdate(name=f"{short}[{number}]", base=one, delta=change)
    elif delta.any():
        base, delta = (part.flatten(1) for part in (base, delta))
        pair = (base.T, delta.T) if transpose else (base, delta)
        yield LayerUpdate(name=short, base=pair[0], delta=pair[1])


def check_float(weight: Tensor, name: str) -> None:
    """Refuse a weight that is not floating point.

    Raises:
        TypeError: naming it.
    """
    if not weight.is_floating_point():
        raise TypeError(f"weight {name!r} is {weight.dtype}, not floating point; dequantise the model first")
