"""Tiny random models of every architecture the paper uses, for tests and for trying a command without a download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from analysis.records import cache_folder, check_writable, replacing
from analysis.tasks.presets import TINY_MODELS
from analysis.tasks.quiet import quiet_transformers
from analysis.tasks.redraw import redraw

__all__ = ["check_tiny", "tiny_model_folder", "write_tiny_model"]

_VERSION = 2
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
_VOCABULARY = 256 + len(_SPECIALS)
_IDS: dict[str, Any] = {"vocab_size": _VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _vit() -> PreTrainedModel:
    return ViTForImageClassification(ViTConfig(**_SIZES, image_size=16, patch_size=8))


def _deberta() -> PreTrainedModel:
    buckets: dict[str, Any] = {"position_buckets": 16}
    config = DebertaV2Config(
        **_SIZES,
        **_IDS,
        **buckets,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        max_position_embeddings=256,
        type_vocab_size=0,
    )
    return DebertaV2ForSequenceClassification(config)


def _roberta() -> PreTrainedModel:
    return RobertaForSequenceClassification(RobertaConfig(**_SIZES, **_IDS, max_position_embeddings=258))


def _bert() -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**_SIZES, **_IDS, max_position_embeddings=256))


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_SIZES, **_IDS, num_key_value_heads=2, max_position_embeddings=256))


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **_IDS))


_BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": _bert,
    "vit": _vit,
    "deberta": _deberta,
    "roberta": _roberta,
    "llama": _llama,
    "gpt2": _gpt2,
}
_DECODERS = ("llama", "gpt2")


def _tokenizer(*, encoder: bool) -> Any:
    """Return a tokenizer of bytes: no vocabulary to learn, nothing unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*_SPECIALS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", 1), ("</s>", 2)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
    )


def check_tiny(name: str) -> None:
    """Refuse a name that is no key of :data:`TINY_MODELS`.

    Raises:
        ValueError: if it is none.
    """
    if name not in TINY_MODELS:
        raise ValueError(f"unknown tiny model {name!r}; accepted: {', '.join(f'tiny:{key}' for key in TINY_MODELS)}")


def write_tiny_model(name: str, folder: str | Path, *, seed: int = 0) -> Path:
    """Write a tiny random model, with its tokenizer or image processor, as ``save_pretrained`` does.

    Args:
        name: a key of :data:`TINY_MODELS`.
        folder: where to; made if needed.
        seed: seed of the weights.

    Raises:
        ValueError: if the name is unknown, or the folder cannot be written to.
    """
    check_tiny(name)
    folder = check_writable(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _BUILDERS[TINY_MODELS[name]]()
    redraw(model, dict(model.named_parameters()), seed=seed)
    with quiet_transformers():
        model.save_pretrained(str(folder))
    if TINY_MODELS[name] == "vit":
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(str(folder))
    else:
        _tokenizer(encoder=TINY_MODELS[name] not in _DECODERS).save_pretrained(str(folder))
    return folder


def tiny_model_folder(name: str) -> Path:
    """Return the cached folder of a tiny model, written on first use."""
    check_tiny(name)
    target = cache_folder() / f"tiny-{name}-{_VERSION}"
    if not target.is_dir():
        with replacing(target, keep=True) as new:
            write_tiny_model(name, new)
    return target
