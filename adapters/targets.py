"""Which modules an adapter adapts: one rule, asked before a model is adapted and of models that never are."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from torch.nn.modules.conv import _ConvNd

from adapters.layer import layer_shape
from theory.heads import fresh_parameters, head_modules, is_inside, is_trained_in_full, trained_heads
from theory.layers import QUERY_VALUE, is_target

__all__ = [
    "TARGET_MODULES",
    "UntrainedWarning",
    "in_layers",
    "linear_names",
    "named_under",
    "target_names",
    "target_parameters",
    "warn_of_unmatched",
    "warn_of_untrained",
]


class UntrainedWarning(UserWarning):
    """Weights that were never trained stay as they are."""


TARGET_MODULES: dict[str, Sequence[str]] = {
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

    Warns:
        UserWarning: naming the entries of ``target_modules`` by which nothing is adapted, beside others.

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
    warn_of_unmatched(asked, names)
    return names


def warn_of_unmatched(asked: str | Iterable[str] | None, names: Iterable[str]) -> None:
    """Name the entries of a list of targets that no adapted module answers to.

    Args:
        asked: as the caller gave them; a pattern or None says nothing of single names.
        names: the adapted modules.

    Warns:
        UserWarning: if there are such entries.
    """
    names = list(names)
    given = () if asked is None or isinstance(asked, str) else sorted(asked)
    unmatched = [one for one in given if not any(is_target(name, [one]) for name in names)]
    if unmatched and names:
        warnings.warn(
            f"target_modules names {', '.join(map(repr, unmatched))}, by which nothing is adapted: no module has that "
            "ending, or it is trained in full",
            stacklevel=3,
        )


def in_layers(model: nn.Module, names: Sequence[str], layers: Iterable[int]) -> list[str]:
    """Keep the modules that stand in some of a model's blocks.

    A model's blocks are the entries of its list of modules that holds most of the named ones.

    Args:
        model: a model without adapters.
        names: dotted names of modules, from `target_names`.
        layers: numbers of blocks, from 0.

    Returns:
        The names that are kept, in their order.

    Raises:
        ValueError: if the model has no list of blocks, or no block of a number, or nothing is left in one.

    >>> blocks = nn.ModuleDict({"h": nn.ModuleList(nn.ModuleDict({"q": nn.Linear(2, 2)}) for _ in range(3))})
    >>> in_layers(blocks, ["h.0.q", "h.1.q", "h.2.q"], [2])
    ['h.2.q']
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    counted = [(sum(is_inside(target, [name]) for target in names), name, len(module)) for name, module in lists]
    held, root, count = max(counted, key=lambda item: item[0], default=(0, "", 0))
    wanted = sorted(set(layers))
    if held == 0:
        raise ValueError("layers needs a model whose adapted modules stand in a list of blocks; leave layers out")
    outside = [layer for layer in wanted if not 0 <= layer < count]
    if outside or not wanted:
        raise ValueError(f"layers must name blocks from 0 to {count - 1} of {root!r}, got {outside or 'none'}")
    kept = {layer: [name for name in names if is_inside(name, [f"{root}.{layer}"])] for layer in wanted}
    empty = [layer for layer, members in kept.items() if not members]
    if empty:
        raise ValueError(f"layers names block {empty[0]} of {root!r}, in which nothing is adapted")
    return [name for members in kept.values() for name in members]


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
    asked = tuple(endings)
    return [name for name, _ in model.named_modules() if name and is_trained_in_full(name, asked)]


def warn_of_untrained(model: nn.Module, *, targets: Iterable[str], trained_in_full: Iterable[str] | None) -> None:
    """Name what stays untrained though it should not: fresh weights, and heads beside those that the caller named.

    Args:
        model: without adapters, or with others.
        targets: names of the adapted modules.
        trained_in_full: names, or endings, of the modules trained in full; an empty list asks for none, so that only
            weights that transformers reports as fresh are named.

    Warns:
        UntrainedWarning: if there are such weights.
    """
    targets, full = list(targets), list(trained_in_full or ())
    heads = [one for one in trained_heads(model) if full and not is_trained_in_full(one, full) and one not in targets]
    fresh = [one for one in fresh_parameters(model) if not is_inside(one, [*targets, *heads])]
    left = heads + sorted(one for one in fresh if not is_trained_in_full(one, full))
    if left:
        warnings.warn(
            "neither adapted nor trained, though no checkpoint held their weights or they lie outside the base model: "
            f"{', '.join(left)}; name their modules in modules_to_save",
            UntrainedWarning,
            stacklevel=3,
        )


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
