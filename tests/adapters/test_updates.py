"""W0 and dW of every PEFT method against the adapted model's own outputs and against PEFT's own merge."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora import LoraGAConfig, preprocess_loraga
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from adapters import updates

LINEAR = {"target_modules": ["first", "last"]}
PROMPT = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": 2}
OPTIONS = {
    "ADALORA": LINEAR | {"total_step": 10, "init_r": 4, "target_r": 2},
    "IA3": LINEAR | {"feedforward_modules": ["last"]},
    "LN_TUNING": {"target_modules": ["norm"]},
    "FOURIERFT": LINEAR | {"n_frequency": 8},
    "OFT": LINEAR | {"r": 0, "oft_block_size": 4},
    "BOFT": LINEAR | {"boft_block_size": 4},
    "C3A": LINEAR | {"block_size": 4},
    "VBLORA": LINEAR | {"vector_length": 4, "num_vectors": 8, "topk": 2, "r": 2},
    "RANDLORA": LINEAR | {"r": 4},
    "WAVEFT": LINEAR | {"n_frequency": 8},
    "MISS": LINEAR | {"r": 4},
    "SHIRA": LINEAR | {"r": 2},
    "PSOFT": LINEAR | {"r": 4},
    "ROAD": LINEAR | {"group_size": 4},
    "POLY": LINEAR | {"n_tasks": 2, "n_skills": 2, "r": 2},
}
ON_LLAMA = {
    "ADAPTION_PROMPT": {"task_type": TaskType.CAUSAL_LM, "adapter_len": 2, "adapter_layers": 1},
    "CARTRIDGE": PROMPT,
    "CPT": {
        "task_type": TaskType.CAUSAL_LM,
        "cpt_token_ids": [1, 2],
        "cpt_mask": [1, 1],
        "cpt_tokens_type_mask": [1, 1],
    },
    "PROMPT_TUNING": PROMPT,
    "MULTITASK_PROMPT_TUNING": PROMPT,
    "P_TUNING": PROMPT,
    "PREFIX_TUNING": PROMPT,
    "SHADOW": {"task_type": TaskType.CAUSAL_LM},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [1, 3]},
    "XLORA": {"task_type": TaskType.CAUSAL_LM, "hidden_size": 8, "adapters": {}},
}
REFUSED = {"LILY", "POLY", *ON_LLAMA} - {"TRAINABLE_TOKENS"}


class Net(nn.Module):
    """Two linear layers around a norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(12, 12), nn.LayerNorm(12), nn.Linear(12, 12)

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.first(x))))


def llama(**options):
    sizes = {"vocab_size": 12, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, **options)).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=12, n_positions=8, n_embd=8, n_layer=1, n_head=2)).eval()


def move(model, by=0.1, seed=1):
    """Train, in a manner of speaking: move whatever requires a gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def wrap(model, config, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's about the model and about its own methods
        return get_peft_model(copy.deepcopy(model), config, **options)


def outputs(model, x):
    with torch.no_grad():
        found = model(x)
    return getattr(found, "logits", found)


def rebuilt(base, found):
    """The plain base model with W0 + dW in it: the brute-force oracle, whatever PEFT's merge does."""
    plain = copy.deepcopy(base)
    for item in found:
        parameter = plain.get_parameter(f"{item.name}.{item.parameter}")
        torch.testing.assert_close(item.base, parameter.detach(), rtol=0, atol=0)  # W0 is what the model was
        parameter.data = (item.base.double() + item.update.double()).to(parameter.dtype)
    return plain


def check(base, adapted, x, found):
    before, after = outputs(base, x), outputs(adapted, x)
    assert (after - before).abs().max() > 1e-3  # the adapter does something
    assert found
    size = max(1.0, float(after.abs().max()), *(float(item.update.abs().max()) for item in found))
    # a few hundred float32 operations, each rounded at the size of what is summed
    torch.testing.assert_close(outputs(rebuilt(base, found), x), after, rtol=0, atol=2e-6 * size)
    merged = copy.deepcopy(adapted).merge_and_unload().state_dict()
    for item in found:
        want = merged[f"{item.name}.{item.parameter}"]
        torch.testing.assert_close((item.base + item.update).to(want.dtype), want, rtol=0, atol=2e-6 * size)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # FRoD's
@pytest.mark.parametrize("method", sorted(kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING))
def test_every_peft_method_gives_its_merged_difference_or_is_refused_by_name(method):
    config = next(config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items() if kind.value == method)
    if method in ON_LLAMA:
        base, x = llama(), torch.tensor([[1, 2, 3]])
    else:
        torch.manual_seed(0)
        base, x = Net(), torch.randn(5, 12)
    options = ON_LLAMA.get(method) or OPTIONS.get(method, LINEAR)
    if method == "XLORA":  # loads trained adapters from disk: what says what it is is its configuration
        adapted = wrap(base, LoraConfig(target_modules=["q_proj"]))
        adapted.peft_config["default"] = config(**options)
    else:
        adapted = move(wrap(base, config(**options)))
    if method in REFUSED:
        with pytest.raises(ValueError, match=method):
            list(updates(adapted))
    else:
        check(base, adapted, x, list(updates(adapted)))


class Conv(nn.Module):
    """A convolution, an embedding and attention, over 12 inputs each."""

    def __init__(self):
        super().__init__()
        self.conv, self.attention = nn.Conv2d(3, 8, 3), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        features = self.conv(x).flatten(2).mT
        return self.attention(features, features, features)[0]


class Experts(nn.Module):
    """Three matrices in one parameter, as transformers keep experts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 8, 6))

    def forward(self, x):
        return torch.einsum("bi,eio->beo", x, self.weight).sum(1)


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = Experts()

    def forward(self, x):
        return self.experts(x)


TOKENS = torch.tensor([[1, 5, 3, 7]])
KINDS = {
    "rslora": (Net, {"target_modules": ["first"], "use_rslora": True}, torch.ones(1, 12)),
    "dora": (Net, {"target_modules": ["first", "last"], "use_dora": True}, torch.ones(1, 12)),
    "bias": (Net, {"target_modules": ["first"], "lora_bias": True}, torch.ones(1, 12)),
    "conv2d": (Conv, {"target_modules": ["conv"]}, torch.arange(75.0).reshape(1, 3, 5, 5) / 75),
    "attention": (Conv, {"target_modules": ["attention"]}, torch.arange(75.0).reshape(1, 3, 5, 5) / 75),
    "experts": (Wrapped, {"target_parameters": ["experts.weight"], "r": 2}, torch.ones(1, 8)),
    "Conv1D": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}, TOKENS),
    "Conv1D, dora": (gpt2, {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True}, TOKENS),
    "embedding": (llama, {"target_modules": ["embed_tokens"]}, TOKENS),
    "tied head": (lambda: llama(tie_word_embeddings=True), {"target_modules": ["lm_head"]}, TOKENS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_has_its_w0_and_dw(kind):
    build, options, x = KINDS[kind]
    torch.manual_seed(0)
    base = build().eval()
    adapted = move(wrap(base, LoraConfig(**{"r": 2, **options})))
    if kind == "tied head":  # PEFT's own merge moves the embedding along: the outputs alone are the oracle
        (item,) = updates(adapted)
        plain = copy.deepcopy(base)
        plain.lm_head.weight = nn.Parameter(item.base + item.update)
        torch.testing.assert_close(outputs(plain, x), outputs(adapted, x), rtol=0, atol=2e-6)
    else:
        check(base, adapted, x, list(updates(adapted)))


def test_any_adapters_name_and_only_what_is_active():
    torch.manual_seed(0)
    base, x = Net(), torch.randn(5, 12)
    adapted = move(wrap(base, LoraConfig(target_modules=["first"]), adapter_name="math"))
    check(base, adapted, x, list(updates(adapted)))
    adapted.add_adapter("code", LoraConfig(target_modules=["first", "last"], r=3, lora_alpha=5))
    adapted.set_adapter("code")
    check(base, move(adapted), x, list(updates(adapted)))
    adapted.base_model.set_adapter(["math", "code"])
    both = list(updates(adapted))
    check(base, adapted, x, both)
    left_out: list[str] = []
    (alone,) = updates(adapted, adapter="math", left_out=left_out)
    assert left_out == ["adapter 'code': not active"]
    other = next(iter(updates(adapted, adapter="code")))
    torch.testing.assert_close(both[0].update, alone.update + other.update)
    with pytest.raises(ValueError, match="no layer of the model carries adapter 'none'"):
        list(updates(adapted, adapter="none"))
    with adapted.disable_adapter(), pytest.raises(ValueError, match="is disabled"):
        list(updates(adapted))


def residual(start, base, x):
    """An adapter whose start moves W0, trained a little."""
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["first", "last"], "init_lora_weights": start}
    model = copy.deepcopy(base)
    if start == "loftq":
        options["loftq_config"] = {"loftq_bits": 4, "loftq_iter": 1}
    if start == "corda":
        options["corda_config"] = CordaConfig(corda_method="kpm", verbose=False)
        preprocess_corda(model, LoraConfig(**options), run_model=lambda: model(x))
    if start == "lora_ga":
        options["lora_ga_config"] = LoraGAConfig()
        preprocess_loraga(model, LoraConfig(**options), train_step=lambda: model(x).square().sum().backward())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return move(get_peft_model(model, LoraConfig(**options)), by=0.03)


def quantized(weight, *, num_bits, reduced_rank, num_iter):
    """Stand in for LoftQ's quantisation, which needs a package for GPUs: a grid of quarters and the rest by rank."""
    coarse = (weight * 4).round() / 4
    u, s, v = torch.linalg.svd(weight - coarse, full_matrices=False)
    return coarse, v[:reduced_rank], u[:, :reduced_rank] * s[:reduced_rank]


@pytest.mark.filterwarnings("ignore:Full backward hook")  # LoRA-GA's
@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_a_start_that_moves_the_base_is_measured_against_the_base(start, monkeypatch):
    monkeypatch.setattr("peft.tuners.lora.layer.loftq_init", quantized)
    torch.manual_seed(0)
    base, x = Net(), torch.randn(40, 12)
    adapted = residual(start, base, x)
    with pytest.raises(ValueError, match=f"started by '{start}'"):
        list(updates(adapted))
    found = list(updates(adapted, base=base.state_dict()))
    check(base, adapted, x, found)
    product = next(iter(updates(adapted, adapter="default", base=adapted_base(adapted)))).update
    if start != "loftq":  # B A alone is not the update
        assert product.norm() > 2 * found[0].update.norm()


def adapted_base(model):
    return {
        name.replace("base_model.model.", "").replace(".base_layer", ""): value
        for name, value in model.state_dict().items()
    }


@pytest.mark.parametrize("start", [True, "gaussian", "eva", "orthogonal", "mica"])
def test_the_other_starts_leave_the_base_alone(start):
    torch.manual_seed(0)
    base, x = Net(), torch.randn(5, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=4, target_modules=["first"], init_lora_weights=start)
    adapted = move(wrap(base, config))
    check(base, adapted, x, list(updates(adapted)))


def test_what_is_trained_beside_the_adapter_is_named_and_a_merged_one_is_refused():
    torch.manual_seed(0)
    adapted = move(wrap(Net(), LoraConfig(target_modules=["first"], modules_to_save=["last"])))
    left_out: list[str] = []
    assert [item.name for item in updates(adapted, left_out=left_out)] == ["first"]
    assert left_out == ["last: trained in full (modules_to_save)"]
    adapted.merge_adapter()
    with pytest.raises(ValueError, match="has merged adapters"):
        list(updates(adapted))


def test_a_fresh_adapter_has_a_zero_update_of_every_layer():
    for config in (LoraConfig(target_modules=["first"]), LoraConfig(target_modules=["first"], use_dora=True)):
        (item,) = updates(wrap(Net(), config))
        assert item.update.abs().max() < 1e-7  # DoRA divides W0's norms by themselves, in float32
