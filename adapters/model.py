"""The PEFT tuner of the column methods: injection, checks made before anything is touched, registration."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Any, cast

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from peft.utils import get_quantization_kwargs, register_peft_method
from peft.utils.other import get_pattern_key
from torch import nn

from adapters.config import TYPE_NAME, ColumnConfig, extend_peft_type
from adapters.experts import ParamWrapper
from adapters.layer import PREFIX, ColumnLayer, ColumnLinear, layer_shape
from adapters.targets import TARGET_MODULES, target_parameters

__all__ = ["ColumnModel", "check_adapter_name", "register"]


class ColumnModel(BaseTuner):
    """Column adapters on a model; made by `peft.get_peft_model` from a `ColumnConfig`."""

    prefix: str = PREFIX
    tuner_layer_cls = ColumnLayer
    target_module_mapping = TARGET_MODULES

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        """Add an adapter's layers, under a name that torch can keep.

        Raises:
            ValueError: for another name, before anything is touched; PEFT's LoRA ends in a KeyError half-way.
        """
        check_adapter_name(adapter_name, self.peft_config[adapter_name])
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> PeftConfig:
        """Take no modules beside ``target_parameters`` where none are named, as PEFT's LoRA does."""
        known = model_config.get("model_type") in TARGET_MODULES
        if peft_config.target_modules is None and peft_config.target_parameters and not known:
            peft_config.target_modules = set()
        return super()._prepare_adapter_config(peft_config, model_config)

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Refuse what cannot work before the first layer is replaced."""
        config = cast(ColumnConfig, _maybe_include_all_linear_layers(peft_config, model))
        shapes: dict[str, list[int]] = {}
        inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, ColumnLinear))
        for name, module in model.named_modules():
            if not name or (inside and name.startswith(inside)):
                continue
            found = self._check_target_module_exists(config, name)
            if isinstance(found, bool | re.Match) and found:
                base = module.get_base_layer() if isinstance(module, ColumnLayer) else module
                shape = layer_shape(base)
                if shape is None:
                    raise ValueError(f"target module {name!r} is a {type(base).__name__}; accepted: Linear, Conv1D")
                shapes[name] = list(shape)
        for name, shape in target_parameters(model, config.target_parameters or []).items():
            shapes[name] = list(shape)
        for name, (*_, in_features) in shapes.items():
            rank = _pattern(config.rank_pattern, name, config.r)
            largest = max([column for one in config.columns or [] for column in one], default=0)
            expected = list((config.base_shapes or {}).get(name, shapes[name]))
            if expected != shapes[name]:
                raise ValueError(
                    f"the saved adapter is for another base: {name!r} has shape {shapes[name]}, expected {expected}"
                )
            if rank > in_features or largest >= in_features:
                what = f"r={rank} is above" if rank > in_features else f"columns has {largest}, outside"
                raise ValueError(f"{what} in_features={in_features} of target module {name!r}")
        config.found_shapes = shapes

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        arguments = {
            "rank": _pattern(peft_config.rank_pattern, current_key, peft_config.r),
            "alpha": _pattern(peft_config.alpha_pattern, current_key, peft_config.lora_alpha),
            "config": peft_config,
        }
        known = isinstance(target, ColumnLayer) and getattr(target, "parameter_name", None) == parameter_name
        if known:
            target.update_layer(adapter_name, **arguments)
            return
        layer: Any
        if parameter_name is None:
            layer = ColumnLinear(target, adapter_name, name=current_key, **get_quantization_kwargs(self))
        else:
            layer = ParamWrapper(target, adapter_name, name=current_key, parameter_name=parameter_name)
        layer.update_layer(adapter_name, **arguments)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put a module in another's place; PEFT's own also asks a head that is no single layer for its ``weight``."""
        setattr(parent, child_name, new_module)

    @contextmanager
    def _enable_peft_forward_hooks(self, *_, **kwargs):
        """Refuse what PEFT would drop in silence for tuners other than LoRA."""
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                f"adapter_names={kwargs['adapter_names']!r} (one adapter per example) is not supported by column "
                "adapters; use set_adapter, or export_to_lora and PEFT's LoRA"
            )
        yield


def check_adapter_name(name: str, config: PeftConfig) -> None:
    """Refuse names under which torch, or PEFT's ``modules_to_save``, cannot keep an adapter.

    Adapters are entries of `torch.nn.ModuleDict`, whose own attributes ("values", "type") are taken.

    Raises:
        ValueError: naming the adapter.
    """
    saved = getattr(config, "modules_to_save", None) or []
    parameters = ["weight", "bias"] if saved else []
    if not name or "." in name or hasattr(nn.ModuleDict(), name) or name in [*saved, *parameters]:
        raise ValueError(
            f"adapter_name must not be empty, hold a dot, be an attribute of torch.nn.ModuleDict, or name a module or "
            f"parameter in modules_to_save; got {name!r}"
        )


def _pattern(pattern: dict, name: str, default):
    """Look ``name`` up in a rank or alpha pattern, as PEFT does for LoRA."""
    return pattern.get(get_pattern_key(list(pattern), name), default)


def register() -> None:
    """Make PEFT and transformers know the column methods; importing the package calls it."""
    if extend_peft_type(TYPE_NAME) not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=TYPE_NAME.lower(), config_cls=ColumnConfig, model_cls=ColumnModel, prefix=PREFIX)


register()
