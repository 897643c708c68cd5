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
    norm,
    normalize,
    random_direction,
)
from analysis.geometry.objective import Data, Loss, Objective, check_start
from analysis.geometry.points import Evaluated, Evaluation, combine, evaluate_points
from analysis.geometry.spaces import Space, SpaceName, parameter_space, trained_beside
from analysis.geometry.states import CheckpointPath, State, between, checkpoint_path
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
    checkpoints: Sequence[State] | None = None,
    steps: int | tuple[int, int] = 25,
    radius: float | tuple[float, float] | None = None,
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
        checkpoints: for PCA: models or states (`analysis.geometry.spaces.model_state`), oldest first; the last must be
            the model's own. The plane is that of the space's parameters; each checkpoint's own loss is measured with
            all that its state holds.
        steps: points per axis, odd so that the centre is on the grid; or two numbers, along x and y.
        radius: half-width in units of the directions; None is 1 for random directions, and what shows the whole
            path for PCA; or two numbers.
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
    moved = parameter_space(model, space, names=names)
    objective = Objective(model, data, loss=loss, space=moved)
    path = CheckpointPath()
    if isinstance(directions, str) and directions == "pca":
        path = checkpoint_path(objective, moved, checkpoints, names)
        pair, normalization = list(path.directions), "none"
        radius = radius if radius is not None else 1.15 * float(np.abs(path.coordinates).max())
    else:
        pair = _two_directions(directions, moved, normalization, seed)
    how = Evaluation() if evaluation is None else evaluation
    axes = _axes(steps, 1.0 if radius is None else radius)
    result = _evaluate(objective, moved, pair, axes, how, seed)
    values, own = result.losses.reshape(len(axes[1]), len(axes[0])), objective()
    if how.method != "chebyshev" and how.buffers == "moved":
        check_start(float(values[len(axes[1]) // 2, len(axes[0]) // 2]), own, moved)
    return Landscape(
        values=values,
        x=axes[0],
        y=axes[1],
        center_loss=own,
        space=space,
        normalization=normalization,
        directions=directions if isinstance(directions, str) else "given",
        direction_norms=tuple(norm(direction) for direction in pair),
        center_norm=moved.norm,
        direction_cosine=cosine(*pair),
        method=result.method,
        evaluations=result.evaluations + len(path.losses),
        error=result.error,
        note=result.note,
        path=path.coordinates,
        path_losses=path.losses,
        path_distances=path.distances,
        explained=path.explained,
        fixed=tuple(trained_beside(model, moved)),
        buffers=how.buffers,
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
    moved = parameter_space(model, space, names=names)
    objective = Objective(model, data, loss=loss, space=moved)
    if isinstance(direction, str):
        only = _two_directions(direction, moved, normalization, seed)[0]
    else:
        check_direction(direction, moved)
        only = normalize(direction, moved, normalization)
    how = Evaluation() if evaluation is None else evaluation
    axis = _axes(steps, radius)[0]
    result = _evaluate(objective, moved, [only], [axis], how, seed)
    own = objective()
    if how.method != "chebyshev" and how.buffers == "moved":
        check_start(float(result.losses[len(axis) // 2]), own, moved)
    return Landscape(
        values=result.losses,
        x=axis,
        center_loss=own,
        space=space,
        normalization=normalization,
        directions=direction if isinstance(direction, str) else "given",
        direction_norms=(norm(only),),
        center_norm=moved.norm,
        method=result.method,
        evaluations=result.evaluations,
        error=result.error,
        note=result.note,
        fixed=tuple(trained_beside(model, moved)),
        buffers=how.buffers,
        seed=seed if isinstance(direction, str) else None,
        title=title,
    )


def interpolate(
    model: nn.Module,
    data: Data,
    *,
    start: State,
    end: State,
    loss: Loss | None = None,
    space: SpaceName = "adapter",
    steps: int = 41,
    margin: float = 0.25,
    title: str = "",
    evaluation: Evaluation | None = None,
) -> Landscape:
    r"""Measure the loss on the straight line :math:`(1 - t) \theta_0 + t \theta_1` between two states.

    Source: Goodfellow et al., arXiv:1412.6544. Two adapters of one base are compared in adapter space (where
    their gauge matters) or, as merged weights, in merged space. All that the two states hold goes along the line: the
    space's parameters, modules trained beside the adapter, biases, running statistics; so both ends are the models
    they name. What training changed and the states do not hold stays as the model has it, and is named.

    Args:
        model: the module both states belong to.
        data: as in `plane`.
        start: at t = 0: a model like ``model``; or names -> tensors, of the space (merged space: merged weights) and
            of any other parameter or float buffer, a whole state dict for one.
        end: the same at t = 1.
        loss: as in `plane`.
        space: as in `plane`.
        steps: number of points, at least 2.
        margin: how far the line goes on beyond both ends.
        title: a label for figures.
        evaluation: as in `plane`; every point is evaluated, so not by ``"chebyshev"``.

    Returns:
        A line; ``x`` is t, ``center_loss`` and ``path_losses`` the losses at the ends: a model's own where one
            is given.

    Raises:
        ValueError: if the states do not have the space's names and shapes, or are the same point, the evaluation
            interpolates, or an end does not have the loss of the model that was given for it.
    """
    if steps < 2 or margin < 0:
        raise ValueError(f"steps must be at least 2 and margin at least 0, got {steps} and {margin}")
    how = Evaluation() if evaluation is None else evaluation
    from_start, direction, fixed = between(model, space, start, end)
    objective = Objective(model, data, loss=loss, space=from_start)
    axis = np.linspace(-margin, 1 + margin, steps)
    ends = []
    for t, given in ((0.0, start), (1.0, end)):
        found = objective(from_start.move(combine([direction], [t])))
        own = Objective(given, data, loss=loss)() if isinstance(given, nn.Module) else found
        check_start(found, own, from_start, where=f"t = {t:.0f}")
        ends.append(own)
    result = evaluate_points(objective, from_start, [direction], axis[:, None], evaluation=how)
    return Landscape(
        values=result.losses,
        x=axis,
        center_loss=ends[0],
        space=space,
        normalization="none",
        directions="interpolation",
        direction_norms=(norm(direction),),
        center_norm=from_start.norm,
        method=result.method,
        evaluations=result.evaluations + 2,
        note=result.note,
        path=np.array([[0.0], [1.0]]),
        path_losses=tuple(ends),
        path_distances=(0.0, 0.0),
        fixed=fixed,
        buffers=how.buffers,
        title=title,
    )


def _evaluate(
    objective: Objective,
    space: Space,
    pair: Sequence[Direction],
    axes: Sequence[np.ndarray],
    how: Evaluation,
    seed: int,
) -> Evaluated:
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


def _check_grid(steps: int | tuple[int, int], radius: float | tuple[float, float] | None) -> None:
    for count in np.ravel(steps):
        if count < 3 or count % 2 == 0:
            raise ValueError(f"steps must be odd and at least 3, so that the centre is on the grid, got {steps}")
    for width in () if radius is None else np.ravel(radius):
        if not (np.isfinite(width) and width > 0):
            raise ValueError(f"radius must be positive and finite, got {radius}")


def _axes(steps: int | tuple[int, int], radius: float | tuple[float, float]) -> list[np.ndarray]:
    """Return the grid's two axes, zero on each."""
    axes = []
    for count, width in zip(np.broadcast_to(steps, 2), np.broadcast_to(radius, 2), strict=True):
        axis = np.linspace(-width, width, count)
        axis[count // 2] = 0.0
        axes.append(axis)
    return axes
