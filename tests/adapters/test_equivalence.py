"""The constructions are what they claim to be, in float64, against references written from the definitions."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from adapters import ColumnConfig, delta_weights, merge_and_continue, prepare

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
}
# float64 carries 16 digits; fifteen optimizer steps of a few dozen operations each lose two or three.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def data():
    g = torch.Generator().manual_seed(7)
    return torch.randn(20, 10, dtype=torch.float64, generator=g), torch.randint(3, (20,), generator=g)


def train(model, optimizer, steps=15):
    x, y = data()
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


class InPlaceColumns(nn.Module):
    """PaCA as arXiv:2503.01905 defines it: the columns S of W themselves are the parameters."""

    def __init__(self, linear, columns):
        super().__init__()
        self.weight, self.bias = linear.weight.detach().clone(), linear.bias.detach().clone()
        self.columns = torch.tensor(columns)
        self.p = nn.Parameter(self.weight[:, self.columns].clone())

    def forward(self, x):
        return F.linear(x, self.weight.index_copy(1, self.columns, self.p), self.bias)


@optimizers
def test_paca_equals_columns_trained_in_place_step_by_step(mlp, optimizer):
    ours = prepare(mlp(), "paca", rank=3, target_modules=["0"], seed=4).model
    columns = ours.base_model.model[0].beyond_column_sum["default"].columns
    reference = mlp().requires_grad_(False)
    reference[0] = InPlaceColumns(reference[0], columns)
    got = train(ours, OPTIMIZERS[optimizer](trained(ours)))
    want = train(reference, OPTIMIZERS[optimizer]([reference[0].p]))
    assert want[-1] < want[0]
    torch.testing.assert_close(torch.tensor(got), torch.tensor(want), **EXACT)
    merged = mlp()[0].weight + delta_weights(ours)["0"]
    torch.testing.assert_close(merged[:, list(columns)], reference[0].p, **EXACT)


@optimizers
def test_paca_equals_cla_on_the_same_columns_with_matched_scale(mlp, optimizer):
    paca = prepare(mlp(), "paca", rank=3, target_modules=["0"], seed=4).model
    columns = paca.base_model.model[0].beyond_column_sum["default"].columns
    config = ColumnConfig(method="cla", r=3, lora_alpha=3, columns=list(columns), target_modules=["0"])
    cla = get_peft_model(mlp(), config)
    got = train(paca, OPTIMIZERS[optimizer](trained(paca)))
    want = train(cla, OPTIMIZERS[optimizer](trained(cla)))
    torch.testing.assert_close(torch.tensor(got), torch.tensor(want), **EXACT)
    torch.testing.assert_close(delta_weights(paca)["0"], delta_weights(cla)["0"], **EXACT)


@optimizers
def test_cla_equals_lora_with_a_frozen_identity_window(mlp, optimizer):
    cla = prepare(mlp(), "cla", rank=3, alpha=6.0, target_modules=["0", "2"]).model
    lora = get_peft_model(mlp(), LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"]))
    for index in (0, 2):
        layer = lora.base_model.model[index]
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(torch.eye(3, layer.in_features))
        layer.lora_A.requires_grad_(False)
    got = train(cla, OPTIMIZERS[optimizer](trained(cla)))
    want = train(lora, OPTIMIZERS[optimizer](trained(lora)))
    assert want[-1] < want[0]
    torch.testing.assert_close(torch.tensor(got), torch.tensor(want), **EXACT)
    for index in (0, 2):
        torch.testing.assert_close(
            cla.base_model.model[index].beyond_column_B["default"].weight,
            lora.base_model.model[index].lora_B["default"].weight,
            **EXACT,
        )


@pytest.mark.parametrize("links", [2, 4, 6])
def test_a_chain_of_links_equals_one_cla_with_all_its_columns(mlp, links):
    """With r = 3, n = 10 a round is 3 + 3 + 3 + 1 columns; six links wrap around and sum on revisited columns."""
    chain = prepare(mlp(), "c3la", rank=3, alpha=6.0, target_modules=["0"], links=links, learning_rate=0.05)
    optimizer = chain.create_optimizer()
    x, _ = data()
    for link in range(links):
        train(chain.model, optimizer, steps=3)
        if link + 1 < links:
            merge_and_continue(chain.model, optimizer=optimizer)
    width = min(3 * links, 10)
    one = prepare(mlp(), "cla", rank=width, alpha=2.0 * width, target_modules=["0"]).model
    delta = delta_weights(chain.model)["0"]
    assert delta[:, :width].abs().amin(1).all()
    assert not delta[:, width:].any()
    with torch.no_grad():
        one.base_model.model[0].beyond_column_B["default"].weight.copy_(delta[:, :width] / 2)
    torch.testing.assert_close(one(x), chain.model(x), **EXACT)


@pytest.mark.parametrize("method", ["c3la", "r-c3la", "cola", "rac"])
def test_the_update_of_a_chain_is_the_sum_of_its_links(mlp, method):
    """Six links of three columns on ten wrap around, in another order for r-c3LA; no link's share is lost."""
    chain = prepare(mlp(), method, rank=3, alpha=6.0, target_modules=["0"], links=6, learning_rate=0.05, seed=2)
    optimizer, layer = chain.create_optimizer(), chain.model.base_model.model[0]
    total = torch.zeros(8, 10, dtype=torch.float64)
    for link in range(6):
        train(chain.model, optimizer, steps=2)
        with torch.no_grad():
            if chain.method.selects_columns:
                columns = list(layer.beyond_column_sum["default"].columns)
                total[:, columns] += 2 * layer.beyond_column_B["default"].weight[:, : len(columns)]
            else:
                total += 2 * layer.lora_B["default"].live @ layer.lora_A["default"].live
        torch.testing.assert_close(delta_weights(chain.model)["0"], total, **EXACT)
        if link < 5:
            merge_and_continue(chain.model, optimizer=optimizer)


@pytest.mark.parametrize("method", ["c3la", "r-c3la"])
def test_a_full_round_changes_every_column(mlp, method):
    chain = prepare(mlp(), method, rank=4, target_modules=["0"], links=3, learning_rate=0.05)
    optimizer = chain.create_optimizer()
    for link in range(3):
        train(chain.model, optimizer, steps=1)
        if link < 2:
            merge_and_continue(chain.model, optimizer=optimizer)
    assert delta_weights(chain.model)["0"].abs().sum(0).all()


@pytest.mark.parametrize("method", ["cola", "rac"])
def test_a_chain_of_lora_links_equals_merging_each_link_into_the_weight(mlp, method):
    """The papers' definition: after each link W becomes W + (alpha / r) B A, and B, A start anew."""
    chain = prepare(mlp(), method, rank=2, alpha=4.0, target_modules=["0"], links=3, learning_rate=0.05)
    optimizer = chain.create_optimizer()
    merged = mlp()
    for link in range(3):
        layer = chain.model.base_model.model[0]
        one = get_peft_model(copy.deepcopy(merged), LoraConfig(r=2, lora_alpha=4, target_modules=["0"]))
        fresh = one.base_model.model[0]
        with torch.no_grad():
            fresh.lora_A["default"].weight.copy_(layer.lora_A["default"].live)
        fresh.lora_A.requires_grad_(method == "cola")
        want = train(one, torch.optim.AdamW(trained(one), lr=0.05, weight_decay=0.0), steps=4)
        got = train(chain.model, optimizer, steps=4)
        torch.testing.assert_close(torch.tensor(got), torch.tensor(want), **EXACT)
        merged = one.merge_and_unload()
        if link < 2:
            merge_and_continue(chain.model, optimizer=optimizer)
    torch.testing.assert_close(mlp()[0].weight + delta_weights(chain.model)["0"], merged[0].weight, **EXACT)


def test_lora_plus_with_ratio_one_is_lora_and_with_sixteen_is_not(mlp):
    def losses(method, ratio):
        p = prepare(mlp(), method, rank=2, target_modules=["0"], lr_ratio=ratio, learning_rate=0.01)
        return train(p.model, p.create_optimizer())

    assert losses("lora+", 1.0) == losses("lora", None)
    assert losses("lora+", None) == losses("lora", 16.0)
    assert losses("lora+", None) != losses("lora", None)


@pytest.mark.parametrize("method", ["lora", "asym", "cola", "rac", "cla", "r-cla", "c3la", "r-c3la", "paca"])
def test_merged_equals_unmerged_and_unmerging_restores_the_base(mlp, method):
    chained = method in ("cola", "rac", "c3la", "r-c3la")
    p = prepare(mlp(), method, rank=3, target_modules=["0", "2"], links=2 if chained else 1, learning_rate=0.05)
    optimizer = p.create_optimizer()
    train(p.model, optimizer, steps=3)
    if chained:
        merge_and_continue(p.model, optimizer=optimizer)
        train(p.model, optimizer, steps=3)
    x, _ = data()
    want = p.model(x)
    with p.model.disable_adapter():
        assert torch.equal(p.model(x), mlp()(x))
    p.model.merge_adapter()
    torch.testing.assert_close(p.model(x), want, **EXACT)
    p.model.unmerge_adapter()
    torch.testing.assert_close(p.model(x), want, **EXACT)
    if p.method.selects_columns:
        assert torch.equal(p.model.base_model.model[0].base_layer.weight, mlp()[0].weight)
    torch.testing.assert_close(p.model.merge_and_unload()(x), want, **EXACT)
