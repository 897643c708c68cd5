r"""Weights that a module holds as bare parameters: fused experts, shape (experts, out, in), and single matrices.

The stack of a fused parameter is one matrix of ``experts * out_features`` rows, in which the adapter trains the same
columns of every expert. Which rows of x an expert sees is known inside its module alone, so no product can be added to
the output from outside: for one forward pass the module is given :math:`W + \Delta W` in the parameter's place, as
PEFT's LoRA does. That costs a copy of W, and in bf16 the sum is rounded to bf16, which `adapters.layer` avoids.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.func import functional_call

from adapters.layer import ColumnLayer

__all__ = ["ParamWrapper"]


class ParamWrapper(nn.Module, ColumnLayer):
    """A module one of whose parameters has column adapters; several are nested in the parameters' order.

    PEFT looks for a parameter's adapters by the name of this class, as for its own LoRA.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, *, name: str, parameter_name: str, **kwargs):
        nn.Module.__init__(self)
        self.parameter_name = parameter_name
        ColumnLayer.__init__(self, base_layer, name=name, **kwargs)
        self._active_adapter = adapter_name

    def _shape_of_base(self) -> tuple[int, ...]:
        stored = self.stored_weight()
        base: Any = self.get_base_layer()
        self.transposed = stored.ndim == 3 and getattr(base, "is_transposed", False)
        # What PEFT's own wrapper is asked about the layout (`adapters.updates`).
        self.num_experts = stored.shape[0] if stored.ndim == 3 else 1
        self._did_swap_in_out_features = stored.ndim == 3 and not self.transposed
        return tuple((stored.mT if self.transposed else stored).shape)

    def stored_weight(self) -> Tensor:
        """Return the parameter, as the module holds it."""
        return getattr(self.get_base_layer(), self.parameter_name)

    def get_base_weight(self) -> Tensor:
        """Return the parameter's data."""
        return self.stored_weight().data

    def set_base_weight(self, weight_data: Tensor) -> None:
        """Set the parameter's data."""
        self.stored_weight().data = weight_data

    def _get_base_layer_device_and_dtype(self, base_layer):
        stored = self.stored_weight()
        return stored.device, stored.dtype

    def forward(self, *args, **kwargs) -> object:
        """Call the module with the active adapters' columns added to its parameter."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        active = [name for name in self.active_adapters if name in self.beyond_column_B]
        if self.disable_adapters or self.merged or not active:
            return self.base_layer(*args, **kwargs)
        path, inner = self.parameter_name, cast(Any, self.base_layer)
        while isinstance(inner, BaseTunerLayer):
            path, inner = f"base_layer.{path}", cast(Any, inner).base_layer
        return functional_call(self.base_layer, {path: self._adapted(active)}, args, kwargs)

    def _adapted(self, active: list[str]) -> Tensor:
        stored = self.stored_weight()
        weight = stored.clone()
        for name in active:
            factor, scale = self.beyond_column_B[name].weight, self.scaling[name]
            for values, columns, _ in self.beyond_column_sum[name].terms(factor, scale):
                index = torch.arange(*columns, device=stored.device) if isinstance(columns, tuple) else columns
                weight.index_add_(self.axis, index, self._laid_out((scale * values).to(weight.dtype)))
        return weight

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Return the module without adapters, merged into its parameters where asked."""
        layer: Any = self
        while isinstance(layer, BaseTunerLayer):
            if merge:
                layer.merge(safe_merge=safe_merge, adapter_names=adapter_names)
            layer = cast(Any, layer).base_layer
        return layer

    def __repr__(self) -> str:
        return f"beyond_column.{self.parameter_name}." + super().__repr__()
