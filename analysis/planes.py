r"""The loss at many points of a plane: serial, vectorised over points, or from a Chebyshev grid.

``torch.func.vmap`` over the coordinates batches only what depends on them; frozen weights and everything
before the first moved layer are computed once per chunk. It removes the overhead of many small operations,
so it wins while a point is small and loses when a point already fills the machine: both ways are timed on
points that are wanted anyway, and the faster one goes on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from tqdm import tqdm

from analysis.directions import Direction
from analysis.objective import Objective, evaluation_mode
from analysis.spaces import Space

__all__ = ["Evaluated", "Walk", "chebyshev_matrix", "chebyshev_nodes", "evaluate_chebyshev", "evaluate_points"]

Walk = Literal["auto", "serial", "vmap"]
_CHUNK = 5
_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Losses at points, and how they were found.

    Attributes:
        losses: float64, one per point; NaN and infinities as the model gave them.
        method: ``"serial"``, ``"vmap 25"`` (with its chunk), ``"chebyshev 9"``, or ``"chebyshev failed: ..."``.
        evaluations: points at which the model was evaluated.
        error: Chebyshev only: largest error at held-out points as a share of the range of the losses; else NaN.
        note: why a faster way was not taken, when it failed.
    """

    losses: np.ndarray
    method: str
    evaluations: int
    error: float = float("nan")
    note: str = ""


def evaluate_points(
    objective: Objective,
    space: Space,
    directions: Sequence[Direction],
    points: np.ndarray,
    *,
    method: Walk = "auto",
    chunk: int | None = None,
    n_jobs: int | None = 1,
    progress: bool = True,
) -> Evaluated:
    r"""Return :math:`L(\theta + \sum_k c_k d_k)` at each row c of ``points``.

    Args:
        objective: model, batches and loss.
        space: the parameters that move.
        directions: one per column of ``points``.
        points: float64 coordinates, shape (points, directions).
        method: ``"serial"`` one point after the other, ``"vmap"`` in chunks, ``"auto"`` whichever is faster,
            timed on the first points.
        chunk: points per vectorised call; None tunes it (too large a chunk is slower on a CPU).
        n_jobs: joblib's: 1 stays in this process; other numbers, or None for the active
            ``joblib.parallel_config`` (several machines through Dask or Ray), split the points over workers.
        progress: show a tqdm bar.

    Raises:
        ValueError: if the method is unknown or ``chunk`` is not positive.
    """
    if method not in ("auto", "serial", "vmap"):
        raise ValueError(f"unknown method {method!r}; accepted: auto, serial, vmap, chebyshev")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    if n_jobs != 1:
        return _evaluate_in_parallel(objective, space, directions, points, method=method, chunk=chunk, n_jobs=n_jobs)
    total, count = np.zeros(len(points)), 0
    walker = _Walker(objective, space, directions, points, method=method, chunk=chunk)
    with (
        torch.no_grad(),
        evaluation_mode(objective.model),
        tqdm(desc="loss at points", unit="point", leave=False, delay=2, disable=not progress, total=len(points)) as bar,
    ):
        for batch in objective.batches:
            bar.reset()
            weight = objective.weight(batch)
            total += weight * walker.losses(batch, bar.update)
            count += weight
    return Evaluated(losses=total / count, method=walker.label, evaluations=len(points), note=walker.note)


class _Walker:
    """Evaluates all points on one batch at a time; decides on the first batch how to go on."""

    def __init__(self, objective, space, directions, points, *, method: Walk, chunk: int | None):
        self.objective, self.space, self.directions, self.method = objective, space, directions, method
        self.points = torch.as_tensor(points, dtype=torch.float64)
        self.chunk = chunk if chunk is not None else (0 if method != "serial" else 1)
        self.tune = method == "auto" or (method == "vmap" and chunk is None)
        self.largest = max(1, _BYTES // max(1, 4 * space.size))
        self.note = ""
        if method == "serial":
            self.chunk = 1

    @property
    def label(self) -> str:
        return "serial" if self.chunk == 1 else f"vmap {self.chunk}"

    def losses(self, batch: Any, update: Callable[[int], Any]) -> np.ndarray:
        done: list[Tensor] = []
        if self.tune:
            done = self._tune(batch, update)
            self.tune = False
        place = sum(map(len, done))
        while place < len(self.points):
            done.append(self._losses(batch, place, self.chunk))
            place += len(done[-1])
            update(len(done[-1]))
        return torch.cat(done).numpy() if done else np.zeros(0)

    def _losses(self, batch: Any, place: int, chunk: int) -> Tensor:
        points = self.points[place : place + chunk]

        def loss(point: Tensor) -> Tensor:
            offsets = {
                name: sum(
                    point[k].to(direction[name].dtype) * direction[name] for k, direction in enumerate(self.directions)
                )
                for name in self.space.start
            }
            return self.objective.batch_loss(self.space.move(offsets), batch)

        points = points.to(self.objective.device)
        if chunk == 1:
            values = loss(points[0])[None]
        else:
            with warnings.catch_warnings():  # attention's CPU kernel runs point by point: still the faster one
                warnings.filterwarnings("ignore", message="There is a performance drop")
                values = vmap(loss)(points)
        if values.shape != (len(points),):
            raise ValueError(f"the loss must be a scalar, got shape {tuple(values.shape[1:])}")
        return values.double().cpu()

    def _tune(self, batch: Any, update: Callable[[int], Any]) -> list[Tensor]:
        """Time chunks of 1, 5, 25, ... on the first points, as long as larger ones are faster."""
        done: list[Tensor] = []
        place = 0

        def seconds_per_point(chunk: int) -> float:
            nonlocal place
            start = time.perf_counter()
            done.append(self._losses(batch, place, chunk))
            place += len(done[-1])
            update(len(done[-1]))
            return (time.perf_counter() - start) / max(1, len(done[-1]))

        times = {1: float("inf")}
        if self.method == "auto":
            alone = [seconds_per_point(1) for _ in range(min(3, len(self.points)))]
            times[1] = min(alone[1:], default=float("inf"))  # the first call warms up
        chunk = _CHUNK
        while chunk <= self.largest and place + 2 * chunk <= len(self.points):
            try:
                times[chunk] = min(seconds_per_point(chunk) for _ in range(2 if chunk == _CHUNK else 1))
            except (RuntimeError, ValueError, NotImplementedError) as error:
                if self.method == "vmap":
                    raise
                self.note = f"vmap failed, serial instead: {str(error).splitlines()[0]}"
                break
            if times[chunk] > 0.95 * min(times[size] for size in times if size != chunk):
                break
            chunk *= 5
        self.chunk = min(times, key=lambda size: times[size])
        if self.method == "vmap" and self.chunk == 1:
            self.chunk = min(_CHUNK, self.largest) if self.largest > 1 else 2
        return done


def _evaluate_in_parallel(objective, space, directions, points, *, method, chunk, n_jobs) -> Evaluated:
    from joblib import Parallel, delayed, effective_n_jobs

    pieces = np.array_split(np.arange(len(points)), min(len(points), max(1, effective_n_jobs(n_jobs))))
    parts = Parallel(n_jobs=n_jobs)(
        delayed(evaluate_points)(
            objective, space, directions, points[piece], method=method, chunk=chunk, progress=False
        )
        for piece in pieces
    )
    return replace(
        parts[0],
        losses=np.concatenate([part.losses for part in parts]),
        evaluations=len(points),
        method=f"{parts[0].method}, {len(pieces)} workers",
    )


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
