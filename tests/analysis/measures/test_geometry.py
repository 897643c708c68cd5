"""What is measured of a run is what the instruments say at the settings that are written beside it."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn

from analysis.geometry import (
    expected_rise,
    hessian,
    hutchinson,
    mean_rise,
    parameter_space,
    top_eigenvalues,
    worst_rise,
)
from analysis.measures import adapted_weights, checkpoint_states, geometry, run_updates, training_batch
from analysis.spectra import BasisCache, intruder_counts, intruder_dimensions, spectrum_table

SMALL = geometry.GEOMETRY_SETTINGS | {
    "examples": 12, "curvature_examples": 6, "ascent_steps": 2, "samples": 2, "trace_probes": 2, "seed": 3,
    "relative_radius": 0.04, "sigma": 0.03, "intruder_count": 5, "intruder_epsilon": 0.6,
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


def test_every_number_of_a_run_is_its_instruments_at_the_settings(loaded):
    found = geometry.geometry_of_run(loaded, settings=SMALL)
    model, batch, small = loaded.model, training_batch(loaded, examples=12), training_batch(loaded, examples=6)
    assert [len(b["labels"]) for b in (batch, small)] == [12, 6]
    for space in ("adapter", "merged"):
        options = {"space": space, "relative_radius": 0.04, "seed": 3}
        # The same float32 operations in the same order, on one thread.
        assert found[f"sharpness_worst_{space}"] == worst_rise(model, batch, ascent_steps=2, **options).value
        assert found[f"sharpness_mean_{space}"] == mean_rise(model, batch, samples=2, **options).value
        operator = hessian(model, small, space=space)
        trace = hutchinson(operator, probes=2, seed=3)
        assert found[f"hessian_trace_{space}"] == trace.value
        assert found[f"hessian_trace_{space}_error"] == trace.standard_error
        top = top_eigenvalues(operator, count=1, tolerance=1e-6)
        residual = found[f"hessian_top_{space}_residual"]
        assert 0 < residual < 0.1 * top.values[0]
        # A Ritz value's error is at most its residual, for a well-separated eigenvalue its square over the gap.
        assert found[f"hessian_top_{space}"] == pytest.approx(top.values[0], abs=residual)
    noise = expected_rise(model, batch, sigma=0.03, samples=2, space="merged", seed=3)
    assert found["sharpness_expected_merged"] == noise.value
    spectra = geometry.spectra_of_run(loaded, settings=SMALL)
    assert {name: found[name] for name in spectra} == spectra
    assert len(found) == 6 * 2 + 1 + 9 + 3


def test_the_eigensolver_has_products_enough_for_a_second_eigenvalue_at_nine_tenths(loaded, monkeypatch):
    """On these runs the first eigenvalue stands alone; elsewhere a spectrum like this one takes several restarts."""
    values = np.concatenate([[1.0], np.linspace(0.9, -0.9, 199)])
    operator = LinearOperator((200, 200), matvec=lambda v: values * np.ravel(v), dtype=np.float64)
    monkeypatch.setattr(geometry, "hessian", lambda *args, **options: operator)
    found = geometry.geometry_of_run(loaded, settings=SMALL)
    for space in ("adapter", "merged"):
        # ARPACK's tolerance is 1 %.
        assert found[f"hessian_top_{space}"] == pytest.approx(1.0, rel=0.01)
        assert found[f"hessian_top_{space}_residual"] < 0.01


def test_a_solver_that_finds_nothing_says_so(loaded, monkeypatch):
    values = np.linspace(1.0, 0.999, 2000)
    operator = LinearOperator((2000, 2000), matvec=lambda v: values * np.ravel(v), dtype=np.float64)
    monkeypatch.setattr(geometry, "hessian", lambda *args, **options: operator)
    real = geometry.top_eigenvalues
    monkeypatch.setattr(geometry, "top_eigenvalues", lambda *a, **o: real(*a, **(o | {"tolerance": 1e-12})))
    found = geometry.geometry_of_run(loaded, settings=SMALL)
    assert np.isnan(found["hessian_top_adapter"])
    assert np.isnan(found["hessian_top_adapter_residual"])


def test_spectra_are_counted_by_both_conventions(loaded):
    found, updates = geometry.spectra_of_run(loaded, settings=SMALL), run_updates(loaded)
    authors = intruder_dimensions(updates, convention="authors", count=5)
    paper = intruder_dimensions(updates, convention="paper")
    for name, vectors in (("authors", authors), ("paper", paper)):
        row = intruder_counts(vectors, [0.6]).iloc[0]
        assert [found[f"intruders_{name}{end}"] for end in ("", "_low", "_high")] == [
            row[f"intruders{end}"] for end in ("", "_low", "_high")
        ]
    thresholds = np.arange(1, 101) / 100
    shares = [(paper["cosine"] < epsilon).mean() for epsilon in thresholds]
    # Thresholds are equal but for rounding, which the two ends allow for.
    low, share, high = (found[f"intruders_mean_share{end}"] for end in ("_low", "", "_high"))
    assert low <= share <= high
    assert share == pytest.approx(np.mean(shares), abs=high - low + 1e-12)
    curve = intruder_counts(paper, thresholds)
    assert [low, high] == pytest.approx(
        [curve[f"intruders_{end}"].mean() / len(paper) for end in ("low", "high")], abs=2 / len(paper)
    )
    table = spectrum_table(updates)
    for name, column in (("effective_rank", "effective_rank_update"), ("stable_rank", "stable_rank_update")):
        assert found[name] == pytest.approx(table[column].mean(), rel=1e-6)
    # A cached basis knows the norm of W0 from its singular values, in another order of summation.
    assert found["frobenius_ratio"] == pytest.approx(table["frobenius_ratio"].mean(), rel=1e-6)
    cache = BasisCache()
    assert geometry.spectra_of_run(loaded, cache=cache, settings=SMALL) == found


def test_settings_are_those_of_the_committed_measures():
    assert geometry.GEOMETRY_SETTINGS == {
        "version": 2, "examples": 200, "curvature_examples": 100, "relative_radius": 0.05, "sigma": 0.05,
        "ascent_steps": 6, "samples": 8, "trace_probes": 8, "intruder_count": 10, "intruder_epsilon": 0.5, "seed": 0,
    }  # fmt: skip


def test_a_batch_is_the_first_examples_and_never_more_than_there_are(loaded):
    train = loaded.task.train
    batch = training_batch(loaded, examples=3)
    expected = loaded.task.collate([train[0], train[1], train[2]])
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    few = dataclasses.replace(loaded, task=dataclasses.replace(loaded.task, train=[train[i] for i in range(4)]))
    assert len(training_batch(few, examples=9)["labels"]) == 4


def test_adapted_weights_are_matrices_whose_names_end_like_a_target(loaded):
    assert adapted_weights(loaded.model, loaded.record) is None
    deep = nn.ModuleDict({"query": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    model = nn.ModuleDict({"query": nn.Linear(2, 2), "subquery": nn.Linear(2, 2), "deep": deep})
    names = adapted_weights(model, {"config": {"target_modules": ["query", "norm"]}})
    assert names == ["query.weight", "deep.query.weight"]
    with pytest.raises(ValueError, match="target_modules must be given for model type None"):
        adapted_weights(model, {"config": {}})


def test_states_are_the_snapshots_oldest_first_and_the_run_itself(loaded):
    states = checkpoint_states(loaded)
    snapshots = loaded.checkpoints()
    assert len(states) == len(snapshots) + 1
    last = parameter_space(loaded.model, "merged").center
    assert set(last) < set(states[-1])  # and what was trained beside, so that a state has its own loss
    assert all("modules_to_save" in name for name in states[-1] if name not in last)
    assert all(torch.equal(states[-1][name], last[name]) for name in last)
    start = states[0]
    # The first snapshot is the base model itself: merged weights are W0.
    assert any(not torch.equal(start[name], last[name]) for name in last)
    full = checkpoint_states(loaded, space="full")
    assert len(full) == len(states)
    assert set(full[0]) != set(states[0])


def test_a_run_without_snapshots_has_no_states(loaded, monkeypatch):
    monkeypatch.setattr(type(loaded), "checkpoints", lambda self: [])
    with pytest.raises(ValueError, match="kept no checkpoints; run it with save_checkpoints"):
        checkpoint_states(loaded)
