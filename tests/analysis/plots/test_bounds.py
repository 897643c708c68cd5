"""Figures of the bounds draw table 1's numbers, ratios against 1, and bits against links."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis.plots.bounds import plot_chain_bits, plot_courses, plot_ratios, plot_table1
from analysis.plots.style import figure, method_colors


def color(method):
    return to_hex(method_colors()[method])


def test_table_1_has_a_row_per_model_and_data_set_and_a_mark_at_1(points, words):
    frame = pd.DataFrame(
        [(model, data, method, value + extra)
         for model, data, value in (("vit-tiny", "a", 2.0), ("vit-tiny", "b", 4.0), ("gpt2-small", "a", 8.0))
         for method, extra in (("cla", 0.0), ("lora", 0.5), ("asym", 0.25))],
        columns=["model", "dataset", "method", "value"],
    )  # fmt: skip
    ax = plot_table1(frame, methods=("lora", "cla"))
    drawn = {line.get_label(): line for line in ax.get_lines()}
    assert {name: list(drawn[name].get_xdata()) for name in ("LoRA", "cLA")} == {
        "LoRA": [2.5, 4.5, 8.5],
        "cLA": [2.0, 4.0, 8.0],
    }
    assert all(list(drawn[name].get_ydata()) == [0, 1, 2] for name in ("LoRA", "cLA"))
    assert all(drawn[name].get_marker() == "o" for name in ("LoRA", "cLA"))
    assert [to_hex(drawn[name].get_color()) for name in ("LoRA", "cLA")] == [color("lora"), color("cla")]
    assert any(list(line.get_xdata()) == [1, 1] for line in ax.get_lines())
    said = words(ax)
    assert said["rows"] == ["ViT-Tiny, a", "ViT-Tiny, b", "GPT2-Small, a"]
    assert (said["down"], said["scales"][0], said["legend"]) == (True, "log", ["LoRA", "cLA"])
    assert said["x"] == "bound for a loss in [0, 1]"
    assert ax.get_xlim()[0] == 0.5
    assert ax.get_yticks().tolist() == [0, 1, 2]
    own = figure()[1]
    assert plot_table1(frame, methods=("asym",), ax=own) is own


def test_ratios_are_a_histogram_whose_limit_is_marked(words):
    ax = plot_ratios(edges=[0.0, 0.25, 1.0], counts=[3, 5])
    (steps,) = ax.patches
    assert (steps.get_data().values.tolist(), steps.get_data().edges.tolist()) == ([3, 5], [0.0, 0.25, 1.0])
    assert steps.get_fill()
    assert [list(line.get_xdata()) for line in ax.get_lines()] == [[1, 1]]
    said = words(ax)
    assert (said["x"], said["y"], said["scales"]) == ("largest deviation / its bound", "networks", ("linear", "log"))
    assert ax.get_ylim()[0] == 0.5
    own = figure()[1]
    assert plot_ratios(edges=[0, 1], counts=[1], ax=own) is own


def test_courses_start_at_step_1(points, words):
    ax = plot_courses({"relu": [0.25, 0.5, 0.5], "gelu": [0.75]})
    assert points(ax) == {"relu": [(1, 0.25), (2, 0.5), (3, 0.5)], "gelu": [(1, 0.75)]}
    assert len({line.get_color() for line in ax.get_lines()}) == 3
    assert list(ax.get_lines()[-1].get_ydata()) == [1, 1]
    said = words(ax)
    assert (said["x"], said["y"]) == ("step of the search", "best deviation / its bound")
    assert (said["scales"][0], ax.get_ylim(), said["legend"]) == ("log", (0, 1.05), ["relu", "gelu"])
    own = figure()[1]
    assert plot_courses({"relu": [0.5]}, ax=own) is own


def test_bits_of_a_chain_by_both_counts_below_the_dense_matrix(points, words):
    """One matrix of 6 x 4, rank 1, 10 bits: a link is a column of 6 numbers (c3LA), or B and A of 10 (CoLA)."""
    ax = plot_chain_bits([(6, 4)], links=[1, 2, 8], rank=1, bits=10)
    lines = {(line.get_label(), line.get_linestyle(), to_hex(line.get_color())): line for line in ax.get_lines()}
    dotted = {color: list(line.get_ydata()) for (_, style, color), line in lines.items() if style == ":"}
    assert dotted == {color("c3la"): [60, 120, 480], color("cola"): [100, 200, 800]}
    cheapest = points(ax)
    assert list(cheapest) == ["CoLA", "c3LA"]
    assert [x for x, _ in cheapest["CoLA"]] == [1, 2, 8]
    assert all(y <= 240 for _, y in [*cheapest["CoLA"], *cheapest["c3LA"]])
    # One link of CoLA has rank 1: 6 + 4 - 1 numbers and which of 4 columns is the pivot, 2 bits.
    assert cheapest["CoLA"][0] == (1, 92)
    assert cheapest["CoLA"][2] == (8, 240)
    assert cheapest["c3LA"] == [(1, 60), (2, 120), (8, 240)]
    (dense,) = (line for line in ax.get_lines() if line.get_linestyle() == "--")
    assert list(dense.get_ydata()) == [240, 240]
    said = words(ax)
    assert (said["x"], said["y"], said["scales"]) == ("links k", "bits of the update", ("log", "log"))
    assert said["legend"] == ["CoLA", "c3LA"]
    own = figure()[1]
    assert plot_chain_bits([(6, 4)], links=[1], methods=["rac"], rank=2, ax=own) is own
    # 16 bits a number unless said otherwise.
    assert np.allclose([line.get_ydata()[0] for line in own.get_lines() if line.get_linestyle() == "--"], 16 * 24)


def test_a_chain_has_rank_16_unless_said_otherwise():
    ax = plot_chain_bits([(64, 64)], links=[1], methods=["c3la"], bits=1)
    assert ax.get_lines()[0].get_ydata()[0] == pytest.approx(16 * 64)
