"""Tiny random models of the families the paper and the issue name, and one training step on each."""

import pytest
import torch
from torch import nn

FAMILIES = ("llama", "gpt2", "vit", "roberta", "bert", "deberta-v2")


def pytest_configure(config):
    # PEFT's get_peft_model uses a name that transformers 5 deprecates.
    config.addinivalue_line("filterwarnings", "ignore:.*is_gradient_checkpointing.*:FutureWarning")


def build(family: str, *, seed: int = 0, hidden: int = 16, layers: int = 2) -> nn.Module:
    """Return a tiny random model of one family, in eval mode (no dropout anywhere)."""
    import transformers as t

    common = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24}
    tokens = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(seed)
    if family == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(**common, **tokens, max_position_embeddings=32))
    elif family == "gpt2":
        sizes = {"n_embd": hidden, "n_layer": layers, "n_head": 2, "n_inner": 24, "n_positions": 32}
        still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model = t.GPT2LMHeadModel(t.GPT2Config(**sizes, **tokens, **still))
    elif family == "vit":
        model = t.ViTForImageClassification(t.ViTConfig(**common, **dropout, image_size=8, patch_size=4, num_labels=3))
    elif family == "roberta":
        model = t.RobertaForSequenceClassification(t.RobertaConfig(**common, **tokens, **dropout, num_labels=3))
    elif family == "bert":
        model = t.BertForSequenceClassification(t.BertConfig(**common, **dropout, vocab_size=40, num_labels=3))
    else:
        model = t.DebertaV2ForSequenceClassification(
            t.DebertaV2Config(**common, **dropout, vocab_size=40, num_labels=3, pad_token_id=0)
        )
    return model.eval()


def inputs(family: str, *, seed: int = 1, batch: int = 3) -> dict[str, torch.Tensor]:
    """Return one batch with labels."""
    generator = torch.Generator().manual_seed(seed)
    if family == "vit":
        pixels = torch.randn(batch, 3, 8, 8, generator=generator)
        return {"pixel_values": pixels, "labels": torch.randint(3, (batch,), generator=generator)}
    tokens = torch.randint(3, 40, (batch, 6), generator=generator)
    labels = tokens if family in ("llama", "gpt2") else torch.randint(3, (batch,), generator=generator)
    return {"input_ids": tokens, "labels": labels}


@pytest.fixture(name="build", scope="session")
def build_fixture():
    return build


@pytest.fixture(name="inputs", scope="session")
def inputs_fixture():
    return inputs


@pytest.fixture
def mlp():
    """Return a maker of a small float64 perceptron: Linear(10, 8), Tanh, Linear(8, 3)."""

    def make(seed: int = 0) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    return make
