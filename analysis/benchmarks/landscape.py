"""Loss planes: vectorised, serial and Chebyshev against each other and against loss-landscapes (PyPI) if installed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from analysis.benchmarks import harness
from analysis.benchmarks.small_lm import small_lm, tokens
from analysis.geometry import Evaluation, plane

__all__ = ["run"]

_METHODS: tuple[Literal["serial", "auto", "chebyshev"], ...] = ("serial", "auto", "chebyshev")


def _peer(model: Any, batch: dict[str, Any], steps: int) -> Callable[[], Any]:
    """loss-landscapes' random plane over all parameters; its filter mode divides by zero, so layer mode."""
    import loss_landscapes
    from loss_landscapes.metrics import Metric

    class BatchLoss(Metric):
        def __call__(self, model_wrapper: Any) -> float:
            with torch.no_grad():
                return float(model_wrapper.modules[0](**batch, use_cache=False).loss)

    def walk() -> Any:
        return loss_landscapes.random_plane(
            copy.deepcopy(model), BatchLoss(), distance=1, steps=steps, normalization="layer", deepcopy_model=True
        )

    return walk


def run(*, results: str | Path | None = None, quick: bool = False, repeats: int | None = None) -> dict[str, Any]:
    """Time planes at several sizes of a point.

    Args:
        results: where to write; None writes nothing.
        quick: one small size.
        repeats: timed repeats; None is 3.

    Returns:
        ``{"timings": benchmark -> case -> row, "values": ..., "tables": ...}``.
    """
    sizes = [(1, 16, 25), (4, 16, 25), (8, 32, 13), (16, 64, 13)]
    sizes = [(1, 16, 9)] if quick else sizes
    model = small_lm(layers=2 if quick else 4)
    timings: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for rows, columns, steps in sizes:
        batch = tokens(rows, columns)
        name = f"plane {steps}x{steps}, {rows * columns} tokens"
        cases: dict[str, Callable[[], Any]] = {
            method: partial(
                plane, model, batch, steps=steps, radius=0.5, evaluation=Evaluation(method=method, progress=False)
            )
            for method in _METHODS
        }
        if find_spec("loss_landscapes") and rows * columns == 16:
            cases["loss-landscapes"] = _peer(model, batch, steps)
        timings[name] = harness.compare(cases, baseline="serial", repeats=repeats or 3, progress=name)
        found = {method: cases[method]() for method in _METHODS}
        exact = found["serial"].values
        span = float(np.ptp(exact))
        values |= {
            f"{name}/auto method": found["auto"].method,
            f"{name}/auto error": float(np.abs(found["auto"].values - exact).max()),
            f"{name}/chebyshev method": found["chebyshev"].method,
            f"{name}/chebyshev evaluations": found["chebyshev"].evaluations,
            f"{name}/chebyshev error": float(np.abs(found["chebyshev"].values - exact).max() / span),
        }
    return harness.conclude("landscape", timings, values=values, results=results)
