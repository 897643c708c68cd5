"""DoRA on PEFT's own layers."""

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers.pytorch_utils import Conv1D

from adapters.families import Hooks, check_ranks, exact, peft_model, stored_bits
from adapters.linked import link_layers


class Dora(Hooks):
    """Four hooks, and which layers are ours."""

    additive = False  # the lengths are taken of W0 + B A: moving W0 beneath is not moving the merged weight

    def wrap(self, model, asked):
        check_ranks(model, asked.targets, asked.rank)
        config = LoraConfig(
            r=asked.rank,
            lora_alpha=asked.alpha,
            use_dora=True,
            target_modules=list(asked.targets),
            modules_to_save=list(asked.heads) or None,
            fan_in_fan_out=isinstance(model.get_submodule(asked.targets[0]), Conv1D),
        )
        wrapped = peft_model(model, config)
        link_layers(wrapped, adapter="default", chained=False, train_a=True, seed=asked.seed)  # draws A from the seed
        return wrapped

    def holds(self, layer, adapter):
        return isinstance(layer, LoraLayer) and adapter in layer.lora_magnitude_vector

    def factors(self, layer, adapter):
        base = exact(layer.get_base_weight())
        base = base.t() if isinstance(layer.get_base_layer(), Conv1D) else base
        product = exact(layer.lora_B[adapter].weight) @ exact(layer.lora_A[adapter].weight)
        direction = base + layer.scaling[adapter] * product
        lengths = exact(layer.lora_magnitude_vector[adapter].weight).flatten()
        merged = (lengths / direction.norm(dim=1)).unsqueeze(1) * direction
        return merged - base, torch.eye(base.shape[1], dtype=base.dtype, device=base.device)

    def describe(self, layer, adapter, config):
        parts = (layer.lora_A[adapter], layer.lora_B[adapter], layer.lora_magnitude_vector[adapter])
        return {
            "rank": layer.r[adapter],
            "links": 1,
            "numbers_trained": sum(part.weight.numel() for part in parts),
            "a_trained": True,
            "support": None,
            "bits": stored_bits(layer.lora_B[adapter].weight),
            "side_information_bits": 0.0,
            "seed": None,
        }

    def export(self, left, right):
        return left, right


HOOKS = Dora()
