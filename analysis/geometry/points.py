r"""The loss at many points of a plane: serial, or vectorised over points, whichever is faster.

``torch.func.vmap`` over the coordinates batches only what depends on them; frozen weights and everything
before the first moved layer are computed once per chunk. It removes the overhead of many small operations,
so it wins while a point is small and loses when a point already fills the machine: both ways are timed on
points that are wanted anyway, and the faster one goes on.
"""

from __future__ import annotations

import copy
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from torch import Tensor
from torch.func import vmap
from tqdm import tqdm

from analysis.geometry.directions import Direction
from analysis.geometry.objective import Batch, Objective, evaluation_mode
from analysis.geometry.spaces import Space

__all__ = ["Evaluated", "Evaluation", "combine", "evaluate_points", "running_statistics"]

Method = Literal["auto", "serial", "vmap", "chebyshev"]
_CHUNK = 5
_LARGE = 0.02  # seconds a point: warming up no longer matters
_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How losses at points are evaluated.

    Attributes:
        method: ``"serial"`` one point after the other, ``"vmap"`` in chunks, ``"auto"`` whichever is faster, timed on
            the first points, or ``"chebyshev"``: interpolated and checked, see
            `analysis.geometry.chebyshev.evaluate_chebyshev`.
        chunk: points per vectorised call; None tunes it (too large a chunk is slower on a CPU).
        tolerance: of the Chebyshev check, as a share of the range of the losses.
        n_jobs: joblib's: 1 stays in this process; other numbers, or None for the active
            ``joblib.parallel_config`` (several machines through Dask or Ray), split the points over workers.
        progress: show a tqdm bar.
        buffers: running statistics at a point: ``"moved"`` along with the weights where the ends of a line have their
            own, else the model's; or ``"recalibrated"``, measured anew at every point on the given batches (batch norm
            alone; serial, every point). Then the centre need not have the model's own loss.

    Raises:
        ValueError: if the method or the choice of buffers is unknown, or ``chunk`` or ``tolerance`` is not positive.

    >>> Evaluation(method="serial", progress=False).n_jobs
    1
    """

    method: Method = "auto"
    chunk: int | None = None
    tolerance: float = 0.01
    n_jobs: int | None = 1
    progress: bool = True
    buffers: Literal["moved", "recalibrated"] = "moved"

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"unknown method {self.method!r}; accepted: {', '.join(get_args(Method))}")
        if self.buffers not in ("moved", "recalibrated"):
            raise ValueError(f"unknown buffers {self.buffers!r}; accepted: moved, recalibrated")
        if self.buffers == "recalibrated" and self.method not in ("auto", "serial"):
            raise ValueError(f"recalibrated buffers are measured point by point, not by method {self.method!r}")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")


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
    evaluation: Evaluation,
) -> Evaluated:
    r"""Return :math:`L(\theta + \sum_k c_k d_k)` at each row c of ``points``.

    Args:
        objective: model, batches and loss.
        space: the parameters that move.
        directions: one per column of ``points``.
        points: float64 coordinates, shape (points, directions).
        evaluation: how; every point is evaluated.

    Raises:
        ValueError: if the evaluation's method interpolates.
    """
    if evaluation.method == "chebyshev":
        raise ValueError("method 'chebyshev' interpolates grids around 0; accepted here: auto, serial, vmap")
    if evaluation.n_jobs != 1:
        return _evaluate_in_parallel(objective, space, directions, points, evaluation=evaluation)
    if evaluation.buffers == "recalibrated":
        return _recalibrated(objective, space, directions, points, evaluation=evaluation)
    total, count = np.zeros(len(points)), 0
    walker = _Walker(objective, space, directions, points, method=evaluation.method, chunk=evaluation.chunk)
    with (
        torch.no_grad(),
        evaluation_mode(objective.model),
        tqdm(
            desc="loss at points",
            unit="point",
            leave=False,
            delay=2,
            disable=not evaluation.progress,
            total=len(points),
        ) as bar,
    ):
        for batch in objective.batches:
            bar.reset()
            weight = objective.weight(batch)
            total += weight * walker.losses(batch, bar.update)
            count += weight
    return Evaluated(losses=total / count, method=walker.label, evaluations=len(points), note=walker.note)


def _recalibrated(objective, space, directions, points, *, evaluation: Evaluation) -> Evaluated:
    """Measure the running statistics anew at each point, then the loss."""
    losses = []
    for point in tqdm(points, desc="loss at points", leave=False, delay=2, disable=not evaluation.progress):
        values = space.move(combine(directions, point))
        losses.append(objective({**values, **running_statistics(objective, values)}))
    return Evaluated(losses=np.array(losses), method="serial, recalibrated", evaluations=len(points))


@torch.no_grad()
def running_statistics(objective: Objective, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what batch norms measure on all batches, each batch weighing the same, with parameters replaced.

    Raises:
        ValueError: if the model has no batch norm that keeps running statistics.
    """
    norms = {
        f"{name}." if name else "": module
        for name, module in objective.model.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    }
    if not norms:
        raise ValueError("recalibrated buffers need batch norms that keep running statistics; the model has none")
    found: dict[str, Tensor] = {}
    for name, module in norms.items():
        buffers = {key: torch.zeros_like(value) for key, value in module.named_buffers()}
        found |= {f"{name}{key}": value for key, value in buffers.items()}
    momenta = {module: module.momentum for module in norms.values()}
    with evaluation_mode(objective.model):
        try:
            for module in norms.values():
                module.momentum = None  # type: ignore[assignment]  # the plain average over batches
                module.train()
            for batch in objective.batches:
                objective.batch_loss({**values, **found}, batch)
        finally:
            for module, momentum in momenta.items():
                module.momentum = momentum
    return {name: value for name, value in found.items() if value.is_floating_point()}


def combine(directions: Sequence[Mapping[str, Tensor]], point: Sequence[float] | np.ndarray | Tensor) -> Direction:
    """Return the sum of directions times coordinates, in the directions' own precision."""
    at = torch.as_tensor(point, dtype=torch.float64)
    return {
        name: cast(Tensor, sum(at[k].to(tensor) * direction[name] for k, direction in enumerate(directions)))
        for name, tensor in directions[0].items()
    }


class _Walker:
    """Evaluates all points on one batch at a time; decides on the first batch how to go on."""

    def __init__(self, objective, space, directions, points, *, method: Method, chunk: int | None):
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

    def losses(self, batch: Batch, update: Callable[[int], Any]) -> np.ndarray:
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
            return self.objective.batch_loss(self.space.move(combine(self.directions, point)), batch)

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
                times[chunk] = seconds_per_point(chunk)
                if chunk == _CHUNK and not (times[chunk] > 1.2 * times[1] > _LARGE):  # the first call warms up
                    times[chunk] = min(times[chunk], seconds_per_point(chunk))
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


def _evaluate_in_parallel(objective, space, directions, points, *, evaluation: Evaluation) -> Evaluated:
    pieces = np.array_split(np.arange(len(points)), min(len(points), max(1, effective_n_jobs(evaluation.n_jobs))))
    alone = replace(evaluation, n_jobs=1, progress=False)
    parts = Parallel(n_jobs=evaluation.n_jobs)(
        delayed(_evaluate_piece)(objective, space, directions, points[piece], evaluation=alone) for piece in pieces
    )
    return replace(
        parts[0],
        losses=np.concatenate([part.losses for part in parts]),
        evaluations=len(points),
        method=f"{parts[0].method}, {len(pieces)} workers",
    )


def _evaluate_piece(objective: Objective, *args: Any, evaluation: Evaluation) -> Evaluated:
    """Evaluate a worker's points; a thread takes its own copy of the model, whose parameters are swapped meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        objective = copy.copy(objective)
        objective.model = copy.deepcopy(objective.model)
    return evaluate_points(objective, *args, evaluation=evaluation)
