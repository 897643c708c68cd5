"""Theorem 1 against thousands of random networks, and a directed search for the one that comes nearest to it.

The pair of ``theory.networks.perturbation``: there the closed form, here the networks it speaks of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from theory.arguments import Count, Several, Whole, checked
from theory.checks import check_choice, check_integer
from theory.networks.perturbation import Network, correction

__all__ = ["ACTIVATIONS", "Stress", "Tightest", "stress", "tightest"]

Array = NDArray[np.float64]


def _erf(x: Array) -> Array:
    return np.asarray(erf(x))


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0.0)


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


GELU_LIPSCHITZ = 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)
"""Largest slope of x cdf(x): cdf(x) + x pdf(x) is largest where pdf(x) (2 - x^2) = 0, at x = sqrt 2."""

ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "relu": (_relu, 1.0),
    "tanh": (np.tanh, 1.0),
    "sigmoid": (_sigmoid, 0.25),
    "softplus": (_softplus, 1.0),
    "gelu": (_gelu, GELU_LIPSCHITZ),
}
"""Elementwise activations with their Lipschitz constants; sigmoid and softplus are not 0 at 0."""


@dataclass(frozen=True, kw_only=True)
class Stress:
    """What ``stress`` found.

    Attributes:
        networks: number of networks drawn.
        violations: how often a bound of theorem 1 was exceeded; 0 if it is a theorem.
        ratios: per network, the largest measured |f_{W0+dW} - f_{W0}| over its bound Phi_dW / 2.
    """

    networks: int
    violations: int
    ratios: Array


@dataclass(frozen=True, kw_only=True)
class Tightest:
    """What ``tightest`` found: the best ratio of deviation to bound, and its course over the steps."""

    ratio: float
    course: Array


@dataclass(frozen=True)
class _Batch:
    """A batch of networks of one shape: weights and shifts per layer, inputs (batch, points, width)."""

    base: list[Array]
    update: list[Array]
    shifts: list[Array]
    inputs: Array
    activation: str

    def outputs(self, *, base: bool, update: bool) -> Array:
        act = ACTIVATIONS[self.activation][0]
        hidden = self.inputs
        for base_weight, update_weight, shift in zip(self.base, self.update, self.shifts, strict=True):
            weight = base_weight * base + update_weight * update
            hidden = act(hidden @ weight.transpose(0, 2, 1) + shift[:, None, :])
        return hidden

    def log_corrections(self) -> Array:
        """Return ln Phi_dW and ln Phi_W0 per network, (batch, 2), for a 1-Lipschitz loss."""
        act, constant = ACTIVATIONS[self.activation]
        base = np.stack([np.linalg.norm(weight, ord=2, axis=(1, 2)) for weight in self.base], axis=1)
        update = np.stack([np.linalg.norm(weight, ord=2, axis=(1, 2)) for weight in self.update], axis=1)
        offsets = np.stack([np.linalg.norm(act(shift), axis=1) for shift in self.shifts], axis=1)
        radius = np.linalg.norm(self.inputs, axis=2).max(axis=1)
        logs = np.empty((len(base), 2))
        for row in range(len(base)):
            network = Network(base_norms=base[row], lipschitz=constant, offsets=offsets[row], radius=radius[row])
            phi = correction(network, update_norms=update[row])
            logs[row] = phi.log_update, phi.log_base
        return logs


@checked
def stress(
    *, networks: Count = 10_000, max_depth: Count = 6, batch: Count = 50, points: Several = 48, seed: Whole = 0
) -> Stress:
    """Draw random networks and check both branches of theorem 1 (arXiv:2606.13767, mended) on each.

    Widths 1 to 8, five activations, with and without shifts inside them, update sizes over four decades. The
    population is ``points`` inputs with targets, the sample a third of them, the loss the distance to the target.
    Checked: |f_{W0+dW} - f_{W0}| <= Phi_dW / 2 at every point, and G(W0+dW) <= min(G(W0) + Phi_dW, G(dW) + Phi_W0).

    Args:
        networks: how many.
        max_depth: depths 1 to this.
        batch: networks that share their widths.
        points: inputs per network.
        seed: of the draws.

    Returns:
        Counts and the ratios of measured deviation to bound.
    """
    check_integer("networks", networks)
    check_integer("max_depth", max_depth)
    rng = np.random.default_rng(seed)
    violations, ratios, left = 0, [], networks
    while left > 0:
        drawn = _draw(rng, min(batch, left), int(rng.integers(1, max_depth + 1)), points)
        left -= min(batch, left)
        phi_update, phi_base = np.exp(drawn.log_corrections()).T
        merged, base, update = (
            drawn.outputs(base=True, update=True),
            drawn.outputs(base=True, update=False),
            drawn.outputs(base=False, update=True),
        )
        deviation = np.linalg.norm(merged - base, axis=2).max(axis=1)
        targets = rng.normal(size=merged.shape)
        gap, base_gap, update_gap = (_gap(outputs, targets) for outputs in (merged, base, update))
        allowed = np.minimum(base_gap + phi_update, update_gap + phi_base)
        slack = 1 + 1e-9
        violations += int(((2 * deviation > phi_update * slack) | (gap > allowed * slack)).sum())
        ratios.append(np.divide(2 * deviation, phi_update, out=np.zeros_like(deviation), where=phi_update > 0))
    return Stress(networks=networks, violations=violations, ratios=np.concatenate(ratios))


@checked
def tightest(
    *,
    activation: str = "relu",
    depth: Count = 3,
    width: Count = 4,
    chains: Count = 64,
    steps: Count = 600,
    shifted: bool = False,
    seed: Whole = 0,
) -> Tightest:
    """Climb from random networks towards one whose deviation comes near Phi_dW / 2.

    Each chain proposes a random step in W0, dW, shifts and input and keeps it if the ratio grows; step sizes grow
    on success and shrink on failure (a (1+1) evolution strategy).

    Args:
        activation: one of ``ACTIVATIONS``.
        depth: layers.
        width: of every layer.
        chains: independent climbs.
        steps: proposals per climb.
        shifted: whether activations carry shifts.
        seed: of the draws.

    Returns:
        The best ratio over all chains and its course; at most 1 if theorem 1 holds.

    Raises:
        ValueError: if the activation is unknown.
    """
    check_choice("activation", activation, tuple(ACTIVATIONS))
    rng = np.random.default_rng(seed)
    sizes = [width * width] * (2 * depth) + [width] * (depth + 1)
    ends = np.cumsum(sizes)
    state = rng.normal(size=(chains, int(ends[-1])))
    if not shifted:
        state[:, ends[2 * depth - 1] : ends[-2]] = 0.0
    free = (state != 0).astype(float)
    step_size, course = np.full(chains, 0.3), np.empty(steps)
    best = _ratios(state, ends, depth, width, activation)
    for step in range(steps):
        proposal = state + step_size[:, None] * rng.normal(size=state.shape) * free
        ratio = _ratios(proposal, ends, depth, width, activation)
        better = ratio > best
        state[better], best[better] = proposal[better], ratio[better]
        step_size = np.clip(step_size * np.where(better, 1.6, 0.9), 1e-3, 1.0)
        course[step] = best.max()
    return Tightest(ratio=float(best.max()), course=course)


def _ratios(state: Array, ends: NDArray[np.int64], depth: int, width: int, activation: str) -> Array:
    parts = np.split(state, ends[:-1], axis=1)
    matrices = [part.reshape(-1, width, width) for part in parts[: 2 * depth]]
    drawn = _Batch(matrices[:depth], matrices[depth:], parts[2 * depth : -1], parts[-1][:, None, :], activation)
    difference = drawn.outputs(base=True, update=True) - drawn.outputs(base=True, update=False)
    with np.errstate(divide="ignore"):
        log_deviation = np.log(np.linalg.norm(difference, axis=2).max(axis=1))
    result: Array = np.exp(log_deviation + math.log(2) - drawn.log_corrections()[:, 0])
    return result


def _draw(rng: np.random.Generator, batch: int, depth: int, points: int) -> _Batch:
    widths = rng.integers(1, 9, size=depth + 1)
    shapes = [(batch, int(widths[layer + 1]), int(widths[layer])) for layer in range(depth)]
    base = [rng.normal(size=shape) * rng.uniform(0.1, 2) for shape in shapes]
    scale = 10 ** rng.uniform(-3, 1, size=(batch, 1, 1))
    update = [rng.normal(size=shape) * scale * rng.integers(0, 2, size=(batch, 1, 1)) for shape in shapes]
    shifted = float(rng.integers(0, 2))
    shifts = [shifted * rng.normal(size=shape[:2]) for shape in shapes]
    inputs = rng.normal(size=(batch, points, int(widths[0]))) * 10 ** rng.uniform(-2, 1, size=(batch, 1, 1))
    return _Batch(base, update, shifts, inputs, str(rng.choice(list(ACTIVATIONS))))


def _gap(outputs: Array, targets: Array) -> Array:
    losses = np.linalg.norm(outputs - targets, axis=2)
    result: Array = np.abs(losses.mean(axis=1) - losses[:, : max(1, losses.shape[1] // 3)].mean(axis=1))
    return result
