r"""Noisy training: information budgets per step and per link, counting the numbers that the link trains.

Pensia, Jog, Loh (2018), arXiv:1801.04295: W_t = W_{t-1} - eta_t g_t + s_t N(0, I_d). Given W_{t-1} a step is a
Gaussian channel whose input has power E|eta_t g_t|^2, and the Gaussian has the most entropy at a given power, so
I(W_t; S | W_{t-1}) <= (d/2) ln(1 + eta_t^2 L_t^2 / (d s_t^2)) <= eta_t^2 L_t^2 / (2 s_t^2). The chain rule adds the
steps, and then the links of a chain: I(B_1..B_k; S) = sum_j I(B_j; S | B_<j).

Only trained numbers get noise and gradient, so d and L belong to the adapter. For B in y = W0 x + B A x the
gradient is g (A x)', of norm |g| |A x|: with A a column selector |A x| = |x_S|, the energy of the chosen columns;
with A dense it is that of a sketch. This is where cLA and asymmetric LoRA, equal in Table 1 of arXiv:2606.13767,
part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.arguments import Count, Integers, Matrix, NonNegatives, Positive, Positives, checked
from theory.array_checks import check_matrix
from theory.assumptions import NOISY
from theory.checks import check_integer, check_norms
from theory.information import xu_raginsky
from theory.records import Bound

__all__ = ["NoisyLink", "adapter_input_norm", "noisy_iteration_bound", "noisy_iteration_information"]


@checked
@dataclass(frozen=True, kw_only=True)
class NoisyLink:
    """The steps of one link.

    Attributes:
        learning_rates: eta_t, one per step.
        gradient_norms: L_t, a bound on |g_t|_2 over the trained numbers of this link (a clipping threshold), one per
            step or one for all. The root mean square of g_t given W_{t-1} about its mean is enough, if it is known.
        noise_stds: s_t, one per step or one for all, above zero.
        dimension: d, how many numbers this link trains.
    """

    learning_rates: NonNegatives
    gradient_norms: NonNegatives
    noise_stds: Positives
    dimension: Count


@checked
def adapter_input_norm(
    inputs: Matrix, *, columns: Annotated[ArrayLike, Integers()] | None = None, sketch: Matrix | None = None
) -> float:
    """Return max |A x| over inputs: |x_S| for columns S, |A x| for a sketch, |x| for neither.

    Times a bound on |dloss/dy| it bounds the gradient of B for these inputs; measured, unless inputs are all there is.

    Args:
        inputs: n x m.
        columns: distinct column indices.
        sketch: A, r x m.

    Raises:
        ValueError: if both are given or shapes do not fit.

    >>> adapter_input_norm([[3.0, 0.0, 4.0]], columns=[0, 1])
    3.0
    """
    x = check_matrix("inputs", inputs, shape=(None, None))
    if columns is not None and sketch is not None:
        raise ValueError("columns and sketch must not both be given, got both")
    if columns is not None:
        chosen = np.asarray(columns)
        if chosen.ndim != 1 or chosen.size == 0 or not np.isin(chosen, np.arange(x.shape[1])).all():
            raise ValueError(f"columns must be indices in [0, {x.shape[1] - 1}], at least one, got {columns!r}")
        x = x[:, np.unique(chosen)]
    if sketch is not None:
        x = x @ check_matrix("sketch", sketch, shape=(None, x.shape[1])).T
    return float(np.linalg.norm(x, axis=1).max())


@checked
def noisy_iteration_information(links: Sequence[NoisyLink], *, linear: bool = False) -> NDArray[np.float64]:
    """Return the information budget of each link, in nats; their sum bounds I(all links' weights; S).

    Args:
        links: at least one.
        linear: use eta^2 L^2 / (2 s^2), which does not depend on the dimension, in place of the logarithm.

    Raises:
        ValueError: if a sequence does not fit or a number is out of its range.

    >>> link = NoisyLink(learning_rates=[0.1, 0.1], gradient_norms=1.0, noise_stds=0.1, dimension=1)
    >>> noisy_iteration_information([link], linear=True).tolist()
    [1.0]
    """
    if not links:
        raise ValueError("links must hold at least one link, got none")
    budgets = []
    for link in links:
        rates = check_norms("learning_rates", link.learning_rates)
        gradients = check_norms("gradient_norms", link.gradient_norms, length=len(rates))
        noise = check_norms("noise_stds", link.noise_stds, length=len(rates))
        if (noise == 0).any():
            raise ValueError(f"noise_stds must be above 0, got 0 at step {int(np.argmin(noise))}")
        d = check_integer("dimension", link.dimension)
        power = (rates * gradients / noise) ** 2
        budgets.append(float((power / 2 if linear else d / 2 * np.log1p(power / d)).sum()))
    return np.array(budgets)


@checked
def noisy_iteration_bound(
    links: Sequence[NoisyLink], *, num_examples: Count, sigma: Positive = 0.5, linear: bool = False
) -> Bound:
    """Return sigma sqrt(2 sum of budgets / n): Pensia, Jog, Loh with Xu and Raginsky (arXiv:1705.07809).

    In expectation, for a loss that is sigma-sub-Gaussian at every W. With ``linear`` it is the published
    sqrt(sigma^2 / n * sum eta_t^2 L^2 / s_t^2).

    Args:
        links: one for an unchained method.
        num_examples: n.
        sigma: in units of the loss.
        linear: as in ``noisy_iteration_information``.

    >>> link = NoisyLink(learning_rates=[0.1] * 4, gradient_norms=1.0, noise_stds=0.1, dimension=768 * 16)
    >>> round(noisy_iteration_bound([link], num_examples=100, linear=True).value, 9)
    0.1
    """
    total = float(noisy_iteration_information(links, linear=linear).sum())
    found = xu_raginsky(total, num_examples=num_examples, sigma=sigma)
    return replace(
        found,
        name="noisy",
        source="Pensia, Jog, Loh, arXiv:1801.04295, in " + found.source,
        assumptions=(*found.assumptions, NOISY),
    )
