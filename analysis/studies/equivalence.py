"""Two adapters, one function: train them side by side and compare, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from adapters.frozen import FrozenSum
from adapters.layer import ColumnLayer

__all__ = ["columns_of", "distance", "selector_lora", "tiny_llama", "tokens", "train_steps"]


def tiny_llama(*, seed: int = 0, hidden: int = 32, layers: int = 2) -> nn.Module:
    """Build a random Llama of two layers in float64, small enough to train in a second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            vocab_size=64,
            max_position_embeddings=64,
            use_cache=False,
        )
        return LlamaForCausalLM(config).double()


def tokens(*, seed: int = 0, sequences: int = 4, length: int = 12) -> dict[str, torch.Tensor]:
    """Draw a batch of random tokens with labels."""
    drawn = torch.randint(64, (sequences, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": drawn, "labels": drawn}


def selector_lora(model: nn.Module, columns: Sequence[int], *, alpha: float, target_modules: list[str]) -> nn.Module:
    """Put peft's own LoRA on a model with A frozen at the selector of some columns: for a window, A = [I_r | 0].

    Args:
        model: adapted in place.
        columns: the selected columns, the same in every layer.
        alpha: the update is scaled by alpha / len(columns).
        target_modules: as in peft.
    """
    adapted = get_peft_model(
        model, LoraConfig(r=len(columns), lora_alpha=cast(int, alpha), target_modules=target_modules)
    ).double()
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False).zero_()
            parameter[torch.arange(len(columns)), torch.tensor(list(columns))] = 1.0
    return adapted


def columns_of(model: nn.Module, *, adapter: str = "default") -> dict[str, tuple[int, ...]]:
    """Return the columns that the live link of each adapted layer trains, by module name."""
    return {
        module.module_name: cast(FrozenSum, module.beyond_column_sum[adapter]).columns
        for module in model.modules()
        if isinstance(module, ColumnLayer)
    }


def train_steps(
    model: nn.Module,
    inputs: dict[str, torch.Tensor],
    *,
    steps: int = 15,
    learning_rate: float = 0.05,
    adam: bool = True,
) -> list[float]:
    """Train what is trainable for some steps on one batch and return the loss before each step.

    Args:
        model: a transformers model, adapted or not.
        inputs: the batch, labels included.
        steps: optimizer steps.
        learning_rate: of Adam, or of plain gradient descent.
        adam: Adam, or plain gradient descent.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind: Any = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = kind(trained, lr=learning_rate)
    losses = []
    for _ in range(steps):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def distance(one: nn.Module, other: nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """Largest difference of two models' logits on one batch, both in evaluation mode."""
    with torch.no_grad():
        logits = [model.eval()(input_ids=inputs["input_ids"]).logits for model in (one, other)]
    return float((logits[0] - logits[1]).abs().max())
