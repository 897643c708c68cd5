"""Figures of the exactly solved models: how loose each bound is. The frames come from ``analysis.studies.exact``."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.plots.style import figure
from theory.methods import METHODS

__all__ = ["BOUND_NAMES", "plot_chain", "plot_estimation", "plot_null", "plot_ranks", "plot_rates", "plot_tightness"]

BOUND_NAMES = {
    "bits": "direct bits",
    "xu-raginsky": "I(W;S)",
    "individual": "individual sample",
    "cmi": "CMI",
    "f-cmi": "f-CMI",
    "e-cmi": "e-CMI, binary kl",
    "single-loss": "single loss",
    "fast-rate": "fast rate",
    "ld-mi": "ld-MI",
    "ld-mi-binary": "ld-MI, binary kl",
    "ld-mi-magnitude": "ld-MI with |D|",
}
"""Key of ``FiniteTruth.bounds`` -> name in a legend."""

_LEGEND = {"frameon": False, "fontsize": 6.5}
_MARKS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*", "h")


def plot_tightness(frame: pd.DataFrame, *, bounds: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw bound / gap against n, one line per bound; 1 is the truth.

    Args:
        frame: from ``analysis.studies.exact.coin_curve``.
        bounds: keys to draw; all by default.
        ax: where; a new figure by default.
    """
    ax = figure(height=3.0)[1] if ax is None else ax
    colors = [(0.2, 0.2, 0.2), *sns.color_palette("colorblind", len(BOUND_NAMES) - 1)]
    for (key, name), color, mark in zip(BOUND_NAMES.items(), colors, _MARKS, strict=True):
        part = frame[frame.bound == key]
        if len(part) and (bounds is None or key in bounds):
            ax.plot(part.n, part.ratio, color=color, marker=mark, markersize=2.5, label=name)
    ax.axhline(1.0, color="0.2", linewidth=0.6, linestyle=":")
    ax.set(xscale="log", xlabel="number of examples n", ylabel="bound / true gap")
    ax.figure.legend(loc="outside lower center", ncols=3, **_LEGEND)
    return ax


def plot_rates(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw Gaussian mean estimation: the gap falls as 1/n, bounds on the loss as 1/sqrt(n).

    Args:
        frame: from ``analysis.studies.exact.mean_curve``; Monte Carlo points with two standard errors if it has them.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    colors = sns.color_palette("colorblind")
    ax.plot(frame.n, frame["xu-raginsky"], color=colors[0], marker="s", markersize=2.5, label="I(W;S), exact law")
    ax.plot(frame.n, frame["individual-sample"], color=colors[2], marker="^", markersize=2.5, label="individual sample")
    excess = frame["excess-individual-sample"]
    ax.plot(frame.n, excess, color=colors[3], marker="v", markersize=2.5, label="individual sample, excess loss")
    ax.plot(frame.n, frame.gap, color="0.2", label="true gap")
    if frame.sampled_gap.notna().any():
        error = 2 * frame.sampled_error
        ax.errorbar(frame.n, frame.sampled_gap, yerr=error, fmt=".", color="0.2", markersize=3, label="Monte Carlo")
    ax.set(xscale="log", yscale="log", xlabel="number of examples n", ylabel="gap (squared loss)")
    ax.legend(**_LEGEND)
    return ax


def plot_ranks(frame: pd.DataFrame, *, value: str = "information", ax: Axes | None = None) -> Axes:
    """Draw a column of ``analysis.studies.exact.rank_curve`` against the rank, one line per choice of A.

    Args:
        frame: from ``analysis.studies.exact.rank_curve``.
        value: column to draw.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    names = {"cla": "cLA, first columns", "cla-last": "cLA, last columns", "asym": METHODS["asym"].name}
    for (key, name), color, mark in zip(names.items(), sns.color_palette("colorblind"), _MARKS, strict=False):
        part = frame[frame.method == key]
        ax.plot(part["rank"], part[value], color=color, marker=mark, markersize=2.5, label=name)
    labels = {
        "information": "information (nats)",
        "test_risk": "test risk",
        "individual-sample": "individual-sample bound",
    }
    ax.set(xscale="log", xlabel="rank r", ylabel=labels.get(value, value))
    ax.legend(**_LEGEND)
    return ax


def plot_chain(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the information of all links and of the merged update against the number of links.

    Args:
        frame: from ``analysis.studies.exact.chain_curve``.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    for key, color in zip(("c3la", "rac"), sns.color_palette("colorblind"), strict=False):
        part = frame[frame.method == key]
        ax.plot(
            part.links, part.information, color=color, marker="o", markersize=2.5, label=f"{METHODS[key].name}, links"
        )
        ax.plot(part.links, part.merged, color=color, linestyle="--", label=f"{METHODS[key].name}, merged")
    ax.set(xlabel="links k", ylabel="information on S (nats)", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(**_LEGEND)
    return ax


def plot_null(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw what ld-MI reads at zero information against the number of runs, row by row and pooled.

    Args:
        frame: from ``analysis.studies.exact.null_curve``.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    for pooled, color, mark in zip((False, True), sns.color_palette("colorblind"), _MARKS, strict=False):
        part = frame[frame.pooled == pooled]
        ax.plot(
            part.runs, part.bound, color=color, marker=mark, markersize=3, label="pooled" if pooled else "row by row"
        )
    ax.set(xscale="log", yscale="log", xlabel="masked runs", ylabel="ld-MI bound at zero information")
    ax.legend(**_LEGEND)
    return ax


def plot_estimation(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the estimated information with its interval against the exact one and the null.

    Args:
        frame: from ``analysis.studies.exact.estimation_curve``.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    colors = sns.color_palette("colorblind")
    ax.fill_between(frame.runs, frame.low, frame.high, color=colors[0], alpha=0.2, linewidth=0, label="95 % interval")
    ax.plot(frame.runs, frame.estimate, color=colors[0], marker="o", markersize=2.5, label="plug-in, pooled")
    ax.plot(frame.runs, frame.null, color=colors[1], marker="v", markersize=2.5, label="null")
    ax.plot(frame.runs, frame.exact, color="0.2", linewidth=0.8, linestyle=":", label="exact")
    ax.set(xscale="log", xlabel="masked runs", ylabel="information per row (nats)", ylim=(0, None))
    ax.legend(**_LEGEND)
    return ax
