"""The loss of a model on fixed batches, as a function of chosen parameters; the model is never changed.

Landscapes, sharpness and curvature all measure this one function: evaluation mode, the same
examples in the same order at every point, parameters replaced through ``torch.func.functional_call``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

__all__ = ["Batches", "Loss", "Objective", "default_loss", "evaluation_mode"]

Forward = Callable[..., Any]
Batch = Mapping[str, Tensor] | Tensor | tuple[Any, ...] | list[Any]
"""What a model takes at once: named tensors, or a pair of inputs and targets."""

Data = Batch | Iterable[Batch]
"""A batch, a list of batches, or a loader in a fixed order."""

Loss = Callable[[Forward, Any], Tensor]
_RANDOM_SAMPLERS = (
    torch.utils.data.RandomSampler,
    torch.utils.data.SubsetRandomSampler,
    torch.utils.data.WeightedRandomSampler,
)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put every module into evaluation mode (dropout off) and restore each module's own mode on leaving.

    >>> model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1)).train()
    >>> with evaluation_mode(model):
    ...     model[0].training
    False
    >>> model[0].training
    True
    """
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def default_loss(forward: Forward, batch: Batch) -> Tensor:
    """Return the mean loss of one batch as transformers, or a plain (inputs, targets) pair, define it.

    A mapping is passed by keyword and must hold ``"labels"``; the output's ``loss`` is taken. A pair
    gives the cross-entropy of the output for integer targets and the squared error for others.

    Raises:
        ValueError: for any other batch; give ``loss`` then.
    """
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise ValueError(f"a batch needs 'labels' to have a loss, got {', '.join(map(str, batch))}; or give loss")
        loss = getattr(forward(**batch), "loss", None)
        if loss is None:
            raise ValueError("the model's output has no loss; give loss=function(forward, batch)")
        return loss
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        result, targets = forward(batch[0]), batch[1]
        outputs = cast(Tensor, getattr(result, "logits", result))
        return F.mse_loss(outputs, targets) if targets.is_floating_point() else F.cross_entropy(outputs, targets)
    raise ValueError(
        f"a batch must be a mapping with 'labels' or a pair (inputs, targets), got {type(batch).__name__}; or give loss"
    )


class Batches:
    """The same batches at every reading: one batch, a list of batches, or a loader that does not shuffle.

    Args:
        data: a mapping, tensor or tuple is one batch; a list is a list of batches; any other iterable
            (a DataLoader) is read anew each time, a one-time iterator is kept in memory.
        device: where tensors are moved; None leaves them.

    Raises:
        TypeError: if ``data`` is none of these.
        ValueError: if there are no batches, or two readings begin with different batches.
    """

    def __init__(self, data: Data, *, device: torch.device | None = None):
        if isinstance(data, (Mapping, torch.Tensor, tuple)):
            data = [data]
        if not hasattr(data, "__iter__"):
            raise TypeError(f"data must be a batch, a list of batches or a loader, got {type(data).__name__}")
        if isinstance(getattr(data, "sampler", None), _RANDOM_SAMPLERS):
            raise ValueError("the loader shuffles, so every point would see other batches; give shuffle=False")
        if iter(data) is data:
            data = list(data)
        first, again = next(iter(data), None), next(iter(data), None)
        if first is None:
            raise ValueError("the loader is empty; give at least one batch")
        if not _same(first, again):
            raise ValueError("two readings of the loader begin with different batches; give a fixed order, no shuffle")
        self._data, self._device = data, device

    def __iter__(self) -> Iterator[Any]:
        for batch in self._data:
            yield batch if self._device is None else _to(batch, self._device)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(_same, first, second))
    return True


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _to(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(_to(value, device) for value in batch)
    return batch


class Objective:
    r"""The mean loss over all batches, :math:`L(\theta) = \sum_b w_b L_b(\theta) / \sum_b w_b`.

    :math:`w_b` is the number of terms that batch b's mean runs over: examples, or the labels that are
    not -100 where every token has one (less the first column for causal language models, whose loss
    shifts the labels). So L is the mean over the whole loader, whatever the batch sizes.

    Args:
        model: any torch module; its mode is restored after each use and its parameters never written.
        data: see `Batches`.
        loss: ``loss(forward, batch) -> scalar``; ``forward`` is the model with replaced parameters.
            `default_loss` when None.

    Raises:
        TypeError: if ``model`` is not a module.
        ValueError: if no batch holds an example.
    """

    def __init__(self, model: nn.Module, data: Data, *, loss: Loss | None = None):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch module, got {type(model).__name__}")
        self.model = model
        self.loss = loss or default_loss
        self.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self.batches = Batches(data, device=self.device)
        self._fixed = _without_cache(model) if loss is None else {}
        self.shifted = "ForCausalLM" in _class_name(model) or "LMHead" in _class_name(model)
        if not any(map(self.weight, self.batches)):
            raise ValueError("no batch holds an example (or a label other than -100), so there is no mean loss")

    def batch_loss(self, values: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the mean loss of one batch with the named parameters replaced; call in `evaluation_mode`."""
        return self.loss(self.forward(values), batch)

    def forward(self, values: Mapping[str, Tensor]) -> Forward:
        """Return the model as a function of its inputs, the named parameters replaced by ``values``."""
        return functools.partial(self._forward, values)

    def weight(self, batch: Batch) -> int:
        """Return the number of terms in the batch's mean."""
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        if labels is not None and labels.ndim >= 2 and not labels.is_floating_point():
            return int(((labels[..., 1:] if self.shifted else labels) != -100).sum())
        first = next((tensor for tensor in _tensors(batch) if tensor.ndim), None)
        return 1 if first is None else len(first)

    @torch.no_grad()
    def __call__(self, values: Mapping[str, Tensor] | None = None) -> float:
        """Return the mean loss over all batches, the named parameters replaced by ``values``."""
        total, count = 0.0, 0
        with evaluation_mode(self.model):
            for batch in self.batches:
                weight = self.weight(batch)
                total += weight * float(self.batch_loss(values or {}, batch))
                count += weight
        return total / count

    def gradient(self, values: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss and its gradient in the given parameters."""
        leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        sums = {name: torch.zeros_like(value) for name, value in values.items()}
        total, count = 0.0, 0
        with evaluation_mode(self.model), torch.enable_grad():
            for batch in self.batches:
                weight = self.weight(batch)
                loss = self.batch_loss(leaves, batch)
                parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                for name, part in zip(leaves, parts, strict=True):
                    if part is not None:
                        sums[name] += weight * part
                total += weight * float(loss.detach())
                count += weight
        return total / count, {name: value / count for name, value in sums.items()}

    def _forward(self, values: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.model, dict(values), args, {**kwargs, **self._fixed})


def _class_name(model: Any) -> str:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(base).__name__


def _without_cache(model: Any) -> dict[str, bool]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"use_cache": False} if "use_cache" in inspect.signature(base.forward).parameters else {}


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _tensors(value)
