"""The ten models of arXiv:2606.13767, tables 2 and 3, as the few numbers of their published ``config.json``."""

from __future__ import annotations

from typing import Any

__all__ = ["MODELS", "MODEL_NAMES"]


def _llama(hidden: int, depth: int, heads: int, kv_heads: int, mlp: int, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
    }


def _encoder(model_type: str, hidden: int, depth: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        **more,
    }


_DEBERTA: dict[str, Any] = {
    "vocab_size": 128100,
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 256,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
_ROBERTA: dict[str, Any] = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
_XXL: dict[str, Any] = {"attention_head_size": 64, "conv_kernel_size": 3, "conv_act": "gelu"}

MODELS: dict[str, dict[str, Any]] = {
    "vit-tiny": _encoder("vit", 192, 12, 3, image_size=224, patch_size=16),
    "vit-base": _encoder("vit", 768, 12, 12, image_size=224, patch_size=16),
    "deberta-v2-xxlarge": _encoder("deberta-v2", 1536, 48, 24, **_DEBERTA, **_XXL),
    "deberta-v3-base": _encoder("deberta-v2", 768, 12, 12, **_DEBERTA),
    "roberta-base": _encoder("roberta", 768, 12, 12, **_ROBERTA),
    "roberta-large": _encoder("roberta", 1024, 24, 16, **_ROBERTA),
    "tinyllama-1.1b": _llama(2048, 22, 32, 4, 5632, 32000),
    "llama3-8b": _llama(4096, 32, 32, 8, 14336, 128256),
    "deepseek-coder-1.3b": _llama(2048, 24, 16, 16, 5504, 32256),
    "gpt2-small": {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257},
}
"""The ten models of arXiv:2606.13767 by key, each as the arguments of its transformers config class."""

MODEL_NAMES = {
    "vit-tiny": "ViT-Tiny",
    "vit-base": "ViT-Base",
    "deberta-v2-xxlarge": "DeBERTa-v2-XXL",
    "deberta-v3-base": "DeBERTa-v3-Base",
    "roberta-base": "RoBERTa-Base",
    "roberta-large": "RoBERTa-Large",
    "tinyllama-1.1b": "TinyLlama-1.1B",
    "llama3-8b": "Llama3-8B",
    "deepseek-coder-1.3b": "DeepSeek-Coder-1.3B",
    "gpt2-small": "GPT2-Small",
}
"""Their names as tables and figures show them."""
