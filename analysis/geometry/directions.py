r"""Directions of a landscape: random and normalised, through checkpoints, or from one adapter to another.

Filter normalisation (Li et al., arXiv:1712.09913, section 4): a Gaussian direction d is rescaled filter by
filter, :math:`d_i \leftarrow d_i \|w_i\| / \|d_i\|`, so that the scale invariance of a layer cannot make a
minimum look flat or sharp. A filter is the set of weights of one output feature: a row of W, of B, or of A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from analysis.geometry.spaces import Space

__all__ = [
    "Direction",
    "Normalization",
    "PrincipalPlane",
    "check_direction",
    "cosine",
    "difference",
    "norm",
    "normalize",
    "principal_directions",
    "random_direction",
]

Direction = dict[str, Tensor]
Normalization = Literal["filter", "layer", "none"]


def norm(direction: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm over all tensors, summed in float64."""
    return float(sum(tensor.double().square().sum() for tensor in direction.values())) ** 0.5


def cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return the cosine of the angle between two directions."""
    dot = float(sum((first[name].double() * second[name].double()).sum() for name in first))
    return dot / (norm(first) * norm(second))


def random_direction(space: Space, *, generator: torch.Generator, normalization: Normalization = "filter") -> Direction:
    """Draw a Gaussian direction (on the CPU, so that a seed means the same on every device) and normalise it.

    Args:
        space: the parameters that are moved.
        generator: a CPU generator.
        normalization: see `normalize`.

    Returns:
        Parameter name -> float32 (or float64) tensor of the parameter's shape.

    Raises:
        ValueError: if the normalisation is unknown, or every filter of the space is zero.
    """
    raw = {
        name: torch.randn(tensor.shape, generator=generator, dtype=_wide(tensor)).to(tensor.device)
        for name, tensor in space.center.items()
    }
    return normalize(raw, space, normalization)


def normalize(direction: Mapping[str, Tensor], space: Space, normalization: Normalization) -> Direction:
    """Rescale a direction to the size of the weights it moves.

    Args:
        direction: parameter name -> tensor.
        space: its centre's norms are used.
        normalization: ``"filter"``: each filter gets its weight's norm. ``"layer"``: each tensor gets its
            weight's norm. ``"none"``: unchanged. As in the public code of Li et al., vectors (biases, norms)
            stay where they are under the first two. Departure: a filter whose weights are all zero (a row of
            B at its start) takes the root mean square of its tensor's filter norms instead of zero.

    Raises:
        ValueError: if the normalisation is unknown or the result is zero.
    """
    if normalization not in get_args(Normalization):
        raise ValueError(f"unknown normalization {normalization!r}; accepted: {', '.join(get_args(Normalization))}")
    if normalization == "none":
        result = dict(direction)
    else:
        result = {
            name: _rescale(tensor, space.center[name], normalization, space.filter_dim[name])
            for name, tensor in direction.items()
        }
    check_direction(result, space)
    return result


def _rescale(direction: Tensor, weight: Tensor, normalization: str, filter_dim: int) -> Tensor:
    if weight.ndim < 2:
        return torch.zeros_like(direction)
    dims = [dim for dim in range(weight.ndim) if normalization == "layer" or dim != filter_dim]
    target = weight.to(direction.dtype).square().sum(dims, keepdim=True).sqrt()
    if normalization == "filter":
        target = torch.where(target > 0, target, target.square().mean().sqrt())
    length = direction.square().sum(dims, keepdim=True).sqrt()
    return direction * torch.where(length > 0, target / length, torch.zeros_like(length))


def check_direction(direction: Mapping[str, Tensor], space: Space, *, label: str = "direction") -> None:
    """Refuse a direction that does not fit the space, is not finite, or is zero.

    Raises:
        ValueError: naming the first tensor that does not fit.
    """
    if direction.keys() != space.center.keys():
        odd = sorted(direction.keys() ^ space.center.keys())
        raise ValueError(f"{label} must have the parameters of the {space.name} space; differs in {odd[0]!r}")
    for name, tensor in direction.items():
        if tensor.shape != space.center[name].shape:
            raise ValueError(
                f"{label} has shape {tuple(tensor.shape)} at {name!r}, expected {tuple(space.center[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{label} is not finite at {name!r}")
    if not any(bool(tensor.any()) for tensor in direction.values()):
        raise ValueError(f"{label} is zero: a landscape along it would be one number (are all weights of it zero?)")


def difference(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> Direction:
    """Return ``end - start`` of two states with the same names and shapes.

    Raises:
        ValueError: if names or shapes differ (a mismatched base and adapter, another rank).
    """
    if start.keys() != end.keys():
        odd = sorted(start.keys() ^ end.keys())
        raise ValueError(f"the two states have different parameters; first difference: {odd[0]!r}")
    for name, tensor in start.items():
        if tensor.shape != end[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(tensor.shape)} in one state and {tuple(end[name].shape)} in the other"
            )
    return {name: end[name].to(_wide(tensor)) - tensor.to(_wide(tensor)) for name, tensor in start.items()}


@dataclass(frozen=True, kw_only=True)
class PrincipalPlane:
    """Principal directions of a run's checkpoints.

    Attributes:
        directions: orthonormal directions, in order of explained variance.
        explained: share of the checkpoints' variance along each direction, in [0, 1].
        path: coordinates of each checkpoint relative to the last one, shape (checkpoints, directions).
    """

    directions: tuple[Direction, ...]
    explained: tuple[float, ...]
    path: np.ndarray


def principal_directions(checkpoints: Sequence[Mapping[str, Tensor]], *, count: int = 2) -> PrincipalPlane:
    r"""Principal directions of an optimisation path.

    Source: Li et al., arXiv:1712.09913, section 7.2: PCA of the matrix
    :math:`[\theta_0 - \theta_n; \ldots; \theta_{n-1} - \theta_n]`, whose mean PCA removes. It is computed
    from the checkpoints' Gram matrix in float64, so parameters are never stacked.

    Args:
        checkpoints: states with the same names and shapes, in order; the last is the centre.
        count: 1 or 2 directions.

    Raises:
        ValueError: with fewer than ``count + 1`` checkpoints, states that differ in names or shapes, or a
            path that spans fewer than ``count`` directions.

    >>> path = [{"w": torch.tensor([t, 2.0 * t**2])} for t in (2.0, 1.0, 0.0)]
    >>> plane = principal_directions(path)
    >>> round(sum(plane.explained), 6), plane.path[-1].tolist()
    (1.0, [0.0, 0.0])
    """
    if len(checkpoints) < count + 1:
        raise ValueError(f"{count} principal directions need at least {count + 1} checkpoints, got {len(checkpoints)}")
    last = checkpoints[-1]
    steps = [difference(last, checkpoint) for checkpoint in checkpoints]
    for index, step in enumerate(steps):
        if not all(torch.isfinite(tensor).all() for tensor in step.values()):
            raise ValueError(f"checkpoint {index} is not finite")
    products = np.array([[_dot(first, second) for second in steps] for first in steps])
    centering = np.eye(len(steps)) - 1.0 / len(steps)
    variances, vectors = np.linalg.eigh(centering @ products @ centering)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    if variances[count - 1] <= 1e-12 * max(variances[0], 1e-300):
        raise ValueError(f"the checkpoints span fewer than {count} directions; use directions='random' or a line")
    directions, path = [], []
    for index in range(count):
        weights = centering @ vectors[:, index] / np.sqrt(variances[index])
        direction = {
            name: sum(
                (float(weight) * step[name] for weight, step in zip(weights, steps, strict=True)),
                torch.zeros_like(steps[0][name]),
            )
            for name in last
        }
        directions.append(direction)
        path.append(products @ weights)
    explained = variances[:count] / variances.clip(min=0).sum()
    return PrincipalPlane(
        directions=tuple(directions), explained=tuple(map(float, explained)), path=np.stack(path, axis=1)
    )


def _dot(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    return float(sum((first[name].double() * second[name].double()).sum() for name in first))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
