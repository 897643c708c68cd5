"""Preparing a model tries every target, and is all or nothing."""

import random
from importlib import import_module

import numpy as np
import pytest
import torch
import transformers as t
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

import adapters.lora
from adapters import ColumnConfig, delta_weights, load_adapter, prepare
from adapters.snapshot import Snapshot

DISTIL = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12, "vocab_size": 20}
MAMBA = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 2, "time_step_rank": 2}


class Encoder(nn.Module):
    """Torch's encoder, which in eval without gradients reads its layers' weights."""

    def __init__(self, *, batch_first=True):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.encoder(x))


class Attention(nn.Module):
    """Torch's attention, which always reads the weight of ``out_proj``."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.attention(x, x, x)[0])


class Reader(nn.Module):
    """A parent of one's own that reads a weight."""

    def __init__(self):
        super().__init__()
        self.one, self.out = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(torch.tanh(F.linear(x, self.one.weight, self.one.bias)))


class Branching(nn.Module):
    """A layer under each of the ways that adapters are lost, and two that are used in odd ways."""

    def __init__(self, how):
        super().__init__()
        self.how, self.one, self.out = how, nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        x = self.norm(x)
        if self.how == "without gradient":
            with torch.no_grad():
                hidden = self.one(x)
        elif self.how == "beside":
            hidden, _ = x, self.one(x)
        elif self.how == "base alone in eval" and not self.training:
            hidden = F.linear(x, getattr(self.one, "base_layer", self.one).weight)
        elif self.how in ("never", {True: "layer drop", False: "not in eval"}[self.training]):
            hidden = x
        else:
            hidden = self.one.forward(x)
        return self.out(torch.dropout(hidden, 0.5, self.training))


def numbers(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(model):
    with torch.no_grad():
        for i, p in enumerate(p for p in model.parameters() if p.requires_grad):
            p.add_(0.3 * numbers(*p.shape, seed=i, dtype=p.dtype))
    return model


def everything(model):
    """Whatever a failed preparation could have moved."""
    return {
        "modules": [(name, type(one), one.training) for name, one in model.named_modules()],
        "attributes": [{k: v for k, v in vars(one).items() if k[0] != "_"} for one in model.modules()],
        "hooks": [list(one._forward_hooks.values()) for one in model.modules()],
        "parameters": [(n, id(p), p.requires_grad, p.grad, p._version) for n, p in model.named_parameters()],
        "buffers": [(name, id(b), b.tolist()) for name, b in model.named_buffers()],
        "config": dict(vars(getattr(model, "config", nn.Module()))),
        "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
    }


@pytest.mark.parametrize("method", ["cla", "r-c3la", "paca"])
@pytest.mark.parametrize(
    ("build", "targets"),
    [(Encoder, ["linear1", "linear2", "out_proj"]), (Attention, "all-linear"), (Reader, ["one"])],
)
def test_a_parent_that_reads_the_weight_computes_with_the_adapter_in_training_and_in_eval(build, targets, method):
    """Against a dense float64 copy with the updates added to its weights; gradients are the dense ones' columns."""
    torch.manual_seed(0)
    base, x = build().double(), numbers(2, 3, 8)
    state = {name: value.clone() for name, value in base.state_dict().items()}
    model = shaken(prepare(base, method, rank=3, target_modules=targets, modules_to_save=[], seed=2).model)
    dense = build().double()
    dense.load_state_dict(state)
    updates = delta_weights(model)
    with torch.no_grad():
        for name, delta in updates.items():
            dense.get_submodule(name).weight += delta
    for module in (model, dense):
        module.train()
    torch.testing.assert_close(model(x), dense(x), rtol=1e-12, atol=1e-12)  # float64, a few products deep
    for module in (model, dense):
        module(x).square().sum().backward()
    for name in updates:
        layer = model.get_submodule("base_model.model." + name)
        columns = list(layer.beyond_column_sum["default"].columns)
        want = layer.scaling["default"] * dense.get_submodule(name).weight.grad[:, columns]
        assert want.abs().max() > 0
        torch.testing.assert_close(layer.beyond_column_B["default"].weight.grad[:, : len(columns)], want)
    with torch.no_grad():
        # The encoder's fast path sums in another order.
        torch.testing.assert_close(model.eval()(x), dense.eval()(x), rtol=1e-10, atol=1e-10)
        with model.disable_adapter():
            dense.load_state_dict(state)
            torch.testing.assert_close(model(x), dense(x), rtol=1e-12, atol=1e-12)


def test_the_weight_that_parents_read_is_what_a_merge_writes():
    for transposed in (False, True):
        base = nn.Sequential(t.pytorch_utils.Conv1D(5, 6) if transposed else nn.Linear(6, 5)).bfloat16()
        model = get_peft_model(base, ColumnConfig(r=2, target_modules=["0"], init_weights=False))
        model.add_adapter("other", ColumnConfig(method="r-cla", r=3, target_modules=["0"], init_weights=False))
        layer = base[0]
        read = layer.weight.clone()
        layer.merge()
        assert torch.equal(layer.get_base_weight(), read)
        assert torch.equal(layer.weight, read)
        layer.unmerge()
        assert not torch.equal(layer.get_base_layer().weight, read)


@pytest.mark.parametrize(
    ("build", "targets", "message"),
    [
        (Encoder, ["linear1"], "target 'encoder.layers.0.linear1' trains but does not count in eval mode"),
        (Attention, "all-linear", "target 'attention.out_proj' would train nothing: its parent, a MultiheadAttention,"),
    ],
)
def test_lora_behind_a_parent_that_reads_the_weight_is_refused_and_the_model_is_as_it_was(build, targets, message):
    base = build()
    before = everything(base)
    with pytest.raises(ValueError, match=message):
        prepare(base, "lora", rank=2, target_modules=targets, modules_to_save=[])
    assert everything(base) == before


def test_lora_in_torchs_encoder_is_taken_where_it_calls_its_layers():
    assert prepare(Encoder(batch_first=False), "lora", rank=2, target_modules=["linear1"]).untried == ()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert prepare(Encoder(), "lora", rank=2, target_modules=["linear2"]).untried == ()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("method", ["cla", "rac"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("without gradient", "target 'one' would train nothing: no gradient reaches it, though it is called"),
        ("beside", "target 'one' would train nothing: no gradient reaches it, though it is called"),
        ("never", "target 'one' would train nothing: its parent, a Branching, works without calling it"),
        ("base alone in eval", "target 'one' trains but does not count in eval mode without gradients"),
        ("not in eval", "target 'one' trains but does not count in eval mode without gradients"),
    ],
)
def test_a_target_that_would_do_nothing_is_named_and_the_model_is_as_it_was(how, message, method):
    base = Branching(how)
    base.one.register_forward_hook(lambda module, args, output: None)
    base.eval().norm.train()
    base.one.weight.requires_grad_(False)
    base.out.weight.grad = torch.ones(3, 8)
    batch = torch.randn(4, 8)
    before = everything(base)
    with pytest.raises(ValueError, match=message):
        prepare(base, method, rank=2, target_modules=["one"], batch=batch)
    assert everything(base) == before


@pytest.mark.parametrize("how", ["layer drop", "plain"])
def test_trying_a_batch_leaves_no_trace(how, monkeypatch):
    torch.manual_seed(0)
    tried, untried, batch = Branching(how), Branching(how), torch.randn(4, 8)
    untried.load_state_dict(tried.state_dict())
    torch.manual_seed(1)
    one = prepare(tried, "lora", rank=2, target_modules=["one"], batch={"x": batch})
    after = everything(one.model)
    monkeypatch.setattr(import_module("adapters.prepare"), "probe", lambda model, batch: ("one",))
    torch.manual_seed(1)
    other = prepare(untried, "lora", rank=2, target_modules=["one"], batch=batch)
    assert (one.untried, other.untried) == ((), ("one",))
    wanted = everything(other.model)
    assert [after[part] for part in ("modules", "hooks", "random")] == [
        wanted[part] for part in ("modules", "hooks", "random")
    ]
    assert all(torch.equal(a, b) for a, b in zip(tried.buffers(), untried.buffers(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tried.parameters(), untried.parameters(), strict=True))
    assert [(n, g, r) for n, _, g, r, _ in after["parameters"]] == [(n, g, r) for n, _, g, r, _ in wanted["parameters"]]


def test_a_batch_has_to_fit_and_to_reach_every_target():
    two = nn.ModuleDict({"a": nn.Sequential(nn.Linear(8, 8)), "b": nn.Sequential(nn.Linear(8, 8))})
    two.forward = lambda x: two["a"](x)
    with pytest.raises(ValueError, match=r"batch reaches 1 targets not at all, first 'b.0'"):
        prepare(two, "cla", rank=2, target_modules=["0"], batch=torch.randn(2, 8))
    with pytest.raises(ValueError, match="batch does not fit the model: mat1 and mat2 shapes"):
        prepare(nn.Sequential(nn.Linear(8, 8)), "cla", rank=2, target_modules=["0"], batch=torch.randn(2, 7))


def test_what_was_not_tried_is_named():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    assert prepare(model, "cla", rank=2, target_modules=["0", "1"]).untried == ("0", "1")
    with torch.device("meta"):
        bert = t.DistilBertModel(t.DistilBertConfig(**DISTIL))
    assert len(prepare(bert, "cla", rank=2).untried) == 2


@pytest.mark.parametrize("method", ["cla", "lora"])
def test_mambas_out_proj_is_refused_as_peft_refuses_it(method):
    base = t.MambaForCausalLM(t.MambaConfig(**MAMBA))
    before = everything(base)
    for targets in (["in_proj", "out_proj"], "all-linear"):
        with pytest.raises(ValueError, match="Module 'out_proj' is incompatible with Mamba-based models"):
            prepare(base, method, rank=2, target_modules=targets)
    assert everything(base) == before
    if method == "cla":
        with pytest.raises(ValueError, match="Module 'out_proj' is incompatible with Mamba-based models"):
            get_peft_model(base, ColumnConfig(r=2, target_modules=["out_proj"]))
        assert everything(base) == before


@pytest.mark.parametrize("method", ["cla", "cola"])
@pytest.mark.parametrize("heads", [None, ["classifier"]])
def test_what_peft_saves_by_its_ending_is_no_target(method, heads):
    """``modules_to_save=["classifier"]`` takes ``pre_classifier`` along in PEFT, which refuses adapters there."""
    base = t.DistilBertForSequenceClassification(t.DistilBertConfig(**DISTIL))
    model = prepare(base, method, rank=2, target_modules="all-linear", modules_to_save=heads).model
    trained = {n for n, p in model.named_parameters() if p.requires_grad and ".modules_to_save." in n}
    assert {name.split(".")[2] for name in trained} == {"pre_classifier", "classifier"}
    assert {d.rpartition(".")[2] for d in delta_weights(model)} == {
        "q_lin",
        "k_lin",
        "v_lin",
        "out_lin",
        "lin1",
        "lin2",
    }


def test_pefts_own_call_too_leaves_what_it_saves_by_its_ending():
    base = t.DistilBertForSequenceClassification(t.DistilBertConfig(**DISTIL))
    config = ColumnConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS")
    assert "pre_classifier" not in delta_weights(get_peft_model(base, config))
    base = t.DistilBertForSequenceClassification(t.DistilBertConfig(**DISTIL))
    with pytest.raises(TypeError, match="modules_to_save cannot be applied"):
        get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS"))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_stops_a_preparation_leaves_the_model_as_it_was(build, monkeypatch, error):
    base = build("bert")
    base.activation_checkpointing_enable()
    before = everything(base)

    def stop(*args, **kwargs):
        torch.randn(3), random.random(), np.random.rand()  # noqa: NPY002
        raise error("no")

    monkeypatch.setattr(adapters.lora, "link_layers", stop)
    with pytest.raises(error, match="no"):
        prepare(base, "lora", rank=2)
    assert everything(base) == before
    assert prepare(base, "cla", rank=2).untried == ()


def test_a_folder_that_fails_late_leaves_the_model_as_it_was(build, tmp_path, monkeypatch):
    prepare(build("bert"), "cla", rank=2).model.save_pretrained(tmp_path)
    base = build("bert")
    before = everything(base)

    def stop(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr("peft.PeftModel.load_adapter", stop)
    with pytest.raises(RuntimeError, match="no"):
        load_adapter(base, tmp_path)
    assert everything(base) == before


def test_a_snapshot_puts_back_what_was_added_taken_and_written():
    model = Branching("plain")
    before = everything(model)
    with Snapshot.undone(model):
        model.extra, model.more = nn.Linear(2, 2), 3
        del model.out
        model.norm.running_mean.add_(1)
        model.register_forward_hook(print)
        model.one.__class__ = Reader
        model.train().requires_grad_(False)
    assert everything(model) == before


@pytest.mark.parametrize("family", ["llama", "gpt2", "vit", "roberta", "bert", "deberta-v2"])
def test_transformers_models_are_tried_without_a_batch(build, family):
    for method in ("cla", "lora"):
        assert prepare(build(family), method, rank=2, target_modules="all-linear").untried == ()
