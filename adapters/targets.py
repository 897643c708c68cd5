"""Which modules an adapter adapts: one rule, asked before a model is adapted and of models that never are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from torch.nn.modules.conv import _ConvNd

from adapters.layer import layer_shape
from theory.heads import head_modules, is_inside, trained_heads
from theory.layers import QUERY_VALUE, is_target

__all__ = ["TARGET_MODULES", "linear_names", "named_under", "target_names", "target_parameters"]

TARGET_MODULES: dict[str, list[str] | str] = {
    **TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    **{kind: list(endings) for kind, endings in QUERY_VALUE.items()},
}
"""Model type -> endings, or a pattern, of the modules that are adapted where none are named: PEFT's, but ours first."""


def target_names(
    model: nn.Module,
    target_modules: str | Sequence[str] | None = None,
    *,
    trained_in_full: Iterable[str] | None = None,
) -> list[str]:
    """Name the modules that an adapter on ``model`` adapts; what is trained in full beside it is never among them.

    Args:
        model: a model without adapters.
        target_modules: as in PEFT: names or their endings, a pattern, ``"all-linear"`` (every linear layer outside the
            heads), or None for query and value. A name may also be that of a matrix that no linear layer holds, such as
            fused experts (Mixtral's ``gate_up_proj``); ``"all-linear"`` leaves those alone, as PEFT does.
        trained_in_full: modules trained in full beside the adapter, by their (ending) names; None takes the model's
            head, but a language model's (`theory.heads.trained_heads`).

    Returns:
        Dotted names, in the model's order; parameters (see `target_parameters`) after modules.

    Raises:
        ValueError: if nothing matches, or ``target_modules`` is None and the model's type has no usual targets.

    >>> target_names(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), ["0"])
    ['0']
    """
    roots = list(trained_heads(model)) if trained_in_full is None else list(trained_in_full)
    asked = target_modules
    if target_modules is None:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        if kind not in TARGET_MODULES:
            raise ValueError(
                f"target_modules must be given for model type {kind!r}; known: {', '.join(TARGET_MODULES)}"
            )
        target_modules = TARGET_MODULES[kind]
    full = named_under(model, roots)
    if isinstance(target_modules, str) and target_modules.lower() == "all-linear":
        names = [name for name in linear_names(model) if not is_inside(name, full)]
    else:
        excluded = [*full, *head_modules(model)] if asked is None else full
        modules = (name for name, _ in model.named_modules() if name and is_target(name, target_modules))
        named = [*modules, *target_parameters(model, target_modules)]
        names = [name for name in named if not is_inside(name, excluded)]
    if not names:
        raise ValueError(f"target_modules={target_modules!r} matches no module of the model")
    return names


def linear_names(model: nn.Module) -> list[str]:
    """Name the linear layers outside the heads.

    They are what ``"all-linear"`` adapts, and what of full fine-tuning is compared with adapters.

    Args:
        model: a model without adapters.

    Returns:
        Dotted names, in the model's order; none where there is no such layer.
    """
    heads = head_modules(model)
    return [
        name for name, module in model.named_modules() if layer_shape(module) is not None and not is_inside(name, heads)
    ]


def named_under(model: nn.Module, endings: Iterable[str]) -> list[str]:
    """Name the modules of a model that PEFT's ``modules_to_save`` means by these names or endings, and all in them."""
    patterns = [re.compile(rf"(^|\.){re.escape(ending)}(\.|$)") for ending in endings]
    return [name for name, _ in model.named_modules() if any(pattern.search(name) for pattern in patterns)]


def target_parameters(model: nn.Module, names: Sequence[str] | str) -> dict[str, tuple[int, ...]]:
    """Find the matrices that no linear layer holds, such as fused experts, by the names that PEFT matches.

    Args:
        model: a model, adapted or not.
        names: dotted names of parameters or their endings, or a pattern.

    Returns:
        Dotted name -> shape, (out_features, in_features) or (experts, out_features, in_features), in the model's order.
    """
    found = {}
    for name, module in model.named_modules():
        if layer_shape(module) is not None or isinstance(module, BaseTunerLayer | nn.Embedding | _ConvNd):
            continue
        owner = ".".join(part for part in name.split(".") if part != "base_layer")
        for key, parameter in module.named_parameters(recurse=False):
            full = f"{owner}.{key}" if owner else key
            if parameter.ndim in (2, 3) and is_target(full, names):
                transposed = parameter.ndim == 3 and getattr(module, "is_transposed", False)
                found[full] = tuple((parameter.mT if transposed else parameter).shape)
    return found
