"""Figures of the bounds: table 1 in numbers, how near theorem 1 comes to the truth, what a chain costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.plots.style import figure, method_colors
from theory.defaults import BITS
from theory.expectation import description_bits, plan
from theory.layers import MODEL_NAMES, Layers, from_list
from theory.methods import METHODS

__all__ = ["plot_chain_bits", "plot_courses", "plot_needed", "plot_ratios", "plot_table1"]

LEGEND = 6.5


def plot_table1(
    frame: pd.DataFrame, *, methods: Sequence[str] = ("fft", "lora", "cla", "cola", "c3la"), ax: Axes | None = None
) -> Axes:
    """Draw table 1's square root per model and data set; right of the line at 1 it says nothing.

    Args:
        frame: from ``analysis.studies.table1.table1_frame``.
        methods: keys to draw; methods with the same row coincide.
        ax: where; a new figure by default.
    """
    ax = figure(height=3.4)[1] if ax is None else ax
    pairs = frame.drop_duplicates(["model", "dataset"])
    labels = [f"{MODEL_NAMES[row.model]}, {row.dataset}" for row in pairs.itertuples()]
    for key in methods:
        values = frame.loc[frame["method"] == key, "value"]
        color = method_colors()[key]
        ax.plot(values, np.arange(len(labels)), "o", markersize=2.8, color=color, label=METHODS[key].name)
    ax.axvline(1.0, color="0.2", linewidth=0.6, linestyle=":")
    ax.set(xscale="log", xlim=(0.5, None), xlabel="bound for a loss in [0, 1]", yticks=np.arange(len(labels)))
    ax.set_yticklabels(labels)
    ax.invert_yaxis()
    ax.legend(frameon=False, ncols=5, loc="lower right", bbox_to_anchor=(1, 1), handletextpad=0.1, fontsize=LEGEND)
    return ax


def plot_needed(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw when a bound says something: examples needed over examples there are, per model and data set.

    Left of the line at 1 the data set is large enough.

    Args:
        frame: from ``analysis.studies.table1.needed_frame``.
        ax: where; a new figure by default.
    """
    ax = figure(height=3.4)[1] if ax is None else ax
    pairs = frame.drop_duplicates(["model", "dataset"])
    labels = [f"{MODEL_NAMES[row.model]}, {row.dataset}" for row in pairs.itertuples()]
    for key, rows in frame.groupby("method", sort=False):
        name = str(key)
        ax.plot(
            rows["times"],
            np.arange(len(labels)),
            "o",
            markersize=2.8,
            color=method_colors()[name],
            label=METHODS[name].name,
        )
    ax.axvline(1.0, color="0.2", linewidth=0.6, linestyle=":")
    ax.set(xscale="log", xlabel="examples needed / examples there are", yticks=np.arange(len(labels)))
    ax.set_yticklabels(labels)
    ax.invert_yaxis()
    ax.legend(frameon=False, ncols=5, loc="lower right", bbox_to_anchor=(1, 1), handletextpad=0.1, fontsize=LEGEND)
    return ax


def plot_ratios(*, edges: Sequence[float], counts: Sequence[int], ax: Axes | None = None) -> Axes:
    """Draw the histogram of measured deviation over its bound for random networks; none may lie beyond 1.

    Args:
        edges: of the bins.
        counts: networks per bin.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    ax.stairs(counts, edges, fill=True, color=sns.color_palette("colorblind")[0], alpha=0.7)
    ax.axvline(1.0, color="0.2", linewidth=0.6, linestyle=":")
    ax.set(yscale="log", ylim=(0.5, None), xlabel="largest deviation / its bound", ylabel="networks")
    return ax


def plot_courses(courses: Mapping[str, Sequence[float]], *, ax: Axes | None = None) -> Axes:
    """Draw the directed search: best ratio of deviation to bound against the step, one line per activation.

    Args:
        courses: label -> best ratio after each step.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    for color, (label, course) in zip(sns.color_palette("colorblind", len(courses)), courses.items(), strict=True):
        ax.plot(np.arange(1, len(course) + 1), course, color=color, label=label)
    ax.axhline(1.0, color="0.2", linewidth=0.6, linestyle=":")
    ax.set(xscale="log", ylim=(0, 1.05), xlabel="step of the search", ylabel="best deviation / its bound")
    ax.legend(frameon=False, fontsize=LEGEND)
    return ax


def plot_chain_bits(
    layers: Layers,
    *,
    links: Sequence[int],
    methods: Sequence[str] = ("cola", "c3la"),
    rank: int = 16,
    bits: float = BITS,
    ax: Axes | None = None,
) -> Axes:
    """Draw the bits of a chained update against its links: as table 1 counts (dotted) and the cheapest description.

    The dashed line is the dense matrix, which no update can exceed. RAC-LoRA coincides with c3LA.

    Args:
        layers: shapes, or (out_features, in_features) pairs.
        links: chain lengths.
        methods: keys of chained methods.
        rank: r.
        bits: q.
        ax: where; a new figure by default.
    """
    ax = figure()[1] if ax is None else ax
    shapes = from_list(layers)
    for key in methods:
        plans = [plan(shapes, method=key, rank=rank, links=k, bits=bits) for k in links]
        lengths = [[description_bits(record) for record in records] for records in plans]
        color = method_colors()[key]
        ax.plot(links, [sum(one["links"] for one in run) for run in lengths], color=color, linestyle=":")
        ax.plot(links, [sum(min(one.values()) for one in run) for run in lengths], color=color, label=METHODS[key].name)
    ax.axhline(bits * sum(shape.size for shape in shapes), color="0.2", linewidth=0.6, linestyle="--")
    ax.set(xscale="log", yscale="log", xlabel="links k", ylabel="bits of the update")
    ax.legend(frameon=False, fontsize=LEGEND)
    return ax
