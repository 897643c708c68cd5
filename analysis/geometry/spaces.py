"""Which parameters a landscape moves: the adapter's own, the merged weights W0 + dW, or all of them.

What is flat in adapter space need not be flat in the merged weights (Flat-LoRA, arXiv:2409.14396), and
adapter space has a gauge: (B, A) and (B G^-1, G A) are one function with two landscapes. So both are offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters import WeightUpdate, updates
from adapters.updates import adapters_of
from theory.methods import METHODS

__all__ = ["Space", "SpaceName", "model_state", "names_of_adapters", "parameter_space", "trained_beside"]

SpaceName = Literal["adapter", "merged", "full"]


@dataclass(frozen=True, kw_only=True)
class Space:
    """Named parameters that are moved, and where they stand.

    Attributes:
        name: ``"adapter"``, ``"merged"`` or ``"full"``.
        start: parameter name -> the tensor that is replaced (W0 in merged space).
        center: parameter name -> the point the landscape is about (W0 + dW in merged space); its filters'
            norms normalise directions.
        filter_dim: parameter name -> the dimension that counts filters (output features): 0, but 1 for
            transformers' Conv1D, which stores its weight transposed.
        bare: adapted layers that are computed from their merged weight alone, since theirs does not add to W0; what
            they are merged to stands in ``start``, or in ``rest`` where it is not moved.
        rest: name -> tensor that is replaced at every point and not moved.
        tied: whether a tensor that the model shares is replaced wherever it is used; in merged space an adapter on one
            of two tied layers moves that one alone.
    """

    name: str
    start: dict[str, Tensor]
    center: dict[str, Tensor]
    filter_dim: dict[str, int]
    bare: tuple[str, ...] = ()
    rest: dict[str, Tensor] = field(default_factory=dict)
    tied: bool = True

    def move(self, offsets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters moved by ``offsets``: summed in the offsets' precision, then in their own."""
        moved = {name: (self.start[name] + offset).to(self.start[name].dtype) for name, offset in offsets.items()}
        return {**self.rest, **moved}

    @property
    def at_start(self) -> dict[str, Tensor]:
        """The parameters unmoved, as `move` returns them."""
        return {**self.rest, **self.start}

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return sum(tensor.numel() for tensor in self.center.values())

    @property
    def norm(self) -> float:
        """The Euclidean norm of the centre."""
        return float(torch.stack([tensor.double().square().sum() for tensor in self.center.values()]).sum().sqrt())


def parameter_space(model: nn.Module, space: SpaceName = "adapter", *, names: Iterable[str] | None = None) -> Space:
    """Choose the parameters that a landscape, a sharpness or a Hessian is about.

    Args:
        model: any torch module.
        space: ``"adapter"`` is every parameter of the active adapters that requires a gradient (all of theirs if
            none does; in a model without adapters, every parameter that requires one). ``"merged"`` is every weight
            that the active adapters change, at W0 + dW, of any PEFT method that has a dW (of a model without adapters,
            every trained weight with two or more dimensions). ``"full"`` is every floating-point parameter.
        names: restrict to these parameter names of the space.

    Raises:
        TypeError: if ``model`` is no module, or a chosen weight not floating point (a quantised base has no merged
            landscape).
        ValueError: if the space is unknown, a name is not in it, or it is empty.

    >>> sorted(parameter_space(nn.Linear(2, 3), "merged").center)
    ['weight']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")
    if space not in get_args(SpaceName):
        raise ValueError(f"unknown space {space!r}; accepted: {', '.join(get_args(SpaceName))}")
    parameters = dict(model.named_parameters(remove_duplicate=space != "merged"))
    found: dict[str, WeightUpdate] = {}
    if space == "full":
        chosen = parameters if names is not None else {k: p for k, p in parameters.items() if p.is_floating_point()}
    elif space == "adapter":
        chosen = _adapter_parameters(model, parameters)
    else:
        found = {item.place: item for item in updates(model, resident=True)} if _tuner_layers(model) else {}
        own = dict(model.named_parameters())
        trained = {name: p for name, p in own.items() if p.requires_grad and p.ndim > 1}
        chosen = {name: parameters[name] for name in found} or trained
    if names is not None:
        names = list(names)
        missing = [name for name in names if name not in chosen]
        if missing:
            raise ValueError(f"no parameter {missing[0]!r} in {space} space; it has {', '.join(list(chosen)[:4])}, ...")
        chosen = {name: chosen[name] for name in names}
    if not chosen:
        raise ValueError(f"{space} space is empty: no parameter of the model requires a gradient; give names")
    for name, parameter in chosen.items():
        if not parameter.is_floating_point():
            raise TypeError(f"weight {name!r} is {parameter.dtype}, not floating point; dequantise the model first")
    start = {name: parameter.detach() for name, parameter in chosen.items()}
    center = {
        name: found[name].base.to(start[name].device).float() + found[name].update if name in found else value
        for name, value in start.items()
    }
    merged = {name: _merged(item) for name, item in found.items() if not item.additive}
    return Space(
        name=space,
        start={name: merged.get(name, value) for name, value in start.items()},
        center=center,
        filter_dim=_filter_dims(model, start),
        bare=tuple(dict.fromkeys(item.layer for item in found.values() if not item.additive)),
        rest={name: value for name, value in merged.items() if name not in start},
        tied=not found,
    )


def _merged(item: WeightUpdate) -> Tensor:
    """W0 + dW in the weight's own type, summed in float32 or better."""
    return (item.base.to(item.update.dtype) + item.update).to(item.base.dtype)


def trained_beside(model: nn.Module, space: Space) -> dict[str, Tensor]:
    """Return what else training changed: modules to save, trained biases and other parameters, running statistics.

    Args:
        model: the model.
        space: what is moved, and not returned.

    Returns:
        Name in the state dict -> tensor: parameters outside the space that require a gradient or belong to a module
        saved with an active adapter, and floating-point buffers that are part of the state; of an adapter neither its
        parameters nor, in merged space, its sums of earlier links.
    """
    saved = tuple(
        f"{name}.modules_to_save.{key}."
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
        for key in module.active_adapters
    )
    parameters = dict(model.named_parameters())
    adapter, merged = names_of_adapters(model), space.name == "merged"
    beside = {
        name: p.detach()
        for name, p in parameters.items()
        if (p.requires_grad or name.startswith(saved)) and p.is_floating_point()
    }
    kept = model.state_dict().keys()
    buffers = {}
    for name, value in model.named_buffers():
        own = _in_adapter(model, name)
        if value.is_floating_point() and (not merged and bool(value.any()) if own else name in kept):
            buffers[name] = value.detach()
    return {
        name: value
        for name, value in {**beside, **buffers}.items()
        if name not in space.start and name not in space.rest and name not in adapter
    }


def _in_adapter(model: nn.Module, name: str) -> bool:
    """Whether a tensor belongs to an adapter, not to what it was put on."""
    layers = [layer for layer in _tuner_layers(model) if name.startswith(f"{layer}.")]
    return bool(layers) and not name.startswith(f"{max(layers, key=len)}.base_layer.")


def names_of_adapters(model: nn.Module) -> set[str]:
    """Return the names of all adapters' parameters."""
    return set(_of_adapters(model, dict(model.named_parameters()), active=False))


def model_state(
    model: nn.Module, space: SpaceName = "adapter", *, names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Return where a model stands in a space, with what else training changed: an end of a line, a checkpoint.

    Args:
        model: any torch module.
        space: as in `parameter_space`; merged space holds merged weights.
        names: as in `parameter_space`.

    Raises:
        TypeError, ValueError: as `parameter_space`.
    """
    moved = parameter_space(model, space, names=names)
    own = _of_adapters(model, dict(model.named_parameters()), active=True) if space == "adapter" else {}
    frozen = {name: p.detach() for name, p in own.items() if name not in moved.start}  # an A of its own, for one
    return {**moved.center, **moved.rest, **frozen, **trained_beside(model, moved)}


def _tuner_layers(model: nn.Module) -> dict[str, BaseTunerLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def _of_adapters(model: nn.Module, parameters: Mapping[str, nn.Parameter], *, active: bool) -> dict[str, nn.Parameter]:
    """The parameters of (active) adapters, those that layers share included."""
    mine: set[int] = set()
    for layer in _tuner_layers(model).values():
        keys = adapters_of(layer)
        for container in (getattr(layer, name, None) for name in layer.adapter_layer_names):
            for key in keys & set(layer.active_adapters) if active else keys:
                held = cast(Any, container)[key] if hasattr(container, "keys") and key in cast(Any, container) else None
                mine |= {id(held)} if isinstance(held, nn.Parameter) else set()
                mine |= {id(p) for p in held.parameters()} if isinstance(held, nn.Module) else set()
    return {name: p for name, p in parameters.items() if id(p) in mine}


def _adapter_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    adapter = _of_adapters(model, parameters, active=True)
    if not adapter and _tuner_layers(model):
        raise ValueError("adapter space is empty: no layer carries a parameter of an active adapter")
    pool = adapter or dict(parameters)
    trained = {name: p for name, p in pool.items() if p.requires_grad}
    return trained or {name: p for name, p in adapter.items() if not (_freezes_a(model) and ".lora_A." in name)}


def _freezes_a(model: nn.Module) -> bool:
    """Whether the adapter's configuration says that A was not trained (an adapter loaded for inference)."""
    methods = [str(getattr(config, "method", None)) for config in getattr(model, "peft_config", {}).values()]
    return any(method in METHODS and METHODS[method].trains == "b" for method in methods)


def _filter_dims(model: nn.Module, chosen: Mapping[str, Tensor]) -> dict[str, int]:
    transposed = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    return {name: int(name in transposed and tensor.ndim == 2) for name, tensor in chosen.items()}
