"""Estimates of the CMI family for a grid of configurations, one row each, ready to stand beside other measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.runs import RunConfig
from theory.information import cmi

__all__ = ["QUANTITIES", "estimable", "information_frame", "information_result", "joinable", "looseness"]

QUANTITIES = ("ld-mi", "e-cmi", "fast-rate")
"""What is estimated, by name in ``theory.information.cmi``: from the losses' difference, both losses, and the fast-rate
form."""


def estimable(arrays: Sequence[Mapping[str, NDArray]]) -> bool:
    """Return whether bounds can be estimated from masked runs: at least two of each, with a 0-1 loss."""
    return all(len(found["masks"]) > 1 and not np.isnan(found["zero_one"]).any() for found in arrays)


def information_frame(
    configurations: Sequence[Mapping[str, Any]], arrays: Sequence[Mapping[str, NDArray]], *, seed: int = 0
) -> pd.DataFrame:
    """Estimate every quantity of ``QUANTITIES`` from the 0-1 losses of every configuration.

    Args:
        configurations: values of ``analysis.runs.config.RunConfig``.
        arrays: from ``analysis.runs.masks.collect_masks``, one per configuration.
        seed: of bootstrap and null.

    Returns:
        One row per configuration and quantity: task, method, rank, links, quantity, information (nats), bound with
        ``bound_low``, ``bound_high`` (bootstrap over runs) and ``bound_null`` (the same estimate at zero information),
        and the measured gap of the masked runs with its interval.
    """
    rows = []
    for values, found in zip(configurations, arrays, strict=True):
        config = RunConfig.from_mapping(values).resolve()
        for quantity in QUANTITIES:
            rng = np.random.default_rng(seed)
            estimate = cmi.estimate(found["zero_one"], found["masks"], quantity=quantity, rng=rng)
            numbers = ("information", "bound", "bound_low", "bound_high", "bound_null", "gap", "gap_low", "gap_high")
            rows.append(
                {
                    "task": config.task,
                    "method": config.method,
                    "rank": config.rank,
                    "links": config.links,
                    "quantity": quantity,
                    **{name: float(getattr(estimate, name)) for name in numbers},
                }
            )
    return pd.DataFrame(rows)


def joinable(estimates: pd.DataFrame) -> pd.DataFrame:
    """Return one row per configuration, as ``compare --join`` reads it: each bound, and ``masked-gap`` beside them.

    The gap that the masked runs measured is the yardstick: an estimate is made of the same losses.
    """
    keys = ["task", "method", "rank", "links"]
    gaps = estimates.groupby(keys)["gap"].first().rename("masked-gap")
    wide = estimates.pivot(index=keys, columns="quantity", values="bound")[list(QUANTITIES)]
    order = list(estimates[keys].drop_duplicates().itertuples(index=False, name=None))
    return wide.join(gaps).loc[order].reset_index()


def looseness(estimates: pd.DataFrame) -> dict[str, float]:
    """Say how much each inequality loses: the estimated bounds over the gaps that the same masked runs measured.

    With 0-1 losses and pooled pairs an estimate is a function of the counts of two losses and a bit, from which the gap
    can be read as well, and the inequality holds for that empirical law up to the masks' imbalance. The ratios are
    therefore a property of the inequality at those counts; they do not say that the information is small.

    Returns:
        For each quantity: ``<quantity>/above`` (configurations whose bound is at least the gap), ``/median-ratio``,
        ``/least-ratio`` and ``/largest-ratio`` of bound over gap, NaN where no gap is positive.
    """
    found: dict[str, float] = {}
    for quantity, part in estimates.groupby("quantity", sort=False):
        found[f"{quantity}/above"] = int((part["bound"] >= part["gap"]).sum())
        ratio = (part["bound"] / part["gap"])[part["gap"] > 0]
        for name, value in (("median", ratio.median()), ("least", ratio.min()), ("largest", ratio.max())):
            found[f"{quantity}/{name}-ratio"] = float(value)
    return found


def information_result(estimates: pd.DataFrame, **counts: int) -> dict[str, Any]:
    """Return values and tables of a result file: the counts given, how loose each inequality is, every estimate.

    Args:
        estimates: from :func:`information_frame`.
        **counts: numbers that say what was run, by name.
    """
    table = {"columns": list(estimates.columns), "rows": estimates.to_numpy().tolist()}
    return {"values": {**counts, **looseness(estimates)}, "tables": {"estimates": table}}
