"""The loss of a model on fixed batches, as a function of chosen parameters; the model is never changed.

Landscapes, sharpness and curvature all measure this one function: evaluation mode, the same
examples in the same order at every point, parameters replaced through ``torch.func.functional_call``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from adapters.layer import without_adapters
from analysis.geometry.spaces import Space, SpaceName, parameter_space

__all__ = ["Batches", "Loss", "Objective", "agree", "check_start", "default_loss", "evaluation_mode", "objective_at"]

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


def agree(one: float, other: float, *, dtype: torch.dtype = torch.float32, factor: float = 1000) -> bool:
    """Whether two losses of one function are equal up to rounding: ``factor`` units in the last place, 5 % at most.

    NaN agrees with NaN, an infinity with itself.

    >>> agree(1.0, 1.0 + 1e-6), agree(1.0, 1.003), agree(float("nan"), float("nan"))
    (True, False, True)
    """
    if math.isnan(one) or math.isnan(other) or math.isinf(one) or math.isinf(other):
        return one == other or (math.isnan(one) and math.isnan(other))
    allowed = min(factor * torch.finfo(dtype).eps, 0.05)
    return abs(one - other) <= allowed * max(1.0, abs(one), abs(other))


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
        if any(tensor.is_floating_point() and bool(tensor.isnan().any()) for tensor in _tensors(first)):
            warnings.warn("the first batch holds NaN, so the loss may be NaN wherever it is evaluated", stacklevel=4)
        self._data, self._device = data, device

    def __iter__(self) -> Iterator[Any]:
        for batch in self._data:
            yield batch if self._device is None else _to(batch, self._device)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        if not isinstance(second, torch.Tensor) or first.shape != second.shape:
            return False
        return bool(((first == second) | ((first != first) & (second != second))).all())  # NaN is itself
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
        moved = [_to(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)  # a named tuple takes fields
    return batch


class Objective:
    r"""The mean loss over all batches, :math:`L(\theta) = \sum_b w_b L_b(\theta) / \sum_b w_b`.

    :math:`w_b` is the number of terms that batch b's mean runs over: examples, or the labels that are
    not -100 where every token has one (less the first column where the loss does not look at it, as causal
    language models' do not, which shift the labels). So L is the mean over the whole loader, whatever the batch sizes.

    Args:
        model: any torch module; its mode is restored after each use and its parameters never written.
        data: see `Batches`.
        loss: ``loss(forward, batch) -> scalar``; ``forward`` is the model with replaced parameters.
            `default_loss` when None.
        space: whose parameters are replaced; None replaces whatever is given.

    Raises:
        TypeError: if ``model`` is not a module.
        ValueError: if no batch holds an example, or two evaluations of the first differ (dropout that evaluation mode
            does not turn off).
    """

    def __init__(self, model: nn.Module, data: Data, *, loss: Loss | None = None, space: Space | None = None):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch module, got {type(model).__name__}")
        self.model = model
        self.loss = loss or default_loss
        self.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self.batches = Batches(data, device=self.device)
        self._fixed = _without_cache(model) if loss is None else {}
        self._bare = () if space is None else space.bare
        self._tied = space is None or space.tied
        self.shifted = False
        if not any(map(self.weight, self.batches)):
            raise ValueError("no batch holds an example (or a label other than -100), so there is no mean loss")
        self._check_deterministic()
        self.shifted = self._shifts()

    @torch.no_grad()
    def _check_deterministic(self) -> None:
        first = next(iter(self.batches))
        with evaluation_mode(self.model):
            one, other = (self.batch_loss({}, first) for _ in range(2))
        if not agree(float(one), float(other), dtype=one.dtype, factor=16):
            raise ValueError(
                f"the loss is random: two evaluations of the first batch gave {float(one):.6g} and {float(other):.6g} "
                "in evaluation mode; F.dropout needs training=self.training"
            )

    @torch.no_grad()
    def _shifts(self) -> bool:
        """Whether the loss leaves out the first column of labels: it stays the same without them."""
        with evaluation_mode(self.model):
            for batch in self.batches:
                labels = batch.get("labels") if isinstance(batch, Mapping) else None
                if not isinstance(labels, torch.Tensor) or labels.ndim < 2 or labels.is_floating_point():
                    return False
                if bool((labels[..., 0] != -100).any()):
                    without = torch.cat([torch.full_like(labels[..., :1], -100), labels[..., 1:]], dim=-1)
                    try:
                        other = self.batch_loss({}, {**batch, "labels": without})
                    except (IndexError, RuntimeError, ValueError):  # a loss that knows no -100
                        return False
                    one = self.batch_loss({}, batch)
                    return not bool(other.isnan()) and agree(float(one), float(other), dtype=one.dtype, factor=16)
        return False

    def batch_loss(self, values: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the mean loss of one batch with the named parameters replaced; call in `evaluation_mode`."""
        return self.loss(self.forward(values), batch)

    def forward(self, values: Mapping[str, Tensor]) -> Forward:
        """Return the model as a function of its inputs, the named parameters replaced by ``values``."""
        return functools.partial(self._forward, values)

    def weight(self, batch: Batch) -> int:
        """Return the number of terms in the batch's mean."""
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        if isinstance(labels, torch.Tensor) and labels.ndim >= 2 and not labels.is_floating_point():
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
        # W0 + dW is put where W0 was
        with without_adapters(self.model.get_submodule(name) for name in (self._bare if values else ())):
            return functional_call(self.model, dict(values), args, {**kwargs, **self._fixed}, tie_weights=self._tied)


def objective_at(
    model: nn.Module,
    data: Data,
    *,
    loss: Loss | None = None,
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
) -> tuple[Objective, Space, float]:
    """Return the loss, the space it is looked at in, and the model's own loss, which the space's start has to have.

    Args:
        model: any torch module.
        data: as in `Objective`.
        loss: as in `Objective`.
        space: as in `analysis.geometry.spaces.parameter_space`.
        names: as there.

    Raises:
        TypeError, ValueError: as `Objective` and `analysis.geometry.spaces.parameter_space`; and if the loss at the
            space's start is not the model's own.
    """
    moved = parameter_space(model, space, names=names)
    objective = Objective(model, data, loss=loss, space=moved)
    own = objective()
    check_start(objective(moved.at_start), own, moved)
    return objective, moved, own


def check_start(found: float, own: float, space: Space, *, where: str = "the centre") -> None:
    """Refuse a point whose loss is not that of the model that stands there.

    Raises:
        ValueError: with both losses.
    """
    coarsest = max((value.dtype for value in space.start.values()), key=lambda dtype: torch.finfo(dtype).eps)
    if not agree(found, own, dtype=coarsest):
        raise ValueError(
            f"{where} of the {space.name} space has loss {found:.6g}, the model there {own:.6g}: the model computes "
            "with something that the space does not hold"
        )


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
