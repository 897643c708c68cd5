"""What is a head, and which matrices count as the base model's: one rule, for all who ask.

A head turns a base model's features into a task's output. It is trained in full beside every adapter, so that it is
never among the adapted matrices; nor is the pretrained head of a language model, which every adapter leaves as it is.

Models are read by their attributes, so that this package needs no torch and both others can ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from theory.arguments import checked

__all__ = ["HasModules", "fresh_parameters", "head_modules", "is_inside", "is_trained_in_full", "trained_heads"]


class HasModules(Protocol):
    """What this package reads of a torch module."""

    def named_modules(self) -> Iterable[tuple[str, Any]]:
        """Return every module inside, itself first under the name ""."""


_NAMES = ("classification_head", "classifier", "lm_head", "pre_classifier", "qa_outputs", "score")
"""Heads of models that do not say which of their modules is the base."""


@checked
def fresh_parameters(module: HasModules) -> tuple[str, ...]:
    """Name the parameters that were drawn at random beside those read from a checkpoint.

    They are what transformers reports as missing on loading, where the model keeps that report as ``missing_keys``;
    otherwise those without the mark that loading leaves on every parameter it fills. A model made from a configuration
    alone has no report, and a model wrapped by PEFT the one that it kept.

    Args:
        module: as in :func:`head_modules`.

    Raises:
        TypeError: if it has no ``named_modules``.
    """
    root = _unwrapped(module)
    keys = getattr(root, "missing_keys", None)
    if keys is not None:
        return tuple(keys)
    named = dict(root.named_parameters()) if hasattr(root, "named_parameters") else {}
    marked = [name for name, one in named.items() if getattr(one, "_is_hf_initialized", False)]
    return tuple(named.keys() - set(marked)) if marked and root is module else ()


@checked
def head_modules(module: HasModules) -> tuple[str, ...]:
    """Name the modules that make up a model's head.

    A transformers model says where its base is (``base_model_prefix``): whatever has parameters beside the base is
    its head (``classifier``; DeBERTa's ``pooler``; DistilBERT's ``pre_classifier``). Of a model that does not say, the
    head is what stands outermost under one of its usual names, or was made anew as a whole. A pooler inside the base
    belongs to the head only where the checkpoint had no weights for it (:func:`fresh_parameters`).

    Args:
        module: anything with ``named_modules()``; a model wrapped by PEFT is looked through.

    Returns:
        Dotted names in ``module``, in its order.

    Raises:
        TypeError: if it has no ``named_modules``.
    """
    root = _unwrapped(module)
    children = dict(root.named_children())
    base = getattr(root, "base_model_prefix", "")
    fresh = set(fresh_parameters(module))
    if base in children:
        found = [name for name, child in children.items() if name != base and any(True for _ in child.parameters())]
    else:
        found = [name for name, child in children.items() if name in _NAMES or _is_all(fresh, name, child)]
    for key in sorted(fresh):
        pooler, inside, _ = key.partition(".pooler.")
        if inside and f"{pooler}.pooler" not in found:
            found.append(f"{pooler}.pooler")
    return _placed(module, found)


@checked
def trained_heads(module: HasModules) -> tuple[str, ...]:
    """Name the modules of a head that are trained in full beside every adapter: all but a language model's.

    A language model (one with output embeddings) keeps its pretrained head; a further one that its checkpoint had no
    weights for (GPT-2's ``multiple_choice_head``) is trained.

    Args:
        module: as in :func:`head_modules`.

    Raises:
        TypeError: if it has no ``named_modules``.
    """
    heads, outputs = head_modules(module), getattr(_unwrapped(module), "get_output_embeddings", None)
    words = None if outputs is None else outputs()
    if words is None:
        return heads
    fresh, named = _placed(module, fresh_parameters(module)), dict(module.named_modules())
    pretrained = [head for head in heads if any(one is words for _, one in named[head].named_modules())]
    return tuple(head for head in heads if head not in pretrained and any(is_inside(key, [head]) for key in fresh))


def is_inside(name: str, modules: Iterable[str]) -> bool:
    """Whether a dotted name is that of one of the modules, or of what lies in it.

    >>> is_inside("bert.pooler.dense", ["bert.pooler"]), is_inside("pre_classifier", ["classifier"])
    (True, False)
    """
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def is_trained_in_full(name: str, endings: Iterable[str]) -> bool:
    """Whether PEFT's ``modules_to_save`` takes in a module: its name, or that of one around it, has such an ending.

    PEFT compares letters, not parts between dots: ``"classifier"`` takes ``pre_classifier`` along.

    >>> is_trained_in_full("pre_classifier", ["classifier"]), is_trained_in_full("bert.pooler.dense", ["pooler"])
    (True, True)
    """
    parts = name.split(".")
    around = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(module.endswith(tuple(endings)) for module in around)


def _placed(module: HasModules, names: Iterable[str]) -> tuple[str, ...]:
    """Turn names in the model that PEFT may have wrapped into names in ``module``."""
    root = _unwrapped(module)
    prefix = next((name for name, child in module.named_modules() if child is root), "")
    return tuple(f"{prefix}.{name}" if prefix else name for name in names)


def _is_all(fresh: set[str], name: str, child: Any) -> bool:
    inside = [f"{name}.{key}" for key, _ in child.named_parameters()] if hasattr(child, "named_parameters") else []
    return bool(inside) and fresh.issuperset(inside)


def _unwrapped(module: HasModules) -> Any:
    if not hasattr(module, "named_modules"):
        raise TypeError(f"module must be a torch module with named_modules(), got {type(module).__name__}")
    return module.get_base_model() if hasattr(module, "get_base_model") else module
