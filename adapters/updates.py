r"""W0 and dW of every weight that an adapter of any PEFT method changes, as PEFT's own merge has them.

An adapter whose layer is of a family's form (plain LoRA and this project's) gives its factors. Every other one PEFT
itself merges, in float64, into a copy of one layer at a time: :math:`\Delta W` is what the copy's weight changed by. So
DoRA, LoHa, OFT, IA3, embeddings, convolutions and experts mean what they mean there. What PEFT does not merge (prompts,
adapters that depend on the input) has no dW, and is refused by name.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.families import Hooks, hooks_of
from adapters.layer import at_least_fp32, layer_shape, whole
from theory.methods import families

__all__ = [
    "WeightUpdate",
    "active_adapter",
    "adapters_of",
    "base_name",
    "layer_updates",
    "moves_base",
    "saved_modules",
    "updates",
]

_KEEP_BASE = ("gaussian", "eva", "orthogonal", "mica")  # ways to start LoRA that leave W0 alone
_WRAPPERS = ("base_layer", "token_adapter")


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightUpdate:
    r"""One tensor that the adapter changes: W0 and :math:`\Delta W`.

    Attributes:
        name: dotted name of the layer in the base model.
        parameter: the tensor's name in that layer, ``"weight"`` for most.
        place: the tensor's name in the adapted model's state dict.
        base: W0 as the layer stores it, in its own type (dequantised where quantised).
        left, right: factors of dW, (out_features, R) and (R, in_features), at least fp32; None where it is dense.
        delta: dW as the layer stores it, at least fp32; None where it is factored.
        transposed: whether a matrix is stored as (in_features, out_features), as transformers' Conv1D does.
        stacked: whether the first of three dimensions counts matrices, as experts are kept.
        additive: whether the layer computes W0 x + dW x, so that moving W0 beneath the adapter moves W0 + dW.
        layer: the adapted layer's name in the adapted model.
    """

    name: str
    parameter: str
    place: str
    base: Tensor
    left: Tensor | None = None
    right: Tensor | None = None
    delta: Tensor | None = None
    transposed: bool = False
    stacked: bool = False
    additive: bool = False
    layer: str

    @property
    def update(self) -> Tensor:
        """The dense dW, as the layer stores the weight."""
        if self.left is None or self.right is None:
            return cast(Tensor, self.delta)
        product = self.left @ self.right
        return product.T if self.transposed else product


@torch.no_grad()
def updates(
    model: nn.Module,
    *,
    adapter: str | Iterable[str] | None = None,
    base: Mapping[str, Tensor] | None = None,
    resident: bool = False,
    left_out: list[str] | None = None,
) -> Iterator[WeightUpdate]:
    """Yield what an adapted model changes, layer by layer, in the model's order.

    Args:
        model: a PEFT model, or one that adapters were injected into.
        adapter: name or names; None takes the active ones, together.
        base: state dict of the base model before it was adapted. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA leave a
            residual in the model where W0 was, so they need it; with it, dW is W0 + dW less that W0.
        resident: call what the model holds now W0, a residual too: for those who ask for W0 + dW alone.
        left_out: what is not yielded is appended here, by name and with the reason.

    Raises:
        TypeError: if a weight is not floating point (dequantise it first).
        ValueError: if the method has no dW, no layer carries the adapter, it is merged or disabled, or W0 is not known.
    """
    kinds = _check_methods(model)
    wanted = None if adapter is None else [adapter] if isinstance(adapter, str) else list(adapter)
    places: dict[nn.Module, str] = {module: name for name, module in model.named_modules(remove_duplicate=False)}
    idle: set[str] = set()
    found, inside = False, "."  # no name begins with a dot
    for name, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer) or name.startswith(inside):
            continue
        held = adapters_of(layer)
        active = [key for key in (layer.active_adapters if wanted is None else wanted) if key in held]
        idle |= held - set(active)
        if active:
            found = True
            if base is None and not resident:
                _check_known(model, active)
            place = places[layer.get_base_layer()]
            if any(isinstance(module, BaseTunerLayer) for module in layer.get_base_layer().modules()):
                inside = f"{name}."  # attention: PEFT merges its inner layers with it
            yield from layer_updates(layer, active, name=name, place=place, base=base, method=kinds)
    if not found:
        named = "the active adapter" if wanted is None else f"adapter {', '.join(map(repr, wanted))}"
        raise ValueError(f"no layer of the model carries {named} in a form that has a dW{kinds}")
    if left_out is not None:
        left_out += [f"adapter {name!r}: not active" for name in sorted(idle - set(wanted or ()))]
        left_out += [f"{name}: trained in full (modules_to_save)" for name in saved_modules(model)]


def layer_updates(
    layer: BaseTunerLayer,
    active: list[str],
    *,
    name: str,
    place: str,
    base: Mapping[str, Tensor] | None = None,
    method: str = "",
) -> Iterator[WeightUpdate]:
    """Yield what the named adapters change in one layer; arguments as in `updates`, ``place`` the base layer's name.

    Raises:
        TypeError, ValueError: as `updates`.
    """
    if layer.merged or layer.disable_adapters:
        state = f"has merged adapters {layer.merged_adapters}; unmerge" if layer.merged else "is disabled; enable it"
        raise ValueError(f"layer {name!r} {state} first")
    inner: Any = layer.get_base_layer()
    short = base_name(place)
    swapped = getattr(layer, "_did_swap_in_out_features", None)  # a parameter of its own; PEFT reads (e, in, out)
    common: dict[str, Any] = {"name": short, "layer": name}
    common["stacked"] = swapped is not None and cast(Any, layer).num_experts > 1
    common["transposed"] = isinstance(inner, Conv1D) or (common["stacked"] and not swapped)
    hooks = [_hooks(layer, key) for key in active]
    if all(item is not None and item.additive for item in hooks) and _unmoved(layer, f"{short}.weight", base):
        pairs = [cast(Hooks, item).factors(layer, key) for item, key in zip(hooks, active, strict=True)]
        left, right = torch.cat([pair[0] for pair in pairs], 1), torch.cat([pair[1] for pair in pairs])
        weight = whole(layer.get_base_weight().detach())
        yield WeightUpdate(
            parameter="weight", place=f"{place}.weight", base=weight, left=left, right=right, additive=True, **common
        )
        return
    start = _own_parameters(inner)
    for key, value in start.items():
        if not value.is_floating_point():
            raise TypeError(f"weight '{short}.{key}' is {value.dtype}, not floating point; dequantise it first")
    merged = _merged(layer, active, start, name=name, method=method)
    full = {key: base_name(f"{short}.{key}") for key in start}
    known = {key: value if base is None else _of_base(base, full[key], value) for key, value in start.items()}
    deltas = {key: merged[key] - known[key].double() for key in start}
    changed = [key for key, delta in deltas.items() if delta.any()] or [next(iter(start))]
    for key in changed:
        yield WeightUpdate(
            parameter=full[key].removeprefix(f"{short}."),
            place=f"{place}.{key}",
            base=known[key],
            delta=deltas[key].to(at_least_fp32(known[key].dtype)),
            **common,
        )


def _merged(
    layer: BaseTunerLayer, active: list[str], start: Mapping[str, Tensor], *, name: str, method: str
) -> dict[str, Tensor]:
    """Return the parameters of the layer's base after PEFT's merge, computed in float64 on a copy."""
    twin: Any = cast(Any, copy.deepcopy(layer)).double()
    try:
        twin.merge(adapter_names=active)
    except NotImplementedError:
        raise ValueError(
            f"layer {name!r}, a {type(layer).__name__}, cannot be merged, so it has no dW{method}"
        ) from None
    return {key: operator.attrgetter(key)(twin.get_base_layer()).detach() for key in start}


def _own_parameters(inner: nn.Module) -> dict[str, Tensor]:
    """The parameters of a base layer, without those of adapters on layers inside it."""
    adapters = tuple(f"{name}." for name, module in inner.named_modules() if isinstance(module, BaseTunerLayer))
    found = inner.named_parameters()
    return {
        key: whole(value.detach())
        for key, value in found
        if not key.startswith(adapters) or ".base_layer." in key  # of those, what they were put on
    }


def active_adapter(model: nn.Module) -> str:
    """Return the name of the one active adapter; ``"default"`` for a model without adapted layers.

    Raises:
        ValueError: if several are active.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    active = dict.fromkeys(key for layer in layers for key in layer.active_adapters if key in adapters_of(layer))
    if len(active) > 1:
        raise ValueError(f"adapters {', '.join(map(repr, active))} are active; name one")
    return next(iter(active), "default")


def base_name(name: str) -> str:
    """Return a module's or parameter's name in the base model, without what PEFT puts around it.

    >>> base_name("base_model.model.encoder.0.base_layer.weight")
    'encoder.0.weight'
    """
    parts = name.removeprefix("base_model.model.").split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS)


def saved_modules(model: nn.Module) -> dict[str, ModulesToSaveWrapper]:
    """Return the modules trained in full beside an active adapter, by their names in the base model."""
    return {
        base_name(name): module
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper) and set(module.active_adapters) & set(module.modules_to_save)
    }


def moves_base(config: object) -> str | None:
    """Return how a LoRA adapter was started if that put a residual where W0 was, None if it left W0 alone."""
    start = getattr(config, "init_lora_weights", True)
    return start if isinstance(start, str) and start.lower() not in _KEEP_BASE else None


def _check_methods(model: nn.Module) -> str:
    """Refuse methods that work without adapted layers; return the names of the others, for messages."""
    configs: Any = getattr(model, "peft_config", {})
    kinds = sorted({str(getattr(config.peft_type, "value", config.peft_type)) for config in configs.values()})
    for config in configs.values():
        if config.is_prompt_learning or config.peft_type in ("XLORA", "SHADOW"):
            kind = str(getattr(config.peft_type, "value", config.peft_type))
            raise ValueError(f"PEFT method {kind} changes activations, not weights, so it has no dW")
    return f" (PEFT method {', '.join(kinds)})" if kinds else ""


def _check_known(model: nn.Module, active: list[str]) -> None:
    configs: Any = getattr(model, "peft_config", {})
    for key in active:
        start = moves_base(configs.get(key))
        if start is not None:
            raise ValueError(
                f"adapter {key!r} was started by {start!r}, which leaves a residual in the model where W0 was; "
                "give base, the state dict of the base model"
            )


def adapters_of(layer: BaseTunerLayer) -> set[str]:
    """The adapters that a layer carries: the keys of its containers."""
    containers: list[Any] = [getattr(layer, name, None) for name in layer.adapter_layer_names]
    return {key for container in containers if hasattr(container, "keys") for key in container.keys()}  # noqa: SIM118


def _hooks(layer: BaseTunerLayer, adapter: str) -> Hooks | None:
    """The one family whose linear layer this is; None leaves the merge to PEFT."""
    if layer_shape(layer.get_base_layer()) is None or getattr(layer, "parameter_name", None) is not None:
        return None
    if getattr(layer, "lora_bias", {}).get(adapter):
        return None
    found = [hooks_of(family) for family in families().values() if hooks_of(family).holds(layer, adapter)]
    return found[0] if len(found) == 1 else None


def _unmoved(layer: BaseTunerLayer, name: str, base: Mapping[str, Tensor] | None) -> bool:
    """Whether the layer's own weight is W0."""
    weight = layer.get_base_weight().detach()
    return base is None or torch.equal(whole(weight), _of_base(base, name, weight).to(weight.dtype))


def _of_base(base: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    if name not in base or base[name].shape != like.shape:
        found = tuple(base[name].shape) if name in base else "nothing"
        raise ValueError(f"base[{name!r}] must have shape {tuple(like.shape)}, got {found}")
    return base[name].detach().to(like.device)
