"""Intruders of a run's or an adapter's updates by both conventions, in plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.spectra import (
    BasisCache,
    LayerUpdate,
    effective_rank,
    intruder_counts,
    intruder_dimensions,
    shared_bases,
    stable_rank,
    update_spectrum,
)

__all__ = ["EPSILONS", "count_both", "intruder_measures"]


EPSILONS = np.linspace(0.02, 1.0, 50)
"""Thresholds of the curves of intruders."""


def count_both(
    updates: Sequence[LayerUpdate], *, epsilon: float, count: int, cache: BasisCache
) -> tuple[dict[str, int], pd.DataFrame]:
    """Count intruders by the authors' convention and by the paper's.

    Args:
        updates: of every adapted matrix, from `analysis.spectra.weights`.
        epsilon: threshold.
        count: leading vectors of the authors' convention.
        cache: bases of W0.

    Returns:
        authors, authors_low, authors_high, paper, paper_low, paper_high (sums over matrices, and what rounding leaves
        open); and the paper's vectors, as `analysis.spectra.intruder_dimensions` returns them.
    """
    authors = intruder_dimensions(updates, convention="authors", count=count, cache=cache)
    everything = intruder_dimensions(updates, convention="paper", cache=cache)
    found: dict[str, int] = {}
    for name, vectors in (("authors", authors), ("paper", everything)):
        row = intruder_counts(vectors, [epsilon]).iloc[0]
        found |= {f"{name}{end}": int(row[f"intruders{end}"]) for end in ("", "_low", "_high")}
    return found, everything


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
    found, everything = count_both(updates, epsilon=epsilon, count=count, cache=shared_bases())
    counts = {name: found.pop(name) for name in ("authors", "paper")}
    values = [update_spectrum(layer) for layer in updates]
    curve = intruder_counts(everything, EPSILONS)
    rank = float(np.mean([effective_rank(item) for item in values]))
    return {
        **counts,
        **found,
        **{f"{name}_per_direction": count / rank for name, count in counts.items()},
        "effective_rank": rank,
        "stable_rank": float(np.mean([stable_rank(item) for item in values])),
        "curve": curve["intruders"].tolist(),
        "curve_low": curve["intruders_low"].tolist(),
        "curve_high": curve["intruders_high"].tolist(),
    }
