"""What is adapted and what is a head is decided once: everyone who asks gets the same matrices, whatever the model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import transformers as t
from peft.utils import ModulesToSaveWrapper

import adapters
from analysis.certificates.short_code import adapted_modules, reached_subspace
from analysis.certificates.subspace import Subspace
from analysis.measures import adapted_weights, run_updates
from analysis.runs.scalars import run_measures
from analysis.tasks import TINY_MODELS
from analysis.tasks.models import load_pretrained, supports_multiple_choice
from theory import layers
from theory.heads import head_modules, is_inside, trained_heads

pytestmark = pytest.mark.usefixtures("model_cache")

ROOT = "base_model.model."
TEXT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}


def zoo() -> Iterator[tuple[str, str]]:
    """Name every tiny model with every kind of task that its architecture has a head for."""
    for name, family in TINY_MODELS.items():
        if family == "vit":
            yield name, "image-classification"
            continue
        yield from ((name, kind) for kind in ("text-classification", "regression"))
        yield name, "causal-lm" if family in ("llama", "gpt2") else "multiple-choice"


def one_layer_bert():
    return t.BertForSequenceClassification(t.BertConfig(**TEXT, num_hidden_layers=1))


def new_pooler():
    model = one_layer_bert()
    model.missing_keys = ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.weight"]
    return model


def distilbert():
    sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 40}
    return t.DistilBertForSequenceClassification(t.DistilBertConfig(**sizes))


@pytest.fixture(
    params=[*zoo(), one_layer_bert, new_pooler, distilbert],
    ids=lambda item: item.__name__ if callable(item) else "-".join(item),
)
def model(request):
    if callable(request.param):
        return request.param()
    name, kind = request.param
    if kind == "multiple-choice":
        assert supports_multiple_choice(f"tiny:{name}")
    return load_pretrained(f"tiny:{name}", kind=kind, num_labels=3, seed=0)


def in_place_run(model, base, targets=None):
    """What a loaded run shows to the measures."""
    return SimpleNamespace(model=model, base_state=base, record={"config": {"target_modules": targets}})


def changed(model):
    """The model with every number moved, as full fine-tuning leaves it."""
    base = {name: value.clone() for name, value in model.state_dict().items()}
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.5)
    return tuned, base


def matrices(records):
    return [record["name"] for record in records if record["kind"] != "head"]


def test_everyone_who_asks_what_adapters_adapt_gets_the_same_matrices(model):
    tuned, base = changed(model)
    expected = [layer.name for layer in layers.from_module(model)]
    assert adapters.target_names(model) == expected
    assert adapted_modules(model, targets="attention", layers=0) == expected
    assert adapted_weights(tuned, {"config": {}}) == [f"{name}.weight" for name in expected]
    assert [layer.name for layer in run_updates(in_place_run(tuned, base))] == expected
    prepared = adapters.prepare(model, "lora", rank=2).model
    assert [layer.name for layer in adapters.factors(prepared)] == expected
    assert list(adapters.delta_weights(prepared)) == expected
    assert matrices(adapters.describe(prepared)) == expected
    assert [layer.name for layer in run_updates(in_place_run(prepared, base))] == expected


def test_full_fine_tuning_counts_what_adapters_on_every_linear_layer_would(model):
    tuned, base = changed(model)
    expected = [layer.name for layer in layers.from_module(model, target_modules="all-linear")]
    assert adapters.target_names(model, "all-linear") == expected
    records = adapters.describe(tuned, base)
    assert matrices(records) == expected
    deltas = adapters.delta_weights(tuned, base)
    assert list(deltas) == expected
    ones = torch.ones(1).numpy()
    outputs = SimpleNamespace(margins=ones, losses=ones, weights=ones, errors=ones)
    scalars = run_measures(tuned, base_state=base, updates=records, train=outputs)
    size = sum(record["numbers_trained"] for record in records if record["kind"] != "head")
    assert scalars["frobenius_norm_update"] == pytest.approx(0.5 * size**0.5, rel=1e-4)
    assert scalars["numbers_trained"] == size
    assert [layer.name for layer in run_updates(in_place_run(tuned, base, expected))] == expected
    blocks = adapted_modules(model, targets="all-linear", layers=0)
    assert blocks == [name for name in expected if ".pooler." not in name]
    prepared = adapters.prepare(model, "lora", rank=1, target_modules="all-linear").model
    assert matrices(adapters.describe(prepared)) == expected


def test_everyone_who_asks_what_the_head_is_gets_the_same_modules(model):
    heads, trained = head_modules(model), trained_heads(model)
    tuned, base = changed(model)
    inside = {name for name, _ in model.named_parameters() if is_inside(name, heads)}
    in_full = {record["name"] for record in adapters.describe(tuned, base) if record["kind"] == "head"}
    assert inside <= in_full
    assert not any(is_inside(name, heads) for name in adapters.target_names(model, "all-linear"))
    prepared = adapters.prepare(copy.deepcopy(model), "cla", rank=2).model
    saved = [name.removeprefix(ROOT) for name, m in prepared.named_modules() if isinstance(m, ModulesToSaveWrapper)]
    assert sorted(saved) == sorted(trained)
    described = {record["name"] for record in adapters.describe(prepared) if record["kind"] == "head"}
    assert described == {name for name, _ in model.named_parameters() if is_inside(name, trained)}
    parts = Subspace(prepared, numbers={"adapter": 1, "head": 1 if trained else 0}, seed=0)
    coded = set(parts.parameters({group: torch.ones(1) for group in ("adapter", "head")}))
    trainable = {name for name, p in prepared.named_parameters() if p.requires_grad}
    assert coded == trainable
    size = sum(parameter.numel() for name, parameter in model.named_parameters() if name in described)
    with pytest.raises(ValueError, match=f"head_numbers must be at most the {size} numbers"):
        Subspace(prepared, numbers={"head": size + 1}, seed=0)
    choice = {"rank": 2, "seed": 0, "method": "cla", "targets": "attention", "layers": 0, "adapter_numbers": 1}
    rebuilt = reached_subspace(model, {**choice, "head_numbers": 0}, heads=trained).model
    assert {n for n, p in rebuilt.named_parameters() if p.requires_grad} == trainable


def test_one_layer_bert_has_two_adapted_matrices_and_seven_linear_ones():
    # six in the block and the pretrained pooler; the classifier is the head
    assert len(adapters.target_names(one_layer_bert())) == 2
    assert len(adapters.target_names(one_layer_bert(), "all-linear")) == 7
    assert len(adapters.target_names(new_pooler(), "all-linear")) == 6


def test_targets_named_by_the_user_never_lie_in_what_is_trained_in_full():
    model = t.RobertaForSequenceClassification(t.RobertaConfig(**TEXT, num_hidden_layers=1))
    names = adapters.target_names(model, ["dense"])
    assert names == [layer.name for layer in layers.from_module(model, target_modules=["dense"])]
    assert not any(name.startswith("classifier") for name in names)
    assert "classifier.dense" in adapters.target_names(model, ["dense"], trained_in_full=[])
    assert adapters.target_names(model, r".*\.(query|key)") == [
        f"roberta.encoder.layer.0.attention.self.{name}" for name in ("query", "key")
    ]
