"""A model as it stood: put back to the bit when preparing it fails, or after it was tried out."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft.utils import resolve_quantization_backend
from torch import Tensor, nn

from adapters.frozen import FrozenSum

__all__ = ["Snapshot"]

_CONTAINERS = (dict, OrderedDict, list, set)


class Snapshot:
    """What a module tree holds: modules, hooks, classes, flags, gradients, buffers, configuration, random numbers.

    Weights are kept by reference: nothing between a snapshot and its return writes to them. The buffers that a forward
    pass in training mode may write to are copied, so neither packed weights nor a chain's frozen sums.

    Args:
        model: the root of the tree.
    """

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self._objects: list[tuple[Any, type, dict[str, Any], dict[str, Any]]] = [
            (one, type(one), dict(vars(one)), {k: v.copy() for k, v in vars(one).items() if type(v) in _CONTAINERS})
            for one in [*modules, *_configurations(modules)]
        ]
        self._tensors = [(t, t.requires_grad, t.grad) for t in model.parameters()]
        self._buffers = [(buffer, buffer.clone()) for buffer in _written_to(modules)]
        self._devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
        self._random = self._draw_from()

    def _draw_from(self) -> tuple[Any, ...]:
        accelerators = [(one, torch.get_device_module(one).get_rng_state(one)) for one in self._devices]
        return torch.get_rng_state(), random.getstate(), np.random.get_state(), accelerators  # noqa: NPY002

    @torch.no_grad()
    def restore(self) -> None:
        """Make the tree what it was."""
        for one, kind, attributes, contents in self._objects:
            one.__class__ = kind
            vars(one).clear()
            vars(one).update(attributes)
            for name, content in contents.items():
                container = attributes[name]
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)
        for tensor, wanted, gradient in self._tensors:
            if tensor.requires_grad != wanted:
                tensor.requires_grad_(wanted)
            tensor.grad = gradient
        for buffer, values in self._buffers:
            buffer.copy_(values)  # whether it was written to, its version does not tell: batch norm's is not counted
        state, python, numpy, accelerators = self._random
        torch.set_rng_state(state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  (models draw from it)
        for device, values in accelerators:
            torch.get_device_module(device).set_rng_state(values, device)

    @classmethod
    @contextmanager
    def undone(cls, model: nn.Module, *, on_error_alone: bool = False) -> Iterator[None]:
        """Undo what is done to the model inside; with ``on_error_alone``, if it raises."""
        before = cls(model)
        try:
            yield
        except BaseException:
            before.restore()
            raise
        if not on_error_alone:
            before.restore()


def _configurations(modules: list[nn.Module]) -> list[Any]:
    """The configuration objects that modules hold, each once."""
    found = {id(config): config for one in modules if hasattr(config := vars(one).get("config"), "__dict__")}
    return list(found.values())


def _written_to(modules: list[nn.Module]) -> list[Tensor]:
    """The buffers that a forward pass may write to, each once."""
    found = {
        id(buffer): buffer
        for one in modules
        if not isinstance(one, FrozenSum) and resolve_quantization_backend(one) is None
        for buffer in one.buffers(recurse=False)
    }
    return list(found.values())
