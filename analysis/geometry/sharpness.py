r"""Sharpness as numbers, over all directions of a space rather than a plane's two.

With :math:`\theta` the centre of the space (adapter parameters, or merged weights W0 + dW) and radius
:math:`\rho = c \|\theta\|` relative to its size (so that wider layers are not sharper by convention):

- worst-case rise, :math:`\max_{\|\delta\| \le \rho} L(\theta + \delta) - L(\theta)` (Keskar et al.,
  arXiv:1609.04836; Foret et al., arXiv:2010.01412), found from below by projected gradient ascent;
- mean rise, :math:`E L(\theta + \delta) - L(\theta)` for :math:`\delta` uniform on the sphere of radius rho;
- expected loss under row-scaled noise, :math:`E L(W + \varepsilon) - L(W)` with
  :math:`\varepsilon_{ij} \sim N(0, \sigma^2 \|W_{i:}\|^2 / n)` (Flat-LoRA, arXiv:2409.14396, equation 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from analysis.geometry.directions import Direction, norm, random_direction
from analysis.geometry.objective import Data, Loss, Objective, objective_at
from analysis.geometry.spaces import Space, SpaceName

__all__ = ["Rise", "expected_rise", "mean_rise", "worst_rise"]


@dataclass(frozen=True, kw_only=True)
class Rise:
    """How far the loss rises.

    Attributes:
        value: nats (or the loss's unit); NaN if any loss was.
        standard_error: of a mean over random perturbations; NaN for a worst case.
        radius: absolute Euclidean length of the perturbation (root mean square for noise).
        center_loss: the loss at the centre.
        evaluations: losses evaluated.
    """

    value: float
    standard_error: float
    radius: float
    center_loss: float
    evaluations: int


def _setting(model: nn.Module, data: Data, loss: Loss | None, space: SpaceName, names: Iterable[str] | None):
    objective, moved, _ = objective_at(model, data, loss=loss, space=space, names=names)
    return objective, moved


def worst_rise(
    model: nn.Module,
    data: Data,
    *,
    relative_radius: float = 0.05,
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
    loss: Loss | None = None,
    ascent_steps: int = 8,
    restarts: int = 1,
    seed: int = 0,
) -> Rise:
    r"""Worst-case rise of the loss within a ball, from below.

    Projected gradient ascent on the ball, each step a quarter of its diameter along the normalised gradient,
    from the centre pushed 1 % of the radius in a random direction (so that a stationary centre is left). The
    largest loss seen is returned: a lower bound of the maximum, exact for a quadratic once it has converged.

    Args:
        model: any torch module.
        data: as in `analysis.geometry.landscape.plane`.
        relative_radius: c; the ball's radius is c times the norm of the space's centre.
        space: as in `analysis.geometry.landscape.plane`.
        names: as in `analysis.geometry.landscape.plane`.
        loss: as in `analysis.geometry.landscape.plane`.
        ascent_steps: gradient steps per restart.
        restarts: random starts.
        seed: of the random starts.

    Raises:
        ValueError: if the radius is not positive, the centre is zero, or a count is below 1.
    """
    if ascent_steps < 1 or restarts < 1:
        raise ValueError(f"ascent_steps and restarts must be at least 1, got {ascent_steps} and {restarts}")
    objective, moved = _setting(model, data, loss, space, names)
    radius = _radius(moved, relative_radius)
    center_loss = objective(moved.at_start)
    generator = torch.Generator().manual_seed(seed)
    highest, evaluations = -math.inf, 1
    for _ in range(restarts):
        offset = _scaled(random_direction(moved, generator=generator, normalization="none"), 0.01 * radius)
        for _ in range(ascent_steps):
            value, slopes = objective.gradient(moved.move(offset))
            gradient = {name: slopes[name] for name in offset}
            highest, evaluations = _larger(highest, value), evaluations + 1
            length = norm(gradient)
            if not math.isfinite(length) or length == 0.0:
                break
            stepped = {name: offset[name] + gradient[name] * (0.5 * radius / length) for name in offset}
            offset = _scaled(stepped, min(radius, norm(stepped)))
        highest, evaluations = _larger(highest, objective(moved.move(offset))), evaluations + 1
    return Rise(
        value=highest - center_loss,
        standard_error=math.nan,
        radius=radius,
        center_loss=center_loss,
        evaluations=evaluations,
    )


def mean_rise(
    model: nn.Module,
    data: Data,
    *,
    relative_radius: float = 0.05,
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
    loss: Loss | None = None,
    samples: int = 16,
    seed: int = 0,
) -> Rise:
    r"""Mean rise of the loss on a sphere.

    Each sample is an antithetic pair :math:`\frac12 (L(\theta + \delta) + L(\theta - \delta)) - L(\theta)`, which
    removes the slope's share of the variance; for a quadratic the mean is :math:`\rho^2 \operatorname{tr} H / 2d`.

    Args:
        model: any torch module.
        data: as in `analysis.geometry.landscape.plane`.
        relative_radius: the sphere's radius over the norm of the space's centre.
        space: as in `analysis.geometry.landscape.plane`.
        names: as in `analysis.geometry.landscape.plane`.
        loss: as in `analysis.geometry.landscape.plane`.
        samples: antithetic pairs, at least 2.
        seed: of the perturbations.

    Raises:
        ValueError: if the radius is not positive, the centre is zero, or there are fewer than 2 samples.
    """
    objective, moved = _setting(model, data, loss, space, names)
    radius = _radius(moved, relative_radius)
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Direction:
        return _scaled(random_direction(moved, generator=generator, normalization="none"), radius)

    return _antithetic(objective, moved, draw, samples, radius)


def expected_rise(
    model: nn.Module,
    data: Data,
    *,
    sigma: float = 0.05,
    space: SpaceName = "merged",
    names: Iterable[str] | None = None,
    loss: Loss | None = None,
    samples: int = 16,
    seed: int = 0,
) -> Rise:
    r"""Rise of the expected loss under Gaussian noise scaled row by row, as Flat-LoRA trains against.

    Source: Li et al., *Flat-LoRA*, arXiv:2409.14396: :math:`\varepsilon_{ij} \sim N(0, \sigma^2 \|W_{i:}\|^2 / n)`
    with n the number of columns, so that :math:`E \|\varepsilon\|^2 = \sigma^2 \|W\|_F^2`. Rows of norm zero stay
    where they are (as there), and so do vectors.

    Args:
        model: any torch module.
        data: as in `analysis.geometry.landscape.plane`.
        sigma: noise level relative to each row's norm.
        space: as in `analysis.geometry.landscape.plane`.
        names: as in `analysis.geometry.landscape.plane`.
        loss: as in `analysis.geometry.landscape.plane`.
        samples: antithetic pairs, at least 2.
        seed: of the noise.

    Raises:
        ValueError: if ``sigma`` is not positive, the centre is zero, or there are fewer than 2 samples.
    """
    objective, moved = _setting(model, data, loss, space, names)
    radius = _radius(moved, sigma)
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Direction:
        noise = random_direction(moved, generator=generator, normalization="none")
        return {name: sigma * _row_scale(moved, name) * tensor for name, tensor in noise.items()}

    return _antithetic(objective, moved, draw, samples, radius)


def _row_scale(space: Space, name: str) -> torch.Tensor:
    weight, filter_dim = space.center[name], space.filter_dim[name]
    if weight.ndim < 2:
        return torch.zeros((), device=weight.device)
    dims = [dim for dim in range(weight.ndim) if dim != filter_dim]
    return weight.float().square().mean(dims, keepdim=True).sqrt()


def _antithetic(objective: Objective, space: Space, draw: Callable[[], Direction], samples: int, radius: float) -> Rise:
    if samples < 2:
        raise ValueError(f"samples must be at least 2 to have a standard error, got {samples}")
    center_loss = objective(space.start)
    rises = []
    for _ in range(samples):
        offset = draw()
        back = {name: -tensor for name, tensor in offset.items()}
        rises.append(0.5 * (objective(space.move(offset)) + objective(space.move(back))) - center_loss)
    sample = torch.tensor(rises, dtype=torch.float64)
    return Rise(
        value=float(sample.mean()),
        standard_error=float(sample.std() / math.sqrt(samples)),
        radius=radius,
        center_loss=center_loss,
        evaluations=2 * samples + 1,
    )


def _radius(space: Space, relative: float) -> float:
    if not (math.isfinite(relative) and relative > 0):
        raise ValueError(f"the radius must be positive and finite, got {relative}")
    if space.norm == 0:
        raise ValueError(f"the centre of the {space.name} space is zero, so a relative radius has no meaning")
    return relative * space.norm


def _scaled(direction: Direction, length: float) -> Direction:
    factor = length / norm(direction)
    return {name: tensor * factor for name, tensor in direction.items()}


def _larger(highest: float, value: float) -> float:
    return value if math.isnan(value) or value > highest else highest
