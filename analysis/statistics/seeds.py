"""Means over seeds, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.resampling import bootstrap_means, interval

__all__ = ["across_seeds"]


def across_seeds(
    runs: pd.DataFrame,
    *,
    columns: Sequence[str] = ("metric", "gap_cross_entropy", "gap_zero_one"),
    by: Sequence[str] = ("task", "model", "method", "rank", "links"),
    confidence: float = 0.95,
    replicates: int = 2_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Average runs over seeds, with a bootstrap interval over the seeds.

    With few seeds a percentile bootstrap of a mean covers less than it says (about 0.8 for nominal 0.95
    with three); Student's t interval, which allows for that under normality, stands beside it.

    Args:
        runs: one row per run, from :func:`analysis.runs.collect.frame`.
        columns: columns to average.
        by: columns that name a configuration.
        confidence: of the intervals.
        replicates: bootstrap samples.
        seed: seed of the bootstrap.

    Returns:
        One row per configuration: ``seeds``, and for each column its mean, ``_low``, ``_high`` (bootstrap),
        ``_t_low``, ``_t_high`` (Student) and ``_std``; NaN ends where there is one seed only.

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
            low = high = t_low = t_high = std = float("nan")
            if count > 1:
                means = bootstrap_means(values, replicates=replicates, seed=seed)
                low, high = (float(end) for end in interval(means, confidence=confidence))
                std = float(values.std(ddof=1))
                half = float(stats.t.ppf(1 - tail, count - 1)) * std / count**0.5
                t_low, t_high = mean - half, mean + half
            row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
            row |= {f"{name}_t_low": t_low, f"{name}_t_high": t_high, f"{name}_std": std}
        rows.append(row)
    return pd.DataFrame(rows)
