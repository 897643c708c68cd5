"""A grid of losses from a smaller Chebyshev grid, checked at held-out points against the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from analysis.geometry.points import Evaluated

__all__ = ["chebyshev_matrix", "chebyshev_nodes", "evaluate_chebyshev", "grid_points"]


def chebyshev_nodes(count: int) -> np.ndarray:
    r"""Return the Chebyshev points of the second kind, :math:`-\cos(\pi j / (n - 1))`; the middle one is exactly 0.

    >>> chebyshev_nodes(3).tolist()
    [-1.0, 0.0, 1.0]
    """
    nodes = -np.cos(np.pi * np.arange(count) / (count - 1))
    return (nodes - nodes[::-1]) / 2


def chebyshev_matrix(count: int, at: np.ndarray) -> np.ndarray:
    r"""Matrix that takes values at the Chebyshev nodes to the interpolating polynomial's values.

    Source: the second barycentric formula with weights :math:`(-1)^j`, halved at both ends; Berrut and
    Trefethen, *Barycentric Lagrange interpolation*, SIAM Review 46 (2004), section 5.

    Args:
        count: number of nodes.
        at: where the polynomial is wanted, in [-1, 1], shape (points,).

    Returns:
        Shape (points, count); rows sum to 1.

    >>> at = np.linspace(-1, 1, 7)
    >>> cubic = lambda x: x**3 - 2 * x
    >>> bool(np.allclose(chebyshev_matrix(4, at) @ cubic(chebyshev_nodes(4)), cubic(at)))
    True
    """
    nodes = chebyshev_nodes(count)
    weights = (-1.0) ** np.arange(count)
    weights[[0, -1]] /= 2
    gaps = at[:, None] - nodes[None, :]
    hit = np.isclose(gaps, 0.0, rtol=0.0, atol=1e-14)
    terms = weights / np.where(hit, 1.0, gaps)
    matrix = terms / terms.sum(axis=1, keepdims=True)
    rows = hit.any(axis=1)
    matrix[rows] = hit[rows]
    return matrix


def evaluate_chebyshev(
    evaluate: Callable[[np.ndarray], Evaluated],
    axes: Sequence[np.ndarray],
    *,
    counts: Sequence[int] = (9, 13),
    tolerance: float = 0.01,
    held_out: int = 16,
    seed: int = 0,
) -> Evaluated:
    """Interpolate a grid of losses from a smaller Chebyshev grid, checked at held-out grid points.

    The coefficients' decay is no safe alarm on rough surfaces, so the model itself is evaluated at grid points
    drawn by ``seed``; if the interpolant misses one of them by more than ``tolerance`` of the losses' range, the
    next larger Chebyshev grid is tried, and at last every grid point is evaluated. What was used is said.

    Args:
        evaluate: points -> `Evaluated`.
        axes: the grid's uniform or other axes, each symmetric about 0.
        counts: Chebyshev points per axis, odd so that the centre is one of them.
        tolerance: accepted error as a share of the range of all losses evaluated.
        held_out: number of checks.
        seed: seed of the draw.

    Returns:
        Losses on the grid, flattened with the first axis fastest.

    Raises:
        ValueError: if ``tolerance`` is not positive or a count is even or below 3.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if any(count < 3 or count % 2 == 0 for count in counts):
        raise ValueError(f"counts must be odd and at least 3, got {tuple(counts)}")
    grid = grid_points(axes)
    chosen = np.random.default_rng(seed).choice(len(grid), size=min(held_out, len(grid)), replace=False)
    checks = evaluate(grid[chosen])
    spent, reached = checks.evaluations, []
    for count in counts:
        if spent + count ** len(axes) >= len(grid):
            break
        nodes = [chebyshev_nodes(count) * np.abs(axis).max() for axis in axes]
        sampled = evaluate(grid_points(nodes))
        spent += sampled.evaluations
        seen = np.concatenate([sampled.losses, checks.losses])
        if not np.isfinite(seen).all():
            reached.append("a loss is not finite")
            break
        values = sampled.losses.reshape([count] * len(axes))
        for dim, axis in enumerate(reversed(axes)):
            matrix = chebyshev_matrix(count, axis / np.abs(axis).max())
            values = np.moveaxis(np.tensordot(matrix, values, axes=(1, dim)), 0, dim)
        losses = values.reshape(-1)
        span = seen.max() - seen.min()
        error = float(np.abs(losses[chosen] - checks.losses).max() / span) if span > 0 else 0.0
        if error <= tolerance:
            return Evaluated(
                losses=losses,
                method=f"chebyshev {count} ({sampled.method})",
                evaluations=spent,
                error=error,
                note=sampled.note,
            )
        reached.append(f"{count} nodes miss by {100 * error:.2g} % of the range")
    dense = evaluate(grid)
    why = "; ".join(reached) or "the grid is no larger than the Chebyshev grid"
    return replace(
        dense,
        evaluations=spent + dense.evaluations,
        method=f"{dense.method}, every point",
        note=f"no Chebyshev: {why}",
    )


def grid_points(axes: Sequence[np.ndarray]) -> np.ndarray:
    """Return all points of a grid, shape (points, axes), the first axis fastest."""
    mesh = np.meshgrid(*reversed(axes), indexing="ij")
    return np.stack([part.reshape(-1) for part in reversed(mesh)], axis=1)
