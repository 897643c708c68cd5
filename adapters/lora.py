"""The family of products B A: LoRA, LoRA+, asymmetric LoRA, CoLA and RAC-LoRA on PEFT's own layers."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.families import Hooks, Wrap, check_ranks, exact, peft_model, peft_targets, stored_bits
from adapters.layer import whole
from adapters.linked import LinkedFactor, LinkedLoraConfig, link_layers

__all__ = ["FACTORS"]


class _Factors(Hooks):
    def wrap(self, model: nn.Module, asked: Wrap) -> nn.Module:
        check_ranks(model, asked.targets, asked.rank)
        named: dict[str, Any] = peft_targets(model, asked.targets)
        config = LinkedLoraConfig(
            r=asked.rank,
            lora_alpha=cast(int, asked.alpha),  # PEFT's own code takes any number
            links=asked.links,
            seed=asked.seed,
            method=asked.method.key,
            modules_to_save=list(asked.heads) or None,
            fan_in_fan_out=bool(named["target_modules"])
            and isinstance(model.get_submodule(named["target_modules"][0]), Conv1D),
            **named,
        )
        wrapped = peft_model(model, config)
        train_a = asked.method.trains == "both"
        link_layers(wrapped, adapter="default", chained=asked.method.chained, train_a=train_a, seed=asked.seed)
        return wrapped

    def holds(self, layer: BaseTunerLayer, adapter: str) -> bool:
        if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A or adapter in layer.lora_variant:
            return False
        return isinstance(layer.lora_A[adapter], nn.Module)  # AdaLoRA keeps bare parameters: B E A

    def factors(self, layer: Any, adapter: str) -> tuple[Tensor, Tensor]:
        left = layer.scaling[adapter] * exact(layer.lora_B[adapter].weight)
        right = exact(layer.lora_A[adapter].weight)
        if not isinstance(layer, ParamWrapper) or layer.get_param().ndim == 2:
            return left, right
        # PEFT lays B out as (out, rank, experts) and A as (experts, rank, in).
        shape = (-1, layer.num_experts)
        return left.unflatten(1, shape).permute(2, 0, 1), right.unflatten(0, shape[::-1])

    def describe(self, layer: Any, adapter: str, config: PeftConfig) -> dict[str, Any]:
        a, b = layer.lora_A[adapter], layer.lora_B[adapter]
        linked = isinstance(a, LinkedFactor)
        experts = getattr(layer, "num_experts", 1)
        rank = (a.live if linked else a.weight).shape[0] // experts
        a_trained = "lora_A" not in layer.frozen_peft_weight_names.get(adapter, ())
        columns = torch.nonzero(whole(a.weight.detach()).abs().sum(0)).flatten().tolist()
        return {
            "side_information_bits": 0.0,
            "rank": rank,
            "links": a.weight.shape[0] // (rank * experts),
            "numbers_trained": (b.weight.numel() + (a.weight.numel() if a_trained else 0)) // experts,
            "a_trained": a_trained,
            "support": columns,
            "bits": stored_bits(b.weight),
            "seed": getattr(config, "seed", None),
        }

    def export(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return left, right


FACTORS = _Factors()
"""A LoRA adapter read back from disk counts as one link with A trained, which never understates what was trained."""
