r"""Loss landscapes of any torch module: lines and planes, random or principal, in adapter or merged space.

A landscape is a slice :math:`(x, y) \mapsto L(\theta + x d_1 + y d_2)` of one fixed function: evaluation mode,
the same batches at every point. The model is never changed, no value is ever altered (NaN stays NaN), and the
centre of the grid is the model's own loss.

>>> import torch
>>> model = torch.nn.Linear(4, 1)
>>> batch = (torch.randn(8, 4), torch.randn(8, 1))
>>> surface = plane(model, batch, space="full", steps=5)
>>> surface.values.shape, abs(float(surface.values[2, 2]) - surface.center_loss) < 1e-6
((5, 5), True)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from analysis.geometry.chebyshev import evaluate_chebyshev, grid_points
from analysis.geometry.directions import (
    Direction,
    Normalization,
    check_direction,
    cosine,
    difference,
    norm,
    normalize,
    principal_directions,
    random_direction,
)
from analysis.geometry.objective import Data, Loss, Objective
from analysis.geometry.points import Evaluated, Evaluation, evaluate_points
from analysis.geometry.spaces import Space, SpaceName, parameter_space
from analysis.geometry.surface import Landscape

__all__ = ["Landscape", "interpolate", "line", "plane"]

Directions = Literal["random", "pca"] | Sequence[Mapping[str, Tensor]]


def plane(
    model: nn.Module,
    data: Data,
    *,
    loss: Loss | None = None,
    directions: Directions = "random",
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
    normalization: Normalization = "filter",
    checkpoints: Sequence[Mapping[str, Tensor]] | None = None,
    steps: int = 25,
    radius: float | None = None,
    seed: int = 0,
    title: str = "",
    evaluation: Evaluation | None = None,
) -> Landscape:
    r"""Measure the loss on a plane through the model's parameters.

    Source: Li et al., *Visualizing the loss landscape of neural nets*, arXiv:1712.09913.

    Args:
        model: any torch module, transformers and PEFT models included.
        data: one batch, a list of batches, or a loader that does not shuffle.
        loss: ``loss(forward, batch) -> scalar``; None takes the output's ``loss`` of a batch given by keyword,
            or cross-entropy / squared error of a pair (inputs, targets).
        directions: ``"random"`` Gaussian, ``"pca"`` of ``checkpoints``, or two directions of your own
            (parameter name -> tensor), normalised like random ones.
        space: ``"adapter"``, ``"merged"`` or ``"full"`` (`analysis.geometry.spaces.parameter_space`).
        names: restrict the space to these parameters.
        normalization: ``"filter"``, ``"layer"`` or ``"none"``; PCA directions are orthonormal and stay so.
        checkpoints: for PCA: states of the space's parameters, oldest first; the last must be the model's own.
        steps: points per axis, odd so that the centre is on the grid.
        radius: half-width in units of the directions; None is 1 for random directions, and what shows the whole
            path for PCA.
        seed: of random directions and of the Chebyshev check.
        title: a label for figures.
        evaluation: how the losses are evaluated: the walk or interpolation, chunks, workers, progress.

    Returns:
        A `Landscape` with ``values[i, j]`` at ``(x[j], y[i])``.

    Raises:
        TypeError: if a moved weight is not floating point.
        ValueError: for a loader that shuffles or is empty, too few checkpoints, directions of the wrong shape, a
            zero direction, an even number of steps, a radius that is not positive.
    """
    _check_grid(steps, radius)
    objective = Objective(model, data, loss=loss)
    moved = parameter_space(model, space, names=names)
    path: np.ndarray = np.zeros((0, 2))
    explained: tuple[float, ...] = ()
    if isinstance(directions, str) and directions == "pca":
        _check_last(checkpoints, moved)
        principal = principal_directions(checkpoints or [])
        pair, path, explained = list(principal.directions), principal.path, principal.explained
        normalization = "none"
        radius = radius if radius is not None else 1.15 * float(np.abs(path).max())
    else:
        pair = _two_directions(directions, moved, normalization, seed)
    radius = 1.0 if radius is None else radius
    axis = np.linspace(-radius, radius, steps)
    axis[steps // 2] = 0.0
    result = _evaluate(objective, moved, pair, [axis, axis], evaluation, seed)
    return Landscape(
        values=result.losses.reshape(steps, steps),
        x=axis,
        y=axis,
        center_loss=objective(),
        space=space,
        normalization=normalization,
        directions=directions if isinstance(directions, str) else "given",
        direction_norms=tuple(norm(direction) for direction in pair),
        center_norm=moved.norm,
        direction_cosine=cosine(*pair),
        method=result.method,
        evaluations=result.evaluations,
        error=result.error,
        note=result.note,
        path=path,
        explained=explained,
        seed=seed if directions == "random" else None,
        title=title,
    )


def line(
    model: nn.Module,
    data: Data,
    *,
    loss: Loss | None = None,
    direction: Literal["random"] | Mapping[str, Tensor] = "random",
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
    normalization: Normalization = "filter",
    steps: int = 51,
    radius: float = 1.0,
    seed: int = 0,
    title: str = "",
    evaluation: Evaluation | None = None,
) -> Landscape:
    """Measure the loss along one direction through the model's parameters; arguments as in `plane`.

    Raises:
        ValueError: as `plane`.
    """
    _check_grid(steps, radius)
    objective = Objective(model, data, loss=loss)
    moved = parameter_space(model, space, names=names)
    if isinstance(direction, str):
        only = _two_directions(direction, moved, normalization, seed)[0]
    else:
        check_direction(direction, moved)
        only = normalize(direction, moved, normalization)
    axis = np.linspace(-radius, radius, steps)
    axis[steps // 2] = 0.0
    result = _evaluate(objective, moved, [only], [axis], evaluation, seed)
    return Landscape(
        values=result.losses,
        x=axis,
        center_loss=objective(),
        space=space,
        normalization=normalization,
        directions=direction if isinstance(direction, str) else "given",
        direction_norms=(norm(only),),
        center_norm=moved.norm,
        method=result.method,
        evaluations=result.evaluations,
        error=result.error,
        note=result.note,
        seed=seed if isinstance(direction, str) else None,
        title=title,
    )


def interpolate(
    model: nn.Module,
    data: Data,
    *,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    loss: Loss | None = None,
    space: SpaceName = "adapter",
    steps: int = 41,
    margin: float = 0.25,
    title: str = "",
    evaluation: Evaluation | None = None,
) -> Landscape:
    r"""Measure the loss on the straight line :math:`(1 - t) \theta_0 + t \theta_1` between two states.

    Source: Goodfellow et al., arXiv:1412.6544. Two adapters of one base are compared in adapter space (where
    their gauge matters) or, as merged weights, in merged space.

    Args:
        model: the module both states belong to.
        data: as in `plane`.
        start: the space's parameter names -> tensors, at t = 0 (merged space: merged weights).
        end: the same at t = 1.
        loss: as in `plane`.
        space: as in `plane`.
        steps: number of points, at least 2.
        margin: how far the line goes on beyond both ends.
        title: a label for figures.
        evaluation: as in `plane`; every point is evaluated, so not by ``"chebyshev"``.

    Returns:
        A line; ``x`` is t, ``center_loss`` the loss at t = 0.

    Raises:
        ValueError: if the states do not have the space's names and shapes, or are the same point, or the
            evaluation interpolates.
    """
    if steps < 2 or margin < 0:
        raise ValueError(f"steps must be at least 2 and margin at least 0, got {steps} and {margin}")
    moved = parameter_space(model, space, names=list(start))
    direction = difference(start, end)
    check_direction(direction, moved, label="the difference of the two states")
    offsets = difference(moved.center, start)
    from_start = Space(name=moved.name, start=moved.move(offsets), center=dict(start), filter_dim=moved.filter_dim)
    objective = Objective(model, data, loss=loss)
    axis = np.linspace(-margin, 1 + margin, steps)
    result = evaluate_points(objective, from_start, [direction], axis[:, None], evaluation=evaluation or Evaluation())
    return Landscape(
        values=result.losses,
        x=axis,
        center_loss=objective(from_start.start),
        space=space,
        normalization="none",
        directions="interpolation",
        direction_norms=(norm(direction),),
        center_norm=from_start.norm,
        method=result.method,
        evaluations=result.evaluations,
        note=result.note,
        title=title,
    )


def _evaluate(
    objective: Objective,
    space: Space,
    pair: Sequence[Direction],
    axes: Sequence[np.ndarray],
    evaluation: Evaluation | None,
    seed: int,
) -> Evaluated:
    how = Evaluation() if evaluation is None else evaluation
    if how.method != "chebyshev":
        return evaluate_points(objective, space, pair, grid_points(axes), evaluation=how)
    evaluate = partial(evaluate_points, objective, space, pair, evaluation=replace(how, method="auto"))
    return evaluate_chebyshev(evaluate, axes, tolerance=how.tolerance, seed=seed)


def _two_directions(directions: Any, space: Space, normalization: Normalization, seed: int) -> list[Direction]:
    if isinstance(directions, str):
        if directions != "random":
            raise ValueError(f"unknown directions {directions!r}; accepted: random, pca, or two of your own")
        generator = torch.Generator().manual_seed(seed)
        return [random_direction(space, generator=generator, normalization=normalization) for _ in range(2)]
    if len(directions) != 2:
        raise ValueError(f"a plane needs two directions, got {len(directions)}")
    for number, direction in enumerate(directions, start=1):
        check_direction(direction, space, label=f"direction {number}")
    pair = [normalize(direction, space, normalization) for direction in directions]
    if abs(cosine(*pair)) > 1 - 1e-9:
        raise ValueError("the two directions are parallel; they span a line, not a plane")
    return pair


def _check_grid(steps: int, radius: float | None) -> None:
    if steps < 3 or steps % 2 == 0:
        raise ValueError(f"steps must be odd and at least 3, so that the centre is on the grid, got {steps}")
    if radius is not None and not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"radius must be positive and finite, got {radius}")


def _check_last(checkpoints: Sequence[Mapping[str, Tensor]] | None, space: Space) -> None:
    if not checkpoints:
        raise ValueError("directions='pca' needs checkpoints, oldest first")
    offset = difference(space.center, checkpoints[-1])
    if norm(offset) > 1e-4 * max(space.norm, 1e-12):
        raise ValueError("the last checkpoint is not where the model stands; put the model's own state last")
