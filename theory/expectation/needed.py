"""The inverse question: how many examples, or how few bits, or which rank, before a bound says something?

``needed`` solves a bound for one of its arguments, ``survey`` evaluates it over grids of all of them.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd

from theory.arguments import Count, NonNegative, Positive, Probability, Range, checked
from theory.certificates import occam_bound, spare_bits
from theory.defaults import BITS, RANK
from theory.expectation.description import described, plan
from theory.expectation.forms import direct
from theory.layers import Layers, from_list
from theory.methods import Method

__all__ = ["needed", "survey"]

Solved = Literal["num_examples", "bits", "rank"]


@checked
def needed(
    solve: Solved,
    *,
    layers: Layers,
    method: str | Method,
    target: Positive = 1.0,
    num_examples: Count | None = None,
    rank: Count = RANK,
    bits: Positive = BITS,
    links: Count = 1,
    sigma: Positive = 0.5,
    empirical_risk: NonNegative | None = None,
    delta: Probability = 0.05,
) -> float | None:
    r"""Solve a method's cheapest bound for one argument, the others given: at it the bound is at most ``target``.

    In expectation :math:`\sigma \sqrt{2 \ln 2\, b / n} \le t` (``direct``): :math:`n = 2 \ln 2\, b \sigma^2 / t^2`.
    With ``empirical_risk`` the certificate of one run, a risk, which is at most ``target`` where
    :math:`b \le (n\,kl(\hat r \| t) - \ln(1/\delta)) / \ln 2`. The length b is that of the cheapest description which
    the method's family states.

    Args:
        solve: ``"num_examples"`` (the least n), ``"bits"`` (the most stored bits per number q, not rounded) or
            ``"rank"`` (the largest r).
        layers: shapes, or (out_features, in_features) pairs.
        method: a key of ``theory.methods``, or a ``Method``.
        target: what the bound must not exceed; 1 is the range of a loss in [0, 1], below which it says something.
        num_examples: n, unless it is solved for.
        rank: r, unless it is solved for.
        bits: q, unless it is solved for.
        links: k; not used by unchained methods.
        sigma: sub-Gaussian parameter of the loss.
        empirical_risk: error on the sample, of a loss in [0, 1]; asks for the certificate in place of the gap.
        delta: failure probability of the certificate.

    Returns:
        The number; None where no rank does it, or no positive number of bits.

    Raises:
        ValueError: if an argument is out of range, ``num_examples`` is missing, or a risk is not below its target.

    >>> from theory.layers import for_model
    >>> round(needed("num_examples", layers=for_model("llama3-8b"), method="cla") / 1e6, 1)
    14.5
    """
    shapes = from_list(layers)
    if empirical_risk is not None and not empirical_risk < target <= 1:
        raise ValueError(f"empirical_risk must be below target, and that at most 1, got {empirical_risk} and {target}")
    if solve != "num_examples" and num_examples is None:
        raise ValueError(f"num_examples must be given where {solve} is solved for, got None")

    alike = Counter((shape.out_features, shape.in_features) for shape in shapes)

    def length(rank: int, bits: float) -> float:
        records = plan(list(alike), method=method, rank=rank, links=links, bits=bits)
        lengths = (min(described(record).values()) for record in records)
        return sum(count * one for count, one in zip(alike.values(), lengths, strict=True))

    def value(total: float, n: int) -> float:
        if empirical_risk is None:
            return float(direct(total, num_examples=n, sigma=sigma).value)
        return float(occam_bound(empirical_risk, bits=total, num_examples=n, delta=delta).value)

    if solve == "num_examples":
        total = length(rank, bits)
        return _least(lambda n: value(total, n) <= target, 1 if empirical_risk is None else 2)
    n = num_examples or 0
    if empirical_risk is None:
        budget = n * target**2 / (2 * math.log(2) * sigma**2) * (1 - 1e-12)
    else:
        budget = spare_bits(target, empirical_risk=empirical_risk, num_examples=n, delta=delta)
    if solve == "bits":
        return _most_bits(lambda q: length(rank, q) <= budget, budget)
    narrowest = min(shape.in_features for shape in shapes)
    return max((r for r in range(1, narrowest + 1) if length(r, bits) <= budget), default=None)


def _least(holds: Callable[[int], bool], start: int) -> int:
    high = start
    while not holds(high):
        high *= 2
        if high >= 2**62:
            raise ValueError("target must be reachable with fewer than 2^62 examples")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _most_bits(holds: Callable[[float], bool], most: float) -> float | None:
    low, high = 0.0, max(most, 0.0)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle > 0 and holds(middle) else (low, middle)
    return low or None


@checked
def survey(
    layers: Layers,
    *,
    method: Sequence[str] | str,
    num_examples: Sequence[Count] | Count,
    rank: Sequence[Count] | Count = RANK,
    bits: Sequence[Positive] | Positive = BITS,
    links: Sequence[Count] | Count = 1,
    sigma: Positive = 0.5,
    loss_range: Range | None = None,
) -> pd.DataFrame:
    """Evaluate the cheapest bound in expectation over a grid of methods, sizes, ranks, bits and links.

    Args:
        layers: shapes, or (out_features, in_features) pairs.
        method: keys of ``theory.methods``.
        num_examples: values of n.
        rank: values of r.
        bits: values of q.
        links: values of k; not used by unchained methods.
        sigma: sub-Gaussian parameter of the loss.
        loss_range: length of the loss's interval; 2 sigma by default.

    Returns:
        One row per point: method, num_examples, rank, bits_per_number, links, description_bits, gap, vacuous.

    >>> survey([(768, 768)] * 24, method="cla", num_examples=[10**4, 10**8])["vacuous"].tolist()
    [True, False]
    """
    shapes, rows = from_list(layers), []
    axes = [one if isinstance(one, tuple) else (one,) for one in (method, rank, bits, links)]
    sizes = num_examples if isinstance(num_examples, tuple) else (num_examples,)
    for key, r, q, k in itertools.product(*axes):
        records = plan(shapes, method=str(key), rank=r, links=k, bits=q)
        total = sum(min(described(record).values()) for record in records)
        for n in sizes:
            found = direct(total, num_examples=n, sigma=sigma, loss_range=loss_range)
            point = {"method": key, "num_examples": n, "rank": r, "bits_per_number": q, "links": k}
            rows.append({**point, "description_bits": total, "gap": found.value, "vacuous": found.vacuous})
    return pd.DataFrame(rows)
