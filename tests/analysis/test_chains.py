"""Paired comparisons of chains: the exact test against hand-worked numbers, and real runs end to end."""

import numpy as np
import pandas as pd
import pytest

from analysis import geometry
from analysis.chains import digits_runs, final_and_best, intruder_curves, intruder_frame, sharpness_frame
from analysis.measuring import measure_run, measure_runs
from analysis.paired import paired_claim, unchained_partner
from analysis.run_planes import planes
from analysis.store import read_json
from theory.methods import METHODS


def frame(differences):
    rows = [{"method": "cla", "seed": seed, "checkpoint": "last", "x": 1.0} for seed in range(len(differences))]
    rows += [
        {"method": "c3la", "seed": seed, "checkpoint": "last", "x": 1.0 + value}
        for seed, value in enumerate(differences)
    ]
    return pd.DataFrame(rows)


def test_every_chain_has_a_partner_that_differs_in_the_chain_alone():
    chains = [key for key, method in METHODS.items() if method.chained]
    assert {key: unchained_partner(key) for key in chains} == {
        "cola": "lora",
        "rac": "asym",
        "c3la": "cla",
        "r-c3la": "r-cla",
    }


@pytest.mark.parametrize(
    ("differences", "p_value"),
    # all four signs alike: 1 of 16 patterns; one small minus among three: patterns + + + + and itself, 2 of 16
    [([1.0, 2.0, 3.0, 4.0], 1 / 16), ([-1.0, 2.0, 3.0, 4.0], 2 / 16), ([0.0, 0.0, 0.0], 1.0), ([-1.0, -1.0], 1.0)],
)
def test_sign_flip_p_value_counts_patterns_exactly(differences, p_value):
    row = paired_claim(frame(differences), ["x"]).iloc[0]
    assert row["p_value"] == pytest.approx(p_value)
    assert row["difference"] == pytest.approx(sum(differences) / len(differences))
    assert row["low"] <= row["difference"] <= row["high"]


def test_a_frame_without_pairs_is_refused():
    alone = frame([1.0])
    with pytest.raises(ValueError, match="no chained method"):
        paired_claim(alone[alone["method"] == "c3la"], ["x"])


def test_runs_are_measured_once_and_in_every_way(model_cache, tmp_path, one_thread, monkeypatch):
    small = {"examples": 16, "curvature_examples": 8, "ascent_steps": 1, "samples": 2, "trace_probes": 2}
    for name, value in small.items():
        monkeypatch.setitem(geometry.SETTINGS, name, value)
    paths = digits_runs(["cla", "c3la"], seeds=1, epochs=0.3, folder=tmp_path, checkpoints=1)
    assert digits_runs(["cla"], seeds=1, epochs=0.3, folder=tmp_path, checkpoints=1) == paths[:1]
    sharp = sharpness_frame(paths, examples=8, samples=2)
    assert len(paired_claim(sharp, ["worst_merged", "mean_adapter"])) == 4
    spectra = intruder_frame(paths)
    curves = intruder_curves(paths, np.array([0.2, 0.6, 1.0]))
    assert all(curve["intruders"].is_monotonic_increasing for curve in curves.values())
    surface = planes(paths[:1], steps=3, examples=8)[0]
    assert surface.title == "cLA"
    found = measure_run(paths[1])
    assert found["intruders_authors"] == spectra[spectra["method"] == "c3la"].iloc[0]["authors"]
    assert measure_runs(tmp_path) == {"measured": 1, "skipped": 1, "without weights": 0, "failed": 0}
    before = read_json(paths[1] / "measures.json")
    assert measure_run(paths[1], examples=6)["sharpness_worst_merged"] != before["sharpness_worst_merged"]
    assert ["examples", 6] in read_json(paths[1] / "measures.json")["settings"]
    with pytest.raises(ValueError, match="examples must be at least 2, got 1"):
        measure_runs(tmp_path, examples=1)
    with pytest.raises(ValueError, match="no finished run"):
        measure_runs(tmp_path / "nothing")


def test_full_fine_tuning_is_measured_on_the_weights_adapters_would_adapt(model_cache, tmp_path, one_thread):
    (path,) = digits_runs(["fft"], seeds=1, epochs=0.2, folder=tmp_path, checkpoints=0)
    run = final_and_best(path)["last"]
    names = geometry.adapted_weights(run.model, run.record)
    assert len(names) == 8
    assert {layer.name for layer in geometry.run_updates(run)} == {name.removesuffix(".weight") for name in names}
