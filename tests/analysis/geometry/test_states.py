"""Every end and every checkpoint has the loss of the model that it names; what is random or left out is told."""

import copy
import warnings
from collections import namedtuple

import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoraConfig, VBLoRAConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from adapters import merge_and_continue, prepare
from analysis.geometry import Evaluation, hessian, interpolate, line, mean_rise, model_state, parameter_space, plane
from analysis.geometry.objective import Batches, Objective
from analysis.geometry.surface import Landscape

QUIET = {"evaluation": Evaluation(progress=False)}


class Cnn(nn.Module):
    """A convolution, a batch norm, a head."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def images(count=24):
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(count) % 2
    return torch.randn(count, 1, 6, 6, generator=generator) + 2.0 * y[:, None, None, None], y


def trained_cnn(seed, steps=12, keep=()):
    torch.manual_seed(seed)
    model, (x, y), kept = Cnn(), images(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(steps):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in keep:
            kept.append(copy.deepcopy(model).eval())
    return (model.eval(), kept) if keep else model.eval()


def own_loss(model, batch):
    with torch.no_grad():
        return float(F.cross_entropy(model.eval()(batch[0]), batch[1]))


@pytest.fixture(scope="module")
def pair():
    return trained_cnn(0), trained_cnn(1)


@pytest.mark.parametrize("given", ["models", "state dicts"])
def test_a_line_between_two_cnns_ends_at_each_with_its_own_running_statistics(pair, given):
    batch = images()
    ends = pair if given == "models" else [model.state_dict() for model in pair]
    found = interpolate(pair[0], batch, start=ends[0], end=ends[1], space="full", steps=3, margin=0.0, **QUIET)
    wanted = [own_loss(model, batch) for model in pair]
    np.testing.assert_allclose(found.values[[0, 2]], wanted, rtol=1e-5)
    np.testing.assert_allclose(found.path_losses, wanted, rtol=1e-5)
    assert found.path.ravel().tolist() == [0.0, 1.0]
    half = copy.deepcopy(pair[0])
    one, other = (dict(model.state_dict()) for model in pair)
    half.load_state_dict({n: (one[n] + other[n]) / 2 if one[n].is_floating_point() else one[n] for n in one})
    assert found.values[1] == pytest.approx(own_loss(half, batch), rel=1e-5)
    assert found.fixed == ()
    bare = [{name: p.detach() for name, p in model.named_parameters()} for model in pair]
    wrong = interpolate(pair[0], batch, start=bare[0], end=bare[1], space="full", steps=3, margin=0.0, **QUIET)
    assert wrong.fixed == ("norm.running_mean", "norm.running_var")  # what stays is named
    assert abs(wrong.values[2] - wanted[1]) > 0.01


def test_recalibrated_statistics_are_those_of_a_pass_over_the_data(pair):
    x, y = images()
    loader = [(x[:12], y[:12]), (x[12:], y[12:])]
    how = {"evaluation": Evaluation(progress=False, buffers="recalibrated")}
    ends = [{name: p.detach() for name, p in model.named_parameters()} for model in pair]
    before = copy.deepcopy(pair[0].state_dict())
    found = interpolate(pair[0], loader, start=ends[0], end=ends[1], space="full", steps=3, margin=0.0, **how)
    for t, value in zip((0.0, 0.5, 1.0), found.values, strict=True):
        model = copy.deepcopy(pair[0])
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_((1 - t) * ends[0][name] + t * ends[1][name])
        model.norm.reset_running_stats()
        model.norm.momentum = None
        model.train()
        with torch.no_grad():
            for part, _ in loader:
                model(part)
        assert value == pytest.approx(own_loss(model, (x, y)), rel=1e-5)
    assert found.buffers == "recalibrated"
    assert all(torch.equal(value, before[name]) for name, value in pair[0].state_dict().items())
    with pytest.raises(ValueError, match="the model has none"):
        line(nn.Linear(2, 2), (torch.ones(2, 2), torch.ones(2, 2)), space="full", steps=3, **how)


def test_checkpoints_of_a_path_have_their_own_losses_and_distances(tmp_path):
    batch = images()
    model, kept = trained_cnn(0, keep=(0, 2, 4, 7, 11))
    found = plane(model, batch, space="full", directions="pca", checkpoints=kept, steps=3, **QUIET)
    np.testing.assert_allclose(found.path_losses, [own_loss(one, batch) for one in kept], rtol=1e-5)
    flat = [torch.cat([p.detach().ravel() for p in one.parameters()]).double().numpy() for one in kept]
    matrix = np.stack(flat) - flat[-1]
    basis = np.linalg.svd(matrix - matrix.mean(0), full_matrices=False)[2][:2]
    rest = matrix - matrix @ basis.T @ basis
    np.testing.assert_allclose(found.path_distances, np.linalg.norm(rest, axis=1), rtol=1e-4, atol=1e-5)
    assert found.path_distances[0] > 1e-3
    assert set(found.fixed) == {"norm.running_mean", "norm.running_var"}
    found.save(tmp_path / "plane")
    again = Landscape.load(tmp_path / "plane")
    assert (again.path_losses, again.fixed) == (found.path_losses, found.fixed)


def classifier(seed, config=None):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = BertForSequenceClassification(BertConfig(vocab_size=12, num_labels=3, **sizes))
    options = {"task_type": "SEQ_CLS"} if config is None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config or LoraConfig(r=2, target_modules=["query", "value"], **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


TEXT = {
    "input_ids": torch.arange(12).reshape(3, 4),
    "attention_mask": torch.ones(3, 4, dtype=torch.long),
    "labels": torch.tensor([0, 1, 2]),
}


@pytest.mark.parametrize("space", ["adapter", "merged"])
@pytest.mark.parametrize("kind", ["lora", "dora", "loha"])
def test_a_line_between_two_adapters_takes_the_trained_classifier_along(space, kind):
    target = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"], "r": 2}
    configs = {"lora": None, "dora": LoraConfig(use_dora=True, **target), "loha": LoHaConfig(**target)}
    first, second = (classifier(seed, copy.deepcopy(configs[kind])) for seed in (1, 2))
    with torch.no_grad():
        wanted = [float(model(**TEXT).loss) for model in (first, second)]
    found = interpolate(first, TEXT, start=first, end=second, space=space, steps=3, margin=0.0, **QUIET)
    np.testing.assert_allclose(found.values[[0, 2]], wanted, rtol=1e-5)
    alone = plane(first, TEXT, space=space, steps=3, **QUIET)
    assert {name.rpartition(".")[2] for name in alone.fixed} == {"weight", "bias"}
    assert all("classifier.modules_to_save" in name for name in alone.fixed)


def test_a_line_between_two_chains_or_two_frozen_factors_takes_along_what_is_their_own():
    batch = (torch.randn(6, 8), torch.arange(6) % 3)
    for method in ("asym", "cola", "c3la"):
        ends = []
        for seed in (1, 2):
            torch.manual_seed(0)
            base, links = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)), 1 if method == "asym" else 2
            options = {"rank": 2, "target_modules": ["0"], "modules_to_save": [], "links": links}
            model = prepare(base, method, seed=0 if method == "c3la" else seed, **options).model
            for turn in range(links):
                if turn:
                    merge_and_continue(model)
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.requires_grad:
                            parameter.add_(0.3 * seed * torch.randn(parameter.shape))
            ends.append(model)
        for space in ("adapter", "merged"):
            found = interpolate(ends[0], batch, start=ends[0], end=ends[1], space=space, steps=3, margin=0.0, **QUIET)
            np.testing.assert_allclose(found.values[[0, 2]], [own_loss(model, batch) for model in ends], rtol=1e-5)


@pytest.mark.parametrize("space", ["adapter", "merged"])
def test_only_the_active_adapter_is_moved_whatever_its_name(space):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, LoraConfig(r=1, target_modules=["0"]), adapter_name="math")
        model.add_adapter("code", LoraConfig(r=2, target_modules=["0", "2"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    batch = (torch.randn(6, 4), torch.tensor([0, 1] * 3))
    for name, layers in (("math", {"0"}), ("code", {"0", "2"})):
        model.set_adapter(name)
        moved = parameter_space(model, space)
        wanted = {name} if space == "adapter" else {"base_layer"}
        assert all(wanted & set(key.split(".")) for key in moved.center)
        assert {key.split(".")[2] for key in moved.center} == layers
        merged = copy.deepcopy(model).merge_and_unload()
        for key, value in moved.center.items() if space == "merged" else ():
            torch.testing.assert_close(value, merged[int(key.split(".")[2])].weight)
        assert plane(model, batch, space=space, steps=3, **QUIET).center_loss == pytest.approx(own_loss(merged, batch))


def test_parameters_that_layers_share_are_in_adapter_space():
    torch.manual_seed(0)
    config = VBLoRAConfig(target_modules=["0", "2"], vector_length=2, num_vectors=4, topk=2, r=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), config)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(parameter_space(model, "adapter").center) == trained


def test_an_adapter_on_a_tied_head_moves_the_head_alone_in_merged_space():
    torch.manual_seed(0)
    sizes = {"vocab_size": 12, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["lm_head"])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    ids = torch.arange(6)[None]
    found = line(model, {"input_ids": ids, "labels": ids}, space="merged", steps=3, radius=0.3, **QUIET)
    moved = parameter_space(model, "merged")
    (name,) = moved.center
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(moved.center[name].shape, generator=generator)
    step = raw * (moved.center[name].norm(dim=1, keepdim=True) / raw.norm(dim=1, keepdim=True))
    plain = copy.deepcopy(model).unload()
    plain.lm_head.weight = nn.Parameter(moved.center[name] + 0.3 * step)
    with torch.no_grad():
        wanted = float(plain(input_ids=ids, labels=ids, use_cache=False).loss)
    assert found.values[2] == pytest.approx(wanted, rel=1e-5)


class Random(nn.Module):
    """Dropout that evaluation mode does not turn off."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(F.dropout(x, 0.2))


def test_a_random_loss_is_refused_by_every_instrument():
    batch = (torch.randn(10, 8), torch.arange(10) % 3)
    for measure in (
        lambda m: plane(m, batch, space="full", steps=3, **QUIET),
        lambda m: hessian(m, batch),
        lambda m: mean_rise(m, batch),
    ):
        with pytest.raises(ValueError, match="the loss is random"):
            measure(Random())


def test_a_model_that_does_not_use_what_is_moved_as_it_says_is_refused():
    class Cached(nn.Linear):
        """Computes with a copy of its weight until it is asked for a gradient."""

        def forward(self, x):
            return F.linear(x, self.weight + self.weight.detach() * float(self.weight is not self.own), self.bias)

    model = Cached(4, 2)
    object.__setattr__(model, "own", model.weight)
    with pytest.raises(ValueError, match="centre of the full space has loss"):
        plane(model, (torch.randn(6, 4), torch.arange(6) % 2), space="full", steps=3, **QUIET)


def test_an_end_that_is_not_its_model_is_refused():
    first, second = nn.Linear(4, 2), nn.Linear(4, 2)
    second.scale = 3.0
    second.forward = lambda x: 3.0 * F.linear(x, second.weight, second.bias)
    batch = (torch.randn(6, 4), torch.arange(6) % 2)
    with pytest.raises(ValueError, match="t = 1 of the full space has loss"):
        interpolate(first, batch, start=first, end=second, space="full", steps=3, **QUIET)


def test_nan_in_a_batch_is_told_apart_from_shuffling():
    x = torch.ones(4, 2)
    x[0, 0] = torch.nan
    with pytest.warns(UserWarning, match="first batch holds NaN"):
        found = line(nn.Linear(2, 2), (x, torch.arange(4) % 2), space="full", steps=3, **QUIET)
    assert np.isnan(found.values).all()

    class Shuffled:
        def __iter__(self):
            yield x[torch.randperm(4)] + torch.rand(4, 1), torch.arange(4)

    with pytest.raises(ValueError, match="different batches"):
        Batches(Shuffled())


def test_named_tuples_are_batches():
    Pair = namedtuple("Pair", "inputs targets")
    batch = Pair(torch.randn(6, 4), torch.arange(6) % 2)
    model = nn.Linear(4, 2)
    assert plane(model, batch, space="full", steps=3, **QUIET).center_loss == pytest.approx(own_loss(model, batch))


def test_a_column_of_outputs_against_flat_targets_is_warned_about():
    batch = (torch.randn(6, 4), torch.randn(6))
    with pytest.warns(UserWarning, match="target size"):
        Objective(nn.Linear(4, 1), batch)


def test_whether_labels_are_shifted_is_measured_not_read_from_a_name():
    class Plain(nn.Module):
        """A token classifier with a name that says otherwise, or a shifted model with a plain name."""

        def __init__(self, shift):
            super().__init__()
            self.table, self.shift = nn.Embedding(5, 5), shift

        def forward(self, input_ids, labels):
            logits = self.table(input_ids)
            pair = (logits[:, :-1], labels[:, 1:]) if self.shift else (logits, labels)
            loss = F.cross_entropy(pair[0].reshape(-1, 5), pair[1].reshape(-1))
            return type("Output", (), {"loss": loss, "logits": logits})()

    batch = {"input_ids": torch.arange(8).reshape(2, 4) % 5, "labels": torch.arange(8).reshape(2, 4) % 5}
    for shift, terms in ((False, 8), (True, 6)):
        named = type("TinyForCausalLM" if not shift else "Tiny", (Plain,), {})(shift)
        assert Objective(named, batch).shifted == shift
        assert Objective(named, batch).weight(batch) == terms


def test_axes_may_differ_in_width_and_in_steps():
    model, batch = nn.Linear(4, 2), (torch.randn(6, 4), torch.arange(6) % 2)
    whole = plane(model, batch, space="full", steps=5, radius=1.0, **QUIET)
    part = plane(model, batch, space="full", steps=(5, 3), radius=(1.0, 0.5), **QUIET)
    assert part.values.shape == (3, 5)
    np.testing.assert_allclose(part.values, whole.values[1:4], atol=1e-6)
    np.testing.assert_allclose(part.y, [-0.5, 0.0, 0.5])
    with pytest.raises(ValueError, match="steps must be odd"):
        plane(model, batch, space="full", steps=(5, 4), **QUIET)


def test_a_models_state_is_all_that_training_changed():
    state = model_state(classifier(1), "merged")
    assert {name.split(".")[-1] for name in state} == {"weight", "bias"}
    assert sum("modules_to_save" in name for name in state) == 2
    assert sum("base_layer" in name for name in state) == 2
    assert set(model_state(Cnn(), "full")) == set(Cnn().state_dict()) - {"norm.num_batches_tracked"}
