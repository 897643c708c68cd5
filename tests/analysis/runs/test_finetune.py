"""One run gives one record; nothing half-written, nothing chosen on held-out data, nothing lost."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.records import RunFailure, config_key, read_json
from analysis.runs import finetune
from analysis.runs.config import RunConfig
from analysis.runs.finetune import run
from analysis.runs.loading import load_run
from analysis.tasks import DataOptions, Outputs, evaluate, load_task, metric
from theory.methods import METHODS

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")

QUICK = {"task": "digits", "rank": 2, "epochs": 2, "options": DataOptions(num_train=64, num_heldout=100)}


def test_the_record_says_what_was_run_and_what_came_out(tmp_path: Path):
    config = RunConfig(method="c3la", **QUICK)
    record = run(config, folder=tmp_path)
    assert record == read_json(tmp_path / config.key() / "record.json")
    assert (record["schema"], record["status"], record["key"]) == (1, "done", config.key())
    assert record["task"]["num_train"] == 64
    assert record["timing"]["steps"] == 4
    assert math.isfinite(record["timing"]["seconds_per_step"])
    assert len(record["history"]) == 2
    assert {update["kind"] for update in record["updates"]} == {"columns", "head"}
    assert record["updates"][0]["links"] == record["config"]["links"] == 3
    assert record["parameters"]["trainable"] < record["parameters"]["total"]
    metrics, gaps = record["metrics"], record["generalization"]
    assert gaps["zero_one"]["signed"] == pytest.approx(metrics["heldout_error"] - metrics["train_error"], abs=1e-12)
    assert metrics["accuracy"] == 1 - metrics["heldout_error"]
    assert gaps["cross_entropy"]["range"] == math.log(50)
    assert record["provenance"]["seeds"] == [0]
    assert (tmp_path / config.key() / "record.json").stat().st_size < 200_000


def test_a_recorded_run_is_not_run_again(tmp_path: Path, monkeypatch):
    config = RunConfig(method="cla", **QUICK)
    first = run(config, folder=tmp_path)

    def never(*args, **kwargs):
        raise AssertionError("a recorded run was computed again")

    monkeypatch.setattr(finetune, "run_cell", never)
    assert run(config, folder=tmp_path)["metrics"] == first["metrics"]


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path: Path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(RunConfig(method="r-cla", seed=seed, save_adapter=True, **QUICK), folder=tmp_path / folder)
    models = [load_run(next((tmp_path / folder).iterdir())).model for folder in "abc"]
    weights = [torch.cat([parameter.flatten() for parameter in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_is_loaded_back_exactly_and_is_described(method: str, tmp_path: Path):
    config = RunConfig(method=method, save_adapter=True, save_checkpoints=2, **{**QUICK, "epochs": 4})
    record = run(config, folder=tmp_path)
    assert record["history"][-1]["loss"] < record["history"][0]["loss"]
    loaded = load_run(tmp_path / config.key())
    outputs = evaluate(loaded.model, loaded.task, loaded.task.heldout)
    # The same weights and the same batches, so only the order of float32 additions could differ.
    assert np.average(outputs.losses) == pytest.approx(record["metrics"]["heldout_loss"], abs=1e-6)
    assert [path.name for path in loaded.checkpoints()] == ["step-000000", "step-000004", "step-000008"]
    start = load_run(tmp_path / config.key(), checkpoint="step-000000")
    fresh = evaluate(start.model, start.task, start.task.heldout).losses.mean()
    base = evaluate(finetune.load_model(start.task, seed=0), start.task, start.task.heldout).losses.mean()
    assert fresh == pytest.approx(base, abs=1e-6)
    measures = record["measures"]
    assert measures["frobenius_norm_update"] > 0
    assert measures["links"] == (3 if METHODS[method].chained else 1)
    assert measures["spectral_norm_sum"] > 0


def test_the_frobenius_norm_from_factors_is_that_of_the_dense_update(tmp_path: Path):
    import adapters

    config = RunConfig(method="lora", save_adapter=True, **QUICK)
    record = run(config, folder=tmp_path)
    dense = adapters.delta_weights(load_run(tmp_path / config.key()).model)
    expected = math.sqrt(sum(float(delta.double().square().sum()) for delta in dense.values()))
    # float32 factors, summed in float64 both ways.
    assert record["measures"]["frobenius_norm_update"] == pytest.approx(expected, rel=1e-5)


def test_loraplus_trains_b_sixteen_times_as_fast_as_a():
    config = RunConfig(method="lora+", **QUICK)
    prepared, _ = finetune.prepare_run(config.resolve(), load_task("digits", options=QUICK["options"]))
    rates = {}
    names = {id(p): n for n, p in prepared.model.named_parameters()}
    for group in prepared.optimizer_groups:
        for parameter in group["params"]:
            kind = "B" if "lora_B" in names[id(parameter)] else "A" if "lora_A" in names[id(parameter)] else "head"
            rates[kind] = group["lr"]
    assert rates["B"] / rates["A"] == pytest.approx(16)
    assert rates["B"] == rates["head"] == 1e-2


def test_the_key_names_the_result_not_the_paths(tmp_path: Path, trec_folder: Path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in trec_folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    here = RunConfig(task="trec", data=str(trec_folder), model="tiny:bert")
    there = dataclasses.replace(here, data=str(moved), model_name="other name")
    assert here.key() == there.key()
    (moved / "TREC_10.label").write_text("NUM:dist Another file ?\n")
    from analysis.runs.config import fingerprint

    fingerprint.cache_clear()
    assert here.key() != there.key()
    assert "elsewhere" not in json.dumps(here.as_record())
    assert str(tmp_path) not in json.dumps(here.as_record())


def test_every_setting_that_changes_the_result_changes_the_key():
    base = RunConfig()
    changes = {"rank": 8, "seed": 1, "method": "cla", "epochs": 3.0, "learning_rate": 1e-4, "precision": "bf16",
               "options": DataOptions(num_train=100), "select": "best", "batch_size": 8, "alpha": 1.0}  # fmt: skip
    keys = {dataclasses.replace(base, **{name: value}).key() for name, value in changes.items()}
    assert len(keys | {base.key()}) == len(changes) + 1
    assert RunConfig(method="fft", rank=4).key() == RunConfig(method="fft", rank=8).key()
    assert RunConfig.from_mapping(dataclasses.asdict(base)).key() == base.key()


def test_a_non_finite_loss_stops_the_run_and_the_record_says_when(tmp_path: Path):
    config = RunConfig(method="fft", learning_rate=1e30, max_grad_norm=1e30, **QUICK)
    with pytest.raises(RunFailure, match="the training loss is nan at step"):
        run(config, folder=tmp_path)
    record = read_json(tmp_path / config.key() / "record.json")
    assert record["status"] == "failed"
    assert 1 < record["failure"]["step"] <= 4
    assert record["failure"]["value"] == "nan"
    assert "NonFiniteLoss" in record["failure"]["traceback"]
    with pytest.raises(ValueError, match="did not finish"):
        load_run(tmp_path / config.key())


def test_held_out_examples_are_not_looked_at_before_the_weights_are_final(tmp_path: Path, monkeypatch):
    task = load_task("digits", seed=7, options=QUICK["options"])
    done = []

    class Guarded(list):
        def __getitem__(self, index):
            assert done, "a held-out example was read before training ended"
            return super().__getitem__(index)

    guarded = dataclasses.replace(task, heldout=Guarded(task.heldout))
    monkeypatch.setattr(finetune, "load_task", lambda *args, **kwargs: guarded)
    from analysis.runs.trainer import WatchedTrainer

    train = WatchedTrainer.train

    def traced(self, **kwargs):
        result = train(self, **kwargs)
        done.append(True)
        return result

    monkeypatch.setattr(WatchedTrainer, "train", traced)
    record = run(RunConfig(method="cla", seed=7, select="best", **QUICK), folder=tmp_path)
    chosen = record["selection"]
    assert {key: chosen[key] for key in ("rule", "candidates", "examples")} == {
        "rule": "best", "candidates": 2, "examples": 6,
    }  # fmt: skip
    assert 0 <= chosen["margin"] < math.inf
    assert isinstance(chosen["doubtful"], bool)
    assert record["task"]["num_train"] == 58


def test_text_runs_end_to_end_from_a_publishers_folder(tmp_path: Path, trec_folder: Path):
    for method in ("cola", "fft"):
        config = RunConfig(task="trec", data=str(trec_folder), model="tiny:deberta-v3-base", method=method, rank=2,
                           epochs=1, batch_size=8, save_adapter=True)  # fmt: skip
        record = run(config, folder=tmp_path / "runs")
        assert record["config"]["data"]["name"] == "trec"
        assert record["generalization"]["zero_one"]["units"] == 4  # questions, each of them three times
        loaded = load_run(tmp_path / "runs" / config.key())
        outputs = evaluate(loaded.model, loaded.task, loaded.task.heldout)
        assert np.average(outputs.losses) == pytest.approx(record["metrics"]["heldout_loss"], abs=1e-6)


def test_causal_lm_measures_perplexity_of_the_target_tokens(tmp_path: Path):
    folder = tmp_path / "django"
    folder.mkdir()
    (folder / "all.anno").write_text("".join(f"set x to {i}.\n" for i in range(20)))
    (folder / "all.code").write_text("".join(f"x = {i}\n" for i in range(20)))
    config = RunConfig(task="django", data=str(folder), model="tiny:gpt2-small", method="cla", rank=2, epochs=1,
                       batch_size=8, save_adapter=True)  # fmt: skip
    record = run(config, folder=tmp_path / "runs")
    loaded = load_run(tmp_path / "runs" / config.key())
    total, count = 0.0, 0
    for example in loaded.task.heldout:
        batch = loaded.task.collate([example])
        labels = batch["labels"][0, 1:]
        logits = loaded.model(**batch).logits[0, :-1].double()
        kept = labels != -100
        total += float(torch.nn.functional.cross_entropy(logits[kept], labels[kept], reduction="sum"))
        count += int(kept.sum())
    # Batches pad differently, which changes float32 attention sums in the last digits.
    assert record["metrics"]["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)


def test_a_killed_run_resumes_from_its_checkpoint_to_the_same_weights(tmp_path: Path, monkeypatch):
    settings = {**QUICK, "epochs": 4}
    config = RunConfig(method="c3la", checkpoint_every=3, save_adapter=True, **settings)
    whole = run(config, folder=tmp_path / "whole")
    from analysis.runs.trainer import WatchedTrainer

    step = WatchedTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(WatchedTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, folder=tmp_path / "cut")
    assert not (tmp_path / "cut" / config.key() / "record.json").exists()
    monkeypatch.setattr(WatchedTrainer, "training_step", step)
    resumed = run(config, folder=tmp_path / "cut")
    assert resumed["timing"]["resumed_from"] == "checkpoint-3"
    assert resumed["metrics"] == whole["metrics"]
    assert not (tmp_path / "cut" / config.key() / "trainer").exists()


def test_metrics_agree_with_scikit_learn():
    from sklearn.metrics import matthews_corrcoef

    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    outputs = Outputs(
        losses=rng.random(50), clipped=rng.random(50), errors=(labels != predictions).astype(float),
        margins=np.zeros(50), predictions=predictions.astype(float), labels=labels.astype(float), weights=np.ones(50),
    )  # fmt: skip
    assert metric(outputs, "accuracy") == pytest.approx((labels == predictions).mean())
    assert metric(outputs, "matthews") == pytest.approx(matthews_corrcoef(labels, predictions))
    assert metric(outputs, "pearson") == pytest.approx(np.corrcoef(labels, predictions)[0, 1])
    assert metric(outputs, "perplexity") == pytest.approx(np.exp(outputs.losses.mean()))
    constant = dataclasses.replace(outputs, predictions=np.ones(50))
    assert math.isnan(metric(constant, "matthews"))
    with pytest.raises(ValueError, match="unknown metric"):
        metric(outputs, "bleu")


def test_clipped_losses_floor_the_probability_and_keep_nan():
    task = load_task("digits", options=QUICK["options"])

    class Fixed(torch.nn.Module):
        def __init__(self, value: float):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(value))

        def forward(self, pixel_values):
            from types import SimpleNamespace

            logits = torch.zeros(len(pixel_values), 5)
            return SimpleNamespace(logits=logits + self.weight * torch.tensor([1.0, 0, 0, 0, 0]))

    confident = evaluate(Fixed(100.0), task, task.heldout)
    assert confident.clipped.max() == pytest.approx(math.log(50))
    assert confident.losses.max() == pytest.approx(100.0)
    assert np.isnan(evaluate(Fixed(math.nan), task, task.heldout).clipped).all()


def test_saved_activations_are_counted_once_and_frozen_inputs_not_at_all():
    from analysis.runs.instruments import saved_activation_bytes

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(8, 4, bias=False)

        def forward(self, x, labels):
            from types import SimpleNamespace

            return SimpleNamespace(loss=self.first(x).sum())

    model, batch = Model(), {"x": torch.randn(10, 8), "labels": torch.zeros(10)}
    assert saved_activation_bytes(model, batch) == 10 * 8 * 4
    model.first.weight.requires_grad_(False)
    model.extra = torch.nn.Parameter(torch.zeros(1))
    model.forward = lambda x, labels: __import__("types").SimpleNamespace(loss=model.first(x).sum() + model.extra.sum())
    assert saved_activation_bytes(model, batch) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dora"}, "unknown method 'dora'"),
        ({"task": "mnist"}, "unknown task 'mnist'"),
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"rank": -2}, "rank must be"),
        ({"epochs": 0.0}, "epochs must be positive"),
        ({"learning_rate": math.nan}, "learning_rate must be positive and finite"),
        ({"links": 3}, "method 'lora' has no chain"),
        ({"method": "cla", "lr_ratio": 4.0}, "trains one factor"),
        ({"precision": "int8"}, "precision must be one of fp32, bf16, fp16"),
        ({"warmup": 1.0}, "warmup must lie in"),
        ({"seed": -1}, "seed must be"),
        ({"save_checkpoints": -1}, "save_checkpoints must be"),
    ],
)
def test_a_wrong_configuration_is_refused_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**changes)
    with pytest.raises(ValueError, match="unknown setting 'ranks'"):
        RunConfig.from_mapping({"ranks": 1})


def test_a_rank_above_a_targets_width_and_targets_that_are_not_there_are_named(tmp_path: Path):
    for changes, message in (({"rank": 65}, "65"), ({"target_modules": ("no_such",)}, "no_such")):
        config = RunConfig(method="cla", **{**QUICK, **changes})
        with pytest.raises(ValueError, match=message):
            run(config, folder=tmp_path)
    assert not list(tmp_path.rglob("record.json"))


def test_a_corrupt_record_and_missing_weights_are_named(tmp_path: Path):
    config = RunConfig(method="cla", **QUICK)
    run(config, folder=tmp_path)
    with pytest.raises(ValueError, match="run it with --save-adapter"):
        load_run(tmp_path / config.key())
    path = tmp_path / config.key() / "record.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        load_run(tmp_path / config.key())


def test_mixed_precision_and_gradient_checkpointing_train(tmp_path: Path):
    config = RunConfig(method="cla", precision="bf16", gradient_checkpointing=True, **QUICK)
    assert run(config, folder=tmp_path)["status"] == "done"


@pytest.mark.slow
def test_two_processes_under_torchrun_write_one_record(tmp_path: Path, trec_folder: Path, model_cache: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "analysis"]
    options = ["run", "--task", "trec", "--data", trec_folder, "--model", "tiny:bert", "--method", "c3la", "--rank",
               "2", "--epochs", "1", "--batch-size", "4", "--folder", tmp_path / "runs", "--quiet"]  # fmt: skip
    load_task("trec", data=trec_folder, model="tiny:bert")
    result = subprocess.run(
        [*command, *map(str, options)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = read_json(path)
    assert record["timing"]["steps"] == 3
    assert record["key"] != config_key({})
