"""One style for every figure: column width, colour-blind-safe colours, the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.records import replacing
from theory.methods import METHODS

__all__ = ["COLUMN_WIDTH", "PAGE_WIDTH", "figure", "method_colors", "save"]

COLUMN_WIDTH = 3.33
PAGE_WIDTH = 6.95

_STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "beyond-lora",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def method_colors() -> dict[str, tuple[float, float, float]]:
    """Return one colour per method key, from seaborn's colour-blind palette (one is grey); its dark one for more.

    >>> len(set(method_colors().values())) == len(METHODS)
    True
    """
    more = max(len(METHODS) - 21, 0)
    palettes = (sns.color_palette("colorblind", 10), sns.color_palette("dark", 10), sns.color_palette("husl", more))
    colors = [(0.2, 0.2, 0.2), *(color for palette in palettes for color in palette)]
    return dict(zip(METHODS, colors, strict=False))


def figure(
    width: float = COLUMN_WIDTH, height: float = 2.2, *, rows: int = 1, columns: int = 1, **kwargs: object
) -> tuple[Figure, Axes]:
    """Make a figure in the project's style.

    Args:
        width: inches; a column of the report by default.
        height: inches.
        rows: rows of axes.
        columns: columns of axes.
        **kwargs: passed on to ``matplotlib.pyplot.subplots``.

    Returns:
        The figure and its axes (an array when there are several), as ``plt.subplots`` does.
    """
    options: dict[str, Any] = {**kwargs, "figsize": (width, height)}
    with mpl.rc_context(_STYLE):
        made = plt.subplots(rows, columns, **options)
        interactive = mpl.is_interactive()  # the first figure may start a notebook's backend, which sets this
    mpl.interactive(interactive)
    return made


def save(fig: Figure, path: str | Path) -> Path:
    """Save a figure as PDF, SVG or PNG, the same bytes each time, and close it."""
    path = Path(path)
    metadata = {".pdf": {"CreationDate": None, "ModDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    with replacing(path) as new, mpl.rc_context(_STYLE):
        fig.savefig(new, metadata=metadata, format=path.suffix[1:], dpi=200)
    plt.close(fig)
    return path
