"""Tiny random models of many architectures, with one batch each, for the checks of `adapters.testing.ModelChecks`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_TOKENS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_PDROP = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_DECODER = {**_SIZES, **_TOKENS, "max_position_embeddings": 32, "attention_dropout": 0.0, "hidden_dropout": 0.0}
_GROUPED = {**_DECODER, "num_key_value_heads": 1}
_ENCODER = {**_SIZES, **_TOKENS, **_STILL, "num_labels": 3, "max_position_embeddings": 34}
_IMAGE = {**_SIZES, **_STILL, "image_size": 8, "patch_size": 4, "num_labels": 3}
_ONE_LAYER_EACH = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "dropout": 0.0,
    "attention_dropout": 0.0, "activation_dropout": 0.0, **_TOKENS,
}  # fmt: skip
_AUDIO = {
    "conv_dim": [8, 8], "conv_stride": [4, 2], "conv_kernel": [8, 4], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0, "layerdrop": 0.0,
    "apply_spec_augment": False, "classifier_proj_size": 8, "num_labels": 3,
}  # fmt: skip
_STATE = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, **_TOKENS}
_EXPERTS = ["gate_up_proj", "down_proj"]


class Animal(NamedTuple):
    """One architecture.

    Attributes:
        model: name of the class in transformers; its configuration's is the ``config_class``.
        config: arguments of the configuration.
        batch: kind of batch.
        targets: what is adapted; None for the default of the model's type.
    """

    model: str
    config: dict[str, Any]
    batch: str
    targets: list[str] | None = None


ZOO = {
    # decoders
    "llama": Animal("LlamaForCausalLM", _GROUPED, "causal"),
    "mistral": Animal("MistralForCausalLM", _GROUPED, "causal"),
    "qwen2": Animal("Qwen2ForCausalLM", _GROUPED, "causal"),
    "qwen3": Animal("Qwen3ForCausalLM", {**_GROUPED, "head_dim": 8}, "causal"),
    "gemma2": Animal("Gemma2ForCausalLM", {**_GROUPED, "head_dim": 8}, "causal"),
    "phi": Animal("PhiForCausalLM", {**_DECODER, **_PDROP}, "causal"),
    "phi3": Animal("Phi3ForCausalLM", {**_DECODER, **_PDROP}, "causal"),
    "gpt2": Animal(
        "GPT2LMHeadModel",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24, "n_positions": 32, **_PDROP, **_TOKENS},
        "causal",
    ),
    "gpt_neo": Animal(
        "GPTNeoForCausalLM",
        {
            "hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "resid_dropout": 0.0,
            "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 32, "embed_dropout": 0.0,
            "attention_dropout": 0.0, **_TOKENS,
        },
        "causal",
    ),
    "gpt_neox": Animal("GPTNeoXForCausalLM", _DECODER, "causal"),
    "opt": Animal(
        "OPTForCausalLM",
        {
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24, "dropout": 0.0,
            "word_embed_proj_dim": 16, "max_position_embeddings": 32, "attention_dropout": 0.0, **_TOKENS,
        },
        "causal",
    ),
    "bloom": Animal(
        "BloomForCausalLM",
        {"hidden_size": 16, "n_layer": 2, "n_head": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0, **_TOKENS},
        "causal",
    ),
    "falcon": Animal("FalconForCausalLM", {**_SIZES, **_TOKENS}, "causal"),
    # mixtures of experts
    "mixtral": Animal(
        "MixtralForCausalLM",
        {**_GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2},
        "causal",
        ["q_proj", *_EXPERTS],
    ),
    "qwen3_moe": Animal(
        "Qwen3MoeForCausalLM",
        {**_GROUPED, "head_dim": 8, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12},
        "causal",
    ),
    "gpt_oss": Animal(  # its experts are stored (experts, in, out)
        "GptOssForCausalLM",
        {
            **_GROUPED, "head_dim": 8, "num_local_experts": 3, "num_experts_per_tok": 2,
            "layer_types": ["full_attention"] * 2,
        },
        "causal",
        ["v_proj", *_EXPERTS],
    ),
    # state spaces
    "mamba": Animal("MambaForCausalLM", {**_STATE, "time_step_rank": 4}, "causal"),
    "mamba2": Animal(
        "Mamba2ForCausalLM", {**_STATE, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4}, "causal"
    ),
    # encoders
    "bert": Animal("BertForSequenceClassification", _ENCODER, "classes"),
    "roberta": Animal("RobertaForSequenceClassification", _ENCODER, "classes"),
    "xlm-roberta": Animal("XLMRobertaForTokenClassification", _ENCODER, "tokens"),
    "electra": Animal("ElectraForSequenceClassification", {**_ENCODER, "embedding_size": 16}, "classes"),
    "albert": Animal(
        "AlbertForSequenceClassification", {**_ENCODER, "embedding_size": 16, "classifier_dropout_prob": 0.0}, "classes"
    ),
    "distilbert": Animal(
        "DistilBertForSequenceClassification",
        {
            "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "dropout": 0.0, "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0, "vocab_size": 40, "num_labels": 3, "max_position_embeddings": 32,
        },
        "classes",
    ),
    "deberta-v2": Animal("DebertaV2ForSequenceClassification", _ENCODER, "classes"),
    "modernbert": Animal(
        "ModernBertForSequenceClassification",
        {
            **_DECODER, "num_labels": 3, "cls_token_id": 1, "sep_token_id": 2, "embedding_dropout": 0.0,
            "mlp_dropout": 0.0, "classifier_dropout": 0.0, "local_attention": 8,
        },
        "classes",
    ),
    # encoders and decoders
    "t5": Animal(
        "T5ForConditionalGeneration",
        {
            "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0,
            "vocab_size": 40, "decoder_start_token_id": 0,
        },
        "pairs",
    ),
    "bart": Animal(
        "BartForConditionalGeneration",
        {**_ONE_LAYER_EACH, "max_position_embeddings": 32, "decoder_start_token_id": 2},
        "pairs",
    ),
    # images
    "vit": Animal("ViTForImageClassification", _IMAGE, "images"),
    "dinov2": Animal("Dinov2ForImageClassification", _IMAGE, "images"),
    "swin": Animal(
        "SwinForImageClassification",
        {
            "image_size": 8, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2,
            "num_labels": 3, "drop_path_rate": 0.0, **_STILL,
        },
        "images",
    ),
    "convnext": Animal(
        "ConvNextForImageClassification",
        {"patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 3},
        "images",
        ["pwconv1", "pwconv2"],
    ),
    "clip": Animal(
        "CLIPForImageClassification",
        {"vision_config": {**_SIZES, "image_size": 8, "patch_size": 4, "attention_dropout": 0.0}, "num_labels": 3},
        "images",
    ),
    # speech
    "whisper": Animal(
        "WhisperForConditionalGeneration",
        {
            **_ONE_LAYER_EACH, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16,
            "decoder_start_token_id": 1,
        },
        "speech",
    ),
    "wav2vec2": Animal("Wav2Vec2ForSequenceClassification", {**_SIZES, **_AUDIO}, "audio"),
    # a block of a diffusion model
    "diffusion": Animal("", {}, "denoising", ["to_q", "to_v", "to_out.0"]),
}  # fmt: skip
"""Name -> architecture. RWKV is left out: transformers' own refuses a backward pass in evaluation mode."""


class Output(NamedTuple):
    """What a transformers model returns, as far as the checks read it."""

    loss: Tensor
    logits: Tensor


class DiffusionBlock(nn.Module):
    """Cross-attention on a noisy latent, with the modules and names of diffusers' ``Attention``; loss on the noise."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.to_q, self.to_k, self.to_v = (nn.Linear(n, 16, bias=False) for n in (16, 12, 12))
        self.to_out = nn.ModuleList([nn.Linear(16, 16), nn.Dropout(0.0)])

    def forward(self, latent: Tensor, context: Tensor, noise: Tensor) -> Output:
        """Return the loss and the predicted noise, both from (batch, positions, features)."""
        split = (-1, 2, 8)
        q, k, v = self.to_q(self.norm(latent)), self.to_k(context), self.to_v(context)
        q, k, v = (x.unflatten(-1, split[1:]).transpose(1, 2) for x in (q, k, v))
        seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        found = latent + self.to_out[1](self.to_out[0](seen))
        return Output(nn.functional.mse_loss(found, noise), found)


@functools.cache
def build(name: str) -> nn.Module:
    """Return the one random model of an architecture, in eval mode; copy it before it is changed."""
    import transformers

    animal = ZOO[name]
    torch.manual_seed(0)
    if not animal.model:
        return DiffusionBlock().eval()
    kind = getattr(transformers, animal.model)
    model = kind(kind.config_class(**animal.config)).eval()
    if "num_experts_per_tok" in animal.config:
        model.set_experts_implementation("eager")  # grouped products know no float64
    return model


def batch(name: str) -> dict[str, Tensor]:
    """Return one batch of three with targets."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tokens, answers = (torch.randint(3, 40, (3, length), generator=generator) for length in (6, 5))
    labels = torch.tensor([0, 1, 2])
    made = {
        "causal": lambda: {"input_ids": tokens, "labels": tokens},
        "classes": lambda: {"input_ids": tokens, "labels": labels},
        "tokens": lambda: {"input_ids": tokens, "labels": tokens % 3},
        "pairs": lambda: {"input_ids": tokens, "labels": answers},
        "images": lambda: {"pixel_values": draw(3, 3, 8, 8), "labels": labels},
        "speech": lambda: {"input_features": draw(3, 8, 16), "labels": answers},
        "audio": lambda: {"input_values": draw(3, 200), "labels": labels},
        "denoising": lambda: {"latent": draw(3, 5, 16), "context": draw(3, 4, 12), "noise": draw(3, 5, 16)},
    }
    return made[ZOO[name].batch]()
