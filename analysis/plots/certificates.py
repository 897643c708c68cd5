"""Figures of certificates: what a bit costs, what a code is made of, and how far a bound is from the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from analysis.plots.style import figure, method_colors
from theory.certificates import occam_bound
from theory.methods import get_method

LEGEND = 6.5

__all__ = ["plot_bound_against_bits", "plot_certificates", "plot_code_parts"]


def _label(certificate: Mapping[str, Any]) -> str:
    return get_method(certificate["choice"]["method"]).name


def _legend_below(ax: Axes, height: float) -> None:
    ax.legend(
        frameon=False, ncols=3, columnspacing=1.0, fontsize=LEGEND, loc="upper center", bbox_to_anchor=(0.5, height)
    )


def plot_bound_against_bits(
    *,
    num_examples: Sequence[int],
    empirical_risk: float = 0.1,
    delta: float = 0.05,
    most_bits: int = 8000,
    ax: Axes | None = None,
) -> Axes:
    """Draw the Occam bound against the length of the code, for several sample sizes.

    Args:
        num_examples: one curve each.
        empirical_risk: error of the decoded predictor on the sample.
        delta: failure probability.
        most_bits: right end of the axis.
        ax: where to draw; a new figure by default.
    """
    ax = ax if ax is not None else figure()[1]
    bits = np.linspace(0, most_bits, 400)
    for n, color in zip(num_examples, sns.color_palette("colorblind"), strict=False):
        bound = occam_bound(empirical_risk, bits=bits, num_examples=n, delta=delta)
        ax.plot(bits, np.asarray(bound.value), color=color, label=f"n = {n:,}")
    ax.axhline(empirical_risk, color="0.6", linestyle=":", label="error on the sample")
    ax.set(xlabel="code length (bits)", ylabel="certified 0-1 error", ylim=(0, 1))
    _legend_below(ax, -0.25)
    return ax


def plot_certificates(certificates: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw each certificate's bound above the held-out error (with its interval) and the error on the sample.

    Args:
        certificates: records written by certify, for one task.
        ax: where to draw; a new figure by default.
    """
    if not certificates:
        raise ValueError("certificates must hold at least one record")
    ax = ax if ax is not None else figure()[1]
    colors = method_colors()
    for x, c in enumerate(certificates):
        color, held = colors[c["choice"]["method"]], c["heldout"]
        first = x == 0
        ax.bar(x, c["bound"], width=0.55, color=color, alpha=0.35, label="certified" if first else None)
        ax.plot(x - 0.1, c["empirical"]["error"], "o", color=color, markersize=4, label="sample" if first else None)
        errors = [[held["error"] - held["low"]], [held["high"] - held["error"]]]
        ax.errorbar(
            x + 0.1, held["error"], yerr=errors, fmt="s", color=color, markersize=4, capsize=2,
            label="held-out, 95 %" if first else None,
        )  # fmt: skip
    majority = certificates[0]["majority_error"]
    ax.axhline(majority, color="0.4", linestyle="--", label="commonest class")
    ax.set(ylabel="0-1 error", ylim=(0, 1), xlim=(-0.6, len(certificates) - 0.4))
    ax.set_xticks(range(len(certificates)), [_label(c) for c in certificates])
    _legend_below(ax, -0.12)
    return ax


def plot_code_parts(certificates: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw what each code is made of, in bits by part.

    Args:
        certificates: records written by certify.
        ax: where to draw; a new figure by default.
    """
    if not certificates:
        raise ValueError("certificates must hold at least one record")
    ax = ax if ax is not None else figure()[1]
    parts = list(dict.fromkeys(part for c in certificates for part in c["code"]["bits_by_part"]))
    left = np.zeros(len(certificates))
    for part, color in zip(parts, sns.color_palette("colorblind"), strict=False):
        bits = np.array([c["code"]["bits_by_part"].get(part, 0.0) for c in certificates])
        ax.barh(range(len(certificates)), bits, left=left, color=color, label=part, height=0.6)
        left += bits
    ax.set_yticks(range(len(certificates)), [_label(c) for c in certificates])
    ax.invert_yaxis()
    ax.set(xlabel="bits")
    _legend_below(ax, -0.3)
    return ax
