"""Figures of spectra: singular values, intruders against epsilon, subspace similarity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.plots.style import figure, method_colors
from theory.methods import METHODS

__all__ = ["plot_intruders", "plot_similarity", "plot_singular_values"]


def _style(label: str) -> dict[str, Any]:
    """A method's own colour and name; chains are dashed."""
    if label not in METHODS:
        return {"label": label}
    return {
        "label": METHODS[label].name,
        "color": method_colors()[label],
        "linestyle": "--" if METHODS[label].chained else "-",
    }


def plot_intruders(counts: Mapping[str, pd.DataFrame], *, ax: Axes | None = None, column: str = "intruders") -> Axes:
    """Draw the number (or share) of intruders against epsilon, one line per method.

    Args:
        counts: method key or label -> `analysis.spectra.singular.intruder_counts`; with a ``low`` and a ``high`` column
            (over seeds) a band is drawn.
        ax: where to draw; a new figure when None.
        column: ``"intruders"`` or ``"share"``.
    """
    if ax is None:
        _, ax = figure()
    for label, frame in counts.items():
        (drawn,) = ax.plot(frame["epsilon"], frame[column], **_style(label))
        if {"low", "high"} <= set(frame.columns):
            ax.fill_between(frame["epsilon"], frame["low"], frame["high"], color=drawn.get_color(), alpha=0.15, lw=0)
    ax.set_xlabel("threshold ε on the best cosine")
    ax.set_ylabel("intruder dimensions" if column == "intruders" else "share of singular vectors")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=6)
    return ax


def plot_singular_values(spectra: Mapping[str, np.ndarray], *, ax: Axes | None = None) -> Axes:
    """Draw singular values against their index, both on logarithmic scales; zeros are left out.

    Args:
        spectra: method key or label -> singular values, largest first.
        ax: where to draw; a new figure when None.
    """
    if ax is None:
        _, ax = figure()
    for label, values in spectra.items():
        values = np.asarray(values, dtype=np.float64)
        kept = values > values.max(initial=0.0) * 1e-12
        ax.plot(np.flatnonzero(kept) + 1, values[kept], **_style(label))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("index")
    ax.set_ylabel("singular value")
    ax.legend(frameon=False, fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_similarity(values: np.ndarray, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the subspace similarity phi(i, j) as a heat map from 0 to 1.

    Args:
        values: from `analysis.spectra.singular.subspace_similarity`.
        ax: where to draw; a new figure when None.
        title: heads the panel.
    """
    if ax is None:
        _, ax = figure()
    rows, columns = values.shape
    drawn = ax.imshow(values, vmin=0, vmax=1, origin="lower", extent=(0.5, columns + 0.5, 0.5, rows + 0.5))
    ax.set_xlabel("j")
    ax.set_ylabel("i")
    ax.set_title(title, fontsize=7.5)
    ax.figure.colorbar(drawn, ax=ax, label="φ(i, j)")
    return ax
