"""Intruders of a run's or an adapter's updates by both conventions, in plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.spectra import (
    LayerUpdate,
    effective_rank,
    intruder_counts,
    intruder_dimensions,
    shared_bases,
    stable_rank,
    update_spectrum,
)

__all__ = ["EPSILONS", "intruder_measures"]


EPSILONS = np.linspace(0.02, 1.0, 50)
"""Thresholds of the curves of intruders."""


def intruder_measures(updates: Sequence[LayerUpdate], *, epsilon: float = 0.5, count: int = 10) -> dict[str, Any]:
    """Count intruders by both conventions, and say how many directions an update uses.

    Args:
        updates: of every adapted matrix, from `analysis.spectra.weights`.
        epsilon: threshold.
        count: leading vectors of the authors' convention.

    Returns:
        authors, paper (sums over matrices), each with _low and _high (what rounding leaves open), effective_rank and
        stable_rank of dW (means over matrices), authors_per_direction and paper_per_direction (the sums over the
        effective rank: a chain has more directions to put intruders in), and curve: the paper's count at each of
        `EPSILONS`, with curve_low and curve_high.
    """
    cache = shared_bases()
    authors = intruder_dimensions(updates, convention="authors", count=count, cache=cache)
    everything = intruder_dimensions(updates, convention="paper", cache=cache)
    values = [update_spectrum(layer) for layer in updates]
    at_epsilon = {
        name: intruder_counts(vectors, [epsilon]).iloc[0]
        for name, vectors in (("authors", authors), ("paper", everything))
    }
    counts = {name: int(row["intruders"]) for name, row in at_epsilon.items()}
    ends = {
        f"{name}_{end}": int(row[f"intruders_{end}"]) for name, row in at_epsilon.items() for end in ("low", "high")
    }
    curve = intruder_counts(everything, EPSILONS)
    rank = float(np.mean([effective_rank(item) for item in values]))
    return {
        **counts,
        **ends,
        **{f"{name}_per_direction": count / rank for name, count in counts.items()},
        "effective_rank": rank,
        "stable_rank": float(np.mean([stable_rank(item) for item in values])),
        "curve": curve["intruders"].tolist(),
        "curve_low": curve["intruders_low"].tolist(),
        "curve_high": curve["intruders_high"].tolist(),
    }
