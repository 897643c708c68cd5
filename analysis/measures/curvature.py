"""Top eigenvalues, trace and spectral density of the loss at finished runs, one run after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis.geometry import (
    Curvature,
    Density,
    Eigenvalues,
    SpaceName,
    Trace,
    gauss_newton,
    hessian,
    hutchinson,
    hutchpp,
    spectral_density,
    top_eigenvalues,
)
from analysis.measures.geometry import adapted_weights, training_batch
from analysis.runs import LoadedRun, load_run

__all__ = ["RunCurvature", "curvature_of_runs", "curvature_tables"]


@dataclass(frozen=True, kw_only=True)
class RunCurvature:
    """Curvature of the training loss at one run.

    Attributes:
        label: the method, and the run's key where another run of the method came before.
        key: of the run.
        method: key of the method.
        seed: of the run.
        top: largest eigenvalues with residuals.
        trace: with its standard error.
        density: spectral density, if asked for.
    """

    label: str
    key: str
    method: str
    seed: int
    top: Eigenvalues
    trace: Trace
    density: Density | None


def curvature_of_runs(
    paths: Iterable[str | Path | LoadedRun],
    *,
    matrix: Literal["hessian", "gauss-newton"] = "hessian",
    space: SpaceName = "adapter",
    count: int = 3,
    probes: int = 16,
    trace: Literal["hutchinson", "hutch++"] = "hutchinson",
    density_steps: int = 0,
    examples: int = 200,
    seed: int = 0,
    data: str | None = None,
    model: str | None = None,
) -> Iterator[RunCurvature]:
    """Measure the curvature of runs that kept their weights; each is handed on as soon as it is there.

    Args:
        paths: runs' folders, or runs and models that are loaded.
        matrix: ``"hessian"`` or ``"gauss-newton"``.
        space: as in `analysis.geometry.landscape.plane`; outside ``"full"`` the adapted weights alone.
        count: largest eigenvalues.
        probes: of the trace.
        trace: how it is estimated; Hutch++ spends its products on a sketch first, which pays where eigenvalues decay.
        density_steps: Lanczos steps of the density; 0 leaves it out.
        examples: training examples of the fixed batch.
        seed: of starts and probes.
        data: where the runs' data is now; None is where it was.
        model: where the base model is now.

    Raises:
        ValueError: if a folder holds no run with weights, or a count is out of its range.
    """
    build = hessian if matrix == "hessian" else gauss_newton
    met: set[str] = set()
    for path in paths:
        run = path if isinstance(path, LoadedRun) else load_run(path, data=data, model=model)
        names = adapted_weights(run.model, run.record) if space != "full" else None
        operator = build(run.model, training_batch(run, examples=examples), space=space, names=names)
        key, method = str(run.record["key"]), str(run.record["config"]["method"])
        yield RunCurvature(
            label=method if method not in met else f"{method}, {key[:6]}",
            key=key,
            method=method,
            seed=run.record["config"]["seed"],
            top=top_eigenvalues(operator, count=count, seed=seed),
            trace=_trace(operator, probes=probes, method=trace, seed=seed),
            density=spectral_density(operator, steps=density_steps, seed=seed) if density_steps else None,
        )
        met.add(method)


def _trace(operator: Curvature, *, probes: int, method: str, seed: int) -> Trace:
    if method == "hutch++":
        return hutchpp(operator, products=probes, seed=seed)
    return hutchinson(operator, probes=probes, seed=seed)


def curvature_tables(found: Sequence[RunCurvature]) -> dict[str, Any]:
    """Return ``tables`` and ``series`` of a result file: one row per eigenvalue, one density per run."""
    columns = ["run", "method", "seed", "index", "eigenvalue", "residual", "trace", "trace_error"]
    rows = [
        [one.key, one.method, one.seed, k + 1, value, residual, one.trace.value, one.trace.standard_error]
        for one in found
        for k, (value, residual) in enumerate(zip(one.top.values, one.top.residuals, strict=True))
    ]
    series = {
        one.label: {
            "grid": one.density.grid, "density": one.density.density, "standard_error": one.density.standard_error,
        }
        for one in found
        if one.density is not None
    }  # fmt: skip
    return {"tables": {"eigenvalues": {"columns": columns, "rows": rows}}, "series": series}
