"""Which parameters a landscape moves: the adapter's own, the merged weights W0 + dW, or all of them.

What is flat in adapter space need not be flat in the merged weights (Flat-LoRA, arXiv:2409.14396), and
adapter space has a gauge: (B, A) and (B G^-1, G A) are one function with two landscapes. So both are offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from adapters import factors
from theory.methods import METHODS

__all__ = ["Space", "SpaceName", "parameter_space"]

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
    """

    name: str
    start: dict[str, Tensor]
    center: dict[str, Tensor]
    filter_dim: dict[str, int]

    def move(self, offsets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters moved by ``offsets``: summed in the offsets' precision, then in their own."""
        return {name: (self.start[name] + offset).to(self.start[name].dtype) for name, offset in offsets.items()}

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
        space: ``"adapter"`` is every adapter parameter that requires a gradient (all adapter parameters if
            none does; in a model without adapters, every parameter that requires one). ``"merged"`` is the
            weight of every adapted layer, at W0 + dW (of a model without adapters, every trained weight with
            two or more dimensions). ``"full"`` is every floating-point parameter.
        names: restrict to these parameter names of the space.

    Raises:
        TypeError: if a chosen weight is not floating point (a quantised base has no merged landscape).
        ValueError: if the space is unknown, a name is not in it, or it is empty.

    >>> sorted(parameter_space(nn.Linear(2, 3), "merged").center)
    ['weight']
    """
    if space not in get_args(SpaceName):
        raise ValueError(f"unknown space {space!r}; accepted: {', '.join(get_args(SpaceName))}")
    parameters = dict(model.named_parameters())
    updates: dict[str, Tensor] = {}
    if space == "full":
        chosen = parameters if names is not None else {k: p for k, p in parameters.items() if p.is_floating_point()}
    elif space == "adapter":
        chosen = _adapter_parameters(model, parameters)
    else:
        updates = _merged_updates(model)
        trained = {name: p for name, p in parameters.items() if p.requires_grad and p.ndim > 1}
        chosen = {name: parameters[name] for name in updates} or trained
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
    center = {name: value.float() + updates[name] if name in updates else value for name, value in start.items()}
    return Space(name=space, start=start, center=center, filter_dim=_filter_dims(model, start))


def _tuner_layers(model: nn.Module) -> dict[str, BaseTunerLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def _adapter_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    prefixes = tuple(
        f"{layer}.{container}."
        for layer, module in _tuner_layers(model).items()
        for container in module.adapter_layer_names
    )
    adapter = {name: p for name, p in parameters.items() if name.startswith(prefixes)} if prefixes else {}
    pool = adapter or dict(parameters)
    trained = {name: p for name, p in pool.items() if p.requires_grad}
    return trained or {name: p for name, p in adapter.items() if not (_freezes_a(model) and ".lora_A." in name)}


def _freezes_a(model: nn.Module) -> bool:
    """Whether the adapter's configuration says that A was not trained (an adapter loaded for inference)."""
    methods = [str(getattr(config, "method", None)) for config in getattr(model, "peft_config", {}).values()]
    return any(method in METHODS and METHODS[method].trains == "b" for method in methods)


def _merged_updates(model: nn.Module) -> dict[str, Tensor]:
    """Return the name of each adapted layer's weight -> dW in that weight's own layout."""
    if not _tuner_layers(model):
        return {}

    names = {module: name for name, module in model.named_modules()}
    updates = {}
    for layer in factors(model):
        if not layer.hooks.additive:
            raise ValueError(
                f"layer {names[layer.layer]!r} of family {layer.family!r} does not add to W0; accepted space: adapter"
            )
        base = layer.layer.get_base_layer()
        delta = layer.left @ layer.right
        updates[f"{names[base]}.weight"] = delta.T if _is_conv1d(base) else delta
    return updates


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"


def _filter_dims(model: nn.Module, chosen: Mapping[str, Tensor]) -> dict[str, int]:
    transposed = {f"{name}.weight" for name, module in model.named_modules() if _is_conv1d(module)}
    return {name: int(name in transposed and tensor.ndim == 2) for name, tensor in chosen.items()}
