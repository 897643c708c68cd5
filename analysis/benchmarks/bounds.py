"""Theorem 1's correction in closed form against the paper's 2^L terms, and every bound for Llama3-8B."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analysis.benchmarks import harness
from theory import bounds, layers
from theory.methods import METHODS
from theory.networks import errata

__all__ = ["run"]


def _correction(depth: int) -> Callable[[], bounds.Phi]:
    network = bounds.Network(base_norms=np.full(depth, 50.0), lipschitz=1.1, offsets=0.3, radius=5.0)
    return partial(bounds.correction, network, update_norms=np.full(depth, 0.7))


def _evaluations() -> dict[str, Callable[[], Any]]:
    """Every bound, for each method on Llama3-8B's adapted matrices and for all methods together."""
    shapes = layers.for_model("llama3-8b")
    network = bounds.Network(base_norms=np.full(len(shapes), 3.0), radius=10.0)

    def evaluate(*methods: str) -> None:
        for method in methods:
            bounds.evaluate(shapes, method=method, num_examples=9_074, links=3, network=network, update_norms=0.1)

    return {"every method": partial(evaluate, *METHODS), **{key: partial(evaluate, key) for key in METHODS}}


def run(*, results: str | Path | None = None, quick: bool = False, repeats: int | None = None) -> dict[str, Any]:
    """Time the bounds: by method, and the correction by depth beside the paper's sum in exact rationals.

    Args:
        results: where to write; None writes nothing.
        quick: fewer layers.
        repeats: timed repeats; None is 15.

    Returns:
        ``{"timings": benchmark -> case -> row, "values": ..., "tables": ...}``.
    """
    terms, depths = (6, (10, 100)) if quick else (12, (10, 100, 1_000, 10_000))
    norms: dict[str, Any] = {"base_norms": [1.5] * terms, "lipschitz": [1.125] * terms, "offsets": [0.5] * terms}
    update = [0.25] * terms
    rationals: dict[str, Any] = {name: list(map(Fraction, given)) for name, given in norms.items()}
    exact = errata.ExactNetwork(**rationals, update_norms=list(map(Fraction, update)))
    same = bounds.Network(**norms, loss_lipschitz=0.5)
    sums, depth, every = f"correction, {terms} layers", "correction by depth", "every bound, Llama3-8B"
    cases: dict[str, dict[str, Callable[[], Any]]] = {
        sums: {
            "2^L terms": partial(errata.enumerated, exact),
            "recursion in rationals": partial(errata.recursed, exact),
            "closed form": partial(bounds.correction, same, update_norms=update),
        },
        depth: {f"{count} layers": _correction(count) for count in depths},
        every: _evaluations(),
    }
    timings = {
        name: harness.compare(ways, baseline=next(iter(ways)), repeats=repeats or 15, progress=name)
        for name, ways in cases.items()
    }
    true = float(errata.enumerated(exact)[0])
    values = {
        f"{sums}/relative error": abs(bounds.correction(same, update_norms=update).update / true - 1),
        f"{every}/seconds": timings[every]["every method"]["seconds"],
        f"{depth}/seconds of {depths[-1]} layers": timings[depth][f"{depths[-1]} layers"]["seconds"],
    }
    return harness.conclude("bounds", timings, values=values, results=results)
