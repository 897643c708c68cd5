"""Two adapters, one function: the helpers of the notebook say what they measure."""

import pytest
import torch

import adapters
from analysis.studies import equivalence as same

TARGETS = ["q_proj", "v_proj"]
# Llama's norms and loss round to float32.
ROUNDING = 1e-6
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def _cla(rank=4, seed=0):
    return adapters.prepare(
        same.tiny_llama(seed=seed), "cla", rank=rank, alpha=2.0 * rank, target_modules=TARGETS
    ).model


@pytest.mark.parametrize("adam", [True, False])
def test_cla_trains_as_lora_with_the_selector_for_a(adam):
    batch = same.tokens()
    lora = same.selector_lora(same.tiny_llama(), range(4), alpha=8.0, target_modules=TARGETS)
    ours = same.train_steps(_cla().double(), batch, steps=6, adam=adam)
    theirs = same.train_steps(lora, batch, steps=6, adam=adam)
    assert ours[-1] < ours[0]
    assert ours == pytest.approx(theirs, abs=ROUNDING)


def test_a_different_selector_is_told_apart():
    batch = same.tokens()
    other = same.selector_lora(same.tiny_llama(), range(4, 8), alpha=8.0, target_modules=TARGETS)
    ours, theirs = same.train_steps(_cla().double(), batch, steps=6), same.train_steps(other, batch, steps=6)
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > 1e-4


def test_distance_is_zero_to_itself_and_positive_after_training():
    batch, model = same.tokens(), _cla().double()
    assert same.distance(model, same.tiny_llama(), batch) == 0.0
    same.train_steps(model, batch, steps=3)
    assert same.distance(model, same.tiny_llama(), batch) > 0.01


def test_columns_are_those_of_the_live_link():
    columns = same.columns_of(_cla(rank=3))
    assert len(columns) == 4
    assert set(columns.values()) == {(0, 1, 2)}


def test_batches_and_models_follow_their_seeds():
    assert torch.equal(same.tokens(seed=1)["input_ids"], same.tokens(seed=1)["input_ids"])
    assert same.distance(same.tiny_llama(seed=0), same.tiny_llama(seed=1), same.tokens()) > 0
