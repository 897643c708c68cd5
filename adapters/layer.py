r"""The adapted layer: base output plus the live link's columns plus the frozen sum of the links before it.

Where the earlier links live: in a frozen fp32 sum per layer, one column for each column of W visited so far,
added by the same Function as the live link. They are not folded into W. So W0 stays what it was, bit for bit
(``disable_adapter``, landscapes and intruder counts need it), 4-bit and bf16 bases are never re-quantised or
rounded by a link, a resumed chain holds the same numbers as an uninterrupted one, and a sharded W is never
written to. The price: in bf16 one product with at most ``links * r`` columns per layer until the adapter is merged;
in fp32 the folded path of `adapters.functional` takes the sum along with the live columns at no further product.
The buffer has its final shape from the start, so optimizers, DDP and checkpoints see constant shapes.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils import resolve_quantization_backend
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from adapters.config import ColumnConfig
from adapters.frozen import FrozenSum
from adapters.functional import Term, column_linear, select_columns
from theory.methods import get_method

__all__ = ["ColumnLayer", "ColumnLinear", "at_least_fp32", "layer_shape", "without_adapters", "whole"]

logger = logging.getLogger(__name__)
PREFIX = "beyond_column_"


def layer_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return (out_features, in_features) of a linear layer, quantised or Conv1D included; None for others."""
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    if isinstance(module, nn.Linear) or resolve_quantization_backend(module) is not None:
        linear: Any = module  # quantised layers share nn.Linear's names, not its class
        return linear.out_features, linear.in_features
    return None


@contextmanager
def without_adapters(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let adapted layers of any PEFT method compute with the weight beneath the adapter alone.

    PEFT's own switch freezes and unfreezes parameters on the way; this one leaves them as they are.
    """
    chosen: list[Any] = list(layers)
    before = [layer._disable_adapters for layer in chosen]
    for layer in chosen:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, value in zip(chosen, before, strict=True):
            layer._disable_adapters = value


class ColumnLayer(BaseTunerLayer):
    """What PEFT needs to know of an adapted layer: containers keyed by adapter name, merge, unmerge."""

    adapter_layer_names: tuple[str, ...] = (PREFIX + "B",)
    other_param_names: tuple[str, ...] = (PREFIX + "dropout", "scaling", "r")

    def __init__(self, base_layer: nn.Module, *, name: str, **kwargs):
        self.base_layer = base_layer
        self.module_name = name
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), get_apply_tensor_subclass=kwargs.get("get_apply_tensor_subclass")
        )
        self.transposed = isinstance(self.get_base_layer(), Conv1D)
        *self.stack, rows, self.in_features = self._shape_of_base()
        self.out_features = math.prod(self.stack) * rows
        self.scaling: dict[str, float] = {}
        self.r: dict[str, int] = {}
        self.beyond_column_B: Any = nn.ModuleDict()  # adapter's name -> nn.Linear
        self.beyond_column_sum: Any = nn.ModuleDict()  # -> FrozenSum
        self.beyond_column_dropout: Any = nn.ModuleDict()  # -> nn.Dropout
        self.merge_loss: dict[str, float] = {}
        self._before_merge: dict[str, tuple[Tensor, Tensor]] = {}
        self._before_disabling: tuple[list[str], list[tuple[nn.Parameter, bool]]] = ([], [])
        self.tied = False  # whether another module holds the same weight, as an embedding does with a language head
        self._tied_weight: nn.Parameter | None = None
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def _shape_of_base(self) -> tuple[int, ...]:
        """Return (out_features, in_features) of W, after the number of matrices where W is a stack of them."""
        shape = layer_shape(self.get_base_layer())
        if shape is None:
            base = type(self.base_layer).__name__
            raise ValueError(f"target module {self.module_name!r} is a {base}; accepted: Linear, Conv1D")
        return shape

    def stored_weight(self) -> Tensor:
        """Return the tensor that holds W, in its own layout."""
        return cast(Tensor, self.get_base_layer().weight)

    @property
    def axis(self) -> int:
        """The axis of the stored weight along which W's columns lie."""
        return -2 if self.transposed else -1

    def _laid_out(self, rows: Tensor) -> Tensor:
        """Bring columns of W, (out_features, columns), into the stored weight's layout."""
        stacked = rows.unflatten(0, (*self.stack, -1)) if self.stack else rows
        return stacked.mT if self.transposed else stacked

    def update_layer(self, adapter_name: str, *, rank: int, alpha: float, config: ColumnConfig) -> None:
        """Add one adapter to this layer."""
        state = FrozenSum(
            out_features=self.out_features,
            in_features=self.in_features,
            name=self.module_name,
            rank=rank,
            config=config,
            dtype=at_least_fp32(self.stored_weight().dtype),
        )
        factor = nn.Linear(rank, self.out_features, bias=False)
        if config.init_weights:
            nn.init.zeros_(factor.weight)
        self.r[adapter_name] = rank
        self.scaling[adapter_name] = 1.0 if get_method(config.method).in_place else alpha / rank
        self.beyond_column_B[adapter_name] = factor
        self.beyond_column_sum[adapter_name] = state
        self.beyond_column_dropout[adapter_name] = nn.Dropout(config.lora_dropout)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete one adapter and its frozen sum."""
        if adapter_name in self.beyond_column_sum:
            del self.beyond_column_sum[adapter_name]
        super().delete_adapter(adapter_name)

    def _move_adapter_to_device_of_base_layer(self, adapter_name, device=None):
        super()._move_adapter_to_device_of_base_layer(adapter_name, device)
        device = self._get_base_layer_device_and_dtype(self.get_base_layer())[0] if device is None else device
        if adapter_name in self.beyond_column_sum and device is not None and device.type != "meta":
            self.beyond_column_sum[adapter_name].to(device)

    @property
    def weight(self) -> Tensor:
        """The weight of the layer's function: the base's plus the active adapters' columns, rounded as a merge rounds.

        So parents that read it instead of calling the layer (torch's attention its ``out_proj``, torch's encoder in
        eval, fused kernels) compute the same function, with gradients, but for dropout on the selected inputs. A base
        that is quantised, sharded, or does more in its forward than its weight says gives its own weight.
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        base = super().weight
        active = self._added()
        linear = type(self.get_base_layer()).forward in (nn.Linear.forward, Conv1D.forward)
        plain = linear and self.quantization_backend is None and not hasattr(base, "full_tensor")
        if not active or not plain:
            return base
        total = base.to(at_least_fp32(base.dtype))
        for columns, values in (pair for name in active for pair in self._summands(name)):
            values = values.to(total)
            total = total.index_add(*((0, columns, values.t()) if self.transposed else (1, columns, values)))
        return total.to(base.dtype)

    def _added(self) -> list[str]:
        """The active adapters that are not in the base weight already."""
        names = [] if self.disable_adapters else self.active_adapters
        return [name for name in names if name in self.beyond_column_B and name not in self.merged_adapters]

    def enable_adapters(self, enabled: bool) -> None:
        """Switch the adapters on or off; on again, what was frozen before stays frozen."""
        if not enabled and not self.disable_adapters:
            self._before_disabling = (
                list(self.active_adapters),
                [(p, p.requires_grad) for p in self.beyond_column_B.parameters()],
            )
        super().enable_adapters(enabled)
        active, flags = self._before_disabling
        if enabled and active == self.active_adapters:
            for parameter, wanted in flags:
                parameter.requires_grad_(wanted)
        if enabled:
            self._before_disabling = ([], [])

    def columns_of(self, adapter: str) -> list[tuple[Tensor, Tensor]]:
        """Return the adapter's summands as (columns, scaled values (out_features, columns), at least fp32)."""
        return [(columns, values.detach()) for columns, values in self._summands(adapter)]

    def _summands(self, adapter: str) -> list[tuple[Tensor, Tensor]]:
        state: FrozenSum = self.beyond_column_sum[adapter]
        factor = whole(self.beyond_column_B[adapter].weight)
        factor = factor.to(at_least_fp32(factor.dtype))
        scale = self.scaling[adapter]
        pairs = [(state.live_index.to(factor.device), scale * factor[:, : len(state.columns)])]
        if state.visited:
            pairs.insert(
                0, (state.sum_index.to(factor.device), scale * state.values[:, : len(state.visited)].to(factor))
            )
        return pairs

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the dense update of the base weight, in the base weight's layout, at least fp32."""
        pairs = self.columns_of(adapter)
        delta = pairs[0][1].new_zeros(self.out_features, self.in_features)
        for columns, values in pairs:
            delta.index_add_(1, columns, values)
        return self._laid_out(delta)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Columns are an exact LoRA."""
        return True

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write the adapters into the base weight; ``merge_loss`` keeps what rounding lost.

        A weight that another module holds too is written into a copy, until it is unmerged: an embedding does not move.
        ``merge_loss[name]`` is the Frobenius norm of (written - intended) over that of the intended update.

        Raises:
            ValueError: with ``safe_merge``, if the merged weight is not finite.
        """
        for adapter in check_adapters_to_merge(self, adapter_names) or ():
            if adapter not in self.beyond_column_B:
                continue
            if self.quantization_backend is not None and "4bit" in self.quantization_backend.backend_name:
                warnings.warn("merging into a 4-bit base quantises it again and moves the outputs", stacklevel=2)
            delta = self.get_delta_weight(adapter)
            before = self.get_base_weight()
            intended = before.to(at_least_fp32(before.dtype)) + delta
            merged = intended.to(before.dtype)
            if safe_merge and not torch.isfinite(merged).all():
                raise ValueError(f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken")
            if self.tied and self._tied_weight is None:
                self._untie()
            if self.quantization_backend is None:
                self._before_merge[adapter] = self._touched(adapter, before)
            self.set_base_weight(merged)
            self.merged_adapters.append(adapter)
            if delta.is_meta:  # shapes alone
                continue
            lost = (self.get_base_weight().to(intended) - intended).norm().item()
            self.merge_loss[adapter] = lost / max(delta.norm().item(), torch.finfo(torch.float64).tiny)
            if lost and self.merge_loss[adapter] > 0.01:
                logger.warning(
                    "%s: merging lost %.1f %% of the update", self.module_name, 100 * self.merge_loss[adapter]
                )

    def unmerge(self) -> None:
        """Take the merged adapters out again: exactly, from kept columns, unless the base is quantised."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            if adapter in self._before_merge:
                columns, kept = self._before_merge.pop(adapter)
                self.stored_weight().data.index_copy_(self.axis, columns, kept)
            elif adapter in self.beyond_column_B:
                weight = self.get_base_weight()
                whole_weight = weight.to(at_least_fp32(weight.dtype))
                self.set_base_weight((whole_weight - self.get_delta_weight(adapter)).to(weight.dtype))

        if self._tied_weight is not None:
            base: Any = self.get_base_layer()
            base.weight, self._tied_weight = self._tied_weight, None

    def _untie(self) -> None:
        base: Any = self.get_base_layer()
        self._tied_weight = base.weight
        base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=base.weight.requires_grad)

    def _touched(self, adapter: str, weight: Tensor) -> tuple[Tensor, Tensor]:
        state: FrozenSum = self.beyond_column_sum[adapter]
        columns = torch.tensor(sorted({*state.columns, *state.visited}), device=weight.device)
        return columns, weight.index_select(self.axis, columns)


class ColumnLinear(nn.Module, ColumnLayer):
    """A linear layer (Linear, Conv1D or quantised) with column adapters."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, *, name: str, **kwargs):
        nn.Module.__init__(self)
        ColumnLayer.__init__(self, base_layer, name=name, **kwargs)
        self._active_adapter = adapter_name

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """Return the base layer's output plus the active adapters' terms."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        active = self._added()
        if not active:
            return self.base_layer(x, *args, **kwargs)
        terms: list[Term] = []
        wrapped: list[str] = []
        for name in active:
            state, factor = self.beyond_column_sum[name], self.beyond_column_B[name]
            apart = _is_opaque(factor, nn.Linear) or (self.training and self.beyond_column_dropout[name].p > 0)
            wrapped += [name] if apart else []
            terms += state.terms(None if apart else factor.weight, self.scaling[name])
        if args or kwargs or _is_opaque(self.base_layer, nn.Linear, Conv1D):
            y = self.base_layer(x, *args, **kwargs)
            y = column_linear(x, terms, output=y)
        else:
            base: Any = self.base_layer
            weight = base.weight.t() if self.transposed else base.weight
            y = column_linear(x, terms, weight=weight, bias=base.bias)
        for name in wrapped:
            state, factor = self.beyond_column_sum[name], self.beyond_column_B[name]
            part = self.beyond_column_dropout[name](select_columns(x, state.live_window or state.live_index))
            part = F.pad(part, (0, self.r[name] - part.shape[-1]))
            y = y + self.scaling[name] * factor(part.to(factor.weight.dtype)).to(y.dtype)
        return y

    def __repr__(self) -> str:
        return "beyond_column." + super().__repr__()


def _is_opaque(module: nn.Module, *plain: type) -> bool:
    """Whether calling ``module`` may do more than its weight says: a subclass, a hook, a replaced forward."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return type(module) not in plain or bool(hooked) or "forward" in module.__dict__


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """Return fp32 for lower-precision and integer types, the type itself otherwise."""
    return torch.promote_types(dtype, torch.float32)


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; collective under FSDP2."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
