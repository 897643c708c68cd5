r"""Table 1 of arXiv:2606.13767: the bound that counts the stored bits of an adapter.

Xu and Raginsky (arXiv:1705.07809, theorem 1): for a loss that is :math:`\sigma`-sub-Gaussian under the data
for every fixed W, :math:`|E\,gen| \le \sqrt{2\sigma^2 I(W;S)/n}`. A description of W in b bits gives
:math:`I(W;S) \le H(W) \le b \ln 2`. The paper applies this to dW alone and pays for the backbone with
:math:`\Phi_{W0}` of its theorem 1. Everything is in nats unless it says bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from theory.arguments import Count, NonNegative, Positive, Range, checked
from theory.assumptions import ADAPTER_ONLY, FEED_FORWARD, MEAN, NO_BACKBONE, PHI_ALL_RUNS, STORED, SUB_GAUSSIAN
from theory.checks import check_number
from theory.defaults import BITS, RANK
from theory.layers import Layers, LayerShape, from_list
from theory.methods import Method, get_method
from theory.networks import Phi
from theory.records import Bound

__all__ = ["description_log", "method_numbers", "table1"]

XU_RAGINSKY = "Xu and Raginsky, theorem 1, arXiv:1705.07809"
TABLE1 = "table 1, arXiv:2606.13767"


@checked
def method_numbers(layers: Layers, *, method: str | Method, rank: Count, links: Count = 1) -> int:
    """Count the numbers that a method trains on the given layers, as table 1 of arXiv:2606.13767 does.

    Args:
        layers: shapes, or (out_features, in_features) pairs.
        method: a key of ``theory.methods``, or a ``Method``.
        rank: r; at most every layer's in_features. Not used by full fine-tuning.
        links: chain length k; not used by unchained methods.

    Returns:
        r sum(m+n), r sum n, k times either, or sum m n.

    Raises:
        ValueError: if rank or links is not positive, or rank is above a layer's in_features.

    >>> method_numbers([(768, 768)] * 24, method="cla", rank=16)
    294912
    """
    shapes = from_list(layers)
    chosen = method if isinstance(method, Method) else get_method(method)
    if chosen.trains != "weight":
        check_rank(rank, shapes)
    return sum(
        chosen.numbers_trained(out_features=shape.out_features, in_features=shape.in_features, rank=rank, links=links)
        for shape in shapes
    )


def check_rank(rank: int, layers: Iterable[LayerShape]) -> int:
    """Return the rank if it is positive and at most every layer's in_features.

    Raises:
        ValueError: if it is not; the message names the narrowest layer.
    """
    narrowest = min(layers, key=lambda layer: layer.in_features)
    if rank > narrowest.in_features:
        raise ValueError(f"rank must be at most in_features {narrowest.in_features} of {narrowest.name!r}, got {rank}")
    return rank


@checked
def description_log(bits: NonNegative, *, num_examples: Count, sigma: Positive = 0.5) -> float:
    r"""Return the logarithm of :math:`\sigma \sqrt{2 \ln 2 \cdot bits / n}`, rounded up.

    Args:
        bits: length of a description of everything that depends on the sample.
        num_examples: n.
        sigma: sub-Gaussian parameter of the loss; 1/2 for a loss in [0, 1].

    Raises:
        ValueError: if bits is negative, n is not a positive integer, or sigma is not above 0.

    >>> round(math.exp(description_log(294912 * 16, num_examples=3668)), 4)
    21.1149
    """
    if bits == 0:
        return -math.inf
    parts = (math.log(sigma), 0.5 * math.log(2 * math.log(2)), 0.5 * math.log(bits), -0.5 * math.log(num_examples))
    return sum(parts) + 2.0**-51 * (1 + sum(map(abs, parts)))


@checked
def table1(
    layers: Layers,
    *,
    method: str | Method,
    num_examples: Count,
    rank: Count = RANK,
    bits: Positive = BITS,
    sigma: Positive = 0.5,
    links: Count = 1,
    phi: Phi | None = None,
    loss_range: Range | None = None,
) -> Bound:
    r"""Evaluate one row of table 1 of arXiv:2606.13767.

    Statement: :math:`G(W_0 + dW) \le \Phi_{W0} + \sqrt{2 \sigma^2 q \ln 2\, X / n}` with X from
    ``method_numbers``. Without ``phi`` the square root alone is returned: it bounds the network of dW with
    the backbone removed, and happens to bound the whole network too, by ``direct`` (arXiv:2402.16842).

    Args:
        layers: shapes of the adapted matrices, or (out_features, in_features) pairs.
        method: a key of ``theory.methods``, or a ``Method``.
        num_examples: n, size of the fine-tuning sample.
        rank: r.
        bits: q, stored bits per trained number.
        sigma: sub-Gaussian parameter of the loss.
        links: k, length of the chain; not used by unchained methods.
        phi: correction terms from ``theory.networks.perturbation.correction``.
        loss_range: length of the loss's interval; 2 sigma by default.

    Returns:
        The bound, in units of the loss, in expectation.

    Raises:
        ValueError: if an argument is out of range; the message names it.

    >>> lora = table1([(768, 768)] * 24, method="lora", num_examples=3668)
    >>> round(lora.value, 1), lora.vacuous
    (29.9, True)
    """
    total = bits * method_numbers(layers, method=method, rank=rank, links=links)
    return table1_from_bits(total, num_examples=num_examples, sigma=sigma, phi=phi, loss_range=loss_range)


@checked
def table1_from_bits(
    bits: NonNegative,
    *,
    num_examples: Count,
    sigma: Positive = 0.5,
    phi: Phi | None = None,
    loss_range: Range | None = None,
    measured: tuple[str, ...] = (),
) -> Bound:
    """Evaluate table 1's form for an adapter of ``bits`` stored bits; see ``table1``."""
    root = description_log(bits, num_examples=num_examples, sigma=sigma)
    assumptions: tuple[str, ...] = (MEAN, SUB_GAUSSIAN, STORED, ADAPTER_ONLY)
    if phi is None:
        name, log_value = "table1-root", root
        assumptions += (NO_BACKBONE,)
    else:
        name, log_value = "table1", log_add(root, phi.log_base)
        assumptions += (FEED_FORWARD, PHI_ALL_RUNS)
    return Bound(
        name=name,
        log_value=log_value,
        kind="expectation",
        source=TABLE1,
        assumptions=assumptions,
        loss_range=resolve_range(loss_range, sigma),
        measured=measured,
        bits=bits,
    )


def log_add(first: float, second: float) -> float:
    """Return ln(exp(first) + exp(second)) without overflow."""
    low, high = sorted((first, second))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def resolve_range(loss_range: float | None, sigma: float) -> float:
    """Return the loss's range: as given (infinite allowed), else 2 sigma."""
    if loss_range is None:
        return 2 * sigma
    return check_number("loss_range", loss_range, positive=True, finite=False)
