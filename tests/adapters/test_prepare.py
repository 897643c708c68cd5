import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters import delta_weights, merge_and_continue, prepare
from theory.methods import METHODS

TARGETS = {
    "llama": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "vit": ("q_proj", "v_proj"),
    "roberta": ("query", "value"),
    "bert": ("query", "value"),
    "deberta-v2": ("query_proj", "value_proj"),
}
HEADS = ("classifier.", "pooler.")
SAVED = ".modules_to_save.default."
families = pytest.mark.parametrize("family", TARGETS)
methods = pytest.mark.parametrize("method", METHODS)


def make(build, family, method, **arguments):
    chosen = METHODS[method]
    base = build(family).double()
    return prepare(base, method, rank=3, alpha=6.0, links=2 if chosen.chained else 1, seed=5, **arguments)


def targets(model, family):
    return [n for n, m in model.named_modules() if n.endswith(TARGETS[family]) and isinstance(m, nn.Linear | Conv1D)]


@families
@methods
def test_exactly_the_methods_own_parameters_train(build, family, method):
    base = build(family)
    layers = targets(base, family)
    heads = [n for n, _ in base.named_parameters() if n.startswith(HEADS)]
    everything = {n for n, _ in base.named_parameters()}
    prepared = make(build, family, method)
    found = {n for n, p in prepared.model.named_parameters() if p.requires_grad}
    if method == "fft":
        assert found == everything
        return
    chosen = METHODS[method]
    leaf = "live" if chosen.chained else "weight"
    kinds = {"both": (f"lora_A.default.{leaf}", f"lora_B.default.{leaf}"), "b": (f"lora_B.default.{leaf}",)}
    suffixes = ("beyond_column_B.default.weight",) if chosen.selects_columns else kinds[chosen.trains]
    expected = {f"base_model.model.{layer}.{suffix}" for layer in layers for suffix in suffixes}
    expected |= {"base_model.model." + n.replace(".", ".modules_to_save.default.", 1) for n in heads}
    assert len(layers) == 2 * len(TARGETS[family])
    assert found == expected
    grouped = [p for group in prepared.optimizer_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(expected)
    adapter = sum(
        p.numel() for n, p in prepared.model.named_parameters() if p.requires_grad and "modules_to_save" not in n
    )
    sizes = [
        (m.weight.shape if isinstance(m, nn.Linear) else m.weight.shape[::-1])
        for n, m in base.named_modules()
        if n in layers
    ]
    assert adapter == sum(chosen.numbers_trained(out_features=o, in_features=i, rank=3) for o, i in sizes)


@families
@methods
def test_gradients_equal_those_of_a_dense_float64_reference(build, inputs, family, method):
    """At random parameters (second link of a chain) the gradients are G A^T and B^T G of the dense gradient G."""
    prepared = make(build, family, method)
    model, batch = prepared.model, {k: v.double() if v.is_floating_point() else v for k, v in inputs(family).items()}
    g = torch.Generator().manual_seed(11)

    def shake():
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))

    shake()
    if prepared.method.chained:
        merge_and_continue(model)
        shake()
    reference = build(family).double()
    state = dict(reference.named_parameters())
    with torch.no_grad():
        if method == "fft":
            reference.load_state_dict(model.state_dict())
        else:
            for name, delta in delta_weights(model).items():
                layer = reference.get_submodule(name)
                layer.weight += delta.t() if isinstance(layer, Conv1D) else delta
            for name, p in model.named_parameters():
                if SAVED in name:
                    state[name.removeprefix("base_model.model.").replace(SAVED, ".")].copy_(p)
    loss, want = model(**batch).loss, reference(**batch).loss
    # float64: the two sum the same products in another order.
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=1e-12)
    loss.backward()
    want.backward()
    compared = 0
    for name, p in model.named_parameters():
        if not p.requires_grad:
            assert p.grad is None
            continue
        plain = name.removeprefix("base_model.model.")
        if method == "fft":
            expected = state[plain].grad
        elif SAVED in plain:
            expected = state[plain.replace(SAVED, ".")].grad
        else:
            expected = factor_gradient(model, reference, plain)
        if expected is None:
            assert p.grad is None
            continue
        assert expected.abs().max() > 0 or "bias" in name or method == "fft"
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-12)
        compared += 1
    assert compared >= len(TARGETS[family])


def factor_gradient(model, reference, plain):
    """Return the chain rule's gradient of one factor from the dense gradient of its layer."""
    for mark in (".beyond_column_B.", ".lora_A.", ".lora_B."):
        if mark in plain:
            name = plain.split(mark)[0]
            break
    dense = reference.get_submodule(name)
    gradient = dense.weight.grad.t() if isinstance(dense, Conv1D) else dense.weight.grad
    layer = model.base_model.model.get_submodule(name)
    scale = layer.scaling["default"]
    if mark == ".beyond_column_B.":
        columns = list(layer.beyond_column_sum["default"].columns)
        unused = layer.r["default"] - len(columns)  # a remainder block leaves columns of B without effect
        return nn.functional.pad(scale * gradient[:, columns], (0, unused))
    a, b = (getattr(f["default"], "live", f["default"].weight) for f in (layer.lora_A, layer.lora_B))
    return scale * (b.t() @ gradient if mark == ".lora_A." else gradient @ a.t())


@methods
def test_all_linear_targets_every_linear_layer_but_the_head(build, method):
    prepared = make(build, "vit", method, target_modules="all-linear", modules_to_save=["classifier"])
    if method == "fft":
        return
    adapted = {n.split(".beyond")[0].split(".lora")[0] for n, p in prepared.model.named_parameters()
               if p.requires_grad and ".classifier." not in n}  # fmt: skip
    linear = {n for n, m in build("vit").named_modules() if isinstance(m, nn.Linear) and n != "classifier"}
    assert adapted == {f"base_model.model.{n}" for n in linear}


@methods
def test_every_method_learns(build, inputs, method):
    prepared = make(build, "vit", method, learning_rate=1e-2)
    batch = {k: v.double() if v.is_floating_point() else v for k, v in inputs("vit").items()}
    optimizer = prepared.create_optimizer()
    losses = []
    for _ in range(5):
        loss = prepared.model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_the_same_seed_gives_the_same_start_and_another_seed_another(build):
    for method in ("lora", "rac"):
        a, b, c = (
            prepare(build("vit"), method, rank=3, seed=s).model.state_dict() for s in (1, 1, 2)
        )  # fmt: skip
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert not all(torch.equal(a[k], c[k]) for k in a)


def test_frozen_a_survives_set_adapter(build):
    for method in ("asym", "rac"):
        model = prepare(build("vit"), method, rank=3).model
        model.set_adapter("default")
        assert not any(p.requires_grad for n, p in model.named_parameters() if ".lora_A." in n)
        assert any(p.requires_grad for n, p in model.named_parameters() if ".lora_B." in n)


def test_groups_carry_their_learning_rates_and_decay(build):
    p = prepare(build("roberta"), "lora+", rank=2, learning_rate=1e-3, head_learning_rate=5e-3, weight_decay=0.1)
    names = {id(q): n for n, q in p.model.named_parameters()}
    for group in p.optimizer_groups:
        for q in group["params"]:
            name = names[id(q)]
            rate = 5e-3 if ".classifier." in name else 16e-3 if ".lora_B." in name else 1e-3
            assert group["lr"] == pytest.approx(rate)
            assert group["weight_decay"] == (0.1 if q.ndim > 1 else 0.0)


def test_the_head_is_found_or_left_alone_as_asked(build):
    def head(**arguments):
        model = prepare(build("bert"), "cla", rank=2, **arguments).model
        return any(p.requires_grad for n, p in model.named_parameters() if "classifier" in n)

    assert head()
    assert head(modules_to_save=["classifier"])
    assert not head(modules_to_save=[])


@pytest.mark.parametrize(
    ("method", "arguments", "error", "message"),
    [
        ("clam", {}, ValueError, "unknown method 'clam'; accepted: fft, lora"),
        (3, {}, TypeError, "method must be a string, got 3 of type int"),
        ("cla", {"rank": 17}, ValueError, "r=17 is above in_features=16 of target module"),
        ("rac", {"rank": 17}, ValueError, "rank=17 is above in_features=16 of target module"),
        ("cla", {"rank": 0}, ValueError, "rank must be at least 1, got 0"),
        ("cla", {"rank": 2.0}, TypeError, "rank must be a whole number, got 2.0"),
        ("cla", {"alpha": 0}, ValueError, "alpha must be above 0 and finite, got 0"),
        ("cla", {"alpha": float("nan")}, ValueError, "alpha must be above 0 and finite, got nan"),
        ("cla", {"links": 2}, ValueError, "links=2, but 'cla' does not chain"),
        ("c3la", {"links": 0}, ValueError, "links must be at least 1, got 0"),
        ("cla", {"lr_ratio": 16.0}, ValueError, "lr_ratio=16.0 needs two trained factors, but 'cla' trains one"),
        ("rac", {"lr_ratio": 2.0}, ValueError, "lr_ratio=2.0 needs two trained factors"),
        ("lora", {"lr_ratio": -1.0}, ValueError, "lr_ratio must be above 0"),
        ("lora", {"learning_rate": 0.0}, ValueError, "learning_rate must be above 0"),
        ("lora", {"head_learning_rate": float("inf")}, ValueError, "head_learning_rate must be above 0"),
        ("lora", {"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0"),
        ("c3la", {"schedule": "epoch"}, ValueError, "schedule must be 'run' or 'link', got 'epoch'"),
        ("cla", {"target_modules": ["nothing"]}, ValueError, r"target_modules=\['nothing'\] matches no module"),
        ("lora", {"target_modules": "no.*"}, ValueError, "target_modules='no.\\*' matches no module"),
        ("cla", {"target_modules": ["layernorm"]}, ValueError, "is a LayerNorm; accepted: Linear, Conv1D"),
        ("lora", {"target_modules": ["layernorm"]}, ValueError, "is a LayerNorm; accepted: Linear, Conv1D"),
        ("cla", {"modules_to_save": ["clasifier"]}, ValueError, "modules_to_save names 'clasifier'"),
    ],
)
def test_bad_arguments_are_refused_and_the_model_is_left_as_it_was(build, method, arguments, error, message):
    model = build("vit")
    before = {n: (id(p), p.requires_grad) for n, p in model.named_parameters()}
    modules = [(n, type(m)) for n, m in model.named_modules()]
    with pytest.raises(error, match=message):
        prepare(model, method, **arguments)
    assert {n: (id(p), p.requires_grad) for n, p in model.named_parameters()} == before
    assert [(n, type(m)) for n, m in model.named_modules()] == modules


def test_a_model_with_adapters_is_refused(build):
    prepared = prepare(build("vit"), "lora", rank=2)
    with pytest.raises(ValueError, match="model already carries adapters"):
        prepare(prepared.model, "cla", rank=2)


def test_an_unknown_model_type_needs_target_modules():
    with pytest.raises(ValueError, match="target_modules must be given for model type None"):
        prepare(nn.Sequential(nn.Linear(4, 4)), "cla", rank=2)


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_updates_are_scaled_by_two_at_every_rank_unless_alpha_is_given(build, rank):
    for method in ("lora", "cla"):
        for alpha, scale in ((None, 2.0), (3.0, 3.0 / rank)):
            model = prepare(build("vit"), method, rank=rank, alpha=alpha).model
            scales = {module.scaling["default"] for module in model.modules() if isinstance(module, BaseTunerLayer)}
            assert scales == {scale}
