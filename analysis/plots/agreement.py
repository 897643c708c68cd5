"""Figures of the comparison: who predicts the measured gap, and what the paper's own table says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.plots.style import COLUMN_WIDTH, figure, method_colors
from theory.methods import METHODS

__all__ = ["FAMILIES", "plot_agreement", "family_of", "plot_gap", "plot_published"]

FAMILIES = {
    "bound": ("bound/", "unit-network/"),
    "information, code": ("information/", "code/"),
    "landscape, curvature": ("sharp", "hessian", "flat"),
    "intruders, spectrum": ("intruder", "rank", "frobenius_ratio"),
    "norm, size": ("norm", "size", "update", "trained", "spectral", "links"),
    "fit": ("loss", "error", "margin"),
}
_COLORS = dict(zip(FAMILIES, ("#0173b2", "#ca9161", "#d55e00", "#cc78bc", "#029e73", "#949494"), strict=True))


def family_of(measure: str) -> str:
    """Say to which family a candidate predictor belongs, by its name.

    >>> family_of("bound/direct"), family_of("measures/sharpness_worst_adapter"), family_of("run/margin_mean")
    ('bound', 'landscape, curvature', 'fit')
    """
    for family in ("bound", "information, code"):
        if measure.startswith(FAMILIES[family]):
            return family
    for family, words in FAMILIES.items():
        if any(word in measure for word in words):
            return family
    return "fit"


def plot_agreement(
    table: pd.DataFrame, *, statistic: str = "tau_b", measures: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw every measure's agreement with its interval, coloured by family; a filled dot is significant.

    Args:
        table: from ``analysis.statistics.table.agreement_table``, indexed by measure.
        statistic: ``"tau_b"``, ``"granulated"``, ``"partial_tau"`` or ``"cmi"``.
        measures: rows to draw, the first on top, one that the table lacks left empty; all of them, best first,
            when left out.
        ax: axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: if the table lacks the statistic.
    """
    if statistic not in table.columns:
        raise ValueError(f"the table has no statistic {statistic!r}; it has {', '.join(table.columns)}")
    if measures is None:
        rows = table.dropna(subset=[statistic]).sort_values(statistic)
    else:
        rows = table.reindex(list(measures)[::-1])
    if ax is None:
        _, ax = figure(COLUMN_WIDTH, 1.1 + 0.13 * len(rows))
    seen = set()
    for position, (name, row) in enumerate(rows.iterrows()):
        family = family_of(str(name))
        color = _COLORS[family]
        ends = [row.get(f"{statistic}_low", np.nan), row.get(f"{statistic}_high", np.nan)]
        label = None if family in seen else family
        ax.plot(ends, [position, position], color=color, linewidth=1.0, label=label)
        ax.plot(
            row[statistic],
            position,
            "o",
            markersize=3.2,
            markeredgecolor=color,
            markerfacecolor=color if row.get("q", 1.0) <= 0.05 else "white",
        )
        seen.add(family)
    ax.axvline(0.0, color="0.6", linewidth=0.6)
    ax.set_yticks(range(len(rows)), [str(name) for name in rows.index], fontsize=5.5)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_xlabel(_LABELS.get(statistic, statistic))
    ax.figure.legend(loc="outside lower center", frameon=False, fontsize=5.5, ncols=3)
    return ax


_LABELS = {
    "tau_b": "tau-b with measured G(W)",
    "granulated": "granulated tau with G(W)",
    "partial_tau": "partial tau, loss and rank held",
    "cmi": "normalised conditional MI",
}


def plot_gap(frame: pd.DataFrame, *, measure: str, target: str = "gap/cross_entropy", ax: Axes | None = None) -> Axes:
    """Scatter one measure against the measured gap, one colour per method.

    Args:
        frame: one row per run, from ``analysis.studies.predictors.comparison_frame``.
        measure: column of the measure.
        target: column of the measured gap.
        ax: axes to draw on.

    Raises:
        ValueError: if a column is missing.
    """
    missing = [name for name in (measure, target, "method") if name not in frame.columns]
    if missing:
        raise ValueError(f"the runs have no column {', '.join(map(repr, missing))}")
    if ax is None:
        _, ax = figure(COLUMN_WIDTH, 2.2)
    colors = method_colors()
    for method, runs in frame.groupby("method", sort=False):
        ax.plot(
            runs[measure], runs[target], "o", markersize=3, alpha=0.8, color=colors[method], label=METHODS[method].name
        )
    ax.set_xlabel(measure + (" (log)" if measure.startswith(("bound/", "unit-network/")) else ""))
    ax.set_ylabel("measured G(W), nats" if target.endswith("cross_entropy") else "measured G(W), 0-1 loss")
    ax.legend(frameon=False, fontsize=5.5, ncols=2)
    return ax


def plot_published(tau: pd.Series, *, null_high: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw Kendall's tau of each row of the paper's table 3 against the order of its bounds.

    Args:
        tau: tau-b per (model, data set), from ``analysis.studies.published.published_agreement``.
        null_high: the mean |tau| that chance exceeds once in twenty, drawn as a band around zero.
        ax: axes to draw on.
    """
    if ax is None:
        _, ax = figure(COLUMN_WIDTH, 2.2)
    ordered = tau.sort_values()
    names = [" / ".join(map(str, index)) for index in ordered.index]
    ax.barh(range(len(ordered)), ordered, color="#0173b2", height=0.6)
    ax.axvline(0.0, color="0.3", linewidth=0.6)
    ax.axvline(float(tau.mean()), color="#d55e00", linewidth=1.0, label=f"mean {tau.mean():.2f}")
    if null_high is not None:
        ax.axvspan(-null_high, null_high, color="0.5", alpha=0.2, linewidth=0, label="chance, 95 % of means")
    ax.set_yticks(range(len(ordered)), names, fontsize=5.5)
    ax.set_xlabel("tau-b, bounds against G(W)")
    ax.figure.legend(loc="outside lower center", frameon=False, fontsize=5.5, ncols=2)
    return ax
