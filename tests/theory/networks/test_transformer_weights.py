"""The bound on transformers as shipped: tiny random models of four families, with and without an update."""

import copy

import numpy as np
import pytest
import torch
import transformers

from theory.networks.transformer import transformer_perturbation
from theory.networks.transformer_weights import read_transformer

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def build(family):
    torch.manual_seed(0)
    if family == "bert":
        config = transformers.BertConfig(**SIZES, vocab_size=20, layer_norm_eps=1e-3)
        return transformers.BertModel(config), "gelu"
    if family == "vit":
        config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4, layer_norm_eps=1e-3)
        return transformers.ViTModel(config), "gelu"
    if family == "llama":
        config = transformers.LlamaConfig(**SIZES, num_key_value_heads=1, vocab_size=20, rms_norm_eps=1e-3)
        return transformers.LlamaModel(config), "silu"
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_inner=24, vocab_size=20, layer_norm_epsilon=1e-3)
    return transformers.GPT2Model(config), "gelu_new"


def run(model, family, tokens):
    with torch.no_grad():
        if family == "bert":
            return model.encoder(tokens).last_hidden_state
        if family == "vit":
            for layer in model.layers:
                tokens = layer(tokens)
            return model.layernorm(tokens)
        if family == "llama":
            return model(inputs_embeds=tokens).last_hidden_state
        positions = model.wpe.weight[: tokens.shape[1]]
        return model(inputs_embeds=tokens - positions).last_hidden_state


ADAPTED = {"bert": ("query", "value"), "vit": ("q_proj", "v_proj"), "llama": ("q_proj", "v_proj"), "gpt2": ("c_attn",)}


def update(model, family, size):
    """Perturb the adapted modules; returns the changed copy and dW as out_features x in_features."""
    changed, deltas = copy.deepcopy(model), {}
    generator = torch.Generator().manual_seed(1)
    for name, module in changed.named_modules():
        if name.rsplit(".", 1)[-1] in ADAPTED[family]:
            delta = size * torch.randn(module.weight.shape, generator=generator, dtype=torch.float64) / 4
            module.weight.data += delta
            deltas[name] = (delta.T if family == "gpt2" else delta).numpy()
    return changed, deltas


@pytest.mark.parametrize("family", ["bert", "vit", "llama", "gpt2"])
@pytest.mark.parametrize("size", [1e-5, 1e-2, 1.0])
def test_shipped_transformers_stay_within_the_bound(family, size):
    model, activation = build(family)
    model = model.double().eval()
    changed, deltas = update(model, family, size)
    assert deltas
    blocks, final = read_transformer(
        model.state_dict(),
        deltas,
        family=family,
        heads=2,
        epsilon=1e-3,
        activation=activation,
        key_value_heads=1 if family == "llama" else None,
    )
    radius = 2.0
    bound = transformer_perturbation(blocks, radius=radius, final_norm=final)
    rng = np.random.default_rng(2)
    tokens = rng.normal(size=(64, 5, 16))
    tokens *= radius / np.linalg.norm(tokens, axis=-1, keepdims=True)
    before, after = (run(m, family, torch.from_numpy(tokens)).numpy() for m in (model, changed))
    moved = np.linalg.norm(after - before, axis=-1).max()
    assert 0 < moved <= bound.difference
    assert np.linalg.norm(before, axis=-1).max() <= bound.base * (1 + 1e-12)
    assert np.linalg.norm(after, axis=-1).max() <= bound.updated * (1 + 1e-12)


def test_names_and_shapes_that_do_not_fit_are_refused():
    model, _ = build("vit")
    weights = model.state_dict()
    settings = {"heads": 2, "epsilon": 1e-3, "activation": "gelu"}
    with pytest.raises(ValueError, match="family"):
        read_transformer(weights, {}, family="deberta", **settings)
    with pytest.raises(ValueError, match="'llama'"):
        read_transformer(weights, {}, family="llama", **settings)
    with pytest.raises(ValueError, match="updates"):
        read_transformer(weights, {"head": np.ones((2, 2))}, family="vit", **settings)
    with pytest.raises(ValueError, match="shape"):
        read_transformer(weights, {"layers.0.attention.q_proj": np.ones((2, 2))}, family="vit", **settings)
    with pytest.raises(ValueError, match="least_spreads"):
        read_transformer(weights, {}, family="vit", least_spreads=[1.0], **settings)
