"""Paired comparisons of chains: real runs end to end."""

import numpy as np
import pytest

from analysis.commands.main import main
from analysis.geometry import Landscape
from analysis.measures import choose_checkpoint, geometry, measure_runs
from analysis.measures.folder import measure_run
from analysis.records import read_json
from analysis.statistics import paired_claim
from analysis.studies.chains import (
    chain_runs,
    committed_claim,
    digits_runs,
    intruder_curves,
    intruder_frame,
    sharpness_frame,
)
from analysis.studies.planes import planes


def test_runs_are_measured_once_and_in_every_way(model_cache, tmp_path, one_thread, monkeypatch):
    small = {"examples": 16, "curvature_examples": 8, "ascent_steps": 1, "samples": 2, "trace_probes": 2}
    for name, value in small.items():
        monkeypatch.setitem(geometry.GEOMETRY_SETTINGS, name, value)
    paths = digits_runs(["cla", "c3la"], seeds=1, epochs=0.3, folder=tmp_path, checkpoints=1)
    assert digits_runs(["cla"], seeds=1, epochs=0.3, folder=tmp_path, checkpoints=1) == paths[:1]
    sharp = sharpness_frame(paths, examples=8, samples=2)
    assert len(paired_claim(sharp, ["worst_merged", "mean_adapter"])) == 4
    spectra = intruder_frame(paths)
    curves = intruder_curves(spectra)
    assert list(curves) == ["cla", "c3la"]
    for method, curve in curves.items():
        assert curve["intruders"].is_monotonic_increasing
        half = curve[np.isclose(curve["epsilon"], 0.5)]["intruders"].item()
        assert half == spectra[(spectra["method"] == method) & (spectra["checkpoint"] == "last")]["paper"].item()
    surface = planes(paths[:1], steps=3, examples=8)[0]
    assert surface.title == "cLA"
    assert set(measure_run(paths[1], kinds=["best"])) == {"intruders_authors", "intruders_paper"}
    assert not (paths[1] / "measures.json").exists()
    found = measure_run(paths[1])
    assert found["intruders_authors"] == spectra[spectra["method"] == "c3la"].iloc[0]["authors"]
    assert measure_runs(tmp_path) == {"measured": 1, "skipped": 1, "without weights": 0, "failed": 0}
    best = spectra[(spectra["method"] == "c3la") & (spectra["checkpoint"] == "best")].iloc[0]
    written = read_json(paths[1] / "best.json")
    assert written["intruders_paper"] == best["paper"]
    beside = dict(written["uncertainties"])
    assert beside["intruders_paper_low"] == best["paper_low"] <= best["paper"] <= beside["intruders_paper_high"]
    assert float(beside["choice_margin"]) == pytest.approx(best["choice_margin"])  # infinity is kept by name
    for method, curve in curves.items():
        assert (curve["rounded_low"] <= curve["intruders"]).all(), method
        assert (curve["intruders"] <= curve["rounded_high"]).all(), method
    before = read_json(paths[1] / "measures.json")
    assert measure_run(paths[1], examples=6)["sharpness_worst_merged"] != before["sharpness_worst_merged"]
    assert ["examples", 6] in read_json(paths[1] / "measures.json")["settings"]
    with pytest.raises(ValueError, match="examples must be at least 2, got 1"):
        measure_runs(tmp_path, examples=1)
    with pytest.raises(ValueError, match="kinds must be some of geometry, best, code, got bets"):
        measure_runs(tmp_path, kinds=["bets"])
    with pytest.raises(ValueError, match="no folder of runs"):
        measure_runs(tmp_path / "nothing")


def test_full_fine_tuning_is_measured_on_the_weights_adapters_would_adapt(model_cache, tmp_path, one_thread):
    (path,) = digits_runs(["fft"], seeds=1, epochs=0.2, folder=tmp_path, checkpoints=0)
    run = choose_checkpoint(path).chosen["last"]
    names = geometry.adapted_weights(run.model, run.record)
    assert len(names) == 8
    assert {layer.name for layer in geometry.run_updates(run)} == {name.removesuffix(".weight") for name in names}


def test_the_command_picks_one_rank_and_writes_what_the_figures_need(model_cache, tmp_path, one_thread):
    runs, results = tmp_path / "runs", tmp_path / "results"
    digits_runs(["cla", "c3la"], seeds=2, epochs=0.3, folder=runs, rank=2, checkpoints=1)
    digits_runs(["c3la"], seeds=1, epochs=0.3, folder=runs, rank=2, links=2, checkpoints=1)
    digits_runs(["cla"], seeds=1, epochs=0.3, folder=runs, rank=3, checkpoints=1)
    asked = ["chains", str(runs), "--ranks", "2", "--examples", "8", "--steps", "3", "--results", str(results)]
    assert main(asked) == 0
    landscape, spectra = (read_json(results / f"{name}.json") for name in ("landscape", "spectra"))
    assert landscape["values"]["digits/runs"] == 4
    assert landscape["values"]["digits/worst_merged/last/units"] == 2
    assert len(spectra["tables"]["runs"]["rows"]) == 8
    assert {"paper_low", "paper_high", "choice_margin"} <= set(spectra["tables"]["runs"]["columns"])
    assert spectra["values"]["digits/paper/last/edge"] >= 0
    surfaces = [Landscape.from_dict(plane) for plane in landscape["series"]["digits/planes"]]
    assert [surface.title for surface in surfaces] == ["cLA", "c3LA"]
    assert all(surface.values[1, 1] == pytest.approx(surface.center_loss, abs=1e-5) for surface in surfaces)
    assert set(spectra["series"]) == {"digits/curves/last", "digits/curves/best"}
    assert "RUNS_FOLDER --ranks 2 --links 3" in spectra["provenance"]["command"]
    assert set(committed_claim(results / "spectra.json", task="digits")["checkpoint"]) == {"last", "best"}
    with pytest.raises(ValueError, match="no task 'trec'; it has digits"):
        committed_claim(results / "spectra.json", task="trec")
    for name in ("landscape", "spectra"):  # what was measured of another task stays as it was recorded
        path = results / f"{name}.json"
        path.write_text(path.read_text().replace('"digits', '"trec'))
    kept = read_json(results / "spectra.json")
    assert main(asked) == 0
    both = read_json(results / "spectra.json")
    assert both["tables"]["runs"]["rows"] == spectra["tables"]["runs"]["rows"] + kept["tables"]["runs"]["rows"]
    assert both["series"] == spectra["series"] | kept["series"]
    assert both["values"] == spectra["values"] | kept["values"]
    assert both["provenance"]["notes"][0].startswith("trec: as measured on ")


def test_runs_that_cannot_be_compared_are_refused(model_cache, tmp_path, one_thread):
    with pytest.raises(ValueError, match="no finished run"):
        chain_runs(tmp_path)
    digits_runs(["cla"], seeds=1, epochs=0.1, folder=tmp_path / "runs", rank=2, checkpoints=0)
    digits_runs(["cla"], seeds=1, epochs=0.1, folder=tmp_path / "runs", rank=3, checkpoints=0)
    with pytest.raises(ValueError, match="holds ranks 2, 3; choose one"):
        chain_runs(tmp_path / "runs")
    with pytest.raises(ValueError, match="no run of rank 5; it has 2, 3"):
        chain_runs(tmp_path / "runs", rank=5)
    digits_runs(["cla"], seeds=1, epochs=0.2, folder=tmp_path / "runs", rank=3, checkpoints=0)
    with pytest.raises(ValueError, match="of one method and seed"):
        chain_runs(tmp_path / "runs", rank=3)
    assert len(chain_runs(tmp_path / "runs", rank=2)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ranks", "2,4"], "one rank for each of the 1"),
        (["--steps", "4"], "odd"),
        (["--examples", "0"], "at least 1"),
    ],
)
def test_wrong_options_are_refused_before_any_run_is_read(options, message, tmp_path, capsys):
    assert main(["chains", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err
