"""Small made-up inputs for the modules whose inputs are known: transformers' models and torch's own attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["Batch", "call", "known_inputs"]

Batch = Tensor | Mapping[str, object] | Sequence[object]
"""What a module is called with: one tensor, keyword arguments, or positional ones."""


def call(module: nn.Module, batch: Batch) -> object:
    """Call a module with a batch."""
    if isinstance(batch, Mapping):
        return module(**batch)
    return module(batch) if isinstance(batch, Tensor) else module(*batch)


def known_inputs(module: nn.Module) -> Batch | None:
    """Return a small batch of the kind that a module takes, or None where that is not known.

    Args:
        module: of a transformers model, what its ``main_input_name`` and its configuration say; of torch's
            ``MultiheadAttention``, ``TransformerEncoderLayer`` and ``TransformerDecoderLayer``, sequences of its width.

    >>> known_inputs(nn.MultiheadAttention(4, 2))[0].shape
    torch.Size([2, 3, 4])
    """
    if isinstance(module, PreTrainedModel):
        return _of_transformers(module)
    if isinstance(module, nn.MultiheadAttention):
        return tuple(_sequence(module, width) for width in (module.embed_dim, module.kdim, module.vdim))
    if isinstance(module, nn.TransformerEncoderLayer):
        return (_sequence(module, module.self_attn.embed_dim),)
    if isinstance(module, nn.TransformerDecoderLayer):
        return _sequence(module, module.self_attn.embed_dim), _sequence(module, module.multihead_attn.kdim)
    return None


def _sequence(module: nn.Module, width: int) -> Tensor:
    like = next(p for p in module.parameters() if p.is_floating_point())
    return _numbers(2, 3, width).to(like)


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _of_transformers(model: PreTrainedModel) -> Batch | None:
    config: Any = model.config
    text = config.get_text_config()
    tokens = {"input_ids": _tokens(text).to(model.device)} if getattr(text, "vocab_size", None) else {}
    after = (
        {"decoder_input_ids": tokens["input_ids"]} if tokens and getattr(config, "is_encoder_decoder", False) else {}
    )
    name = model.main_input_name
    if name == "input_ids":
        return {**tokens, **after} or None
    if name == "pixel_values" and hasattr(config, "image_size"):
        size = config.image_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        values = _numbers(2, getattr(config, "num_channels", 3), *sides)
    elif name == "input_features" and hasattr(config, "max_source_positions"):
        values = _numbers(1, config.num_mel_bins, 2 * config.max_source_positions)
    elif name == "input_values":
        shape = (config.max_length, config.num_mel_bins) if hasattr(config, "num_mel_bins") else (8000,)
        values = _numbers(1, *shape)
    else:
        return None
    return {name: values.to(model.device, model.dtype), **after}


def _tokens(config: Any) -> Tensor:
    """Five tokens, the last one the end of a sequence, which some classifiers read from."""
    tokens = (torch.arange(3, 8) % config.vocab_size)[None]
    if isinstance(end := getattr(config, "eos_token_id", None), int):
        tokens[0, -1] = end
    return tokens
