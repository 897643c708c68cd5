"""Figures of the adapter benchmark: step time over the frozen floor, bytes kept above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.plots.style import COLUMN_WIDTH, PAGE_WIDTH, figure

__all__ = ["plot_memory", "plot_steps", "benchmark_frame", "plot_columns"]

_OURS = ("cla", "r-cla", "c3la")


def benchmark_frame(result: dict[str, Any]) -> pd.DataFrame:
    """Turn ``bench_adapters.json`` into a data frame, one row per setting and case, with the cases' titles.

    Args:
        result: the result file's content, or what ``analysis.benchmarks.adapters.run`` returns.
    """
    steps, cases = result["tables"]["steps"], result["tables"]["cases"]
    frame = pd.DataFrame(steps["rows"], columns=steps["columns"])
    return frame.assign(title=frame["case"].map(dict(cases["rows"])))


def plot_steps(frame: pd.DataFrame, *, setting: str, ax: Axes | None = None) -> Axes:
    """Draw each case's step time over the frozen floor beside its share of arithmetic.

    Args:
        frame: from :func:`benchmark_frame`.
        setting: which setting, for example ``"all-linear/256/float32"``.
        ax: axes to draw on.

    Raises:
        ValueError: if the setting was not measured.
    """
    rows = _rows(frame, setting)
    if ax is None:
        _, ax = figure(COLUMN_WIDTH, 2.4)
    places = np.arange(len(rows))
    ax.barh(places, rows["step_ratio"], height=0.6, color=_colors(rows["case"]))
    spread = rows["step_ratio"] * (rows["quartile_high"] - rows["quartile_low"]) / rows["seconds"] / 2
    ax.errorbar(rows["step_ratio"], places, xerr=spread, fmt="none", ecolor="0.2", elinewidth=0.7)
    ax.plot(rows["arithmetic_ratio"], places, "|", color="black", markersize=7, label="arithmetic alone")
    ax.set_yticks(places, rows["title"])
    ax.axvline(1.0, color="0.4", linewidth=0.6)
    ax.set_xlim(left=0.9)
    ax.set_xlabel(f"step time / frozen floor ({setting})")
    ax.figure.legend(loc="outside lower center", frameon=False, fontsize=6)
    return ax


def plot_memory(frame: pd.DataFrame, *, setting: str, ax: Axes | None = None) -> Axes:
    """Draw the bytes that each case keeps for its backward pass above the floor, on a logarithmic axis.

    Raises:
        ValueError: if the setting was not measured.
    """
    rows = _rows(frame, setting)
    rows = rows[rows["adapter_saved_bytes"] > 0]
    if ax is None:
        _, ax = figure(COLUMN_WIDTH, 2.4)
    places = np.arange(len(rows))
    ax.barh(places, rows["adapter_saved_bytes"] / 2**20, height=0.6, color=_colors(rows["case"]))
    ax.set_xscale("log")
    ax.set_yticks(places, rows["title"])
    ax.set_xlabel(f"MiB kept above the floor ({setting})")
    return ax


def _rows(frame: pd.DataFrame, setting: str) -> pd.DataFrame:
    known = list(dict.fromkeys(frame["setting"]))
    if setting not in known:
        raise ValueError(f"setting {setting!r} was not measured; accepted: {', '.join(known)}")
    return frame[(frame["setting"] == setting) & (frame["case"] != "floor")].iloc[::-1].reset_index(drop=True)


def _colors(cases: Sequence[str]) -> list[str]:
    return [
        "#d55e00" if case in _OURS else "#949494" if case in ("fft", "naive-gather") else "#0173b2" for case in cases
    ]


def plot_columns(columns: dict[str, Sequence[Sequence[int]]], *, in_features: int) -> Axes:
    """Draw which columns of W each link of each method trains: one row per link, one square per column.

    Args:
        columns: method's name -> the columns of each link.
        in_features: columns of W.

    Returns:
        The first of the axes, one per method.
    """
    height = 0.7 + 0.16 * max(map(len, columns.values()))
    axes: Any = figure(PAGE_WIDTH, height, columns=len(columns), squeeze=False, sharex=True)[1]
    for ax, (name, links) in zip(axes[0], columns.items(), strict=True):
        picture = np.zeros((len(links), in_features))
        for link, chosen in enumerate(links):
            picture[link, list(chosen)] = 1.0
            picture[link + 1 :, list(chosen)] = 0.35
        ax.imshow(picture, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
        ax.set_title(name, fontsize=7.5)
        ax.set_yticks(range(len(links)), [str(link + 1) for link in range(len(links))])
        ax.set_xlabel("column of W")
    axes[0][0].set_ylabel("link")
    return axes[0][0]
