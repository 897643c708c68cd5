"""Figures of estimated information: bounds from masked runs against the gap that the same runs measured."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from analysis.plots.style import figure
from theory.methods import METHODS

__all__ = ["plot_estimates"]

_STYLES = {
    "ld-mi": ("ld-MI", "#0173b2", "o"),
    "e-cmi": ("e-CMI", "#d55e00", "s"),
    "fast-rate": ("fast rate", "#029e73", "^"),
}


def plot_estimates(estimates: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw each configuration's estimated bound against its measured gap; below the diagonal an estimate is too low.

    Full marks are column methods, empty ones all others; bars are bootstrap intervals over masked runs.

    Args:
        estimates: from `analysis.studies.information.information_frame`.
        ax: where; a new figure by default.

    Raises:
        ValueError: for a quantity that has no style.
    """
    unknown = sorted(set(estimates["quantity"]) - set(_STYLES))
    if unknown:
        raise ValueError(f"unknown quantity {unknown[0]!r}; accepted: {', '.join(_STYLES)}")
    ax = figure(height=2.6)[1] if ax is None else ax
    for quantity, (label, color, marker) in _STYLES.items():
        rows = estimates[estimates["quantity"] == quantity]
        for columns, part in rows.groupby(rows["method"].map(lambda key: METHODS[key].selects_columns)):
            ends = [part["bound"] - part["bound_low"], part["bound_high"] - part["bound"]]
            ax.errorbar(
                part["gap"], part["bound"], yerr=[end.clip(lower=0) for end in ends], fmt=marker, color=color,
                markersize=3, markerfacecolor=color if columns else "white", linewidth=0.5, markeredgewidth=0.7,
                label=label if columns else None,
            )  # fmt: skip
    highest = float(estimates["gap"].max()) * 1.1
    ax.plot([0, highest], [0, highest], color="0.4", linewidth=0.8, linestyle="--", label="bound = gap")
    ax.set(xlabel="measured gap, 0-1 loss", ylabel="estimated bound on the gap", xlim=(0, highest), ylim=(0, None))
    ax.legend(frameon=False, fontsize=6.5)
    return ax
