"""Hessian-vector products: the retained graph against double backward and against curvlinops if installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.benchmarks import harness
from analysis.benchmarks.small_lm import small_lm, tokens
from analysis.geometry import gauss_newton, hessian

__all__ = ["run"]


class _Logits(nn.Module):
    """The model as curvlinops wants it: tokens -> one row of logits per predicted token."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, use_cache=False).logits[:, :-1].reshape(-1, 256)


def _curvlinops(model: nn.Module, batch: dict[str, Any], vector: np.ndarray) -> Callable[[], np.ndarray]:
    from curvlinops import HessianLinearOperator

    wrapped = _Logits(model)
    ids = batch["input_ids"]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    labels = ids[:, 1:].reshape(-1)
    with sdpa_kernel(SDPBackend.MATH):
        operator = HessianLinearOperator(
            wrapped, nn.CrossEntropyLoss(), parameters, [(ids, labels)], check_deterministic=False
        ).to_scipy()

    def product() -> np.ndarray:
        with sdpa_kernel(SDPBackend.MATH):
            return operator @ vector

    return product


def run(*, results: str | Path | None = None, quick: bool = False, repeats: int | None = None) -> dict[str, Any]:
    """Time one product with the Hessian over the adapter's parameters.

    Args:
        results: where to write; None writes nothing.
        quick: one small model.
        repeats: timed repeats; None is 15.

    Returns:
        ``{"timings": benchmark -> case -> row, "values": ..., "tables": ...}``.
    """
    timings: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for layers, rows, columns in [(1, 2, 8)] if quick else [(2, 4, 32), (4, 4, 32), (4, 8, 64)]:
        model, batch = small_lm(layers=layers), tokens(rows, columns)
        name = f"product, {layers} layers, {rows * columns} tokens"
        kept, anew = hessian(model, batch, retain=True), hessian(model, batch, retain=False)
        newton = gauss_newton(model, batch)
        vector = np.random.default_rng(0).standard_normal(kept.shape[0]).astype(np.float32)
        cases: dict[str, Callable[[], Any]] = {
            "retained graph": partial(kept.matvec, vector),
            "double backward": partial(anew.matvec, vector),
            "gauss-newton, retained": partial(newton.matvec, vector),
        }
        if find_spec("curvlinops"):
            cases["curvlinops"] = _curvlinops(model, batch, vector)
            theirs = cases["curvlinops"]()
            ours = kept.matvec(vector)
            # curvlinops counts X.shape[0] data, so its scale may differ by a known factor: compare directions
            cosine = float(theirs @ ours / (np.linalg.norm(theirs) * np.linalg.norm(ours)))
            values[f"{name}/one minus cosine with curvlinops"] = 1 - cosine
        baseline = "curvlinops" if "curvlinops" in cases else "double backward"
        timings[name] = harness.compare(cases, baseline=baseline, repeats=repeats or 15, progress=name)
        values |= {f"{name}/parameters": kept.shape[0], f"{name}/baseline": baseline}
    return harness.conclude("curvature", timings, values=values, results=results)
