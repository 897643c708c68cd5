"""States that a landscape passes through: the two ends of a line, the checkpoints of a path, each with all it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from analysis.geometry.directions import Direction, check_direction, difference, norm, principal_directions
from analysis.geometry.objective import Objective
from analysis.geometry.points import combine
from analysis.geometry.spaces import (
    Space,
    SpaceName,
    model_state,
    names_of_adapters,
    parameter_space,
    trained_beside,
)

__all__ = ["CheckpointPath", "State", "between", "checkpoint_path"]

State = nn.Module | Mapping[str, Tensor]
"""A model, or names -> tensors: the space's parameters, and any other parameter or float buffer of the model."""


def between(model: nn.Module, space: SpaceName, start: State, end: State) -> tuple[Space, Direction, tuple[str, ...]]:
    """Return the space of all that two states hold, standing at the first; the way to the second; and what stays.

    Args:
        model: what both are states of.
        space: as in `analysis.geometry.spaces.parameter_space`.
        start: a model, or names -> tensors.
        end: the same.

    Returns:
        The space; the direction; names of what training changed, or of counts that differ, and is not moved.

    Raises:
        ValueError: if a name is not the model's, the states differ in names or shapes, or are the same point.
    """
    whole = parameter_space(model, space)
    own = tensors_of(model)
    here = {**own, **whole.rest, **whole.start}
    once = dict(model.named_parameters()).keys() | dict(model.named_buffers()).keys() | whole.start.keys()
    aliases = own.keys() - once if whole.tied else set()  # a tied tensor is replaced by its first name
    first, last = (_held(state, space) for state in (start, end))
    for state, given, other in ((first, start, last), (last, end, first)):
        odd = [name for name in state if name not in here]
        if odd:
            raise ValueError(f"no parameter {odd[0]!r} in {space} space, nor a tensor of that name in the model")
        if isinstance(given, nn.Module):
            theirs = tensors_of(given)
            state.update({name: theirs[name] for name in other if name not in state and name in theirs})
        elif not state.keys().isdisjoint(names_of_adapters(model) - whole.start.keys()):
            raise ValueError(f"{space} space holds no adapter of its own: a state dict is not merged; give the model")
    difference(first, last)  # the same names and shapes
    counts = [name for name in first if not first[name].is_floating_point()]
    alike = {name for name in first if name not in whole.start and _alike(first[name], last[name], here[name])}
    names = [name for name in first if name not in {*counts, *alike, *aliases}]
    chosen = [{name: state[name].detach().to(here[name].device) for name in names} for state in (first, last)]
    at = replace(
        whole,
        start={name: here[name] for name in names},
        center={name: whole.center.get(name, here[name]) for name in names},
        filter_dim=dict.fromkeys(names, 0),
        rest={name: value for name, value in {**whole.rest, **_bare_ones(whole)}.items() if name not in names},
    )
    direction = difference(*chosen)
    check_direction(direction, replace(at, center=chosen[0]), label="the difference of the two states")
    moved = at.move(difference(at.center, chosen[0]))
    begun = replace(at, start={name: moved[name] for name in names}, center=chosen[0])
    unlike = [name for name in counts if not torch.equal(first[name], last[name])]
    return begun, direction, (*unlike, *(name for name in trained_beside(model, begun) if name not in alike))


def _held(state: State, space: SpaceName) -> dict[str, Tensor]:
    return model_state(state, space) if isinstance(state, nn.Module) else dict(state)


def _bare_ones(space: Space) -> dict[str, Tensor]:
    """What layers that are computed from merged weights alone need, moved or not."""
    return space.start if space.bare else {}


def _alike(first: Tensor, last: Tensor, here: Tensor) -> bool:
    """Whether both states and the model agree in a tensor, so that it need not be replaced."""
    return torch.equal(first, last) and first.shape == here.shape and torch.equal(first.to(here), here)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer by each of its names."""
    parameters = {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}
    return {**dict(model.named_buffers(remove_duplicate=False)), **parameters}


@dataclass(frozen=True, kw_only=True)
class CheckpointPath:
    """Checkpoints on a plane, with their own losses.

    Attributes:
        directions: the plane's two, orthonormal.
        coordinates: of each checkpoint's projection, relative to the last one, shape (checkpoints, 2).
        losses: of each checkpoint, with all of its state.
        distances: of each checkpoint from the plane.
        explained: share of the variance along each direction.
    """

    directions: tuple[Direction, ...] = ()
    coordinates: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    losses: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    explained: tuple[float, ...] = ()


def checkpoint_path(
    objective: Objective, space: Space, checkpoints: Sequence[State] | None, names: Iterable[str] | None
) -> CheckpointPath:
    """Lay a plane through checkpoints, and measure each with all of its state.

    Args:
        objective: the loss.
        space: whose parameters span the plane; it stands at the last checkpoint.
        checkpoints: models or states, oldest first.
        names: restrict the space to these parameters.

    Raises:
        ValueError: without checkpoints, if the last is not where the model stands, or as `principal_directions`.
    """
    states = [
        model_state(state, space.name, names=names) if isinstance(state, nn.Module) else dict(state)  # type: ignore[arg-type]
        for state in checkpoints or ()
    ]
    here = {**space.rest, **tensors_of(objective.model)}
    inside = [{name: state[name] for name in space.start if name in state} for state in states]
    _check_last(inside, space)
    principal = principal_directions(inside)
    losses, distances = [], []
    for state, part, at in zip(states, inside, principal.path, strict=True):
        beside = {name: tensor for name, tensor in state.items() if name in here and name not in space.start}
        moved = space.move(difference(space.center, part))
        losses.append(objective({**moved, **beside}))
        off = difference(combine(principal.directions, at), difference(inside[-1], part))
        distances.append(norm(off))
    return CheckpointPath(
        directions=principal.directions,
        coordinates=principal.path,
        losses=tuple(losses),
        distances=tuple(distances),
        explained=principal.explained,
    )


def _check_last(states: Sequence[Mapping[str, Tensor]], space: Space) -> None:
    if not states:
        raise ValueError("directions='pca' needs checkpoints, oldest first")
    offset = difference(space.center, states[-1])
    if norm(offset) > 1e-4 * max(space.norm, 1e-12):
        raise ValueError("the last checkpoint is not where the model stands; put the model's own state last")
