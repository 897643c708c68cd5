"""Made-up runs whose true predictor is known: what the comparison must find, and what it must not."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from analysis.measures import families
from theory.methods import METHODS

__all__ = ["CANDIDATES", "made_up_runs"]

CANDIDATES = (
    "bound/table1-root",
    "measures/sharpness_worst_merged",
    "measures/intruders_authors",
    "norm/update_sum",
    "run/margin_mean",
)


def made_up_runs(
    *,
    follow: str | None = None,
    noise: float = 0.3,
    ranks: tuple[int, ...] = (1, 2, 4, 8),
    seeds: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw runs in the shape of ``predictors.comparison_frame`` whose gap follows one candidate, or none.

    Every candidate but the bound's has a part of its own per configuration and a smaller one per run, so runs of one
    configuration resemble each other as real ones do. The gap is the followed candidate's rank among all runs,
    scaled to [0, 1], plus noise of the same two kinds.

    Args:
        follow: a member of ``CANDIDATES``, or None for a null world in which nothing predicts.
        noise: standard deviation of the gap's noise, relative to the signal's range.
        ranks: ranks of the grid; methods are the eleven without full fine-tuning, chains have three links.
        seeds: runs per configuration.
        seed: of the generator.

    Returns:
        One row per run, task ``"made-up"``.

    Raises:
        ValueError: if ``follow`` is no candidate.

    >>> len(made_up_runs(ranks=(1, 2), seeds=2))
    40
    """
    if follow is not None and follow not in CANDIDATES:
        raise ValueError(f"follow must be None or one of {', '.join(CANDIDATES)}, got {follow!r}")
    rng = np.random.default_rng(seed)
    rows = []
    for (key, method), rank in product(METHODS.items(), ranks):
        if method.trains == "weight":
            continue
        links = 3 if method.chained else 1
        count = method.numbers_trained(out_features=64, in_features=64, rank=rank, links=links)
        shared = rng.normal(size=len(CANDIDATES) + 1)
        for run in range(seeds):
            own = shared + 0.3 * rng.normal(size=len(shared))
            values = dict(zip(CANDIDATES, own, strict=False)) | {"bound/table1-root": 0.5 * np.log(count)}
            design = {"task": "made-up", "method": key, "rank": rank, "links": links, "seed": run}
            rows.append({**design, "train_loss": rng.uniform(0.01, 0.1), "noise": own[-1], **values})
    frame = pd.DataFrame(rows)
    signal = np.zeros(len(frame)) if follow is None else frame[follow].rank().to_numpy() / len(frame)
    frame["gap/cross_entropy"] = np.abs(1.0 + signal + noise * frame.pop("noise"))
    frame.index = pd.Index([f"{row.method}-{row.rank}-{row.seed}" for row in frame.itertuples()], name="key")
    frame.attrs |= {"failed": [], "unstated": [], "families": families(CANDIDATES)}
    return frame
