"""What a family of methods does to a model: one object each, four hooks and the question which layers are its own.

`theory.methods.Family` names the object, so that a method brings its code along without theory importing torch. The
shipped ones: `DENSE` here, `adapters.lora.FACTORS`, `adapters.columns.COLUMNS`.
"""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from adapters.layer import at_least_fp32, layer_shape, whole
from adapters.targets import UntrainedWarning, target_parameters
from theory.methods import Family, Method, families
from theory.registry import resolve

__all__ = [
    "DENSE",
    "Hooks",
    "Wrap",
    "check_ranks",
    "exact",
    "hooks_of",
    "hooks_that_hold",
    "peft_model",
    "peft_targets",
    "stored_bits",
]


@dataclass(frozen=True, kw_only=True)
class Wrap:
    """What `adapters.prepare` asks of a family, checked already.

    Attributes:
        method: the method as data.
        rank: r, or columns, per link; at least 1.
        alpha: updates are scaled by ``alpha / rank``.
        links: length of the chain; 1 for methods without.
        seed: of whatever is drawn.
        targets: names of the modules to adapt, and of parameters such as fused experts, heads excluded; empty for
            ``trains="weight"``. `peft_targets` tells them apart.
        heads: names of the modules trained in full beside.
    """

    method: Method
    rank: int
    alpha: float
    links: int
    seed: int
    targets: tuple[str, ...]
    heads: tuple[str, ...]


class Hooks(ABC):
    """The code of one family.

    Attributes:
        additive: whether an adapted layer computes W0 x + dW x. Where it does, moving W0 beneath the adapter moves the
            merged weight, which landscapes and sharpness in merged space do; where it does not, they compute the layer
            from its merged weight alone.
    """

    additive = True

    @abstractmethod
    def wrap(self, model: nn.Module, asked: Wrap) -> nn.Module:
        """Return the model ready to train: a `peft.PeftModel` in which what the method trains requires a gradient.

        Raises:
            ValueError: if a target cannot be adapted, before the model is touched.
        """

    @abstractmethod
    def holds(self, layer: BaseTunerLayer, adapter: str) -> bool:
        """Whether ``layer`` carries an adapter of that name, and in this family's form; asked of every layer."""

    @abstractmethod
    def factors(self, layer: BaseTunerLayer, adapter: str) -> tuple[Tensor, Tensor]:
        """Return (left, right) with dW = left @ right, (out_features, R) and (R, in_features), at least fp32.

        The scale is folded in; the update is cumulative over links. Full rank: ``(dW, identity)``. Of a layer of fused
        experts both have the experts as a further first axis.
        """

    @abstractmethod
    def describe(self, layer: BaseTunerLayer, adapter: str, config: PeftConfig) -> dict[str, Any]:
        """Return the part of a `theory.records.UpdateRecord` that says what was trained in one matrix of a layer.

        Keys: rank, links, numbers_trained, a_trained, support, bits, side_information_bits, seed.
        """

    @abstractmethod
    def export(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors that an equal plain LoRA adapter stores, for what ``factors`` returned."""


class _Dense(Hooks):
    """Full fine-tuning: all of the model trains, and no layer is adapted."""

    def wrap(self, model: nn.Module, asked: Wrap) -> nn.Module:
        model.requires_grad_(True)
        return model

    def holds(self, layer: BaseTunerLayer, adapter: str) -> bool:
        return False

    def factors(self, layer: BaseTunerLayer, adapter: str) -> tuple[Tensor, Tensor]:
        raise ValueError(f"full fine-tuning adapts no layer, got {type(layer).__name__}")

    def describe(self, layer: BaseTunerLayer, adapter: str, config: PeftConfig) -> dict[str, Any]:
        raise ValueError(f"full fine-tuning adapts no layer, got {type(layer).__name__}")

    def export(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError("full fine-tuning is no adapter: save the model itself")


DENSE = _Dense()


@functools.cache
def hooks_of(family: Family) -> Hooks:
    """Import the code of a family.

    Raises:
        ImportError, AttributeError: if there is no such object.
        TypeError: if it is no `Hooks`.
    """
    found = resolve(family.hooks)
    if not isinstance(found, Hooks):
        raise TypeError(f"hooks of family {family.name!r} must be a Hooks, got {type(found).__name__}")
    return found


def hooks_that_hold(layer: BaseTunerLayer, adapter: str, *, name: str) -> tuple[str, Hooks] | None:
    """Return the family, by name, and its hooks whose form the adapter has in this layer; None if it is not in it.

    Raises:
        ValueError: if the layer carries the adapter in a form that no family, or more than one, calls its own.
    """
    if not any(adapter in getattr(layer, container, ()) for container in layer.adapter_layer_names):
        return None
    found = [(key, hooks_of(family)) for key, family in families().items() if hooks_of(family).holds(layer, adapter)]
    if len(found) != 1:
        claimed = "no family" if not found else " and ".join(key for key, _ in found)
        variant = " with a LoRA variant such as DoRA" if adapter in getattr(layer, "lora_variant", ()) else ""
        raise ValueError(
            f"adapter {adapter!r} of layer {name!r}, a {type(layer).__name__}{variant}, must be of the form of one "
            f"family ({', '.join(families())}); it is of {claimed}"
        )
    return found[0]


def peft_model(model: nn.Module, config: PeftConfig) -> nn.Module:
    """Call `peft.get_peft_model` without its warnings about itself.

    It uses a name that transformers 5 deprecates, and says that it sets fan_in_fan_out where kinds are mixed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", category=UntrainedWarning)  # `adapters.prepare` has said it
        return get_peft_model(model, config)


def check_ranks(model: nn.Module, targets: tuple[str, ...], rank: int) -> None:
    """Refuse targets that are no linear layers and no fused weights, or narrower than the rank.

    Raises:
        ValueError: naming the module.
    """
    parameters = target_parameters(model, targets)
    for name in targets:
        shape = parameters[name] if name in parameters else layer_shape(model.get_submodule(name))
        if shape is None:
            raise ValueError(
                f"target module {name!r} is a {type(model.get_submodule(name)).__name__}; accepted: Linear, Conv1D"
            )
        if rank > shape[-1]:
            raise ValueError(f"rank={rank} is above in_features={shape[-1]} of target module {name!r}")


def peft_targets(model: nn.Module, targets: tuple[str, ...]) -> dict[str, list[str]]:
    """Split targets into what PEFT's configurations call ``target_modules`` and ``target_parameters``."""
    parameters = list(target_parameters(model, targets))
    modules = [name for name in targets if name not in parameters]
    return {"target_modules": modules} | ({"target_parameters": parameters} if parameters else {})


def exact(tensor: Tensor) -> Tensor:
    """Return the whole tensor, detached, in at least fp32."""
    return whole(tensor.detach()).to(at_least_fp32(tensor.dtype))


def stored_bits(tensor: Tensor) -> int:
    """Return the bits of each number that a tensor stores."""
    return torch.finfo(tensor.dtype).bits
