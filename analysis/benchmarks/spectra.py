"""Intruder counts and update spectra against full SVDs (as the authors' code does it) and against PEFT's tool."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.intruders import reduce_intruder_dimension
from torch import Tensor, nn

from analysis.benchmarks import harness
from analysis.spectra import Basis, cosines, count_intruders, product_singular_values

__all__ = ["run"]


def _weight(rows: int, columns: int, kind: str, generator: torch.Generator) -> Tensor:
    """A Gaussian weight, or one whose singular values decay as a power law."""
    weight = torch.randn(rows, columns, generator=generator) / columns**0.5
    if kind == "gaussian":
        return weight
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return (left * torch.arange(1, len(values) + 1).float() ** -0.7) @ right


def _authors(base: Tensor, tuned: Tensor, *, count: int = 10, epsilon: float = 0.5) -> int:
    """The authors' algorithm (arXiv:2410.21228): two full SVDs and all pairwise cosines."""
    before = torch.linalg.svd(base, full_matrices=False).U
    after = torch.linalg.svd(tuned, full_matrices=False).U
    best = (after.T @ before).abs().max(dim=1).values
    return int((best[:count] < epsilon).sum())


def _ours(basis: Basis, left: Tensor, right: Tensor) -> int:
    return count_intruders(cosines(basis, left, right))


def _cold(base: Tensor, left: Tensor, right: Tensor) -> int:
    return _ours(Basis.of(base, precision=torch.float32), left, right)


def _peft(base: Tensor, left: Tensor, right: Tensor) -> Callable[[], Any]:
    """PEFT's reduce_intruder_dimension on a model of one layer; it also writes the mitigated adapter."""

    def reduce() -> None:
        linear = nn.Linear(base.shape[1], base.shape[0], bias=False)
        linear.weight.data = base.clone()
        model: Any = nn.Sequential(linear)
        adapted = get_peft_model(model, LoraConfig(r=left.shape[1], lora_alpha=left.shape[1], target_modules=["0"]))
        layer: Any = adapted.base_model.get_submodule("model.0")
        layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = right.clone(), left.clone()
        with contextlib.redirect_stdout(io.StringIO()):
            reduce_intruder_dimension(adapted)

    return reduce


def run(*, results: str | Path | None = None, quick: bool = False, repeats: int | None = None) -> dict[str, Any]:
    """Time intruder counts and the spectrum of an update.

    Args:
        results: where to write; None writes nothing.
        quick: one small size.
        repeats: timed repeats; None is 3.

    Returns:
        ``{"timings": benchmark -> case -> row, "values": ..., "tables": ...}``.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = [(256, 256)] if quick else [(64, 64), (768, 768), (3072, 768), (768, 3072), (2048, 2048)]
    timings: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for rows, columns in shapes:
        for kind in ("gaussian", "power law"):
            base = _weight(rows, columns, kind, generator)
            left = 0.1 * torch.randn(rows, 16, generator=generator)
            right = 0.1 * torch.randn(16, columns, generator=generator)
            # float32, as the authors' two SVDs are: like with like
            basis, tuned = Basis.of(base, precision=torch.float32), base + left @ right
            name = f"intruders, {rows} x {columns}, {kind}"
            cases: dict[str, Callable[[], Any]] = {
                "two full SVDs": partial(_authors, base, tuned),
                "cold": partial(_cold, base, left, right),
                "cached": partial(_ours, basis, left, right),
            }
            if rows == columns == 768 and find_spec("peft.tuners.lora.intruders"):
                cases["peft reduce_intruder_dimension"] = _peft(base, left, right)
            timings[name] = harness.compare(cases, baseline="two full SVDs", repeats=repeats or 3, progress=name)
            counts = {case: cases[case]() for case in ("two full SVDs", "cold", "cached")}
            values[f"{name}/counts"] = ", ".join(f"{case}: {count}" for case, count in counts.items())
            values[f"{name}/counts equal"] = int(len(set(counts.values())) == 1)
        if rows == columns:
            name = f"spectrum of B A, {rows} x {columns}"
            products: dict[str, Callable[[], Any]] = {
                "SVD of the product": partial(_product_svd, left, right),
                "QR of the factors": partial(product_singular_values, left, right),
            }
            timings[name] = harness.compare(products, baseline="SVD of the product", repeats=repeats or 3)
            dense = products["SVD of the product"]()[:16]
            error = np.abs(products["QR of the factors"]() / dense - 1).max()
            values[f"{name}/relative error"] = float(error)
    return harness.conclude("spectra", timings, values=values, results=results)


def _product_svd(left: Tensor, right: Tensor) -> np.ndarray:
    return torch.linalg.svdvals(left @ right).numpy()
