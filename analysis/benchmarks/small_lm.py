"""The small language model on which landscapes and curvature are timed: Llama's blocks, LoRA on six linear layers.

GELU instead of SiLU, because torch has no forward-mode second derivative of SiLU, which curvlinops needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from adapters import prepare

__all__ = ["small_lm", "tokens"]


def small_lm(*, layers: int = 4, rank: int = 8, seed: int = 0) -> nn.Module:
    """Return a random Llama of width 128 with a LoRA adapter whose update is not zero, in evaluation mode.

    Args:
        layers: number of blocks.
        rank: of the adapter.
        seed: of all weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=256,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            hidden_act="gelu",
        )
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
        model = prepare(LlamaForCausalLM(config), "lora", rank=rank, target_modules=targets, modules_to_save=[]).model
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.02)
    return model.eval()


def tokens(rows: int, columns: int, *, seed: int = 0) -> dict[str, Any]:
    """Return one batch of random tokens, their own labels."""
    ids = torch.randint(0, 256, (rows, columns), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ids}
