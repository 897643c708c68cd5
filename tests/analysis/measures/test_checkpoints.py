"""The checkpoint of lowest held-out loss: which, by how much, and whether rounding leaves it open."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from analysis.measures import checkpoints, choose_checkpoint
from analysis.tasks import evaluate

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


def planned(monkeypatch, **losses):
    """Let a checkpoint's loss, and its error, be what is planned for the folder of its weights."""
    seen = []

    def heldout(run):
        seen.append(run.weights.name)
        return losses[run.weights.name.replace("-", "_")]

    monkeypatch.setattr(checkpoints, "_heldout_loss", heldout)
    return seen


@pytest.fixture
def steps(loaded):
    """Snapshots that can be chosen beside the last step: neither the start nor what the run ended with."""
    named = [path.name for path in loaded.checkpoints()]
    return [name for name in named if int(name[5:]) not in (0, loaded.record["selection"]["step"])]


def test_there_is_one_candidate_beside_the_last(steps, loaded):
    assert len(steps) == 1
    assert len(loaded.checkpoints()) > 1


@pytest.mark.parametrize(
    ("last", "other", "best", "margin"),
    [
        (2.0, 1.5, "other", 0.5),
        (1.5, 2.0, "last", 0.5),
        (math.nan, 3.0, "other", None),
        (1.0, math.nan, "last", None),
    ],
)
def test_the_lowest_loss_wins_and_one_that_is_not_finite_never(last, other, best, margin, finished, steps, monkeypatch):
    seen = planned(monkeypatch, adapter=(last, 0.0), **{steps[0].replace("-", "_"): (other, 0.0)})
    choice = choose_checkpoint(finished)
    assert seen == ["adapter", steps[0]]
    assert choice.chosen["last"].weights.name == "adapter"
    assert choice.chosen["best"].weights.name == {"last": "adapter", "other": steps[0]}[best]
    assert (choice.chosen["best"] is choice.chosen["last"]) == (best == "last")
    if margin is not None:
        assert choice.margin == margin
        assert not choice.doubtful


@pytest.mark.parametrize(("error", "doubtful"), [(0.2, False), (0.3, True)])
def test_a_choice_within_rounding_is_doubtful(error, doubtful, finished, steps, monkeypatch):
    planned(monkeypatch, adapter=(2.0, error), **{steps[0].replace("-", "_"): (1.5, error)})
    assert choose_checkpoint(finished).doubtful is doubtful


def test_every_checkpoint_is_loaded_from_where_data_and_model_are_now(finished, steps, loaded, monkeypatch):
    asked = []

    def load(path, **where):
        asked.append(where)
        return loaded

    monkeypatch.setattr(checkpoints, "load_run", load)
    planned(monkeypatch, adapter=(2.0, 0.0))
    choose_checkpoint(finished, data="moved", model="too")
    there = {"data": "moved", "model": "too"}
    assert asked == [there, there | {"checkpoint": steps[0]}]


@pytest.mark.parametrize(("kind", "squared"), [("regression", True), ("text-classification", False)])
def test_the_error_of_a_loss_is_that_of_its_kind(kind, squared, loaded, monkeypatch):
    asked = []

    def error(losses, off, *, squared=False):
        asked.append(squared)
        return 0.0

    monkeypatch.setattr(checkpoints, "mean_error", error)
    task = dataclasses.replace(loaded.task, kind=kind)
    monkeypatch.setattr(checkpoints, "evaluate", lambda model, task, examples: evaluate(model, loaded.task, examples))
    checkpoints._heldout_loss(dataclasses.replace(loaded, task=task))
    assert asked == [squared]


def test_a_run_with_nothing_else_to_choose_is_sure(loaded, finished, monkeypatch):
    own = loaded.record["selection"]["step"]
    monkeypatch.setattr(
        type(loaded), "checkpoints", lambda self: [self.folder / "step-000000", self.folder / f"step-{own:06d}"]
    )
    choice = choose_checkpoint(finished, last=loaded)
    assert choice.chosen["last"] is choice.chosen["best"] is loaded
    assert (choice.margin, choice.doubtful) == (math.inf, False)


def test_the_loss_is_that_of_all_heldout_examples_in_float64(loaded):
    loss, error = checkpoints._heldout_loss(loaded)
    outputs = evaluate(loaded.model, loaded.task, loaded.task.heldout)
    # float32 against float64 forward passes: losses of order one agree to about 1e-6.
    assert loss == pytest.approx(np.average(outputs.losses, weights=outputs.weights), rel=1e-5)
    assert 0 < error < 1e-9
    assert next(loaded.model.parameters()).dtype == torch.float32
