"""The code length of a finished run: its parts rebuild the run, and its bits are those of a real code word."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from analysis.measures.code_length import code_of_run, quantize_tensor, trained_parts
from analysis.measures.registry import CODE_SETTINGS
from analysis.runs import RunConfig, load_run, run
from analysis.tasks import Outputs, evaluate, load_model
from theory.certificates import CodeWriter, adaptive_bits
from theory.methods import METHODS

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


@pytest.fixture(scope="module")
def folder(model_cache, tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def finished(method, folder, *, epochs=3):
    config = RunConfig(method=method, rank=3, seed=1, epochs=epochs, save_adapter=True)
    return load_run(folder / run(config, folder=folder)["key"])


@pytest.mark.parametrize("method", list(METHODS))
def test_the_parts_of_a_run_rebuild_it_on_the_base(method, folder):
    done = finished(method, folder)
    target = load_model(done.task, seed=1)
    parameters = dict(target.named_parameters())
    parts = list(trained_parts(done))
    with torch.no_grad():
        for part in parts:
            parameters[part.name].copy_(done.base_state[part.name] + part.update(part.numbers))
    examples = done.task.train[:40]
    ours, theirs = (evaluate(model, done.task, examples).losses for model in (target, done.model))
    # W0 + dW in one matrix against base and adapter apart: float32 rounding of logits of order ten.
    assert np.abs(ours - theirs).max() < 1e-4
    counted = sum(values.numel() for part in parts for values in part.numbers)
    trained = sum(record["numbers_trained"] for record in done.record["updates"])
    assert counted == trained


def test_bits_are_those_of_a_code_word_and_rounding_errs_by_half_a_step():
    values = torch.randn(7, 30, generator=torch.Generator().manual_seed(0))
    rounded, bits = quantize_tensor(values, step_over_rms=0.5)
    step = 2.0 ** round(math.log2(0.5 * values.square().mean().sqrt().item()))
    assert (rounded - values).abs().max() <= step / 2 + 1e-7
    symbols = (rounded / step).round().long().flatten()
    largest = int(symbols.abs().max())
    writer = CodeWriter()
    writer.uniform(0, 1 << 6, part="step")
    writer.uniform(largest, 1 << 16, part="size")
    writer.adaptive((symbols + largest).numpy(), 2 * largest + 1, part="symbols")
    # A code word is less than two bytes above its information.
    assert bits <= 8 * len(writer.finish()) < bits + 16
    assert quantize_tensor(torch.zeros(50), step_over_rms=1.0)[1] == 22


def test_bits_are_step_size_and_symbols_of_an_alphabet_that_reaches_both_ends():
    values = torch.tensor([0.0, 1.0, 1.0, -3.0])
    rms = math.sqrt(11 / 4)
    rounded, bits = quantize_tensor(values, step_over_rms=1 / rms)  # a step of exactly one
    assert rounded.tolist() == values.tolist()
    assert bits == 22 + adaptive_bits([1, 0, 0, 1, 2, 0, 0])
    assert quantize_tensor(torch.zeros(0), step_over_rms=1.0)[1] == 22


@pytest.mark.parametrize(
    ("size", "step"), [(0.6 * 2.0**-48, 2.0**-48), (1e20, 2.0**15), (1.5 * 2.0**16, 2.0**15), (2.0**-48, 2.0**-48)]
)
def test_the_steps_exponent_fits_in_six_bits(size, step):
    values = torch.full((4,), size, dtype=torch.float64)
    if size / step >= 2**16:
        with pytest.raises(ValueError, match="does not fit in 16 bits"):
            quantize_tensor(values, step_over_rms=1.0)
    else:
        assert quantize_tensor(values, step_over_rms=1.0)[0].tolist() == [round(size / step) * step] * 4


@pytest.mark.parametrize(("largest", "fits"), [(2**16 - 1, True), (2**16, False)])
def test_the_largest_multiple_fits_in_sixteen_bits(largest, fits):
    values = torch.zeros(2**20, dtype=torch.float64)
    values[0] = largest
    rms = largest / 2**10
    if fits:
        assert quantize_tensor(values, step_over_rms=1 / rms)[0][0] == largest
    else:
        with pytest.raises(ValueError, match="does not fit in 16 bits"):
            quantize_tensor(values, step_over_rms=1 / rms)


def test_a_finer_step_costs_more_bits_and_errs_less():
    values = torch.randn(500, generator=torch.Generator().manual_seed(1))
    found = [quantize_tensor(values, step_over_rms=step) for step in CODE_SETTINGS["steps"]]
    bits = [cost for _, cost in found]
    errors = [float((rounded - values).norm()) for rounded, _ in found]
    assert bits == sorted(bits)
    assert errors == sorted(errors, reverse=True)


def test_a_run_is_coded_near_its_own_training_error_and_its_bound_is_occams(folder):
    done = finished("cla", folder)
    found = code_of_run(done)
    own = evaluate(done.model, done.task, done.task.train).errors.mean()
    assert found["rounded_error"] <= own + CODE_SETTINGS["tolerance"]
    penalty = math.sqrt((found["bits"] * math.log(2) + math.log(20)) / (2 * len(done.task.train)))
    assert found["bound"] == pytest.approx(found["rounded_error"] + penalty)
    trained = sum(record["numbers_trained"] for record in done.record["updates"])
    assert 0 < found["bits"] < 32 * trained


def test_the_step_is_chosen_by_numbers_of_errors_and_says_how_near_the_limit_it_was(folder, monkeypatch):
    done = finished("cla", folder)
    made = iter(range(100))
    n = len(done.task.train)

    def outputs(errors):
        ones = np.ones(n)
        wrong = (np.arange(n) < errors).astype(float)
        margins = np.where(np.arange(n) == n - 1, 1e-9, 1.0)
        return Outputs(
            losses=ones, clipped=ones, errors=wrong, margins=margins, predictions=ones, labels=ones, weights=ones,
            largest_logit=1.0,
        )  # fmt: skip

    # a share of 0.07 is above 0.06 + 0.01 in floating point; 14 errors are not above 12 + 2
    assert (n, 14 / n <= 12 / n + CODE_SETTINGS["tolerance"]) == (200, False)
    sequence = [12, 20, 14]  # the run's own, then step by step
    monkeypatch.setattr("analysis.measures.code_length.evaluate", lambda *args: outputs(sequence[next(made)]))
    found = code_of_run(done)
    assert found["rounding_step"] == CODE_SETTINGS["steps"][1]
    assert found["rounding_edge"] == 0  # the chosen step met the limit exactly
    assert found["rounding_doubtful"] == 2  # one near tie of the run itself and one of the rounded one


def test_what_has_no_code_is_refused(folder):
    with pytest.raises(ValueError, match="not finite"):
        quantize_tensor(torch.tensor([1.0, float("nan")]), step_over_rms=1.0)
    with pytest.raises(ValueError, match="does not fit in 16 bits"):
        quantize_tensor(torch.tensor([1e6] + [1e-6] * 999_999), step_over_rms=1e-3)
    done = finished("cla", folder)
    with pytest.raises(ValueError, match="regression task does not have"):
        code_of_run(dataclasses.replace(done, task=dataclasses.replace(done.task, kind="regression")))
