"""Figures of runs draw the means, the two ends of each interval, and the methods in their order."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis.plots.runs import plot_against_links, plot_against_rank, plot_history, plot_methods, plot_pairs
from analysis.plots.style import figure, method_colors


def color(method):
    return to_hex(method_colors()[method])


def rows(*values):
    return pd.DataFrame(values, columns=["method", "rank", "links", "metric", "metric_low", "metric_high"])


def test_methods_have_their_interval_on_the_right_side(bars, words):
    means = rows(
        ("cla", 2, 1, 0.6, 0.5, 0.9),
        ("fft", 2, 1, 0.7, 0.4, 0.8),
        ("lora", 2, 1, 0.3, np.nan, np.nan),
        ("asym", 2, 1, 0.2, 0.2 + 1e-17, 0.25),
    )
    ax = plot_methods(means, "metric")
    drawn = bars(ax)
    assert [one["points"] for one in drawn] == [[(0.7, 0)], [(0.3, 1)], [(0.2, 2)], [(0.6, 3)]]
    assert drawn[1]["segments"] == []
    ends = [drawn[k]["segments"] for k in (0, 2, 3)]
    # Ends are drawn as distances from the point, which rounds once more.
    assert np.allclose(ends, [[[[0.4, 0], [0.8, 0]]], [[[0.2, 2], [0.25, 2]]], [[[0.5, 3], [0.9, 3]]]], rtol=1e-12)
    assert [one["color"] for one in drawn] == [color(key) for key in ("fft", "lora", "asym", "cla")]
    said = words(ax)
    assert said["rows"] == ["FFT", "LoRA", "Asym-LoRA", "cLA"]
    assert said["down"]
    assert said["x"] == "held-out accuracy"
    assert ax.get_yticks().tolist() == [0, 1, 2, 3]


def test_an_end_on_the_wrong_side_by_rounding_is_no_bar(bars):
    ax = plot_methods(rows(("cla", 2, 1, 0.5, 0.5 + 1e-16, 0.5 - 1e-16)), "metric")
    assert bars(ax)[0]["segments"] == [[[0.5, 0.0], [0.5, 0.0]]]
    assert ax.get_xlabel() == "held-out accuracy"
    with pytest.raises(ValueError, match="one row per method"):
        plot_methods(rows(("cla", 2, 1, 0, 0, 0), ("cla", 4, 1, 0, 0, 0)), "metric")


def test_a_value_without_a_name_of_its_own_is_its_column(words):
    renamed = rows(("cla", 2, 1, 0.5, 0.4, 0.6)).rename(columns=lambda name: name.replace("metric", "score"))
    assert words(plot_methods(renamed, "score"))["x"] == "score"
    assert words(plot_against_rank(renamed, "score"))["y"] == "score"
    assert words(plot_against_links(renamed, "score"))["y"] == "score"


def test_ranks_are_drawn_in_order_with_their_band_and_full_fine_tuning_as_a_level(points, words):
    means = rows(
        ("cla", 4, 1, 0.6, 0.5, 0.9),
        ("cla", 2, 1, 0.3, 0.1, 0.4),
        ("lora", 2, 1, 0.2, 0.15, 0.35),
        ("fft", np.nan, 1, 0.75, 0.7, 0.8),
    )
    ax = plot_against_rank(means, "metric")
    drawn = points(ax)
    assert drawn == {"FFT": [(0.0, 0.75), (1.0, 0.75)], "LoRA": [(2.0, 0.2)], "cLA": [(2.0, 0.3), (4.0, 0.6)]}
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert {name: line.get_linestyle() for name, line in lines.items()} == {"FFT": "--", "LoRA": ":", "cLA": "-"}
    assert [to_hex(lines[name].get_color()) for name in ("FFT", "LoRA", "cLA")] == [
        color(key) for key in ("fft", "lora", "cla")
    ]
    assert {line.get_marker() for name, line in lines.items() if name != "FFT"} == {"o"}
    bands = [{tuple(vertex) for vertex in band.get_paths()[0].vertices.tolist()} for band in ax.collections]
    assert bands == [{(2.0, 0.15), (2.0, 0.35)}, {(2.0, 0.1), (2.0, 0.4), (4.0, 0.5), (4.0, 0.9)}]
    assert [to_hex(band.get_facecolor()[0]) for band in ax.collections] == [color("lora"), color("cla")]
    said = words(ax)
    assert (said["x"], said["y"], said["scales"]) == ("rank r", "held-out accuracy", ("log", "linear"))
    assert ax.xaxis.get_transform().base == 2
    assert ax.get_xticks().tolist() == [2, 4]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4"]
    assert said["legend"] == ["FFT", "LoRA", "cLA"]


def test_chains_are_drawn_against_their_length_with_both_ends(bars, words):
    means = rows(
        ("c3la", 2, 3, 0.6, 0.5, 0.9),
        ("c3la", 2, 2, 0.3, 0.25, 0.4),
        ("cola", 2, 2, 0.5, 0.5 + 1e-17, 0.75),
    )
    ax = plot_against_links(means, "metric")
    drawn = bars(ax)
    assert [one["label"] for one in drawn] == ["CoLA", "c3LA"]
    assert [one["points"] for one in drawn] == [[(2.0, 0.5)], [(2.0, 0.3), (3.0, 0.6)]]
    assert drawn[0]["segments"] == [[[2.0, 0.5], [2.0, 0.75]]]
    assert np.allclose(drawn[1]["segments"], [[[2.0, 0.25], [2.0, 0.4]], [[3.0, 0.5], [3.0, 0.9]]], rtol=1e-12)
    assert [one["color"] for one in drawn] == [color("cola"), color("c3la")]
    assert [one["marker"] for one in drawn] == ["o", "o"]
    assert [container.lines[0].get_linestyle() for container in ax.containers] == [":", "-"]
    assert ax.get_xticks().tolist() == [2, 3]
    said = words(ax)
    assert (said["x"], said["y"]) == ("links of the chain", "held-out accuracy")
    assert said["legend"] == ["CoLA", "c3LA"]


def test_history_is_each_runs_loss_by_step_and_one_legend_entry_a_method(words):
    def record(method, *losses):
        history = [{"step": 10 * (k + 1), "loss": loss} for k, loss in enumerate(losses)]
        return {"config": {"method": method}, "history": history}

    ax = plot_history([record("cla", 2.0, "nan"), record("cla", 1.0), record("fft", 3.0, 2.5)])
    data = [np.stack(line.get_data(), axis=1).tolist() for line in ax.get_lines()]
    assert data[0][0] == [10.0, 2.0]
    assert data[0][1][0] == 20.0
    assert np.isnan(data[0][1][1])
    assert data[1:] == [[[10.0, 1.0]], [[10.0, 3.0], [20.0, 2.5]]]
    assert [to_hex(line.get_color()) for line in ax.get_lines()] == [color("cla"), color("cla"), color("fft")]
    said = words(ax)
    assert (said["x"], said["y"], said["legend"]) == ("optimizer step", "training loss (nats)", ["cLA", "FFT"])


def test_pairs_have_their_interval_on_the_right_side_of_a_marked_zero(bars, words):
    table = pd.DataFrame(
        {"mean": [-0.25, 0.5], "low": [-1.0, 0.5 + 1e-16], "high": [0.25, 0.75]}, index=["cLA - LoRA", "LoRA - FFT"]
    )
    ax = plot_pairs(table, value="metric")
    (drawn,) = bars(ax)
    assert drawn["points"] == [(-0.25, 0.0), (0.5, 1.0)]
    assert drawn["segments"] == [[[-1.0, 0.0], [0.25, 0.0]], [[0.5, 1.0], [0.75, 1.0]]]
    assert drawn["marker"] == "o"
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.get_lines())
    said = words(ax)
    assert (said["rows"], said["down"]) == (["cLA - LoRA", "LoRA - FFT"], True)
    assert said["x"] == "difference in held-out accuracy"


@pytest.mark.parametrize("draw", [plot_methods, plot_against_rank, plot_against_links])
def test_given_axes_are_drawn_on(draw):
    ax = figure()[1]
    assert draw(rows(("cla", 2, 1, 0.5, 0.4, 0.6)), "metric", ax=ax) is ax
