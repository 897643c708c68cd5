r"""What a trained model really changed: plain records for `theory.bounds.from_update`, factors, dense updates.

Everything is read from the model's own tensors, never from the method's name: the family whose form
a layer has reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers.pytorch_utils import Conv1D

from adapters.config import say_how_many_links
from adapters.families import Hooks, exact, hooks_that_hold, stored_bits
from adapters.layer import whole
from adapters.targets import linear_names
from adapters.updates import active_adapter
from theory.records import UpdateRecord

__all__ = ["LayerFactors", "delta_weights", "describe", "factors", "matrix_of"]

ROOT = "base_model.model."


@dataclass(frozen=True)
class LayerFactors:
    r"""The update of one adapted layer, :math:`\Delta W =` ``left @ right``, cumulative over links.

    Attributes:
        name: dotted module name in the base model; of one of fused experts, the parameter's name and its number.
        base_weight: W0, (out_features, in_features), in the base's own type (dequantised where quantised).
        left: (out_features, R) fp32 (fp64 on an fp64 base), the scale alpha / r folded in.
        right: (R, in_features), same type; rows of the identity for column methods.
        layer: the adapted layer.
        family: name of the family whose form the adapter has there.
        hooks: that family's code.
        parameter: dotted name of the parameter in the base model.
        expert: number of the matrix where the parameter is a stack of them, else None.
    """

    name: str
    base_weight: Tensor
    left: Tensor
    right: Tensor
    layer: BaseTunerLayer
    family: str
    hooks: Hooks
    parameter: str
    expert: int | None = None


@torch.no_grad()
def factors(model: nn.Module, *, adapter: str | None = None) -> Iterator[LayerFactors]:
    """Yield the factors of every layer adapted by ``adapter`` (None: by the active one), in the model's order.

    Each layer's family reads its own form; Conv1D weights are transposed to (out, in).

    Raises:
        ValueError: if an adapter is merged into the base, a layer's adapter is of no family's form, or several are
            active.
    """
    adapter = active_adapter(model) if adapter is None else adapter
    for name, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        if layer.merged:
            raise ValueError(f"layer {name!r} has merged adapters {layer.merged_adapters}; unmerge first")
        found = hooks_that_hold(layer, adapter, name=name)
        if found is None:
            continue
        family, hooks = found
        left, right = hooks.factors(layer, adapter)
        owner, held = name.removeprefix(ROOT), getattr(layer, "parameter_name", None)
        parameter = f"{owner}.weight" if held is None else f"{owner.replace('.base_layer', '')}.{held}"
        stored = layer.get_base_weight() if held is None else getattr(layer.get_base_layer(), held)
        for expert in [None] if left.ndim == 2 else range(len(left)):
            yield LayerFactors(
                name=owner if held is None else parameter if expert is None else f"{parameter}.{expert}",
                base_weight=matrix_of(layer, whole(stored.detach()), expert),
                left=left if expert is None else left[expert],
                right=right if expert is None else right[expert],
                layer=layer,
                family=family,
                hooks=hooks,
                parameter=parameter,
                expert=expert,
            )


def matrix_of(layer: BaseTunerLayer, stored: Tensor, expert: int | None) -> Tensor:
    """View the matrix that a layer adapts, (out_features, in_features), in a tensor laid out as its parameter is."""
    base: Any = layer.get_base_layer()
    stacked = stored if expert is None else stored[expert]
    transposed = isinstance(base, Conv1D) or (expert is not None and getattr(base, "is_transposed", False))
    return stacked.t() if transposed else stacked


@torch.no_grad()
def delta_weights(model: nn.Module, base_state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the dense update of every adapted weight, fp32; for full fine-tuning of every linear one outside the head.

    Args:
        model: an adapted model, or a fully fine-tuned one.
        base_state: state dict of the base before training; needed for full fine-tuning.

    Returns:
        Module name -> (out_features, in_features).

    Raises:
        ValueError: if the model has no adapters and ``base_state`` is None.
    """
    if _is_adapted(model):
        return {layer.name: layer.left @ layer.right for layer in factors(model)}
    base = _require_base(base_state)
    deltas = {}
    for name, module in _dense_layers(model):
        delta = exact(module.weight) - exact(_base(base, f"{name}.weight", module.weight))
        deltas[name] = delta.t() if isinstance(module, Conv1D) else delta
    return deltas


@torch.no_grad()
def describe(
    model: nn.Module, base_state: Mapping[str, Tensor] | None = None, *, adapter: str | None = None
) -> list[UpdateRecord]:
    """Return one record per trained matrix, as `theory.records.UpdateRecord` defines them.

    Adapted layers come first, then everything trained in full (``kind="head"``): modules to save. Under full
    fine-tuning the linear layers outside the head are ``kind="dense"`` (what ``"all-linear"`` adapters would adapt) and
    the head, biases, norms and embeddings ``"head"``; a convolution counts as out x (in * kernel). A LoRA adapter read
    back from disk counts as one link with A trained, which never understates what was trained. Columns that the user
    gave may depend on the data, so each link's choice counts log2 binomial(n, r) bits of side information. Adapted
    layers have the name of their family as ``kind``.

    Args:
        model: a trained model: PEFT with layers of a known family, or fully fine-tuned.
        base_state: state dict of the base before training; needed for full fine-tuning.
        adapter: name of the adapter; None is the active one.

    Raises:
        ValueError: if the model has no adapters and ``base_state`` is None, or adapters are merged.
    """
    if not _is_adapted(model):
        return _describe_dense(model, _require_base(base_state))
    adapter = active_adapter(model) if adapter is None else adapter
    if adapter in cast(PeftModel, model).peft_config:
        say_how_many_links(cast(PeftModel, model).peft_config[adapter], "describing")
    records: list[UpdateRecord] = []
    for item in tqdm(list(factors(model, adapter=adapter)), desc="describe", delay=2):
        config = cast(PeftModel, model).peft_config[adapter]
        base = item.base_weight.double()
        left, right = item.left.double(), item.right.double()
        rows, columns = base.shape
        common: Any = {
            "name": item.name,
            "out_features": rows,
            "in_features": columns,
            "norm_update": _product_norm(left, right),
            "norm_base": _norm(base),
            "norm_merged": _norm(base + left @ right),
        }
        records.append(common | {"kind": item.family} | item.hooks.describe(item.layer, adapter, config))
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save:
            original = dict(module.original_module.named_parameters())
            for key, parameter in module.modules_to_save[adapter].named_parameters():
                full = ".".join(part for part in (name.removeprefix(ROOT), key) if part)
                records.append(_dense_record(full, "head", original[key], parameter))
    trained_bias = [(n, p) for n, p in model.named_parameters() if n.endswith("base_layer.bias") and p.requires_grad]
    for name, parameter in trained_bias:
        before = _base(_require_base(base_state), name.removeprefix(ROOT).replace(".base_layer", ""), parameter)
        records.append(_dense_record(name.removeprefix(ROOT), "head", before, parameter))
    return records


def _describe_dense(model: nn.Module, base: Mapping[str, Tensor]) -> list[UpdateRecord]:
    adapted = {f"{name}.weight": module for name, module in _dense_layers(model)}
    records = []
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for name, parameter in tqdm(trained, desc="describe", delay=2):
        before = _base(base, name, parameter)
        if name in adapted:
            transposed = isinstance(adapted[name], Conv1D)
            pair = (before.t(), parameter.t()) if transposed else (before, parameter)
            records.append(_dense_record(name.removesuffix(".weight"), "dense", *pair))
        else:
            records.append(_dense_record(name, "head", before, parameter))
    return records


def _dense_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The layers of a model without adapters that count as adapted when all of it is trained."""
    return [(name, model.get_submodule(name)) for name in linear_names(model)]


def _dense_record(name: str, kind, before: Tensor, after: Tensor) -> UpdateRecord:
    old, new = (t.detach().double().reshape(len(t) if t.ndim else 1, -1) for t in (before, after))
    return {
        "name": name,
        "kind": kind,
        "out_features": new.shape[0],
        "in_features": new.shape[1],
        "rank": None,
        "links": 1,
        "numbers_trained": new.numel(),
        "a_trained": False,
        "support": None,
        "bits": stored_bits(after),
        "side_information_bits": 0.0,
        "norm_update": _norm(new - old),
        "norm_base": _norm(old),
        "norm_merged": _norm(new),
        "seed": None,
    }


def _is_adapted(model: nn.Module) -> bool:
    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


def _require_base(base_state: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    if base_state is None:
        raise ValueError("base_state must be given (the state dict before training): the model has no adapters")
    return base_state


def _base(base_state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    if name not in base_state or base_state[name].shape != like.shape:
        found = tuple(base_state[name].shape) if name in base_state else "nothing"
        raise ValueError(f"base_state[{name!r}] must have shape {tuple(like.shape)}, got {found}")
    return base_state[name].to(like.device)


def _norm(matrix: Tensor) -> float:
    """Spectral norm from the smaller Gram matrix, scaled against overflow and underflow; NaN is passed on."""
    scale = matrix.abs().max() if matrix.numel() else matrix.new_zeros(())
    if not torch.isfinite(scale) or scale == 0:
        return scale.item()
    unit = matrix / scale
    gram = unit.t() @ unit if unit.shape[0] > unit.shape[1] else unit @ unit.t()
    return (scale * torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt()).item()


def _product_norm(left: Tensor, right: Tensor) -> float:
    """Spectral norm of ``left @ right`` without forming it when it is thin."""
    if left.shape[1] >= min(left.shape[0], right.shape[1]):
        return _norm(left @ right)
    return _norm(left @ torch.linalg.qr(right.t()).R.t())
