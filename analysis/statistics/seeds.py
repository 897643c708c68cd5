"""Means over seeds, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["across_seeds"]


def across_seeds(
    runs: pd.DataFrame,
    *,
    columns: Sequence[str] = ("metric", "gap_cross_entropy", "gap_zero_one"),
    by: Sequence[str] = ("task", "model", "method", "rank", "links"),
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Average runs over seeds, with Student's t interval over the seeds.

    It covers what it says where seeds scatter normally, 0.94 for a skewed gamma and 0.92 at worst for uniform scatter
    (``python -m analysis coverage``); a bootstrap of two, three or five seeds covers 0.48, 0.74 and
    0.83 for nominal 0.95. It speaks of what differs between seeds: where all seeds share one published test set, it
    leaves out how that set was drawn.

    Args:
        runs: one row per run, from :func:`analysis.runs.collect.frame`.
        columns: columns to average.
        by: columns that name a configuration.
        confidence: of the intervals.

    Returns:
        One row per configuration: ``seeds``, and for each column its mean, ``_low``, ``_high`` and ``_std``; NaN ends
        where there is one seed only.

    Raises:
        ValueError: if there are no finished runs, or a column is missing.
    """
    runs = runs[runs["status"] == "done"] if "status" in runs else runs
    if len(runs) == 0:
        raise ValueError("runs holds no finished run")
    missing = [name for name in (*columns, *by) if name not in runs]
    if missing:
        raise ValueError(f"runs have no column {missing[0]!r}; they have {', '.join(runs.columns)}")
    tail = (1 - confidence) / 2
    rows = []
    for key, group in runs.groupby(list(by), dropna=False, sort=False):
        row = {**dict(zip(by, key, strict=True)), "seeds": len(group)}
        for name in columns:
            values = group[name].to_numpy(dtype=np.float64)
            count, mean = len(values), float(values.mean())
            half = std = float("nan")
            if count > 1:
                std = float(values.std(ddof=1))
                half = float(stats.t.ppf(1 - tail, count - 1)) * std / count**0.5
            row |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half, f"{name}_std": std}
        rows.append(row)
    return pd.DataFrame(rows)
