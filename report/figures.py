"""Every figure of the report and the site, drawn from committed results alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analysis.collect import frame_of
from analysis.plots import bounds as bound_plots
from analysis.plots import certificates as certificate_plots
from analysis.plots import exact as exact_plots
from analysis.plots import landscape as landscape_plots
from analysis.plots import runs as run_plots
from analysis.plots import spectra as spectra_plots
from analysis.plots.style import PAGE_WIDTH, figure, save
from analysis.store import read_json
from analysis.surfaces import Landscape
from theory.methods import METHODS

__all__ = ["FIGURES", "Figure", "draw_figures"]

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: file name without its ending.
        topic: the result file that it draws.
        title: one line under the figure on the site.
        draw: results -> axes or a whole figure.
    """

    name: str
    topic: str
    title: str
    draw: Callable[[Results], Axes | Drawing]


def _table(results: Results, key: str) -> pd.DataFrame:
    return frame_of(results["tables"][key])


def _table1(results: Results) -> Axes:
    return bound_plots.plot_table1(pd.DataFrame(results["series"]["bounds/table1"]))


def _stress(results: Results) -> Drawing:
    fig, axes = figure(PAGE_WIDTH, 2.0, columns=2)
    ratios = results["series"]["bounds/ratios"]
    bound_plots.plot_ratios(edges=ratios["edges"], counts=ratios["counts"], ax=axes[0])
    bound_plots.plot_courses(results["series"]["bounds/courses"], ax=axes[1])
    return fig


def _exact(results: Results) -> Drawing:
    fig, axes = figure(PAGE_WIDTH, 2.6, columns=3)
    exact_plots.plot_tightness(_table(results, "exact/coin"), ax=axes[0])
    exact_plots.plot_rates(_table(results, "exact/mean"), ax=axes[1])
    exact_plots.plot_chain(_table(results, "exact/chain"), ax=axes[2])
    return fig


def _digits(results: Results) -> Drawing:
    means = _table(results, "digits/means")
    fig, axes = figure(PAGE_WIDTH, 3.0, columns=2)
    for ax, value in zip(axes, ("metric", "gap_cross_entropy"), strict=True):
        run_plots.plot_against_rank(means, value, ax=ax)
    axes[0].set_ylabel("held-out accuracy")
    for legend in list(fig.legends):
        legend.remove()
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=6.5)
    return fig


def _certificates(results: Results) -> Drawing:
    fig, axes = figure(PAGE_WIDTH, 2.2, columns=2, sharey=True)
    for ax, task in zip(axes, ("trec", "digits"), strict=True):
        paths = sorted((Path(__file__).parent / "results" / "certificates").glob(f"{task}-*.json"))
        certificate_plots.plot_certificates([read_json(path) for path in paths], ax=ax)
        ax.get_legend().remove()
        ax.set_title({"trec": "TREC-6, MiniLM", "digits": "digits 5 to 9"}[task], fontsize=7.5)
    axes[1].set_ylabel("")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=6)
    return fig


def _planes(results: Results) -> Drawing:
    surfaces = [Landscape.from_dict(plane) for plane in results["series"]["landscape/digits/planes"]]
    return landscape_plots.contours(surfaces, columns=6, panel_height=1.2, outer_labels=True)[0].figure


def _chains(results: Results) -> Drawing:
    fig, axes = figure(PAGE_WIDTH, 2.9, columns=3)
    for ax, task in zip(axes, ("digits", "trec"), strict=False):
        curves = results["series"][f"spectra/{task}/curves/last"]
        frames = {key: pd.DataFrame(curves[key]) for key in METHODS}
        spectra_plots.intruders_against_epsilon(frames, ax=ax)
        ax.get_legend().remove()
        ax.set_title({"digits": "digits, rank 4", "trec": "TREC-6, MiniLM, rank 16"}[task], fontsize=7.5)
    axes[1].set_ylabel("")
    landscape_plots.sharpness_pairs(_table(results, "landscape/runs"), "worst_merged", ax=axes[2])
    axes[2].set_title("worst rise in merged space", fontsize=7.5)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=6.5)
    return fig


FIGURES: tuple[Figure, ...] = (
    Figure("table1", "bounds", "Table 1's root term for every model and data set of the paper: all vacuous.", _table1),
    Figure("stress", "bounds", "The mended theorem 1 against ten thousand random networks and a search.", _stress),
    Figure("digits", "digits", "Digits: held-out accuracy and measured generalization error by rank.", _digits),
    Figure(
        "certificates", "certificates", "Errors certified with probability 0.95, and held-out errors.", _certificates
    ),
    Figure("planes", "landscape", "Digits: loss planes of the eleven methods in merged space, one scale.", _planes),
    Figure("chains", "spectra", "Intruders against the threshold, and sharpness of chains, on both tasks.", _chains),
    Figure("exact", "exact", "Bounds against the truth in models that can be solved exactly.", _exact),
)


def draw_figures(results: Results, folder: Path, *, formats: tuple[str, ...] = ("pdf", "svg")) -> None:
    """Draw every figure whose results are there.

    Args:
        results: as ``build.load_results`` returns them.
        folder: where the files go.
        formats: endings without the dot.
    """
    for entry in FIGURES:
        drawn = entry.draw(results)
        fig = drawn if isinstance(drawn, Drawing) else drawn.figure
        for ending in formats:
            save(fig, folder / f"{entry.name}.{ending}")
        plt.close("all")
