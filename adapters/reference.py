"""The dense float64 model that an adapted one must equal, and the slopes of the loss that follow by the chain rule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from adapters.describe import ROOT, LayerFactors, factors, matrix_of

__all__ = ["dense_model", "dtype_of", "gradient_of", "saved_modules", "slopes", "trained"]


def dense_model(model: nn.Module, base: nn.Module) -> nn.Module:
    """Turn ``base`` into a dense float64 model of the same function as ``model``: each W becomes W0 + dW.

    Args:
        model: an adapted model, or a fully fine-tuned one.
        base: the base model, new; it is changed.
    """
    dense = base.to(dtype_of(model)).double().eval().requires_grad_(True)
    with torch.no_grad():
        if not isinstance(model, PeftModel):
            dense.load_state_dict(model.state_dict())
            return dense
        plain = dict(dense.named_parameters())
        for item in factors(model):
            matrix_of(item.layer, plain[item.parameter], item.expert).add_(item.left @ item.right)
        for name, module in saved_modules(model):
            dense.get_submodule(name).load_state_dict(module.state_dict())
    return dense


def slopes(
    model: nn.Module, dense: nn.Module, *, directions: int, generator: torch.Generator
) -> Iterator[tuple[str, Tensor, float]]:
    """Yield for everything that ``model`` trains random directions, and the slope of the loss along each.

    The slope is that of the dense twin: the gradient of each W, times how W moves, which is a central difference of
    dW, exact up to rounding where dW is linear in what is trained. A gradient that differs in any number has another
    slope along a random direction.

    Args:
        model: an adapted model, or a fully fine-tuned one.
        dense: its `dense_model`, after a backward pass.
        directions: how many for each tensor.
        generator: draws them.

    Yields:
        The tensor's name in ``model``, a direction of its shape, the slope.
    """
    known, moving = _known_gradients(model, dense), _moving(model, dense)
    for name, parameter in trained(model).items():
        for _ in range(directions):
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if name in known:
                yield name, direction, (known[name] * direction).sum().item()
            else:
                item, gradient = moving[name]
                yield name, direction, _slope(item, parameter, direction, gradient)


def _known_gradients(model: nn.Module, dense: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of what both models hold in the same form."""
    gradients = {name: gradient_of(parameter) for name, parameter in dense.named_parameters()}
    if not isinstance(model, PeftModel):
        return gradients
    return {
        f"{ROOT}{name}.modules_to_save.default.{key}": gradients[f"{name}.{key}"]
        for name, module in saved_modules(model)
        for key, _ in module.named_parameters()
    }


def _moving(model: nn.Module, dense: nn.Module) -> dict[str, tuple[LayerFactors, Tensor]]:
    """Return for each tensor of an adapted layer its factors and the dense gradient of the layer's W."""
    found: dict[str, tuple[LayerFactors, Tensor]] = {}
    if not isinstance(model, PeftModel):
        return found
    plain = dict(dense.named_parameters())
    names = {module: name for name, module in model.named_modules()}
    for layer, group in itertools.groupby(factors(model), key=lambda item: item.layer):
        items = list(group)
        pieces = [matrix_of(layer, gradient_of(plain[item.parameter]), item.expert) for item in items]
        gradient = pieces[0] if items[0].expert is None else torch.stack(pieces)
        own = (key for key in trained(layer) if not key.startswith("base_layer."))
        found |= {f"{names[layer]}.{key}": (items[0], gradient) for key in own}
    return found


@torch.no_grad()
def _slope(item: LayerFactors, parameter: Tensor, direction: Tensor, gradient: Tensor) -> float:
    """Return <gradient, d dW / dt> for ``parameter + t direction``."""
    start, step, ends = parameter.clone(), 1e-3, []
    for move in (step, -step):
        parameter.copy_(start + move * direction)
        left, right = (factor.double() for factor in item.hooks.factors(item.layer, "default"))
        ends.append(((left.mT @ gradient) * right).sum().item())
    parameter.copy_(start)
    return (ends[0] - ends[1]) / (2 * step)


def gradient_of(parameter: Tensor) -> Tensor:
    """Return a parameter's gradient, zeros where it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of a model's numbers."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what requires a gradient, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def saved_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules trained in full beside an adapter, with their names in the base model."""
    return [
        (name.removeprefix(ROOT), module.modules_to_save["default"])
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    ]
