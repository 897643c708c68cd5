"""Committed adapters are the runs they came from, and say what the committed results say."""

import dataclasses
from pathlib import Path

import pytest
import torch

from analysis.commands.main import main
from analysis.measures import choose_checkpoint, intruder_measures, run_updates
from analysis.records import atomic_write_json, frame_of, read_json, table_of
from analysis.spectra import from_adapter
from analysis.studies.chains import chain_runs, digits_runs, intruder_frame
from analysis.studies.export import exported_updates, write_adapters
from analysis.studies.recount import ranges_overlap
from theory.methods import METHODS

RESULTS = Path(__file__).resolve().parents[3] / "report" / "results"


def test_exported_updates_are_those_of_the_runs(model_cache, tmp_path, one_thread, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    digits_runs(["fft", "lora", "cola", "cla", "c3la"], seeds=2, epochs=0.5, folder=runs, rank=2, checkpoints=2)
    assert main(["export", str(runs), "--out", str(out)]) == 0
    assert "5 methods" in capsys.readouterr().out
    found = exported_updates(out)
    for path in chain_runs(runs)[::2]:
        for checkpoint, run in choose_checkpoint(path).chosen.items():
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
    from analysis.runs import RunConfig, run

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


ELSEWHERE = ("asym", "cola")  # whose cosines lay nearest to the threshold; other processors count these in the gate


@pytest.mark.parametrize(
    "method", [pytest.param(key, marks=[pytest.mark.committed] if key in ELSEWHERE else []) for key in METHODS]
)
def test_committed_adapters_have_the_committed_numbers_of_intruders(method):
    runs = frame_of(read_json(RESULTS / "spectra.json")["tables"]["runs"])
    runs = runs[(runs["task"] == "trec") & (runs["seed"] == 0)].set_index(["method", "checkpoint"])
    found = {place: updates for place, updates in exported_updates(RESULTS / "adapters").items() if place[0] == method}
    assert (method, "last") in found
    for place, updates in found.items():
        counted, row = intruder_measures(updates), runs.loc[place]
        assert ranges_overlap(counted, row, "authors"), place
        assert ranges_overlap(counted, row, "paper"), place
        # six significant digits are kept
        assert counted["effective_rank"] == pytest.approx(row["effective_rank"], rel=1e-5)


def test_counts_of_other_updates_are_not_the_committed_ones():
    """Ranges are as wide as rounding and no wider: an update a hundredth too large is told apart, and two methods."""
    runs = frame_of(read_json(RESULTS / "spectra.json")["tables"]["runs"])
    runs = runs[(runs["task"] == "trec") & (runs["seed"] == 0) & (runs["checkpoint"] == "last")].set_index("method")
    updates = list(from_adapter(RESULTS / "adapters" / "lora" / "last", RESULTS / "adapters" / "base.safetensors"))
    larger = [dataclasses.replace(layer, left=1.01 * layer.left) for layer in updates]
    dropped = [dataclasses.replace(layer, left=0 * layer.left) if k == 5 else layer for k, layer in enumerate(updates)]
    assert ranges_overlap(intruder_measures(updates), runs.loc["lora"], "paper")
    assert not ranges_overlap(intruder_measures(larger), runs.loc["lora"], "paper")
    assert not ranges_overlap(intruder_measures(dropped), runs.loc["lora"], "paper")
    assert not ranges_overlap(intruder_measures(updates), runs.loc["lora+"], "paper")


def test_a_recount_changes_the_rows_of_its_seed_and_the_claim_with_them(model_cache, tmp_path, one_thread, capsys):
    runs, results, out = tmp_path / "runs", tmp_path / "results", tmp_path / "out"
    digits_runs(["lora", "cola"], seeds=2, epochs=0.5, folder=runs, rank=2, checkpoints=1)
    assert main(["chains", str(runs), "--examples", "8", "--steps", "3", "--results", str(results)]) == 0
    assert main(["export", str(runs), "--out", str(out)]) == 0
    path, before = results / "spectra.json", read_json(results / "spectra.json")
    capsys.readouterr()
    assert main(["recount", str(out), "--task", "digits", "--results", str(results)]) == 0
    assert "4 updates counted, 0 counts changed" in capsys.readouterr().out
    assert read_json(path)["tables"]["runs"] == before["tables"]["runs"]
    wrong = frame_of(before["tables"]["runs"])
    place = (wrong["method"] == "cola") & (wrong["seed"] == 0) & (wrong["checkpoint"] == "last")
    wrong.loc[place, "paper"] += 5
    atomic_write_json(path, before | {"tables": before["tables"] | {"runs": table_of(wrong)}})
    assert main(["recount", str(out), "--task", "digits", "--results", str(results)]) == 0
    assert "1 counts changed" in capsys.readouterr().out
    mended = read_json(path)
    assert mended["tables"]["runs"] == before["tables"]["runs"]
    assert mended["values"]["digits/paper/last/chain"] == before["values"]["digits/paper/last/chain"]
    assert mended["series"] == before["series"]
    assert main(["recount", str(out), "--task", "trec", "--results", str(results)]) == 2
    assert "has 0 rows of trec" in capsys.readouterr().err
