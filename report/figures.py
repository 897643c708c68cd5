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

from analysis.geometry import Landscape
from analysis.measures import families
from analysis.plots import PAGE_WIDTH, figure, save
from analysis.plots import agreement as agreement_plots
from analysis.plots import bench as bench_plots
from analysis.plots import bounds as bound_plots
from analysis.plots import certificates as certificate_plots
from analysis.plots import exact as exact_plots
from analysis.plots import information as information_plots
from analysis.plots import landscape as landscape_plots
from analysis.plots import runs as run_plots
from analysis.plots import spectra as spectra_plots
from analysis.records import frame_of, read_json
from report.tasks import RANK, known_tasks, means, present_tasks
from theory.methods import METHODS

__all__ = ["FIGURES", "Figure", "draw_figures"]

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: file name without its ending.
        topics: the result files that it draws; it is left out when the first of them is not there.
        title: one line under the figure on the site.
        draw: results -> axes or a whole figure.
    """

    name: str
    topics: tuple[str, ...]
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
    fig, axes = figure(PAGE_WIDTH, 2.7, columns=3)
    exact_plots.plot_tightness(_table(results, "exact/coin"), ax=axes[0])
    exact_plots.plot_rates(_table(results, "exact/mean"), ax=axes[1])
    exact_plots.plot_chain(_table(results, "exact/chain"), ax=axes[2])
    for legend in list(fig.legends):
        legend.remove()
    # Under its panel a legend covers no line.
    for ax, ncols in zip(axes, (3, 2, 2), strict=True):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=ncols, **_SMALL)
    return fig


_SMALL: dict[str, Any] = {"frameon": False, "fontsize": 5.5, "handlelength": 1.4, "columnspacing": 0.8}


def _one_legend(fig: Drawing, ax: Axes, *, ncols: int, loc: str = "outside lower center") -> None:
    """Replace the legends that the panels made by one."""
    for legend in list(fig.legends):
        legend.remove()
    fig.legend(*ax.get_legend_handles_labels(), loc=loc, ncols=ncols, frameon=False, fontsize=6.5)


def _digits(results: Results) -> Drawing:
    table = means(results, "digits")
    fig, axes = figure(PAGE_WIDTH, 2.6, columns=2)
    for ax, value in zip(axes, ("metric", "gap_cross_entropy"), strict=True):
        run_plots.plot_against_rank(table, value, ax=ax)
    axes[0].set_ylabel("held-out accuracy")
    _one_legend(fig, axes[0], ncols=6)
    return fig


def _lengths(results: Results) -> Drawing:
    table = means(results, "chain_length", links=None)
    fig, axes = figure(PAGE_WIDTH, 1.7, columns=2)
    for ax, value in zip(axes, ("metric", "gap_cross_entropy"), strict=True):
        run_plots.plot_against_links(table, value, ax=ax)
    axes[0].set_ylabel("held-out accuracy")
    axes[0].get_legend().remove()
    return fig


def _texts(results: Results) -> Drawing:
    tasks = [task for task in present_tasks(results) if task.key != "digits"]
    fig, axes = figure(PAGE_WIDTH, 2.1, columns=2 * len(tasks), sharey=True, squeeze=False)
    for place, task in enumerate(tasks):
        table = means(results, task.key, rank=RANK)
        for ax, value, label in zip(
            axes[0, 2 * place : 2 * place + 2],
            ("metric", "gap_cross_entropy"),
            ("held-out accuracy", "G(W), nats"),
            strict=True,
        ):
            run_plots.plot_methods(table, value, ax=ax)
            ax.set_title(task.title, fontsize=7.5)
            ax.set_xlabel(label)
    # The panels share their axis, which each of them has turned over.
    if not axes[0, 0].yaxis_inverted():
        axes[0, 0].invert_yaxis()
    return fig


def _bench(results: Results) -> Drawing:
    frame = bench_plots.benchmark_frame(
        {"tables": {name: results["tables"][f"bench_adapters/{name}"] for name in ("steps", "cases")}}
    )
    fig, axes = figure(PAGE_WIDTH, 2.3, columns=3, sharey=True)
    bench_plots.plot_steps(frame, setting="all-linear/256/float32", ax=axes[0])
    bench_plots.plot_steps(frame, setting="q,v/256/float32", ax=axes[1])
    bench_plots.plot_memory(frame, setting="all-linear/256/float32", ax=axes[2])
    for ax, title in zip(axes, ("every linear layer", "query and value", "every linear layer"), strict=True):
        ax.set_title(title, fontsize=7.5)
    for ax in axes[:2]:
        ax.set_xlabel("step time / frozen base")
    axes[2].set_xlabel("MiB kept above the base")
    axes[2].set_xlim(left=1)
    _one_legend(fig, axes[0], ncols=1)
    return fig


# What the forest shows, the same for every task: a choice of each family (all candidates are on the site). Measures
# that were joined to the comparison from elsewhere stand above.
_FOREST = (
    "bound/table1-root", "bound/gauge-fixed", "bound/support", "unit-network/table1", "unit-network/excess-measured",
    "measures/sharpness_worst_merged", "measures/sharpness_worst_adapter", "measures/sharpness_mean_merged",
    "measures/sharpness_mean_adapter", "measures/hessian_top_merged", "measures/hessian_top_adapter",
    "measures/hessian_trace_merged", "measures/hessian_trace_adapter", "measures/intruders_authors",
    "measures/intruders_paper", "measures/effective_rank", "measures/stable_rank", "run/frobenius_norm_update",
    "norm/update_sum", "size/trainable", "run/margin_mean", "run/train_loss",
)  # fmt: skip


def _forest(results: Results) -> Drawing:
    shown = [
        (task, loss)
        for task in present_tasks(results)
        for loss in ("cross_entropy", "zero_one")
        if f"agreement/agreement/{task.key}/{loss}" in results["tables"]
        and (loss == "cross_entropy" or task.key == "digits")
    ]
    tables = [
        _table(results, f"agreement/agreement/{task.key}/{loss}").replace({"nan": float("nan")}).set_index("measure")
        for task, loss in shown
    ]
    stated = _families(results)
    joined = {name: None for table in tables for name in table.index if stated[name] in ("information", "code")}
    measures = [*joined, *_FOREST]
    fig, axes = figure(
        PAGE_WIDTH, 0.9 + 0.1 * len(measures), columns=len(shown), sharex=True, sharey=True, squeeze=False
    )
    for ax, table, (task, loss) in zip(axes[0], tables, shown, strict=True):
        agreement_plots.plot_agreement(table, families=stated, measures=measures, ax=ax)
        ax.set_title(f"{task.title}\n{'cross-entropy' if loss == 'cross_entropy' else '0-1 loss'}", fontsize=7.5)
        ax.set_xlabel("$\\tau_b$ with $G(W)$")
    axes[0, 0].set_yticklabels(_measure_name(name) for name in reversed(measures))
    _one_legend(fig, axes[0, 0], ncols=5)
    return fig


def _families(results: Results) -> dict[str, str]:
    """The family of every measure: as the comparison recorded it, or as the registry states it (files of 0.1)."""
    tables = results["tables"]
    compared = [table["rows"] for key, table in tables.items() if key.startswith("agreement/agreement/")]
    written = dict(tables["agreement/families"]["rows"]) if "agreement/families" in tables else {}
    return families([*_FOREST, *(row[0] for rows in compared for row in rows)]) | written


def _measure_name(measure: str) -> str:
    """A measure as a reader sees it: ``measures/hessian_top_merged`` is "hessian top merged"."""
    return measure.removeprefix("measures/").removeprefix("run/").replace("/", ": ").replace("_", " ").replace("-", " ")


def _published(results: Results) -> Axes:
    table = _table(results, "published_agreement/tau")
    rows = table[(table["links"] == 3) & (table["methods"] == "all")].set_index(["model", "dataset"])
    return agreement_plots.plot_published(
        rows["tau_b"], null_high=results["values"]["published_agreement/links-3/all/null_high"]
    )


def _information(results: Results) -> Axes:
    return information_plots.plot_estimates(_table(results, "information/estimates"))


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
    return landscape_plots.plot_contours(surfaces, columns=6, panel_height=1.2, outer_labels=True)[0].figure


def _chains(results: Results) -> Drawing:
    fig, axes = figure(PAGE_WIDTH, 2.9, columns=3)
    for ax, task in zip(axes, ("digits", "trec"), strict=False):
        curves = results["series"][f"spectra/{task}/curves/last"]
        frames = {key: pd.DataFrame(curves[key]) for key in METHODS}
        spectra_plots.plot_intruders(frames, ax=ax)
        ax.get_legend().remove()
        ax.set_title({"digits": "digits, rank 4", "trec": "TREC-6, MiniLM, rank 16"}[task], fontsize=7.5)
    axes[1].set_ylabel("")
    landscape_plots.plot_sharpness_pairs(_table(results, "landscape/runs"), "worst_merged", ax=axes[2])
    axes[2].set_title("worst rise in merged space", fontsize=7.5)
    _one_legend(fig, axes[0], ncols=6)
    return fig


FIGURES: tuple[Figure, ...] = (
    Figure(
        "table1", ("bounds",), "Table 1's root term for every model and data set of the paper: all vacuous.", _table1
    ),
    Figure("stress", ("bounds",), "The mended Theorem 1 against random networks and a directed search.", _stress),
    Figure("exact", ("exact",), "Bounds against the truth in models that can be solved exactly.", _exact),
    Figure(
        "bench", ("bench_adapters",), "What one training step costs above the frozen base, and what it keeps.", _bench
    ),
    Figure("digits", ("digits",), "Digits: held-out accuracy and measured generalization error by rank.", _digits),
    Figure(
        "lengths",
        ("chain_length",),
        "Digits at rank 4: held-out accuracy and measured generalization error by the length of the chain.",
        _lengths,
    ),
    Figure(
        "texts",
        tuple(task.key for task in known_tasks() if task.key != "digits"),
        "Text tasks at rank 16: held-out accuracy and measured generalization error, with intervals over seeds.",
        _texts,
    ),
    Figure("planes", ("landscape",), "Digits: loss planes of the eleven methods in merged space, one scale.", _planes),
    Figure(
        "chains",
        ("spectra", "landscape"),
        "Intruders against the threshold, and sharpness of chains, on both tasks.",
        _chains,
    ),
    Figure(
        "information",
        ("information",),
        "Digits: bounds estimated from runs on random halves of a supersample, against the gap of the same runs.",
        _information,
    ),
    Figure(
        "certificates", ("certificates",), "Errors certified with probability 0.95, and held-out errors.", _certificates
    ),
    Figure(
        "published",
        ("published_agreement",),
        "The paper's own table 3: agreement between the order of its bounds and of its measured errors, row by row.",
        _published,
    ),
    Figure("forest", ("agreement",), "Which measure follows the measured generalization error?", _forest),
)


def draw_figures(results: Results, folder: Path, *, formats: tuple[str, ...] = ("pdf", "svg")) -> list[Figure]:
    """Draw every figure whose results are there.

    Args:
        results: as ``build.load_results`` returns them.
        folder: where the files go.
        formats: endings without the dot.

    Returns:
        The figures drawn.
    """
    shown = [entry for entry in FIGURES if entry.topics[0] in results["provenance"]]
    for entry in shown:
        drawn = entry.draw(results)
        fig = drawn if isinstance(drawn, Drawing) else drawn.figure
        for ending in formats:
            save(fig, folder / f"{entry.name}.{ending}")
        plt.close("all")
    return shown
