"""Eleven methods side by side: the committed runs as the paper's tables 2 and 3, and pairs of methods compared.

Runs that differ in method alone share their seed, and with it the data split, the head they start from and
the order of examples, so methods are compared in pairs within (task, rank, seed), not as two heaps of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.records import read_json
from analysis.statistics import across_seeds, bootstrap_means, interval, same
from theory.methods import METHODS, get_method

__all__ = ["PAIRS", "compare_pairs", "method_table", "read_results"]

_NEEDED = ("metric", "num_train", "task", "model", "method", "rank", "links", "seed")

PAIRS = (
    ("cla", "lora"),
    ("c3la", "cola"),
    ("cla", "asym"),
    ("r-cla", "cla"),
    ("c3la", "cla"),
    ("cola", "lora"),
    ("lora", "fft"),
    ("paca", "r-cla"),
)
"""Pairs the paper speaks about: sparse against dense, chained against not, random against fixed columns."""


def read_results(folder: str | Path, *, pattern: str = "*.json", links: int | None = 3) -> pd.DataFrame:
    """Read every run of the committed results of ``analysis collect --result``.

    Args:
        folder: ``report/results``; files without a table of runs are left out.
        pattern: which files.
        links: length of the chains that are kept, so that a method is one configuration per task and rank; None keeps
            all.

    Returns:
        One row per run, each run once.

    Raises:
        ValueError: if no file that matches holds a table of runs, or two files hold different runs of one
            configuration.
    """
    found = [read_json(path).get("tables", {}).get("runs") for path in sorted(Path(folder).glob(pattern))]
    tables = [pd.DataFrame(t["rows"], columns=t["columns"]) for t in found if t and set(_NEEDED) <= set(t["columns"])]
    if not tables:
        raise ValueError(
            f"folder {str(folder)!r} holds no table of runs in {pattern}; make one with analysis sweep and collect"
        )
    runs = pd.concat(tables, ignore_index=True)
    same = ["task", "model", "method", "rank", "links", "seed"]
    for _, group in runs.groupby(same, dropna=False):
        if group["metric"].nunique(dropna=False) > 1:
            raise ValueError(f"two results hold different runs of {dict(group.iloc[0][same])}; make them anew together")
    runs = runs.drop_duplicates(same)
    if links is not None:
        runs = runs[runs["links"].isin((1, links))].reset_index(drop=True)
    return runs.assign(status="done", rank=pd.to_numeric(runs["rank"]))


def method_table(
    runs: pd.DataFrame, value: str, *, rank: int | None = None, scale: float = 1.0, digits: int = 1
) -> pd.DataFrame:
    """Return the paper's table layout: a row per task, a column per method, ``mean [low, high]`` over seeds.

    Args:
        runs: from :func:`read_results` or :func:`analysis.runs.collect.frame`.
        value: column to average, for example ``"metric"`` or ``"gap_cross_entropy"``.
        rank: rank of the adapters; None takes the largest that every task has. Full fine-tuning has none.
        scale: multiplies the numbers (100 for per cent).
        digits: decimals.

    Returns:
        Strings; methods that were not run are left out.

    Raises:
        ValueError: if there are no runs of that rank.
    """
    chosen = _of_rank(runs, rank)
    means = across_seeds(chosen, columns=(value,), by=("task", "method"))
    means["cell"] = [
        f"{scale * row[value]:.{digits}f} [{scale * row[f'{value}_low']:.{digits}f}, "
        f"{scale * row[f'{value}_high']:.{digits}f}]"
        for _, row in means.iterrows()
    ]
    table = means.pivot(index="task", columns="method", values="cell")
    order = [key for key in METHODS if key in table.columns]
    return table[order].rename(columns={key: METHODS[key].name for key in order})


def _of_rank(runs: pd.DataFrame, rank: int | None) -> pd.DataFrame:
    ranks = [set(group["rank"].dropna()) for _, group in runs.groupby("task")]
    common = set.intersection(*ranks) if ranks else set()
    rank = (int(max(common)) if common else None) if rank is None else rank
    dense = runs["method"].map(lambda key: get_method(key).trains == "weight")
    chosen = runs[(runs["rank"] == rank) | dense]
    if rank is None or not (chosen["rank"] == rank).any():
        raise ValueError(f"no run of rank {rank}; there are {sorted(runs['rank'].dropna().unique().tolist())}")
    return chosen


def compare_pairs(
    runs: pd.DataFrame,
    value: str,
    *,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    published: pd.DataFrame | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare pairs of methods within (task, rank, seed).

    A pair's seeds are averaged to one difference per (task, rank), the unit that the interval resamples;
    the sign test counts those units (exact binomial, two-sided, ties left out). Units that share a task are
    not independent, so the p-value is an optimistic one. A difference that rounding alone makes is a tie.

    Args:
        runs: one row per run.
        value: column compared, for example ``"gap_cross_entropy"``.
        pairs: (first, second) method keys.
        published: the paper's table with method keys as columns, from :mod:`analysis.studies.published`, for the
            same count beside ours.
        confidence: of the bootstrap interval.
        seed: seed of the bootstrap.

    Returns:
        Per pair: ``units``, ``mean`` difference first minus second with ``low`` and ``high``, ``edge`` (distance of the
        nearer of those to zero, where what the interval says tips), ``smaller`` (units in which the first is smaller),
        ``p`` of the sign test, and with ``published`` ``paper_units`` and ``paper_smaller``.
    """
    rows = []
    for first, second in pairs:
        units = _differences(runs, value, first, second)
        if len(units) == 0:
            continue
        low, high = interval(bootstrap_means(units, seed=seed), confidence=confidence)
        smaller, decided = int((units < 0).sum()), int((units != 0).sum())
        row = {
            "pair": f"{METHODS[first].name} - {METHODS[second].name}",
            "units": len(units),
            "mean": float(units.mean()),
            "low": float(low),
            "high": float(high),
            "edge": float(min(abs(low), abs(high))),
            "smaller": smaller,
            "p": float(binomtest(smaller, decided).pvalue) if decided else float("nan"),
        }
        if published is not None and {first, second} <= set(published.columns):
            gaps = (published[first] - published[second]).dropna()
            row |= {"paper_units": len(gaps), "paper_smaller": int((gaps < 0).sum())}
        rows.append(row)
    if not rows:
        raise ValueError(f"runs hold none of the pairs {', '.join('/'.join(pair) for pair in pairs)}")
    table = pd.DataFrame(rows).set_index("pair")
    counts = [name for name in ("paper_units", "paper_smaller") if name in table]
    return table.astype(dict.fromkeys(counts, "Int64"))


def _differences(runs: pd.DataFrame, value: str, first: str, second: str) -> np.ndarray:
    """Mean over seeds of first minus second, per (task, rank); full fine-tuning stands beside every rank."""
    left, right = (runs[runs["method"] == key] for key in (first, second))
    keys = ["task", "seed"] if "fft" in (first, second) else ["task", "rank", "seed"]
    merged = left.merge(right, on=keys, suffixes=("_first", "_second"))
    rank = "rank" if "rank" in merged else "rank_first" if first != "fft" else "rank_second"
    sides = [f"{value}_first", f"{value}_second"]
    means = merged.groupby(["task", rank])[sides].mean().to_numpy(dtype=np.float64)
    return np.where(same(means[:, 0], means[:, 1]), 0.0, means[:, 0] - means[:, 1])
