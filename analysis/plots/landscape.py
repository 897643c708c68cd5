"""Figures of loss landscapes: contours side by side on one scale, surfaces, lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from analysis.geometry import Landscape
from analysis.plots.style import PAGE_WIDTH, figure, method_colors
from analysis.statistics import unchained_partner

__all__ = ["plot_contours", "plot_lines", "plot_sharpness_pairs", "plot_surfaces"]


def _scale(shown: Sequence[np.ndarray], log: bool) -> Any:
    """One colour scale for all panels."""
    finite = np.concatenate([values[np.isfinite(values)] for values in shown])
    if finite.size == 0:
        raise ValueError("no landscape has a finite loss to draw")
    if log:
        positive = finite[finite > 0]
        if positive.size == 0:
            raise ValueError("log=True needs a positive loss; use log=False")
        return LogNorm(float(positive.min()), float(positive.max()) * (1 + 1e-9))
    return Normalize(float(finite.min()), float(finite.max()) or 1.0)


def _planes(landscapes: Sequence[Landscape]) -> list[Landscape]:
    found = list(landscapes)
    if not found or any(item.is_line for item in found):
        raise ValueError("give at least one landscape, each of two directions")
    return found


def plot_contours(
    landscapes: Sequence[Landscape],
    *,
    log: bool = True,
    levels: int = 14,
    columns: int = 4,
    width: float = PAGE_WIDTH,
    panel_height: float = 1.55,
    outer_labels: bool = False,
) -> np.ndarray:
    """Draw planes side by side as filled contours of the loss, on one colour scale.

    Points without a finite loss stay white. A star marks the centre, a line the checkpoints' path, each in the colour
    of its own loss: it lies beside the plane, and its state may hold more than the plane moves.

    Args:
        landscapes: two-dimensional; their ``title`` heads the panel.
        log: logarithmic colours.
        levels: number of contour levels, shared by all panels.
        columns: panels per row.
        width: of the figure, inches.
        panel_height: of a row, inches.
        outer_labels: label the axes at the left and at the bottom only; for planes on the same grid.

    Returns:
        The used axes, in the landscapes' order.

    Raises:
        ValueError: if there is no landscape, one is a line, or nothing is finite.
    """
    planes = _planes(landscapes)
    norm = _scale([plane.values for plane in planes], log)
    edges = np.geomspace if log else np.linspace
    at = edges(norm.vmin, norm.vmax, levels + 1)
    columns = min(columns, len(planes))
    rows = -(-len(planes) // columns)
    fig, made = figure(width, panel_height * rows + 0.25, rows=rows, columns=columns, squeeze=False)
    grid: Any = made
    used = np.ravel(grid)[: len(planes)]
    for place, (ax, plane) in enumerate(zip(used, planes, strict=True)):
        values = np.ma.masked_invalid(plane.values).clip(at[0], at[-1])
        drawn = ax.contourf(plane.x, plane.y, values, levels=at, norm=norm, cmap="viridis")
        drawn.set_edgecolor("face")
        ax.plot(0, 0, marker="*", color="white", markersize=5, markeredgecolor="black", markeredgewidth=0.4)
        if len(plane.path):
            ax.plot(*plane.path.T, color="white", linewidth=0.8, marker=".", markersize=3)
        if plane.path_losses:
            own = np.ma.masked_invalid(plane.path_losses).clip(at[0], at[-1])
            ax.scatter(
                *plane.path.T, c=own, norm=norm, cmap="viridis", s=12, edgecolors="white", linewidths=0.5, zorder=3
            )
        ax.set_title(plane.title, fontsize=7.5)
        ax.set_aspect("equal")
        _label(ax, plane)
        if outer_labels:
            left, bottom = place % columns == 0, place + columns >= len(planes)
            ax.tick_params(labelleft=left, labelbottom=bottom)
            ax.xaxis.label.set_visible(bottom)
            ax.yaxis.label.set_visible(left)
    for ax in np.ravel(grid)[len(planes) :]:
        ax.set_axis_off()
    mappable = plt.cm.ScalarMappable(norm=norm, cmap="viridis")
    bar = fig.colorbar(mappable, ax=list(np.ravel(grid)), shrink=0.8, aspect=30)
    bar.set_label("loss (nats)", fontsize=7.5)
    bar.ax.tick_params(which="both", labelsize=6.5)
    return used


def _label(ax: Any, plane: Landscape) -> None:
    if plane.explained:
        names = [f"PC {k + 1} ({100 * share:.0f} %)" for k, share in enumerate(plane.explained)]
    else:
        names = [f"{name} / ‖d‖" for name in ("a", "b")]
    ax.set_xlabel(names[0], labelpad=1, fontsize=6.5)
    ax.set_ylabel(names[1], labelpad=1, fontsize=6.5)


def plot_surfaces(
    landscapes: Sequence[Landscape],
    *,
    log: bool = False,
    columns: int = 4,
    width: float = PAGE_WIDTH,
    panel_height: float = 1.9,
    elevation: float = 30.0,
    azimuth: float = -60.0,
) -> np.ndarray:
    """Draw planes side by side as three-dimensional surfaces with one height and colour scale.

    Args:
        landscapes: as in `plot_contours`.
        log: heights are log10 of the loss.
        columns: panels per row.
        width: of the figure, inches.
        panel_height: of a row, inches.
        elevation: of the eye, degrees.
        azimuth: of the eye, degrees.

    Returns:
        The used axes.

    Raises:
        ValueError: as `plot_contours`.
    """
    planes = _planes(landscapes)
    with np.errstate(divide="ignore", invalid="ignore"):
        heights = [np.log10(plane.values) if log else plane.values for plane in planes]
    norm = _scale(heights, log=False)
    columns = min(columns, len(planes))
    rows = -(-len(planes) // columns)
    _, made = figure(
        width, panel_height * rows, rows=rows, columns=columns, squeeze=False, subplot_kw={"projection": "3d"}
    )
    grid: Any = made
    used = np.ravel(grid)[: len(planes)]
    for ax, plane, height in zip(used, planes, heights, strict=True):
        x, y = np.meshgrid(plane.x, plane.y)
        shown = np.where(np.isfinite(height), height, np.nan)
        ax.plot_surface(x, y, shown, cmap="viridis", norm=norm, rcount=60, ccount=60, linewidth=0.1, antialiased=True)
        ax.set_zlim(norm.vmin, norm.vmax)
        ax.view_init(elevation, azimuth)
        ax.set_title(plane.title, pad=-2, fontsize=7.5)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_major_locator(MaxNLocator(4))
        ax.tick_params(labelsize=5, pad=-3)
        ax.set_box_aspect(None, zoom=0.88)
    for ax in np.ravel(grid)[len(planes) :]:
        ax.set_axis_off()
    return used


def plot_lines(landscapes: Sequence[Landscape], *, ax: Axes | None = None, rise: bool = False) -> Axes:
    """Draw one-dimensional landscapes in one panel; circles are the losses of the models at the ends of a line.

    Args:
        landscapes: lines; their ``title`` is the legend.
        ax: where to draw; a new figure when None.
        rise: draw the rise over the centre's loss instead of the loss.

    Raises:
        ValueError: if one is a plane.
    """
    if any(not item.is_line for item in landscapes):
        raise ValueError("every landscape must be a line (one direction)")
    if ax is None:
        _, ax = figure()
    for item in landscapes:
        below = item.center_loss if rise else 0.0
        (drawn,) = ax.plot(item.x, item.values - below, label=item.title)
        if item.path_losses:
            ends = np.subtract(item.path_losses, below)
            ax.plot(item.path[:, 0], ends, "o", color=drawn.get_color(), markersize=3.5, fillstyle="none")
    interpolated = all(item.directions == "interpolation" for item in landscapes)
    ax.set_xlabel("t" if interpolated else "a / ‖d‖")
    ax.set_ylabel("rise of the loss (nats)" if rise else "loss (nats)")
    if any(item.title for item in landscapes):
        ax.legend(frameon=False, fontsize=6.5)
    return ax


def plot_sharpness_pairs(runs: pd.DataFrame, measure: str, *, checkpoint: str = "last", ax: Axes | None = None) -> Axes:
    """Draw each chain's sharpness against that of the method it chains, seed by seed, one marker a task.

    Points above the diagonal are chains that are sharper.

    Args:
        runs: task, method, seed, checkpoint and the measure, as ``python -m analysis chains`` writes them.
        measure: the column to draw, in nats.
        checkpoint: ``"last"`` or ``"best"``.
        ax: where to draw; a new figure when None.
    """
    if ax is None:
        _, ax = figure()
    chosen = runs[runs["checkpoint"] == checkpoint].set_index(["task", "method", "seed"])[measure]
    for marker, task in zip("o^sv", chosen.index.unique("task"), strict=False):
        part = chosen[task]
        for method in part.index.unique("method"):
            partner = unchained_partner(method)
            if partner is not None:
                pair = pd.concat([part[partner], part[method]], axis=1, join="inner").to_numpy()
                ax.plot(*pair.T, marker, color=method_colors()[method], markersize=4, alpha=0.8, markeredgewidth=0)
        ax.plot([], [], marker, color="0.4", markersize=4, label=task)
    low, high = min(*ax.get_xlim(), *ax.get_ylim()), max(*ax.get_xlim(), *ax.get_ylim())
    ax.plot([low, high], [low, high], color="0.6", linewidth=0.6, zorder=0)
    ax.set_xlabel("the method it chains (nats)")
    ax.set_ylabel("chain (nats)")
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=6.5)
    return ax
