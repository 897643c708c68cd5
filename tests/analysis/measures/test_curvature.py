"""Curvature of finished runs: what is asked for reaches the operator, and the tables hold what was found."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.geometry import gauss_newton, hessian, hutchinson, hutchpp, spectral_density, top_eigenvalues
from analysis.measures import curvature, curvature_of_runs, curvature_tables
from analysis.measures.geometry import adapted_weights, training_batch

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


@pytest.mark.parametrize(
    ("matrix", "trace", "space"), [("hessian", "hutchinson", "adapter"), ("gauss-newton", "hutch++", "full")]
)
def test_it_is_that_of_the_operator_asked_for(matrix, trace, space, finished, loaded):
    asked = {"count": 1, "probes": 6, "density_steps": 3, "seed": 5}
    (found,) = curvature_of_runs([finished], matrix=matrix, trace=trace, space=space, examples=12, **asked)
    names = None if space == "full" else adapted_weights(loaded.model, loaded.record)
    build = {"hessian": hessian, "gauss-newton": gauss_newton}[matrix]
    operator = build(loaded.model, training_batch(loaded, examples=12), space=space, names=names)
    estimate = {"hutchinson": hutchinson(operator, probes=6, seed=5), "hutch++": hutchpp(operator, products=6, seed=5)}
    # The same seeds and products in one process; two loads of one run differ by nothing but the order of a sum.
    assert found.top.values == pytest.approx(top_eigenvalues(operator, count=1, seed=5).values, rel=1e-5)
    assert found.trace.value == pytest.approx(estimate[trace].value, rel=1e-5)
    density = spectral_density(operator, steps=3, seed=5)
    assert np.allclose(found.density.density, density.density, rtol=1e-4, atol=1e-6 * np.max(density.density))


@pytest.fixture
def asked(monkeypatch):
    """What reaches each function of geometry and the reading of runs, without their work."""
    seen = {}

    def noting(name):
        def note(*words, **options):
            seen.setdefault(name, []).append(options)
            return SimpleNamespace(name=name)

        return note

    for name in ("hessian", "gauss_newton", "top_eigenvalues", "hutchinson", "hutchpp", "spectral_density"):
        monkeypatch.setattr(curvature, name, noting(name))
    return seen


def test_what_nobody_asks_for_is_as_documented(asked, finished):
    given = {name: one.default for name, one in inspect.signature(curvature_of_runs).parameters.items()}
    assert [given[name] for name in ("count", "probes", "density_steps", "examples", "seed")] == [3, 16, 0, 200, 0]
    first, second = curvature_of_runs([finished, finished])
    assert (first.label, second.label) == ("r-c3la", f"r-c3la, {first.key[:6]}")
    assert first.key == second.key == finished.name
    assert first.density is None
    assert asked["top_eigenvalues"] == [{"count": 3, "seed": 0}] * 2
    assert asked["hutchinson"] == [{"probes": 16, "seed": 0}] * 2
    assert asked.keys() == {"hessian", "top_eigenvalues", "hutchinson"}


@pytest.mark.parametrize(("space", "names"), [("adapter", ["a.weight"]), ("merged", ["a.weight"]), ("full", None)])
def test_outside_full_space_the_adapted_weights_alone_are_asked_for(space, names, asked, finished, monkeypatch):
    monkeypatch.setattr(curvature, "adapted_weights", lambda model, record: ["a.weight"])
    list(curvature_of_runs([finished], space=space))
    assert asked["hessian"] == [{"space": space, "names": names}]


def test_runs_are_read_from_where_data_and_model_are_now(asked, finished, loaded, monkeypatch):
    places = []
    monkeypatch.setattr(curvature, "load_run", lambda path, **where: places.append(where) or loaded)
    list(curvature_of_runs([finished], data="moved", model="too"))
    assert places == [{"data": "moved", "model": "too"}]


def test_tables_have_a_row_per_eigenvalue_and_a_density_per_run():
    density = SimpleNamespace(grid=[0.0, 1.0], density=[0.5, 0.25], standard_error=[0.1, 0.2])
    top = SimpleNamespace(values=[3.0, 2.0], residuals=[0.01, 0.02])
    trace = SimpleNamespace(value=7.0, standard_error=0.5)
    rest = {"method": "cla", "seed": 4, "top": top, "trace": trace}
    one = curvature.RunCurvature(label="cla", key="k", density=density, **rest)
    two = curvature.RunCurvature(label="cla, j", key="j", density=None, **rest)
    made = curvature_tables([one, two])
    assert made["tables"]["eigenvalues"]["rows"] == [
        ["k", "cla", 4, 1, 3.0, 0.01, 7.0, 0.5],
        ["k", "cla", 4, 2, 2.0, 0.02, 7.0, 0.5],
        ["j", "cla", 4, 1, 3.0, 0.01, 7.0, 0.5],
        ["j", "cla", 4, 2, 2.0, 0.02, 7.0, 0.5],
    ]
    assert made["tables"]["eigenvalues"]["columns"][3:6] == ["index", "eigenvalue", "residual"]
    assert made["series"] == {"cla": {"grid": [0.0, 1.0], "density": [0.5, 0.25], "standard_error": [0.1, 0.2]}}
