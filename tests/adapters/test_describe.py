import json
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters import ColumnConfig, LayerFactors, delta_weights, describe, factors, merge_and_continue, prepare
from theory.methods import METHODS
from theory.records import UpdateRecord

methods = pytest.mark.parametrize("method", METHODS)


def trained(build, inputs, family, method, **arguments):
    links = 2 if METHODS[method].chained else 1
    p = prepare(build(family), method, rank=3, links=links, learning_rate=1e-2, seed=3, **arguments)
    optimizer = p.create_optimizer()
    for link in range(links):
        for _ in range(2):
            p.model(**inputs(family)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if link + 1 < links:
            merge_and_continue(p.model, optimizer=optimizer)
    return p.model.eval()


def base_weights(build, family):
    layers = {n: m for n, m in build(family).named_modules() if isinstance(m, nn.Linear | Conv1D)}
    return {n: (m.weight.t() if isinstance(m, Conv1D) else m.weight).detach() for n, m in layers.items()}


@pytest.mark.parametrize("family", ["gpt2", "vit"])
@methods
def test_records_agree_with_dense_linear_algebra(build, inputs, family, method):
    model = trained(build, inputs, family, method)
    base = build(family).state_dict()
    records = describe(model, base)
    deltas, weights = delta_weights(model, base), base_weights(build, family)
    assert all(set(record) == set(UpdateRecord.__annotations__) for record in records)
    assert json.loads(json.dumps(records)) == records
    matrices = [record for record in records if record["kind"] != "head"]
    assert {r["name"] for r in matrices} <= set(deltas)
    assert all(r["name"] in deltas for r in matrices)
    assert len(matrices) >= 2
    for record in matrices:
        delta, weight = deltas[record["name"]].double().numpy(), weights[record["name"]].double().numpy()
        assert (record["out_features"], record["in_features"]) == delta.shape
        # Norms come from a Gram matrix in float64: the largest singular value keeps 14 digits or more.
        assert record["norm_update"] == pytest.approx(np.linalg.norm(delta, 2), rel=1e-6)
        assert record["norm_base"] == pytest.approx(np.linalg.norm(weight, 2), rel=1e-10)
        assert record["norm_merged"] == pytest.approx(np.linalg.norm(weight + delta, 2), rel=1e-6)
        assert record["norm_update"] > 0
        if record["support"] is not None:
            assert set(np.flatnonzero(np.abs(delta).sum(0))) <= set(record["support"])
        chosen = METHODS[method]
        if chosen.trains != "weight":
            sizes = {"out_features": record["out_features"], "in_features": record["in_features"]}
            assert record["numbers_trained"] == chosen.numbers_trained(**sizes, rank=3, links=record["links"])
        else:
            assert record["numbers_trained"] == delta.size
        assert record["links"] == (2 if chosen.chained else 1)
        assert record["a_trained"] == (chosen.trains == "both")
        assert record["bits"] == 32
        assert record["side_information_bits"] == 0


@methods
def test_everything_that_trains_is_recorded_once(build, inputs, method):
    model = trained(build, inputs, "vit", method)
    records = describe(model, build("vit").state_dict())
    assert len({r["name"] for r in records}) == len(records)
    now = sum(p.numel() for p in model.parameters() if p.requires_grad)
    earlier = now - sum(r["numbers_trained"] for r in records if r["kind"] == "head")
    links = 2 if METHODS[method].chained else 1
    matrices = sum(r["numbers_trained"] for r in records if r["kind"] != "head")
    assert matrices == earlier * links
    heads = {r["name"]: r for r in records if r["kind"] == "head"}
    assert {"classifier.weight", "classifier.bias"} <= set(heads)
    weight = model.get_submodule("classifier" if method == "fft" else "base_model.model.classifier").weight
    old = build("vit").classifier.weight
    update = np.linalg.norm((weight - old).detach().double().numpy(), 2)
    assert heads["classifier.weight"]["norm_update"] == pytest.approx(update, rel=1e-6)
    assert heads["classifier.bias"]["in_features"] == 1


def test_a_remainder_link_counts_the_columns_it_has(mlp):
    model = prepare(mlp(), "c3la", rank=4, target_modules=["0"], links=4).model
    counts = []
    for link in range(4):
        (record,) = describe(model)
        counts.append((record["numbers_trained"], record["links"], len(record["support"])))
        if link < 3:
            merge_and_continue(model)
    # 8 rows; windows of 4, 4, 2 and again 4 of the 10 columns.
    assert counts == [(32, 1, 4), (64, 2, 8), (80, 3, 10), (112, 4, 10)]


def test_given_columns_pay_for_their_choice(mlp):
    model = get_peft_model(mlp(), ColumnConfig(r=3, columns=[[0, 4, 9], [1, 2]], target_modules=["0"]))
    assert describe(model)[0]["side_information_bits"] == pytest.approx(math.log2(math.comb(10, 3)))
    merge_and_continue(model)
    want = math.log2(math.comb(10, 3)) + math.log2(math.comb(10, 2))
    assert describe(model)[0]["side_information_bits"] == pytest.approx(want)


def test_seeds_are_named_where_randomness_chose(build):
    def seed(method):
        return {r["seed"] for r in describe(prepare(build("vit"), method, rank=2, seed=9).model) if r["kind"] != "head"}

    assert seed("cla") == seed("c3la") == {None}
    assert seed("r-cla") == seed("r-c3la") == seed("paca") == seed("lora") == seed("rac") == {9}


@methods
def test_factors_give_the_update_and_the_base(build, inputs, method):
    if method == "fft":
        return
    model = trained(build, inputs, "gpt2", method, target_modules="all-linear")
    weights, deltas = base_weights(build, "gpt2"), delta_weights(model)
    found = list(factors(model))
    assert len(found) == 8
    for item in found:
        assert isinstance(item, LayerFactors)
        assert torch.equal(item.base_weight, weights[item.name])
        assert item.left.dtype == item.right.dtype == torch.float32
        layer = model.base_model.model.get_submodule(item.name)
        dense = layer.get_delta_weight("default")
        torch.testing.assert_close(item.left @ item.right, dense.t(), rtol=1e-5, atol=1e-7)  # fp32
        torch.testing.assert_close(deltas[item.name], dense.t(), rtol=1e-5, atol=1e-7)  # fp32


def test_a_reloaded_chain_still_accounts_for_all_that_was_trained(build, inputs, tmp_path):
    for method in ("cola", "c3la"):
        model = trained(build, inputs, "vit", method)
        model.save_pretrained(tmp_path / method)
        again = PeftModel.from_pretrained(build("vit"), tmp_path / method)
        for new, old in zip(describe(again), describe(model), strict=True):
            for key in ("name", "kind", "numbers_trained", "support", "a_trained"):
                assert new[key] == old[key]
            assert new["norm_update"] == pytest.approx(old["norm_update"], rel=1e-6)


def test_full_fine_tuning_needs_the_base_state(build, inputs):
    model = trained(build, inputs, "vit", "fft")
    for function in (describe, delta_weights):
        with pytest.raises(ValueError, match="base_state must be given"):
            function(model)
        with pytest.raises(ValueError, match=r"base_state\['.*'\] must have shape .*, got \(24, 24\)"):
            function(model, build("vit", hidden=24).state_dict() | {"vit.embeddings.cls_token": torch.zeros(24, 24)})


def test_other_tuners_and_variants_are_refused(mlp):
    from peft import IA3Config

    other = get_peft_model(mlp(), IA3Config(target_modules=["0"], feedforward_modules=[]))
    with pytest.raises(ValueError, match=r"of one family .*; it is of no family"):
        list(factors(other))
    dora = get_peft_model(mlp(), LoraConfig(target_modules=["0"], use_dora=True))
    with pytest.raises(ValueError, match="it is of no family"):
        list(factors(dora))


def test_nan_is_reported_not_replaced(mlp):
    model = prepare(mlp(), "cla", rank=2, target_modules=["0"]).model
    with torch.no_grad():
        model.base_model.model[0].beyond_column_B["default"].weight[0, 0] = float("nan")
    assert math.isnan(describe(model)[0]["norm_update"])
