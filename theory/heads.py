"""What is a head, and which matrices count as the base model's: one rule, for all who ask.

A head turns a base model's features into a task's output. It is trained in full beside every adapter, so that it is
never among the adapted matrices; nor is the pretrained head of a language model, which every adapter leaves as it is.

Models are read by their attributes, so that this package needs no torch and both others can ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from theory.arguments import checked

__all__ = ["HasModules", "head_modules", "is_inside", "is_trained_in_full", "trained_heads"]


class HasModules(Protocol):
    """What this package reads of a torch module."""

    def named_modules(self) -> Iterable[tuple[str, Any]]:
        """Return every module inside, itself first under the name ""."""


_NAMES = ("classifier", "lm_head", "pre_classifier", "score")
"""Heads of models that do not say which of their modules is the base."""


@checked
def head_modules(module: HasModules) -> tuple[str, ...]:
    """Name the modules that make up a model's head.

    A transformers model says where its base is (``base_model_prefix``): whatever has parameters beside the base is
    its head (``classifier``; DeBERTa's ``pooler``; DistilBERT's ``pre_classifier``). Of a model that does not say, the
    head is what stands outermost under one of its usual names. A pooler inside the base belongs to the head only where
    the checkpoint had no weights for it (``missing_keys``, as transformers reports them on loading).

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
    if base in children:
        found = [name for name, child in children.items() if name != base and any(True for _ in child.parameters())]
    else:
        found = [name for name in children if name in _NAMES]
    for key in getattr(root, "missing_keys", ()):
        pooler, inside, _ = key.partition(".pooler.")
        if inside and f"{pooler}.pooler" not in found:
            found.append(f"{pooler}.pooler")
    prefix = next((name for name, child in module.named_modules() if child is root), "")
    return tuple(f"{prefix}.{name}" if prefix else name for name in found)


@checked
def trained_heads(module: HasModules) -> tuple[str, ...]:
    """Name the modules of a head that are trained in full beside every adapter: all but a language model's.

    A language model (one with output embeddings) keeps its pretrained head.

    Args:
        module: as in :func:`head_modules`.

    Raises:
        TypeError: if it has no ``named_modules``.
    """
    outputs = getattr(_unwrapped(module), "get_output_embeddings", None)
    return () if outputs is not None and outputs() is not None else head_modules(module)


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


def _unwrapped(module: HasModules) -> Any:
    if not hasattr(module, "named_modules"):
        raise TypeError(f"module must be a torch module with named_modules(), got {type(module).__name__}")
    return module.get_base_model() if hasattr(module, "get_base_model") else module
