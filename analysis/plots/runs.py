"""Figures of fine-tuning runs: metric and measured G(W) by method and rank, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.plots.style import figure, method_colors
from theory.methods import METHODS

__all__ = ["plot_against_links", "plot_against_rank", "plot_history", "plot_methods", "plot_pairs"]

AXIS_NAMES = {
    "metric": "held-out accuracy",
    "gap_cross_entropy": "measured G(W), nats",
    "gap_zero_one": "measured G(W), 0-1 loss",
    "seconds_per_step": "seconds per step",
    "saved_activation_bytes": "saved activations (bytes)",
}


def plot_methods(means: pd.DataFrame, value: str, *, ax: Axes | None = None) -> Axes:
    """Draw one point and interval per method, in the registry's order.

    Args:
        means: from :func:`analysis.statistics.across_seeds`, one row per method.
        value: column, with ``_low`` and ``_high`` beside it.
        ax: where; a new figure by default.

    Raises:
        ValueError: if a method occurs twice.
    """
    if means["method"].duplicated().any():
        raise ValueError(f"means must have one row per method, got {means['method'].tolist()}")
    ax = figure(height=2.4)[1] if ax is None else ax
    rows = means.set_index("method")
    keys = [key for key in METHODS if key in rows.index]
    for place, key in enumerate(keys):
        row = rows.loc[key]
        ends = np.array([[row[value] - row[f"{value}_low"]], [row[f"{value}_high"] - row[value]]])
        drawn = None if np.isnan(ends).any() else np.maximum(ends, 0)
        ax.errorbar([row[value]], [place], xerr=drawn, fmt="o", markersize=3.5, capsize=2, color=method_colors()[key])
    ax.set_yticks(range(len(keys)), [METHODS[key].name for key in keys])
    ax.invert_yaxis()
    ax.set_xlabel(AXIS_NAMES.get(value, value))
    return ax


def plot_against_rank(means: pd.DataFrame, value: str, *, ax: Axes | None = None) -> Axes:
    """Draw a line per method against the rank; full fine-tuning, which has none, is a dashed level.

    Args:
        means: from :func:`analysis.statistics.across_seeds`, one row per method and rank of one task.
        value: column, with ``_low`` and ``_high`` beside it.
        ax: where; a new figure by default.
    """
    ax = figure(height=2.8)[1] if ax is None else ax
    colors = method_colors()
    for key in METHODS:
        part = means[means["method"] == key].sort_values("rank")
        if len(part) == 0:
            continue
        if part["rank"].isna().all():
            ax.axhline(float(part[value].iloc[0]), color=colors[key], linestyle="--", label=METHODS[key].name)
            continue
        style = "-" if METHODS[key].selects_columns else ":"
        ax.plot(
            part["rank"], part[value], style, marker="o", markersize=2.5, color=colors[key], label=METHODS[key].name
        )
        ax.fill_between(
            part["rank"].to_numpy(dtype=float),
            part[f"{value}_low"].to_numpy(dtype=float),
            part[f"{value}_high"].to_numpy(dtype=float),
            color=colors[key],
            alpha=0.12,
            linewidth=0,
        )
    ax.set_xscale("log", base=2)
    ranks = sorted(means["rank"].dropna().unique())
    ax.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
    ax.set(xlabel="rank r", ylabel=AXIS_NAMES.get(value, value))
    ax.figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=6.5, handlelength=1.5)
    return ax


def plot_against_links(means: pd.DataFrame, value: str, *, ax: Axes | None = None) -> Axes:
    """Draw a line per chained method against the length of the chain, with intervals over seeds.

    Args:
        means: from :func:`analysis.statistics.across_seeds`, one row per method and chain length.
        value: column, with ``_low`` and ``_high`` beside it.
        ax: where; a new figure by default.
    """
    ax = figure(height=2.2)[1] if ax is None else ax
    for key in (key for key in METHODS if (means["method"] == key).any()):
        part = means[means["method"] == key].sort_values("links")
        ends = np.stack([part[value] - part[f"{value}_low"], part[f"{value}_high"] - part[value]])
        ax.errorbar(
            part["links"], part[value], yerr=np.maximum(ends, 0), marker="o", markersize=3, capsize=2,
            color=method_colors()[key], linestyle="-" if METHODS[key].selects_columns else ":", label=METHODS[key].name,
        )  # fmt: skip
    ax.set_xticks(sorted(means["links"].unique()))
    ax.set(xlabel="links of the chain", ylabel=AXIS_NAMES.get(value, value))
    ax.legend(frameon=False, fontsize=6.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_history(records: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw each run's training loss by step (training mode, mean of an epoch), coloured by method."""
    ax = figure()[1] if ax is None else ax
    drawn = set()
    for record in records:
        key = record["config"]["method"]
        steps = [point["step"] for point in record["history"]]
        losses = [float(point["loss"]) for point in record["history"]]
        label = None if key in drawn else METHODS[key].name
        ax.plot(steps, losses, color=method_colors()[key], alpha=0.7, label=label)
        drawn.add(key)
    ax.set(xlabel="optimizer step", ylabel="training loss (nats)")
    ax.legend(frameon=False, fontsize=6.5)
    return ax


def plot_pairs(table: pd.DataFrame, *, value: str, ax: Axes | None = None) -> Axes:
    """Draw the mean difference of each pair of methods with its interval; zero means no difference.

    Args:
        table: from :func:`analysis.studies.methods.compare_pairs`.
        value: what was compared.
        ax: where; a new figure by default.
    """
    ax = figure(height=2.2)[1] if ax is None else ax
    places = np.arange(len(table))
    ends = np.stack([table["mean"] - table["low"], table["high"] - table["mean"]])
    ax.errorbar(table["mean"], places, xerr=np.maximum(ends, 0), fmt="o", color="0.2", markersize=3.5, capsize=2)
    ax.axvline(0, color="0.5", linewidth=0.6)
    ax.set_yticks(places, table.index)
    ax.invert_yaxis()
    ax.set_xlabel(f"difference in {AXIS_NAMES.get(value, value)}")
    return ax
