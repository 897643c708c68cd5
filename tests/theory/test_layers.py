import json

import pytest

from theory import layers
from theory.expectation import method_numbers
from theory.layers import MODEL_NAMES, MODELS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIGS = {
    "vit": (transformers.ViTConfig, transformers.ViTModel),
    "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
    "deberta-v2": (transformers.DebertaV2Config, transformers.DebertaV2Model),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
}

# Sizes of the published checkpoints without task heads (ViT without pooler, RoBERTa with; the decoders with their
# language head). The model cards say 5.7M and 86.6M for the ViTs with 1000 classes (193,000 and 769,000 more),
# 1.5B for DeBERTa-v2-XXL, 86M + 98M of embeddings for DeBERTa-v3-base, 125M and 355M for RoBERTa, 124M for GPT-2,
# 1.1B, 8.03B and 1.35B for the three Llamas.
PUBLISHED = {
    "vit-tiny": 5_524_416,
    "vit-base": 85_798_656,
    "deberta-v2-xxlarge": 1_564_549_632,
    "deberta-v3-base": 183_831_552,
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "tinyllama-1.1b": 1_100_048_384,
    "llama3-8b": 8_030_261_248,
    "deepseek-coder-1.3b": 1_346_471_936,
    "gpt2-small": 124_439_808,
}


@pytest.fixture(scope="module")
def architectures():
    built = {}
    with torch.device("meta"):
        for key, numbers in MODELS.items():
            config_class, model_class = CONFIGS[numbers["model_type"]]
            options = {"add_pooling_layer": False} if numbers["model_type"] == "vit" else {}
            arguments = {name: value for name, value in numbers.items() if name != "model_type"}
            built[key] = model_class(config_class(**arguments), **options)
    return built


@pytest.mark.parametrize("key", list(MODELS))
def test_architecture_built_from_our_numbers_has_the_published_size(architectures, key):
    assert sum(parameter.numel() for parameter in architectures[key].parameters()) == PUBLISHED[key]


@pytest.mark.parametrize("key", list(MODELS))
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_config_and_live_module_give_the_same_matrices(architectures, key, targets):
    model = architectures[key]
    base = getattr(model, model.base_model_prefix, model)
    live = [layer for layer in layers.from_module(base, target_modules=targets) if "pooler" not in layer.name]
    for config in (MODELS[key], model.config, json.loads(model.config.to_json_string())):
        assert list(layers.from_config(config, target_modules=targets)) == live


def test_grouped_query_value_projections_are_narrow():
    shapes = {layer.name: (layer.out_features, layer.in_features) for layer in layers.for_model("tinyllama-1.1b")}
    assert shapes["layers.0.self_attn.q_proj"] == (2048, 2048)
    assert shapes["layers.0.self_attn.v_proj"] == (4 * 64, 2048)


def test_fused_attention_of_gpt2_is_read_as_rows_times_columns(architectures):
    fused = layers.from_module(architectures["gpt2-small"])[0]
    assert (fused.name, fused.out_features, fused.in_features) == ("transformer.h.0.attn.c_attn", 2304, 768)


def test_llama3_has_64_adapted_matrices_and_a_known_lora_size():
    adapted = layers.for_model("llama3-8b")
    assert len(adapted) == 64
    # 32 layers x (16 (4096 + 4096) + 16 (4096 + 1024)) = 6,815,744, the count PEFT prints for r = 16 on q and v.
    assert method_numbers(adapted, method="lora", rank=16) == 6_815_744


@pytest.mark.parametrize("name", ["mistral", "qwen2", "bert"])
def test_related_families_agree_with_their_architecture(name):
    config_class = {"mistral": "MistralConfig", "qwen2": "Qwen2Config", "bert": "BertConfig"}[name]
    model_class = {"mistral": "MistralModel", "qwen2": "Qwen2Model", "bert": "BertModel"}[name]
    config = getattr(transformers, config_class)(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=50
    )
    with torch.device("meta"):
        model = getattr(transformers, model_class)(config)
    assert layers.from_config(config) == layers.from_module(model)


@pytest.mark.parametrize(
    "targets",
    [["query", "value"], ["dense"], ["layer.1.attention.self.key"], r".*\.(0|2)\..*\.(query|key)", "all-linear"],
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_target_patterns_match_what_peft_matches(targets):
    peft = pytest.importorskip("peft")
    config = transformers.RobertaConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, vocab_size=40
    )
    model = transformers.RobertaModel(config)
    ours = layers.from_module(model, target_modules=targets)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets))
    theirs = {name for name, module in adapted.base_model.model.named_modules() if hasattr(module, "lora_A")}
    assert {layer.name for layer in ours} == theirs
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert trainable == method_numbers(ours, method="lora", rank=4)
    assert layers.from_module(adapted.base_model.model, target_modules=targets) == ours


def test_plain_torch_modules_and_convolutions():
    model = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 2), torch.nn.Linear(8, 5), torch.nn.Embedding(7, 8))
    assert layers.from_module(model) == (layers.LayerShape("1", 5, 8),)


def test_every_model_has_a_name_for_tables():
    assert list(MODEL_NAMES) == list(MODELS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.for_model("bert-tiny"), "model must be one of vit-tiny.*got 'bert-tiny'"),
        (lambda: layers.for_model("vit-tiny", target_modules=["query"]), r"\('query',\) matches no layer.*q_proj"),
        (lambda: layers.from_config({"model_type": "t5"}), "model_type must be one of.*got 't5'"),
        (lambda: layers.from_config({"model_type": "vit"}), "config must hold hidden_size"),
        (lambda: layers.from_config({**MODELS["vit-tiny"], "hidden_size": 0}), "hidden_size must be .* got 0"),
        (lambda: layers.from_list([(4, 0)]), "in_features of shapes.0. .'layer.0'. must be .* got 0"),
        (lambda: layers.from_list([]), "at least one layer"),
        (lambda: layers.from_list([(1, 2, 3, 4)]), r"got \(1, 2, 3, 4\) at 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match=r"module must be a torch module"):
        layers.from_module(3)
    with pytest.raises(TypeError, match=r"target_modules.0. must be a string"):
        layers.for_model("vit-tiny", target_modules=[1])
    with pytest.raises(TypeError, match=r"out_features of shapes.0. .'layer.0'. must be an integer"):
        layers.from_list([(4.5, 2)])
