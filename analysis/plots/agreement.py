"""Figures of the comparison: who predicts the measured gap, and what the paper's own table says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.plots.style import COLUMN_WIDTH, figure, method_colors
from theory.methods import METHODS

__all__ = ["agreement_forest", "gap_scatter", "published_rows"]

_COLORS = {
    "bound": "#0173b2",
    "information": "#ca9161",
    "code": "#ece133",
    "sharpness": "#d55e00",
    "curvature": "#de8f05",
    "intruders": "#cc78bc",
    "norm": "#029e73",
    "fit": "#949494",
}
_TARGETS = {
    "gap/cross_entropy": "measured G(W), nats",
    "gap/zero_one": "measured G(W), 0-1 loss",
    "gap/squared_error": "measured G(W), squared error",
}


def agreement_forest(
    table: pd.DataFrame,
    *,
    families: Mapping[str, str],
    statistic: str = "tau_b",
    measures: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw every measure's agreement with its interval, coloured by family; a filled dot is significant.

    Args:
        table: from ``analysis.statistics.table.agreement_table``, indexed by measure.
        families: the stated family of each measure, from ``analysis.measures.families``.
        statistic: ``"tau_b"``, ``"granulated"``, ``"partial_tau"`` or ``"cmi"``.
        measures: rows to draw, the first on top, one that the table lacks left empty; all of them, best first,
            when left out.
        ax: axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: if the table lacks the statistic, or a measure states no family.
    """
    if statistic not in table.columns:
        raise ValueError(f"the table has no statistic {statistic!r}; it has {', '.join(table.columns)}")
    if measures is None:
        rows = table.dropna(subset=[statistic]).sort_values(statistic)
    else:
        rows = table.reindex(list(measures)[::-1])
    unstated = [str(name) for name in rows.index if name not in families]
    if unstated:
        raise ValueError(f"families must state the family of every measure drawn, lacks {', '.join(unstated)}")
    if ax is None:
        _, ax = figure(COLUMN_WIDTH, 1.1 + 0.13 * len(rows))
    seen = set()
    for position, (name, row) in enumerate(rows.iterrows()):
        family = families[str(name)]
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


def gap_scatter(
    frame: pd.DataFrame, *, measure: str, unit: str = "", target: str = "gap/cross_entropy", ax: Axes | None = None
) -> Axes:
    """Scatter one measure against the measured gap, one colour per method.

    Args:
        frame: one row per run, from ``analysis.studies.predictors.comparison_frame``.
        measure: column of the measure.
        unit: the measure's unit, as ``analysis.measures.MEASURES`` states it.
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
    ax.set_xlabel(f"{measure}, {unit}" if unit else measure)
    ax.set_ylabel(_TARGETS.get(target, target))
    ax.legend(frameon=False, fontsize=5.5, ncols=2)
    return ax


def published_rows(tau: pd.Series, *, null_high: float | None = None, ax: Axes | None = None) -> Axes:
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
