"""Does a chain beat the method it chains? Paired differences, seed by seed, with an exact sign-flip test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.resampling import bootstrap_means, sign_flip_p_value
from analysis.statistics.rounding import interval_side, same
from theory.methods import METHODS

__all__ = ["claim_values", "paired_claim", "unchained_partner"]


_CLAIM_VALUES = ("units", "larger", "chain", "single", "difference", "low", "high", "p_value", "verdict", "edge")
_LINK_OF = {"gaussian": "gaussian", "circulant": "window", "shuffled": "random"}


def unchained_partner(method: str) -> str | None:
    """Return the method whose single link a chained method repeats; None for unchained methods.

    >>> unchained_partner("c3la"), unchained_partner("cola"), unchained_partner("lora")
    ('cla', 'lora', None)
    """
    chain = METHODS[method]
    if not chain.chained:
        return None
    return next(
        key
        for key, single in METHODS.items()
        if not (single.chained or single.in_place or single.lr_ratio != 1)
        and (single.trains, single.selector) == (chain.trains, _LINK_OF[chain.selector])
    )


def paired_claim(frame: pd.DataFrame, columns: Sequence[str], *, replicates: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Test whether chains have larger values than the methods they chain, seed by seed.

    The unit is one (chain, seed) pair. The p-value is one-sided and exact: the share of all sign patterns of the
    differences whose mean is at least the observed one (random patterns beyond 20 units). The interval is the
    percentile bootstrap's over units, at 95 %. Values that agree up to rounding count as no difference; units with an
    undefined value are left out, which ``units`` shows.

    Args:
        frame: method, seed, checkpoint and the columns; of counts also COLUMN_low and COLUMN_high where they are known.
        columns: what to test.
        replicates: bootstrap samples, and random sign patterns where not all are tried.
        seed: of both.

    Returns:
        One row per checkpoint and column: checkpoint, measure, units, larger (units where the chain is larger) with
        larger_low and larger_high (what the counts' own ranges leave open), chain, single (means), difference, low,
        high, p_value, verdict: what the chain's value is where the interval leaves out zero ("larger" or "smaller"),
        else "undecided"; and edge: how far the interval's nearer end is from zero, where the verdict tips. Rows are
        not corrected for each other.

    Raises:
        ValueError: if no chained method has its partner in the frame.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for checkpoint, part in frame.groupby("checkpoint", sort=False):
        values: Mapping[Any, Any] = part.set_index(["method", "seed"]).to_dict("index")
        units = [
            (values[method, run], values[partner, run])
            for method, run in values
            if (partner := unchained_partner(method)) is not None and (partner, run) in values
        ]
        if not units:
            raise ValueError("no chained method has the method it chains in the frame, at the same seed")
        for column in columns:
            chain, single = (np.array([unit[k][column] for unit in units], dtype=np.float64) for k in (0, 1))
            kept = np.isfinite(chain) & np.isfinite(single)
            if not kept.any():
                raise ValueError(f"{column!r} is not finite in any pair at checkpoint {checkpoint!r}")
            open_ends = [
                [
                    np.array([unit[k].get(f"{column}_{end}", unit[k][column]) for unit in units], dtype=np.float64)[
                        kept
                    ]
                    for end in ("low", "high")
                ]
                for k in (0, 1)
            ]
            chain, single = chain[kept], single[kept]
            difference = np.where(same(chain, single), 0.0, chain - single)
            samples = bootstrap_means(difference, replicates=replicates, seed=rng)
            low, high = np.quantile(samples, [0.025, 0.975])
            rows.append(
                {
                    "checkpoint": checkpoint,
                    "measure": column,
                    "units": len(difference),
                    "larger": int((difference > 0).sum()),
                    "larger_low": _larger(open_ends[0][0], open_ends[1][1]),
                    "larger_high": _larger(open_ends[0][1], open_ends[1][0]),
                    "chain": chain.mean(),
                    "single": single.mean(),
                    "difference": difference.mean(),
                    "low": low,
                    "high": high,
                    "p_value": sign_flip_p_value(difference, replicates=replicates, seed=rng),
                    "verdict": {1: "larger", -1: "smaller", 0: "undecided"}[
                        interval_side(low, high, scale=np.abs(difference).max())
                    ],
                    "edge": min(abs(low), abs(high)),
                }
            )
    return pd.DataFrame(rows)


def claim_values(claim: pd.DataFrame, *, task: str) -> dict[str, Any]:
    """Return a claim as values of a result file, ``TASK/MEASURE/CHECKPOINT/COLUMN``.

    Args:
        claim: from `paired_claim`.
        task: the runs' task.
    """
    return {
        f"{task}/{row.measure}/{row.checkpoint}/{name}": getattr(row, name)
        for row in claim.itertuples()
        for name in _CLAIM_VALUES
    }


def _larger(first: np.ndarray, second: np.ndarray) -> int:
    return int(((first > second) & ~same(first, second)).sum())
