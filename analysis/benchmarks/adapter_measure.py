"""What one training step costs: seconds, bytes kept for the backward pass, arithmetic, and who spends the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Step", "arithmetic", "cuda_peak", "operator_profile", "saved_bytes"]


class Step:
    """One optimizer step of a model on a fixed batch: forward, backward, AdamW over what is trained."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, torch.Tensor]):
        self.model, self.inputs = model, inputs
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.trained = sum(parameter.numel() for parameter in trained)
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None

    def forward_backward(self) -> float:
        """Run forward and backward; return nothing but the side effects on ``.grad``."""
        loss = self.model(**self.inputs).loss
        loss.backward()
        return 0.0

    def __call__(self) -> None:
        """Run one whole step."""
        self.forward_backward()
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


def saved_bytes(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> int:
    """Count the bytes that autograd keeps between forward and backward, parameters and buffers left out.

    Unique storages seen by ``saved_tensors_hooks``, each counted whole: a view keeps all of its storage alive.
    A sparse tensor counts as its indices and values.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        parts = (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,)
        for part in parts:
            storage = part.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that its own graph node keeps would never be freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**inputs).loss
    del loss
    return sum(kept.values())


def _addmm_in_place(self_shape: Any, left: Any, right: Any, *, out_shape: Any = None, **kwargs: Any) -> int:
    """The counter knows ``addmm`` but not ``addmm_``: the same product."""
    return 2 * left[0] * left[1] * right[1]


def arithmetic(step: Step) -> int:
    """Count the floating-point operations of the matrix products of one forward and backward pass."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_in_place})
    with counter:
        step.forward_backward()
    step.model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def cuda_peak(step: Step) -> int | None:
    """Peak of the bytes allocated on the CUDA device during one step; None without one."""
    if not torch.cuda.is_available() or next(step.model.parameters()).device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def operator_profile(step: Step, *, steps: int = 3) -> dict[str, tuple[float, int]]:
    """Self time of every operator in one step, by ``torch.profiler``.

    Args:
        step: warmed up by the caller.
        steps: steps averaged over.

    Returns:
        Operator name -> (milliseconds per step, calls per step); device time where there is a device.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_device = next(step.model.parameters()).device.type == "cuda"
    if on_device:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        for _ in range(steps):
            step()
    attribute = "self_device_time_total" if on_device else "self_cpu_time_total"
    return {
        event.key: (getattr(event, attribute) / 1e3 / steps, event.count // steps) for event in profile.key_averages()
    }
