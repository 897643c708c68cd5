"""What PEFT's LoRA does and column adapters do not: PEFT's faults, mended on our side."""

import pytest
import torch
import transformers as t
from peft import PeftModel, get_peft_model
from torch import nn

from adapters import ColumnConfig, delta_weights, load_adapter, merge_and_continue, prepare

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
WORDS = {"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, **WORDS}
TOKENS = torch.tensor([[3, 4, 5, 6]])


def tied():
    torch.manual_seed(0)
    return t.LlamaForCausalLM(t.LlamaConfig(**LLAMA, tie_word_embeddings=True)).eval()


def two(*, first=None, **second):
    """A layer in float64 with two random adapters, both active."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 5)).double()
    common = {"target_modules": ["0"], "init_weights": False}
    model = get_peft_model(base, ColumnConfig(**{"r": 2, "lora_alpha": 3, **common, **(first or {})}))
    model.add_adapter("other", ColumnConfig(**{"method": "r-cla", "r": 3, "seed": 4, **common, **second}))
    model.base_model.set_adapter(["default", "other"])
    return model


def numbers(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")  # PEFT's, on adding
@torch.no_grad()
def test_merging_a_tied_language_head_leaves_the_embedding(tmp_path):
    model = get_peft_model(tied(), ColumnConfig(r=2, target_modules=["lm_head", "q_proj"], init_weights=False))
    embedding, kept = model.get_input_embeddings(), tied().get_input_embeddings().weight.clone()
    want = model(TOKENS).logits
    assert not torch.allclose(want, tied()(TOKENS).logits, atol=1e-3)
    model.merge_adapter()
    torch.testing.assert_close(model(TOKENS).logits, want, rtol=1e-5, atol=1e-5)  # fp32, one product for two
    assert torch.equal(embedding.weight, kept)
    model.unmerge_adapter()
    assert torch.equal(model(TOKENS).logits, want)
    assert model.base_model.model.lm_head.base_layer.weight is embedding.weight
    with pytest.warns(UserWarning, match="no longer tied after merging"):  # PEFT sets the configuration, and says so
        merged = model.merge_and_unload()
    torch.testing.assert_close(merged(TOKENS).logits, want, rtol=1e-5, atol=1e-5)
    assert torch.equal(merged.get_input_embeddings().weight, kept)
    merged.save_pretrained(tmp_path)
    again = t.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(TOKENS).logits, want, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Already following adapters were merged:UserWarning")
@pytest.mark.parametrize("merged", [["default"], ["other"]])
def test_merging_one_of_two_active_adapters_keeps_the_other(merged):
    model, x = two(), numbers(4, 6)
    want, base = model(x), model.base_model.model[0].base_layer.weight.clone()
    model.merge_adapter(merged)
    torch.testing.assert_close(model(x), want, rtol=1e-13, atol=1e-13)  # float64, the same sums in another order
    model.merge_adapter()
    torch.testing.assert_close(model(x), want, rtol=1e-13, atol=1e-13)
    model.unmerge_adapter()
    assert torch.equal(model.base_model.model[0].base_layer.weight, base)
    model.merge_adapter(merged)
    with model.disable_adapter():
        assert torch.equal(model(x), nn.functional.linear(x, base, model.base_model.model[0].base_layer.bias))
    torch.testing.assert_close(model(x), want, rtol=1e-13, atol=1e-13)


def test_leaving_disable_adapter_leaves_frozen_what_was_frozen(build, tmp_path):
    trained = prepare(build("vit"), "cla", rank=2).model
    trained.save_pretrained(tmp_path)
    for model in (load_adapter(build("vit"), tmp_path), trained):
        before = [p.requires_grad for p in model.parameters()]
        with model.disable_adapter():
            pass
        assert [p.requires_grad for p in model.parameters()] == before
        model.base_model.disable_adapter_layers()
        model.base_model.disable_adapter_layers()
        model.base_model.enable_adapter_layers()
        assert [p.requires_grad for p in model.parameters()] == before
    assert any(before)
    native = build("vit")
    native.load_adapter(str(tmp_path))
    before = [p.requires_grad for p in native.parameters()]
    native.disable_adapters()
    native.enable_adapters()
    assert [p.requires_grad for n, p in native.named_parameters() if "beyond" in n] == [False] * 4
    assert len(before) == len(list(native.parameters()))


def test_switching_while_disabled_trains_what_was_switched_to():
    model = two()
    model.set_adapter("default")
    with model.disable_adapter():
        model.set_adapter("other")
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "base_model.model.0.beyond_column_B.other.weight"
    ]


@pytest.mark.parametrize("method", ["cla", "lora"])
def test_a_target_that_matches_nothing_beside_one_that_does_is_named(build, method):
    with pytest.warns(UserWarning, match="target_modules names 'qery', 'valu', by which nothing is adapted"):
        prepare(build("bert"), method, rank=2, target_modules=["query", "valu", "qery"])
    with pytest.warns(UserWarning, match="target_modules names 'classifier', by which nothing is adapted"):
        prepare(build("bert"), method, rank=2, target_modules=["query", "classifier"])
    if method == "cla":
        with pytest.warns(UserWarning, match="target_modules names 'qery', by which nothing is adapted"):
            get_peft_model(build("bert"), ColumnConfig(r=2, target_modules=["query", "qery"]))


@pytest.mark.parametrize(
    ("first", "second", "rank"),
    [
        ({}, {"method": "cla", "r": 2, "seed": 0, "lora_alpha": 5}, 2),  # alike: the selector stays
        ({"method": "r-cla", "seed": 4, "r": 3}, {}, 3),
        ({}, {"method": "cla"}, 3),  # a wider window holds the narrower one
        ({"columns": [1, 3]}, {"method": "paca", "columns": [3, 5]}, 3),
        ({"method": "c3la", "links": 2}, {"method": "cla"}, 4),
    ],
)
def test_a_weighted_sum_of_column_adapters_is_exact(first, second, rank, tmp_path):
    model, x = two(first=first, **second), numbers(4, 6)
    if model.peft_config["default"].links > 1:
        model.base_model.set_adapter("default")
        merge_and_continue(model)
        with torch.no_grad():
            model.base_model.model[0].beyond_column_B["default"].weight.normal_()
    model.add_weighted_adapter(["default", "other"], [0.5, -2.0], "sum", combination_type="cat")
    layer = model.base_model.model[0]
    want = 0.5 * layer.get_delta_weight("default") - 2.0 * layer.get_delta_weight("other")
    torch.testing.assert_close(layer.get_delta_weight("sum"), want, rtol=1e-13, atol=1e-13)
    assert model.peft_config["sum"].r == rank
    model.set_adapter("sum")
    got = model(x)
    torch.testing.assert_close(got, nn.functional.linear(x, layer.base_layer.weight + want, layer.bias))
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    again = nn.Sequential(nn.Linear(6, 5)).double()
    again.load_state_dict({"0.weight": layer.base_layer.weight, "0.bias": layer.bias})
    torch.testing.assert_close(PeftModel.from_pretrained(again, tmp_path / "sum")(x), got, rtol=1e-6, atol=1e-6)


def test_a_chains_sum_with_itself_keeps_its_links():
    model = two(first={"method": "c3la", "links": 3}, method="c3la", links=3, r=2, seed=0)
    for name in ("default", "other"):
        merge_and_continue(model, adapter=name)
        with torch.no_grad():
            model.base_model.model[0].beyond_column_B[name].weight.normal_()
    model.add_weighted_adapter(["default", "other"], [1.0, 3.0], "sum")
    layer, config = model.base_model.model[0], model.peft_config["sum"]
    assert (config.method, config.links, config.link, config.r) == ("c3la", 3, 1, 2)
    want = layer.get_delta_weight("default") + 3 * layer.get_delta_weight("other")
    torch.testing.assert_close(layer.get_delta_weight("sum"), want, rtol=1e-13, atol=1e-13)
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".sum." in n)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["default"], [1.0, 2.0], "sum"), "weights must be as many as adapters, at least one, got 2 for 1"),
        (([], [], "sum"), "weights must be as many as adapters, at least one, got 0 for 0"),
        ((["nobody"], [1.0], "sum"), "adapters must name column adapters of the model .default, other., got 'nobody'"),
        ((["default"], [float("nan")], "sum"), "weights must be finite, got nan for 'default'"),
        ((["default"], [1.0], "other"), "adapter_name must be new, got 'other'"),
        ((["default"], [1.0], "a.b"), "adapter_name must not be empty, hold a dot"),
        ((["default"], [1.0], "sum", "svd"), "combination_type must be 'linear' or 'cat': columns add, got 'svd'"),
    ],
)  # fmt: skip
def test_sums_that_cannot_be_are_refused_before_anything_is_added(arguments, message):
    model = two()
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        model.add_weighted_adapter(*arguments)
    assert list(model.state_dict()) == before
    assert list(model.peft_config) == ["default", "other"]


def test_sums_over_layers_that_differ_in_their_columns_are_refused(build):
    model = get_peft_model(build("bert"), ColumnConfig(method="r-cla", r=2))
    model.add_adapter("other", ColumnConfig(method="r-cla", r=2, seed=1))
    with pytest.raises(ValueError, match=r"select other columns in layer .*; export them with export_to_lora"):
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "sum")
    assert len(delta_weights(model)) == 4
