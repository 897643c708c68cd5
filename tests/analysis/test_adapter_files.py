"""Committed adapters are the runs they came from, and say what the committed results say."""

from pathlib import Path

import pytest
import torch

from analysis.adapter_files import exported_updates, write_adapters
from analysis.chains import chain_runs, digits_runs, final_and_best, intruder_frame, intruder_measures
from analysis.cli import main
from analysis.collect import frame_of
from analysis.geometry import run_updates
from analysis.store import read_json
from theory.methods import METHODS

RESULTS = Path(__file__).resolve().parents[2] / "report" / "results"


def test_exported_updates_are_those_of_the_runs(model_cache, tmp_path, one_thread, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    digits_runs(["fft", "lora", "cola", "cla", "c3la"], seeds=2, epochs=0.5, folder=runs, rank=2, checkpoints=2)
    assert main(["export", str(runs), "--out", str(out)]) == 0
    assert "5 methods" in capsys.readouterr().out
    found = exported_updates(out)
    for path in chain_runs(runs)[::2]:
        for checkpoint, run in final_and_best(path).items():
            if run.record["config"]["method"] == "fft" and run.weights.name != "adapter":
                assert ("fft", checkpoint) not in found
                continue
            live = {layer.name: layer for layer in run_updates(run)}
            read = {layer.name: layer for layer in found[run.record["config"]["method"], checkpoint]}
            assert live.keys() == read.keys()
            for name, layer in read.items():
                assert torch.equal(layer.base, live[name].base)
                assert torch.equal(layer.update, live[name].update)
    assert "classifier" not in (out / "lora" / "last" / "adapter_model.safetensors").read_bytes().decode("latin-1")
    counts = intruder_frame(chain_runs(runs)[::2])
    assert main(["spectra", str(out / "c3la" / "last"), "--base", str(out / "base.safetensors")]) == 0
    row = counts[(counts["method"] == "c3la") & (counts["checkpoint"] == "last")]
    assert intruder_measures(found["c3la", "last"])["authors"] == row["authors"].item()


def test_runs_of_other_matrices_are_refused(model_cache, tmp_path, one_thread):
    from analysis.finetune import RunConfig, run

    records = [
        run(
            RunConfig(method=method, rank=2, epochs=0.1, target_modules=targets, save_adapter=True),
            folder=tmp_path / "runs",
        )
        for method, targets in (("lora", ["q_proj"]), ("cla", ["v_proj"]), ("lora", ["q_proj", "v_proj"]))
    ]
    paths = [tmp_path / "runs" / record["key"] for record in records]
    with pytest.raises(ValueError, match="adapts other matrices"):
        write_adapters(paths[:2], tmp_path / "out")
    with pytest.raises(ValueError, match="two runs of 'lora' would share a folder"):
        write_adapters([paths[0], paths[2]], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_committed_adapters_have_the_committed_numbers_of_intruders():
    runs = frame_of(read_json(RESULTS / "spectra.json")["tables"]["runs"])
    runs = runs[(runs["task"] == "trec") & (runs["seed"] == 0)].set_index(["method", "checkpoint"])
    found = exported_updates(RESULTS / "adapters")
    assert {method for method, checkpoint in found if checkpoint == "last"} == set(METHODS)
    for place, updates in found.items():
        counted, row = intruder_measures(updates), runs.loc[place]
        assert (counted["authors"], counted["paper"]) == (row["authors"], row["paper"]), place
        assert counted["effective_rank"] == pytest.approx(row["effective_rank"], rel=1e-5)
