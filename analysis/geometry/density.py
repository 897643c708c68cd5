r"""Trace and spectral density of a large symmetric operator from a few random probes, with standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator
from tqdm import tqdm

__all__ = ["Density", "Trace", "hutchinson", "hutchpp", "spectral_density"]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """An estimated trace.

    Attributes:
        value: the estimate.
        standard_error: of the random part; 0 where that part is exact, NaN with one probe.
        products: matrix-vector products spent.
    """

    value: float
    standard_error: float
    products: int


def _signs(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    return rng.integers(0, 2, size=(size, count)).astype(np.float64) * 2 - 1


def _apply(operator: LinearOperator, block: np.ndarray, label: str) -> np.ndarray:
    columns = tqdm(block.T, desc=label, unit="product", leave=False, delay=2)
    return np.stack([operator.matvec(column) for column in columns], axis=1) if block.size else np.zeros_like(block)


def _summary(forms: np.ndarray) -> tuple[float, float]:
    error = float(forms.std(ddof=1) / math.sqrt(len(forms))) if len(forms) > 1 else math.nan
    return float(forms.mean()), error


def hutchinson(operator: LinearOperator, *, probes: int = 32, seed: int = 0) -> Trace:
    r"""Estimate the trace by :math:`E\, z^\top H z` over random signs z; unbiased.

    Source: Hutchinson, 1990; with signs the variance is :math:`2 (\|H\|_F^2 - \sum_i H_{ii}^2)` per probe, so a
    diagonal matrix is exact.

    Args:
        operator: symmetric, shape (d, d).
        probes: at least 1.
        seed: of the signs.

    Raises:
        ValueError: if ``probes`` is below 1.

    >>> hutchinson(LinearOperator((3, 3), matvec=lambda v: np.array([1.0, 2.0, 3.0]) * v), probes=2).value
    6.0
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    block = _signs(np.random.default_rng(seed), operator.shape[0], probes)
    value, error = _summary((block * _apply(operator, block, "trace")).sum(axis=0))
    return Trace(value=value, standard_error=error, products=probes)


def hutchpp(operator: LinearOperator, *, products: int = 48, seed: int = 0) -> Trace:
    r"""Estimate the trace by Hutch++: exact on a sketched range, Hutchinson on the rest.

    Source: Meyer, Musco, Musco, Woodruff, arXiv:2010.09649, algorithm 1: with Q an orthonormal basis of H S,
    :math:`\operatorname{tr}(Q^\top H Q) + \operatorname{tr}((I - QQ^\top) H (I - QQ^\top))`. A third of the products
    goes to the sketch, a third to the exact part, a third to the probes. The standard error is that of the
    random part given the sketch.

    Args:
        operator: symmetric, shape (d, d).
        products: budget, at least 6.
        seed: of sketch and probes.

    Raises:
        ValueError: if ``products`` is below 6.
    """
    if products < 6:
        raise ValueError(f"products must be at least 6, got {products}")
    rng, size, third = np.random.default_rng(seed), operator.shape[0], products // 3
    sketch = _apply(operator, _signs(rng, size, min(third, size)), "sketch")
    basis = np.linalg.qr(sketch)[0]
    exact = float((basis * _apply(operator, basis, "exact part")).sum())
    spent = 2 * basis.shape[1]
    if basis.shape[1] >= size:
        return Trace(value=exact, standard_error=0.0, products=spent)
    block = _signs(rng, size, third)
    block -= basis @ (basis.T @ block)
    value, error = _summary((block * _apply(operator, block, "random part")).sum(axis=0))
    return Trace(value=exact + value, standard_error=error, products=spent + third)


@dataclass(frozen=True, kw_only=True)
class Density:
    r"""A spectral density :math:`\phi(t) = \frac1d \sum_i \delta(t - \lambda_i)`, as Lanczos quadrature sees it.

    Attributes:
        nodes: Ritz values, shape (probes, steps); shorter runs are padded with NaN.
        weights: their weights, each probe's sum to 1.
        grid: where the smoothed density is given.
        density: mean over probes, each node widened to a Gaussian; integrates to 1.
        standard_error: of ``density`` over probes.
        width: the Gaussian's standard deviation.
        dimension: d.
    """

    nodes: np.ndarray
    weights: np.ndarray
    grid: np.ndarray
    density: np.ndarray
    standard_error: np.ndarray
    width: float
    dimension: int

    def moment(self, power: int) -> float:
        r"""Return the estimate of :math:`\operatorname{tr} H^p`."""
        return float(self.dimension * np.nansum(self.weights * self.nodes**power, axis=1).mean())


def spectral_density(
    operator: LinearOperator,
    *,
    steps: int = 30,
    probes: int = 4,
    points: int = 200,
    width: float | None = None,
    seed: int = 0,
) -> Density:
    r"""Estimate the eigenvalue density by stochastic Lanczos quadrature.

    Source: Lin, Saad, Yang, arXiv:1308.5467; Ghorbani, Krishnan, Xiao, arXiv:1901.10159. From each unit Gaussian
    probe, m Lanczos steps with full reorthogonalisation give a tridiagonal matrix whose eigenvalues are nodes
    and whose eigenvectors' squared first entries are weights; exact for polynomials up to degree 2 m - 1.

    Args:
        operator: symmetric, shape (d, d).
        steps: m, at least 1; cut to d.
        probes: number of probes, at least 1.
        points: size of the grid.
        width: standard deviation of the Gaussian smoothing; None is 1 % of the range of the nodes.
        seed: of the probes.

    Raises:
        ValueError: if a count is below 1.
    """
    if min(steps, probes) < 1 or points < 2:
        raise ValueError(f"steps and probes must be at least 1 and points 2, got {steps}, {probes}, {points}")
    size = operator.shape[0]
    steps = min(steps, size)
    rng = np.random.default_rng(seed)
    nodes = np.full((probes, steps), np.nan)
    weights = np.zeros((probes, steps))
    for index in tqdm(range(probes), desc="Lanczos probes", leave=False, delay=2):
        diagonal, off = _lanczos(operator, rng.standard_normal(size), steps)
        values, vectors = eigh_tridiagonal(diagonal, off)
        nodes[index, : len(values)] = values
        weights[index, : len(values)] = vectors[0] ** 2
    low, high = float(np.nanmin(nodes)), float(np.nanmax(nodes))
    spread = (high - low) or max(abs(high), 1.0)
    width = 0.01 * spread if width is None else width
    grid = np.linspace(low - 5 * width, high + 5 * width, points)
    bumps = np.exp(-0.5 * ((grid[None, None] - nodes[..., None]) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    each = np.nansum(weights[..., None] * bumps, axis=1)
    error = each.std(axis=0, ddof=1) / math.sqrt(probes) if probes > 1 else np.full(points, np.nan)
    return Density(
        nodes=nodes,
        weights=weights,
        grid=grid,
        density=each.mean(axis=0),
        standard_error=error,
        width=width,
        dimension=size,
    )


def _lanczos(operator: LinearOperator, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return diagonal and off-diagonal of the tridiagonal matrix; stops early on an invariant subspace."""
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    off: list[float] = []
    for step in range(steps):
        vector = operator.matvec(basis[-1])
        diagonal.append(float(basis[-1] @ vector))
        known = np.stack(basis, axis=1)
        for _ in range(2):
            vector = vector - known @ (known.T @ vector)
        length = float(np.linalg.norm(vector))
        scale = max(map(abs, diagonal))
        if step == steps - 1 or length <= 1e-10 * max(scale, *off, 1e-300):
            break
        off.append(length)
        basis.append(vector / length)
    return np.array(diagonal), np.array(off)
