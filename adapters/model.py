"""The PEFT tuner of the column methods: injection, checks made before anything is touched, registration.

Faults that PEFT 0.21's LoRA has (and so ``lora``, ``lora+``, ``asym``, ``cola`` and ``rac`` here) and column adapters
have not: merging into a language head that shares its weight moves the embedding too; merging one of two active
adapters drops the other; leaving ``disable_adapter()`` unfreezes a frozen adapter; nothing is said of
``target_modules`` that match nothing beside others; ``modules_to_save`` are matched by two rules; a parent that reads
the weight of a layer gets the base's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, cast

from peft import LoraConfig, PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner, _ExcludedModule, _maybe_include_all_linear_layers
from peft.utils import ModulesToSaveWrapper, get_quantization_kwargs, register_peft_method
from peft.utils.other import get_pattern_key
from torch import nn

from adapters.config import TYPE_NAME, ColumnConfig, extend_peft_type
from adapters.experts import ParamWrapper
from adapters.layer import PREFIX, ColumnLayer, ColumnLinear, layer_shape
from adapters.targets import TARGET_MODULES, target_parameters, warn_of_unmatched, warn_of_untrained
from adapters.weighted import fill_weighted, weighted_config
from theory.heads import is_trained_in_full

__all__ = ["ColumnModel", "check_adapter_name", "register"]


class ColumnModel(BaseTuner):
    """Column adapters on a model; made by `peft.get_peft_model` from a `ColumnConfig`."""

    prefix: str = PREFIX
    tuner_layer_cls = ColumnLayer
    target_module_mapping = cast(dict[str, list[str]], TARGET_MODULES)  # PEFT's own has patterns too

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        """Add an adapter's layers, under a name that torch can keep.

        Raises:
            ValueError: for another name, before anything is touched; PEFT's LoRA ends in a KeyError half-way.
        """
        check_adapter_name(adapter_name, self.peft_config[adapter_name])
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> PeftConfig:
        """Fill in what is usual for a type of model, and no modules beside ``target_parameters``, as PEFT's LoRA does.

        What was asked by name is held against the model later.
        """
        self._asked = peft_config.target_modules
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
                self._check_target_module_compatiblity(config, model, name.rpartition(".")[2])
                shapes[name] = list(shape)
        parameters = target_parameters(model, config.target_parameters or [])
        shapes |= {name: list(shape) for name, shape in parameters.items()}
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
        held = Counter(id(p) for module in model.modules() for p in module._parameters.values())
        self._tied = {identity for identity, count in held.items() if count > 1}
        if not config.inference_mode:
            warn_of_unmatched(self._asked, shapes)
        if not config.inference_mode and not inside:
            warn_of_untrained(model, targets=shapes, trained_in_full=config.modules_to_save)

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> bool | re.Match[str] | None:
        """Match as PEFT does, and never what its ``modules_to_save`` will wrap, which it finds by another rule."""
        if is_trained_in_full(key, peft_config.modules_to_save or ()):
            return _ExcludedModule()  # type: ignore[return-value]  # as PEFT's own
        return BaseTuner._check_target_module_exists(peft_config, key)

    def _check_target_module_compatiblity(self, peft_config: PeftConfig, model: nn.Module, target_name: str) -> None:
        """Refuse what PEFT refuses for LoRA: Mamba's ``out_proj``, whose weight fused kernels read.

        An adapter there could not be exported.
        """
        super()._check_target_module_compatiblity(LoraConfig(), model, target_name)

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
        if isinstance(target, ColumnLayer) and getattr(target, "parameter_name", None) == parameter_name:
            target.update_layer(adapter_name, **arguments)
            return
        layer: Any
        if parameter_name is None:
            layer = ColumnLinear(target, adapter_name, name=current_key, **get_quantization_kwargs(self))
            layer.tied = id(getattr(target, "weight", None)) in self._tied
        else:
            layer = ParamWrapper(target, adapter_name, name=current_key, parameter_name=parameter_name)
        layer.update_layer(adapter_name, **arguments)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put a module in another's place; PEFT's own also asks a head that is no single layer for its ``weight``."""
        setattr(parent, child_name, new_module)

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        """Switch adapters and modules to save on or off; on again, what was frozen before stays frozen."""
        heads = [module for module in self.model.modules() if isinstance(module, ModulesToSaveWrapper)]
        if not enabled and not all(head.disable_adapters for head in heads):
            self._head_flags = [(p, p.requires_grad) for head in heads for p in head.parameters()]
        super()._enable_adapter_layers(enabled)
        if enabled:
            for parameter, wanted in vars(self).pop("_head_flags", ()):
                parameter.requires_grad_(wanted)

    def _check_merge_allowed(self) -> None:
        """Nothing to warn of: PEFT's own check is about tied weights, which a merge here unties."""

    def add_weighted_adapter(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, combination_type: str = "linear"
    ) -> None:
        """Add an adapter whose update is the weighted sum of others' updates, exactly; it is frozen, and not active.

        Adapters that select columns alike keep their selector. Others are put together on the union of their columns,
        which has to be one set for all layers; random selectors of different seeds differ from layer to layer.

        Args:
            adapters: names of the summands, all column adapters.
            weights: a finite number for each.
            adapter_name: name of the sum.
            combination_type: ``"linear"`` or ``"cat"``, which are the same here; LoRA's others approximate.

        Raises:
            ValueError: for other arguments, if layers differ in their columns, or if an adapter has modules to save;
                the model is as it was.
        """
        if combination_type not in ("linear", "cat"):
            raise ValueError(f"combination_type must be 'linear' or 'cat': columns add, got {combination_type!r}")
        if adapter_name in self.peft_config:
            raise ValueError(f"adapter_name must be new, got {adapter_name!r}")
        layers = {name: one for name, one in self.model.named_modules() if isinstance(one, ColumnLayer)}
        configs: Any = self.peft_config
        config = weighted_config(configs, layers, adapters, weights)
        check_adapter_name(adapter_name, config)
        configs[adapter_name] = config
        self.inject_adapter(self.model, adapter_name)
        fill_weighted(configs, layers, adapters, weights, adapter_name)
        for layer in layers.values():
            if adapter_name in layer.beyond_column_B:
                layer.beyond_column_B[adapter_name].requires_grad_(False)

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
