"""Figures of curvature: spectral densities and top eigenvalues with their residuals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from analysis.geometry import Density, Eigenvalues
from analysis.plots.style import figure, method_colors
from theory.methods import METHODS

__all__ = ["plot_densities", "plot_eigenvalues"]


def plot_densities(found: Mapping[str, Density], *, ax: Axes | None = None, floor: float = 1e-6) -> Axes:
    """Draw spectral densities on a logarithmic scale, with a band of one standard error over probes.

    Args:
        found: method key or label -> `analysis.geometry.density.spectral_density`.
        ax: where to draw; a new figure when None.
        floor: density below which nothing is drawn, as a share of the peak.
    """
    if ax is None:
        _, ax = figure()
    for label, item in found.items():
        color = method_colors().get(label)
        name = METHODS[label].name if label in METHODS else label
        least = floor * item.density.max()
        low = np.maximum(item.density - item.standard_error, least)
        high = np.maximum(item.density + item.standard_error, least)
        (drawn,) = ax.plot(item.grid, np.where(item.density > least, item.density, np.nan), label=name, color=color)
        ax.fill_between(item.grid, low, high, color=drawn.get_color(), alpha=0.2, lw=0)
    ax.set_yscale("log")
    ax.set_xlabel("eigenvalue of the Hessian")
    ax.set_ylabel("density")
    ax.legend(frameon=False, fontsize=6.5)
    return ax


def plot_eigenvalues(found: Mapping[str, Eigenvalues], *, ax: Axes | None = None) -> Axes:
    """Draw top eigenvalues as bars; the error bar is the residual, within which an eigenvalue surely lies.

    Args:
        found: method key or label -> `analysis.geometry.eigenvalues.top_eigenvalues`.
        ax: where to draw; a new figure when None.
    """
    if ax is None:
        _, ax = figure()
    width = 0.8 / max(1, len(found))
    for place, (label, item) in enumerate(found.items()):
        at = np.arange(len(item.values)) + place * width
        name = METHODS[label].name if label in METHODS else label
        ax.bar(at, item.values, width, yerr=item.residuals, label=name, color=method_colors().get(label))
    most = max(len(item.values) for item in found.values())
    ax.set_xticks(np.arange(most) + 0.4 - width / 2, [str(k + 1) for k in range(most)])
    ax.set_xlabel("index")
    ax.set_ylabel("eigenvalue of the Hessian")
    ax.legend(frameon=False, fontsize=6.5)
    return ax
