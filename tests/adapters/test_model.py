import copy
import json
import pickle

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model
from safetensors.torch import load_file
from torch import nn

from adapters import ColumnConfig, load_adapter, merge_and_continue
from adapters.config import FORMAT_VERSION, extend_peft_type
from adapters.model import register


def randomise(model, seed=3):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn(p.shape, generator=g))
    return model


def adapted(build, family="llama", **arguments):
    config = ColumnConfig(**{"method": "r-cla", "r": 4, "lora_alpha": 8, "seed": 2, **arguments})
    return randomise(get_peft_model(build(family), config)).eval()


def logits(model, inputs, family="llama"):
    batch = {k: v for k, v in inputs(family).items() if k != "labels"}
    with torch.no_grad():
        return model(**batch).logits


def test_the_type_is_a_member_of_pefts_enumeration():
    kind = ColumnConfig().peft_type
    assert isinstance(kind, PeftType)
    assert PeftType("BEYOND_COLUMN") is kind is PeftType.BEYOND_COLUMN is extend_peft_type("BEYOND_COLUMN")
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert copy.deepcopy(kind) is kind
    assert kind in list(PeftType)
    assert json.loads(json.dumps({"peft_type": kind})) == {"peft_type": "BEYOND_COLUMN"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "vit", "roberta", "bert", "deberta-v2"])
def test_default_targets_start_at_the_base_function(build, inputs, family):
    model = get_peft_model(build(family), ColumnConfig(r=4))
    assert torch.equal(logits(model, inputs, family), logits(build(family), inputs, family))
    assert randomise(model) is model
    assert not torch.allclose(logits(model, inputs, family), logits(build(family), inputs, family))
    with model.disable_adapter():
        assert torch.equal(logits(model, inputs, family), logits(build(family), inputs, family))


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("method", ["cla", "r-cla", "c3la", "r-c3la", "paca"])
def test_save_and_load_give_the_same_logits_bit_for_bit(build, inputs, tmp_path, method, low):
    links = 3 if method in ("c3la", "r-c3la") else 1
    model = adapted(build, method=method, links=links)
    if links > 1:
        merge_and_continue(model)
        randomise(model, seed=5)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(build("llama"), tmp_path, low_cpu_mem_usage=low).eval()
    assert torch.equal(logits(again, inputs), logits(model, inputs))
    assert again.peft_config["default"].link == (1 if links > 1 else 0)
    assert not any(p.requires_grad for p in again.parameters())
    config = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(config, ColumnConfig)
    assert config.method == method


def test_auto_peft_model_and_transformers_integration_load_the_same_logits(build, inputs, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "adapter"
    build("llama").save_pretrained(base)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    model = randomise(get_peft_model(model, ColumnConfig(r=4, task_type="CAUSAL_LM"))).eval()
    model.save_pretrained(folder)
    want = logits(model, inputs)
    assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(folder).eval(), inputs), want)
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    plain.load_adapter(folder)
    assert torch.equal(logits(plain, inputs), want)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder).eval(), inputs), want)
    fresh = AutoModelForCausalLM.from_pretrained(base).eval()
    fresh.add_adapter(ColumnConfig(r=4), adapter_name="mine")
    assert {n.rsplit(".", 3)[1:][0] for n, p in fresh.named_parameters() if p.requires_grad} == {"beyond_column_B"}
    fresh.disable_adapters()
    assert torch.equal(logits(fresh, inputs), logits(build("llama"), inputs))


def test_several_adapters_switch_add_up_and_delete(build, inputs):
    model = adapted(build)
    first = logits(model, inputs)
    model.add_adapter("other", ColumnConfig(method="cla", r=2, init_weights=False))
    assert torch.equal(logits(model, inputs), first)
    model.set_adapter("other")
    second = logits(model, inputs)
    assert not torch.allclose(first, second)
    assert all(".other." in n for n, p in model.named_parameters() if p.requires_grad)
    model.base_model.set_adapter(["default", "other"])
    both = logits(model, inputs)
    assert not torch.allclose(both, first)
    model.merge_adapter()
    torch.testing.assert_close(logits(model, inputs), both, rtol=1e-4, atol=1e-6)  # fp32
    model.unmerge_adapter()
    assert torch.equal(logits(model, inputs), both)
    model.set_adapter("default")
    model.delete_adapter("other")
    assert torch.equal(logits(model, inputs), first)
    assert not any(".other." in n for n in model.state_dict())


def test_several_adapters_are_saved_and_loaded_by_name(build, inputs, tmp_path):
    model = adapted(build)
    model.add_adapter("other", ColumnConfig(method="c3la", r=2, links=2, init_weights=False))
    model.set_adapter("other")
    merge_and_continue(model, adapter="other")
    want = logits(model, inputs)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(build("llama"), tmp_path)
    again.load_adapter(tmp_path / "other", "other")
    again.set_adapter("other")
    assert torch.equal(logits(again.eval(), inputs), want)


def test_rank_and_alpha_patterns_and_layer_choice_are_followed(build):
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 4}}
    model = adapted(build, **patterns, layers_to_transform=[1], target_modules=["q_proj", "v_proj"])
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "beyond_column_B")}
    assert sorted(n.split("layers.")[1] for n in layers) == ["1.self_attn.q_proj", "1.self_attn.v_proj"]
    shapes = {n[-6:]: (m.r["default"], m.scaling["default"]) for n, m in layers.items()}
    assert shapes == {"q_proj": (2, 4.0), "v_proj": (4, 1.0)}


def test_all_linear_leaves_the_language_head_alone(build):
    model = adapted(build, "gpt2", target_modules="all-linear")
    names = {n.rsplit(".", 1)[1] for n, m in model.named_modules() if hasattr(m, "beyond_column_B")}
    assert names == {"c_attn", "c_proj", "c_fc"}


def test_modules_to_save_are_trained_and_saved(build, inputs, tmp_path):
    model = adapted(build, "vit", modules_to_save=["classifier"])
    model.save_pretrained(tmp_path)
    assert any("classifier" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    again = PeftModel.from_pretrained(build("vit"), tmp_path).eval()
    assert torch.equal(logits(again, inputs, "vit"), logits(model, inputs, "vit"))


def test_biases_train_when_asked(build):
    model = get_peft_model(build("bert"), ColumnConfig(r=2, bias="beyond_column_only"))
    names = {n.rsplit(".", 2)[-2] + "." + n.rsplit(".", 1)[-1] for n, p in model.named_parameters() if p.requires_grad}
    assert names == {"base_layer.bias", "default.weight"}


def test_merging_bf16_reports_what_rounding_lost_and_unmerging_is_exact(build):
    model = randomise(get_peft_model(build("llama").bfloat16(), ColumnConfig(r=4)))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.beyond_column_B["default"].weight.dtype == torch.float32
    with torch.no_grad():
        layer.beyond_column_B["default"].weight.fill_(1e-5)
    before = layer.base_layer.weight.clone()
    model.merge_adapter()
    # An update of 1e-5 on weights near 0.02 is below half a bf16 step for most entries (notes: 84 % unchanged).
    assert layer.merge_loss["default"] > 0.3
    assert not torch.equal(layer.base_layer.weight, before)
    model.unmerge_adapter()
    assert torch.equal(layer.base_layer.weight, before)


def test_merging_fp32_loses_nothing_to_speak_of(build):
    model = adapted(build)
    model.merge_adapter()
    losses = [m.merge_loss["default"] for m in model.modules() if hasattr(m, "merge_loss")]
    assert len(losses) == 4
    assert max(losses) < 1e-5  # update and weight are of one size, fp32 rounds at 6e-8


def test_safe_merge_refuses_nan_and_leaves_the_weight(build):
    model = adapted(build)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    before = layer.base_layer.weight.clone()
    with torch.no_grad():
        layer.beyond_column_B["default"].weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaNs detected"):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.base_layer.weight, before)
    assert not layer.merged


def test_dropout_acts_on_the_selected_inputs_in_training_only(build, inputs):
    model = adapted(build, lora_dropout=0.5)
    want = logits(adapted(build), inputs)
    assert torch.equal(logits(model, inputs), want)
    model.train()
    torch.manual_seed(0)
    one = logits(model, inputs)
    torch.manual_seed(1)
    two = logits(model, inputs)
    assert not torch.allclose(one, two)
    torch.manual_seed(0)
    assert torch.equal(logits(model, inputs), one)
    model(**inputs("llama")).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


class Doubled(nn.Linear):
    """A linear layer whose call does more than its weight says."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_hooked_and_subclassed_bases_are_called_not_bypassed():
    torch.manual_seed(0)
    calls = []
    base = nn.Sequential(Doubled(6, 5), nn.Linear(5, 4)).double()
    base[1].register_forward_hook(lambda module, args, output: calls.append(1))
    model = get_peft_model(base, ColumnConfig(r=2, lora_alpha=2, target_modules=["0", "1"]))
    randomise(model)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    hidden = (
        2 * nn.functional.linear(x, base[0].weight, base[0].bias) + x[:, :2] @ base[0].beyond_column_B.default.weight.T
    )
    want = base[1].base_layer(hidden) + hidden[:, :2] @ base[1].beyond_column_B.default.weight.T
    calls.clear()
    torch.testing.assert_close(model(x), want)
    assert calls == [1]
    got = torch.autograd.grad(model(x).square().sum(), x)[0]
    torch.testing.assert_close(got, torch.autograd.grad(want.square().sum(), x)[0])


@pytest.mark.parametrize("rows", [2, 9])
@pytest.mark.parametrize("how", ["plain", "hooked", "dropout", "autocast", "frozen sum", "two adapters", "bf16"])
def test_an_in_place_activation_may_follow_an_adapted_layer(how, rows):
    """Both sides of the folded path's threshold, and every way through the layer."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
    if how == "hooked":
        base[0].register_forward_hook(lambda module, args, output: None)
    config = {"method": "c3la", "r": 2, "links": 2, "target_modules": ["0"]}
    model = get_peft_model(base, ColumnConfig(**config, lora_dropout=0.5 if how == "dropout" else 0.0))
    if how == "frozen sum":
        merge_and_continue(randomise(model))
    if how == "two adapters":
        model.add_adapter("other", ColumnConfig(r=3, target_modules=["0"]))
        model.base_model.set_adapter(["default", "other"])
    model = randomise(model.bfloat16() if how == "bf16" else model).train()
    x = torch.randn(rows, 6, dtype=torch.bfloat16 if how == "bf16" else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        y = model(x)
    y.float().square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing_and_training_mode_give_the_plain_gradients(build, inputs):
    plain, saved = adapted(build).train(), adapted(build).train()
    saved.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    for model in (plain, saved):
        model(**inputs("llama"), use_cache=False).loss.backward()
    for (name, p), (_, q) in zip(plain.named_parameters(), saved.named_parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad, msg=name)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapted_block_compiles_without_graph_breaks():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model = get_peft_model(
        base, ColumnConfig(method="r-c3la", r=2, links=2, init_weights=False, target_modules=["0", "2"])
    )
    merge_and_continue(model)
    randomise(model)
    x = torch.randn(3, 6)
    explained = torch._dynamo.explain(model.base_model.model)(x)
    assert explained.graph_break_count == 0
    compiled = torch.compile(model.base_model.model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


def test_a_model_pickles_and_copies(build, inputs):
    model = adapted(build, method="c3la", links=2)
    merge_and_continue(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin, inputs), logits(model, inputs))
        twin.load_state_dict(model.state_dict())


def test_adapter_names_are_refused(build, inputs):
    with pytest.raises(ValueError, match=r"adapter_names=.* is not supported by column adapters"):
        adapted(build)(**inputs("llama"), adapter_names=["default"] * 3)


def test_quantised_bases_train_and_merge_with_a_warning_for_four_bits(build):
    bnb = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    quantised = nn.Sequential(bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False), bnb.nn.Linear4bit(64, 64))
    quantised.load_state_dict(base.state_dict())
    quantised = quantised.to("cpu")  # bitsandbytes quantises when weights are moved
    x = torch.randn(3, 64, requires_grad=True)
    first = quantised[0](x)
    model = get_peft_model(quantised, ColumnConfig(method="c3la", r=4, links=2, target_modules=["0", "1"]))
    randomise(model)
    want = first + 2 * x[:, :4] @ quantised[0].beyond_column_B["default"].weight.T
    torch.testing.assert_close(quantised[0](x), want)
    model(x).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters() if p.requires_grad)
    merge_and_continue(model)
    torch.testing.assert_close(quantised[0](x), want)
    unmerged = model(x)
    with pytest.warns(UserWarning, match="4-bit base"):
        model.merge_adapter()
    # Merging re-quantises: 4 bits keep the output to about a tenth.
    assert (model(x) - unmerged).norm() < 0.2 * unmerged.norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 0}, "r must be a whole number of at least 1, got 0"),
        ({"r": 2.5}, "r must be a whole number of at least 1, got 2.5"),
        ({"rank_pattern": {"q_proj": -1}}, "q_proj must be a whole number of at least 1, got -1"),
        ({"lora_alpha": 0}, "lora_alpha must be above 0, got 0"),
        ({"lora_dropout": 1.0}, r"lora_dropout must lie in \[0, 1\), got 1.0"),
        ({"method": "lora"}, "method 'lora' does not select columns; accepted: cla, r-cla, c3la, r-c3la, paca"),
        ({"method": "nope"}, "unknown method 'nope'"),
        ({"links": 2, "method": "cla"}, "links must be 1 for 'cla'"),
        ({"link": 1}, "link must lie between 0 and links-1=0, got 1"),
        ({"columns": [1, 1]}, "columns must be distinct over all links, got 1 more than once"),
        ({"columns": [[0, 1], [1, 2]]}, "columns must be distinct over all links, got 1 more than once"),
        ({"columns": [[]]}, "columns must be distinct over all links, got none"),
        ({"format_version": FORMAT_VERSION + 1}, "format_version 2 is newer than this package reads"),
    ],
)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ColumnConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 17}, "r=17 is above in_features=16 of target module"),
        ({"columns": [0, 16]}, "columns has 16, outside in_features=16 of target module"),
        ({"columns": [0, 1, 2], "r": 2}, "columns of link 0 must number between 1 and rank=2, got 3"),
        ({"target_modules": ["embed_tokens"]}, "'model.embed_tokens' is a Embedding; accepted: Linear, Conv1D"),
        ({"target_modules": ["nothing"]}, "nothing"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_it_is_touched(build, change, message):
    model = build("llama")
    modules = [(n, type(m)) for n, m in model.named_modules()]
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, ColumnConfig(**{"r": 4, **change}))
    assert [(n, type(m)) for n, m in model.named_modules()] == modules
    assert [p.requires_grad for p in model.parameters()] == flags


def break_file(folder, how):
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif how == "missing":
        weights.unlink()
    elif how == "newer":
        config.write_text(json.dumps({**json.loads(config.read_text()), "format_version": 99}))


@pytest.mark.parametrize(
    ("how", "hidden", "message"),
    [
        ("truncated", 16, "adapter_model.safetensors is not a complete safetensors file"),
        ("missing", 16, "folder must hold adapter_config.json and adapter_model.safetensors"),
        ("newer", 16, "format_version 99 is newer"),
        ("other base", 24, "the saved adapter is for another base"),
    ],
)
def test_a_file_that_does_not_fit_leaves_the_model_as_it_was(build, tmp_path, how, hidden, message):
    adapted(build).save_pretrained(tmp_path)
    break_file(tmp_path, how)
    model = build("llama", hidden=hidden)
    modules = [(n, type(m)) for n, m in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        load_adapter(model, tmp_path)
    assert [(n, type(m)) for n, m in model.named_modules()] == modules


def test_pefts_own_loader_refuses_another_base_before_touching_it(build, tmp_path):
    adapted(build).save_pretrained(tmp_path)
    model = build("llama", hidden=24)
    modules = [(n, type(m)) for n, m in model.named_modules()]
    with pytest.raises(ValueError, match=r"another base: .* has shape \[24, 24\], expected \[16, 16\]"):
        PeftModel.from_pretrained(model, tmp_path)
    assert [(n, type(m)) for n, m in model.named_modules()] == modules


def test_weights_of_other_columns_are_noticed(build, tmp_path):
    adapted(build).save_pretrained(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "seed": 3}))
    with pytest.raises(ValueError, match="trained other columns"):
        PeftModel.from_pretrained(build("llama"), tmp_path)


def test_load_adapter_loads_ours_and_plain_lora(build, inputs, tmp_path):
    model = adapted(build)
    model.save_pretrained(tmp_path / "ours")
    assert torch.equal(logits(load_adapter(build("llama"), tmp_path / "ours").eval(), inputs), logits(model, inputs))
    lora = get_peft_model(build("llama"), LoraConfig(r=2, init_lora_weights=False)).eval()
    lora.save_pretrained(tmp_path / "lora")
    assert torch.equal(logits(load_adapter(build("llama"), tmp_path / "lora").eval(), inputs), logits(lora, inputs))
    trainable = load_adapter(build("llama"), tmp_path / "ours", is_trainable=True)
    assert sum(p.requires_grad for p in trainable.parameters()) == 4


def test_registering_twice_changes_nothing():
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    before = dict(PEFT_TYPE_TO_TUNER_MAPPING)
    register()
    assert before == PEFT_TYPE_TO_TUNER_MAPPING


@pytest.mark.parametrize("family", ["roberta", "deberta-v2"])  # heads of several layers
def test_unloading_keeps_a_trained_head_of_several_layers(build, inputs, family):
    kept = ["classifier", "pooler"] if family == "deberta-v2" else ["classifier"]
    model = adapted(build, family, modules_to_save=kept)
    want = logits(model, inputs, family)
    torch.testing.assert_close(logits(model.merge_and_unload(), inputs, family), want, rtol=1e-5, atol=1e-6)  # fp32
