"""Fused experts: columns of every expert of one parameter, and LoRA beside them."""

import copy

import pytest
import torch
import zoo
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from adapters import ColumnConfig, delta_weights, describe, export_to_lora, load_adapter, prepare, target_names
from theory.methods import METHODS


def build(name="mixtral"):
    return copy.deepcopy(zoo.build(name))


def shaken(model, seed=3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_naming_a_fused_parameter_adapts_it_beside_the_layers():
    names = target_names(build(), ["q_proj", "gate_up_proj"])
    assert names == [
        f"model.layers.{layer}.{end}" for end in ("self_attn.q_proj", "mlp.experts.gate_up_proj") for layer in (0, 1)
    ]


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])  # (experts, out, in) and (experts, in, out)
def test_the_update_of_each_expert_is_its_columns_and_nothing_else_moves(name):
    model = shaken(prepare(build(name), "r-cla", rank=2, alpha=2, target_modules=["down_proj"]).model)
    base = build(name)
    deltas = delta_weights(model)
    assert list(deltas) == [f"model.layers.{layer}.mlp.experts.down_proj.{e}" for layer in (0, 1) for e in range(3)]
    columns = {tuple(delta.abs().sum(0).nonzero().flatten().tolist()) for delta in list(deltas.values())[:3]}
    assert len(columns) == 1, "the experts of one parameter share their columns"
    assert len(columns.pop()) == 2
    merged = model.merge_and_unload()
    for (key, before), (_, after) in zip(base.named_parameters(), merged.named_parameters(), strict=True):
        if not key.endswith("experts.down_proj"):
            assert torch.equal(before, after)
            continue
        moved = (
            (after - before).mT if base.model.layers[0].mlp.experts.__dict__.get("is_transposed") else after - before
        )
        for expert in range(3):
            torch.testing.assert_close(moved[expert], deltas[f"{key}.{expert}"], rtol=0, atol=1e-6)  # fp32 at 0.1


def test_a_record_for_each_expert_counts_what_was_trained():
    records = describe(shaken(prepare(build(), "cla", rank=2, target_modules=["gate_up_proj"]).model))
    assert len(records) == 6
    for record in records:
        assert (record["out_features"], record["in_features"], record["kind"]) == (48, 16, "columns")
        assert record["numbers_trained"] == METHODS["cla"].numbers_trained(out_features=48, in_features=16, rank=2)
        assert record["support"] == [0, 1]


def test_pefts_way_of_naming_parameters_gives_the_same_adapter():
    ours = prepare(build(), "cla", rank=2, target_modules=["gate_up_proj", "down_proj"]).model
    config = ColumnConfig(
        r=2, lora_alpha=4, target_modules=[], target_parameters=["experts.gate_up_proj", "experts.down_proj"]
    )
    theirs = get_peft_model(build(), config)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_two_adapters_on_the_same_experts_switch_and_add_up():
    model = get_peft_model(
        build(), ColumnConfig(r=2, target_modules=[], target_parameters=["down_proj", "gate_up_proj"])
    )
    config = ColumnConfig(r=3, method="r-cla", target_modules=[], target_parameters=["gate_up_proj", "down_proj"])
    shaken(model).add_adapter("other", config)
    batch = zoo.batch("mixtral")
    first = model(**batch).logits
    model.set_adapter("other")
    assert torch.equal(model(**batch).logits, build()(**batch).logits), "the second one starts at zero"
    second = shaken(model, seed=4)(**batch).logits
    model.base_model.set_adapter(["default", "other"])
    both = model(**batch).logits
    assert not torch.allclose(both, first)
    assert not torch.allclose(both, second)
    with model.disable_adapter():
        assert torch.equal(model(**batch).logits, build()(**batch).logits)
    model.merge_adapter()
    torch.testing.assert_close(model(**batch).logits, both, rtol=0, atol=1e-6)  # fp32


def test_a_plain_matrix_of_a_module_is_adapted_too_and_exported(tmp_path):
    model = shaken(prepare(build(), "cla", rank=2, target_modules=["gate.weight"]).model)
    batch, want = zoo.batch("mixtral"), None
    want = model(**batch).logits
    assert not torch.allclose(want, build()(**batch).logits)
    again = PeftModel.from_pretrained(build(), export_to_lora(model, tmp_path)).eval()
    assert type(again.peft_config["default"]) is LoraConfig
    torch.testing.assert_close(again(**batch).logits, want, rtol=0, atol=1e-6)  # fp32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"r": 17},
            ValueError,
            "r=17 is above in_features=16 of target module 'model.layers.0.mlp.experts.gate_up_proj'",
        ),
        ({"lora_dropout": 0.1}, ValueError, "lora_dropout must be 0 with target_parameters, got 0.1"),
        ({"target_parameters": "gate_up_proj"}, TypeError, "target_parameters must be a list of names"),
    ],
)
def test_what_cannot_work_is_refused_before_the_model_is_touched(arguments, error, message):
    model = build()
    before = [(name, type(module)) for name, module in model.named_modules()]
    given = {"r": 2, "target_modules": [], "target_parameters": ["gate_up_proj"], **arguments}
    with pytest.raises(error, match=message):
        get_peft_model(model, ColumnConfig(**given))
    assert [(name, type(module)) for name, module in model.named_modules()] == before


def test_experts_of_another_base_are_refused(tmp_path):
    prepare(build(), "cla", rank=2, target_modules=["down_proj"]).model.save_pretrained(tmp_path)
    other = build()
    for layer in other.model.layers:
        experts = layer.mlp.experts
        experts.down_proj = nn.Parameter(experts.down_proj[:, :, :10].clone())
    with pytest.raises(ValueError, match=r"another base: .*experts.down_proj' has shape \[3, 16, 10\], expected"):
        load_adapter(other, tmp_path)
