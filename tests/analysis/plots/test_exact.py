"""Figures of the exactly solved models draw the columns that their axes name."""

import numpy as np
import pandas as pd
import pytest

from analysis.plots import exact
from analysis.plots.style import figure


def test_tightness_has_a_line_per_bound_in_a_fixed_order_and_style(points, words):
    frame = pd.DataFrame(
        {"bound": ["cmi", "bits", "cmi", "ld-mi"], "n": [2, 3, 4, 5], "ratio": [1.5, 9.0, 1.25, 3.0], "x": 0}
    )
    ax = exact.plot_tightness(frame)
    assert points(ax) == {"direct bits": [(3, 9.0)], "CMI": [(2, 1.5), (4, 1.25)], "ld-MI": [(5, 3.0)]}
    drawn = {line.get_label(): (line.get_color(), line.get_marker()) for line in ax.get_lines()}
    assert len({drawn[name] for name in ("direct bits", "CMI", "ld-MI")}) == 3
    assert any(list(line.get_ydata()) == [1, 1] for line in ax.get_lines())
    said = words(ax)
    assert (said["x"], said["y"]) == ("number of examples n", "bound / true gap")
    assert (said["scales"], said["legend"]) == (("log", "linear"), ["direct bits", "CMI", "ld-MI"])
    some = exact.plot_tightness(frame, bounds=["cmi"], ax=figure()[1])
    assert list(points(some)) == ["CMI"]
    again = {line.get_label(): (line.get_color(), line.get_marker()) for line in some.get_lines()}
    assert again["CMI"] == drawn["CMI"]


def test_every_bound_of_a_full_figure_has_its_own_colour_and_mark():
    frame = pd.DataFrame([{"bound": key, "n": 1, "ratio": 2.0} for key in exact.BOUND_NAMES])
    lines = [line for line in exact.plot_tightness(frame).get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == list(exact.BOUND_NAMES.values())
    assert len({line.get_marker() for line in lines}) == len(lines)


def rates(sampled):
    return pd.DataFrame(
        {
            "n": [2, 4], "xu-raginsky": [8.0, 7.0], "individual-sample": [6.0, 5.0], "gap": [2.0, 1.0],
            "excess-individual-sample": [4.0, 3.0], "sampled_gap": sampled, "sampled_error": [0.25, 0.125],
        }
    )  # fmt: skip


def test_rates_are_four_lines_and_sampled_points_with_two_standard_errors(points, bars, words):
    ax = exact.plot_rates(rates([2.5, 1.25]))
    drawn = points(ax)
    assert drawn == {
        "I(W;S), exact law": [(2, 8.0), (4, 7.0)],
        "individual sample": [(2, 6.0), (4, 5.0)],
        "individual sample, excess loss": [(2, 4.0), (4, 3.0)],
        "true gap": [(2, 2.0), (4, 1.0)],
    }
    (sampled,) = bars(ax)
    assert sampled["points"] == [(2, 2.5), (4, 1.25)]
    assert sampled["segments"] == [[[2, 2.0], [2, 3.0]], [[4, 1.0], [4, 1.5]]]
    assert sampled["marker"] == "."
    assert len({line.get_color() for line in ax.get_lines() if line.get_label() in drawn}) == 4
    said = words(ax)
    assert (said["x"], said["y"]) == ("number of examples n", "gap (squared loss)")
    assert said["scales"] == ("log", "log")
    assert sorted(said["legend"]) == sorted([*drawn, "Monte Carlo"])
    none = exact.plot_rates(rates([np.nan, np.nan]), ax=figure()[1])
    assert bars(none) == []


@pytest.mark.parametrize(
    ("value", "name"),
    [("information", "information (nats)"), ("test_risk", "test risk"), ("other", "other"),
     ("individual-sample", "individual-sample bound")],
)  # fmt: skip
def test_ranks_draw_the_column_that_is_asked_for(value, name, points, words):
    frame = pd.DataFrame(
        {"method": ["cla", "cla", "asym", "cla-last"], "rank": [1, 2, 1, 2], "information": [5.0, 6, 7, 8],
         "test_risk": [1.0, 2, 3, 4], "individual-sample": [0.5, 0.25, 0.125, 0.75], "other": [9.0, 10, 11, 12]}
    )  # fmt: skip
    ax = exact.plot_ranks(frame, value=value)
    a, b, c, d = frame[value]
    assert points(ax) == {"cLA, first columns": [(1, a), (2, b)], "cLA, last columns": [(2, d)], "Asym-LoRA": [(1, c)]}
    assert len({(line.get_color(), line.get_marker()) for line in ax.get_lines()}) == 3
    said = words(ax)
    assert (said["x"], said["y"], said["scales"]) == ("rank r", name, ("log", "linear"))
    assert said["legend"] == list(points(ax))


def test_without_a_word_ranks_draw_the_information():
    frame = pd.DataFrame({"method": ["cla"], "rank": [1], "information": [5.0]})
    assert exact.plot_ranks(frame).get_lines()[0].get_ydata().tolist() == [5.0]


def test_chains_draw_all_links_and_the_merged_update(points, words):
    frame = pd.DataFrame(
        {"method": ["c3la", "rac", "c3la"], "links": [1, 1, 2], "information": [1.0, 2.0, 3.0], "merged": [0.5, 1.5, 2]}
    )
    ax = exact.plot_chain(frame)
    assert points(ax) == {
        "c3LA, links": [(1, 1.0), (2, 3.0)], "c3LA, merged": [(1, 0.5), (2, 2.0)],
        "RAC-LoRA, links": [(1, 2.0)], "RAC-LoRA, merged": [(1, 1.5)],
    }  # fmt: skip
    lines = ax.get_lines()
    assert [(line.get_linestyle(), line.get_marker()) for line in lines] == [("-", "o"), ("--", "None")] * 2
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color() == lines[3].get_color()
    said = words(ax)
    assert (said["x"], said["y"]) == ("links k", "information on S (nats)")
    assert ax.get_ylim()[0] == 0
    assert said["legend"] == [line.get_label() for line in lines]
    ax.figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_the_null_is_drawn_row_by_row_and_pooled(points, words):
    frame = pd.DataFrame({"pooled": [True, False, True], "runs": [10, 10, 20], "bound": [0.5, 2.0, 0.25]})
    ax = exact.plot_null(frame)
    assert points(ax) == {"row by row": [(10, 2.0)], "pooled": [(10, 0.5), (20, 0.25)]}
    assert len({(line.get_color(), line.get_marker()) for line in ax.get_lines()}) == 2
    said = words(ax)
    assert (said["x"], said["y"]) == ("masked runs", "ld-MI bound at zero information")
    assert (said["scales"], said["legend"]) == (("log", "log"), ["row by row", "pooled"])


def test_the_estimate_stands_in_its_interval_beside_null_and_truth(points, words):
    frame = pd.DataFrame(
        {"runs": [10, 20], "low": [0.1, 0.2], "high": [0.9, 0.8], "estimate": [0.5, 0.4], "null": [0.3, 0.25],
         "exact": [0.35, 0.45]}
    )  # fmt: skip
    ax = exact.plot_estimation(frame)
    assert points(ax) == {
        "plug-in, pooled": [(10, 0.5), (20, 0.4)], "null": [(10, 0.3), (20, 0.25)], "exact": [(10, 0.35), (20, 0.45)],
    }  # fmt: skip
    (band,) = ax.collections
    assert {tuple(v) for v in band.get_paths()[0].vertices.tolist()} == {(10, 0.1), (10, 0.9), (20, 0.2), (20, 0.8)}
    assert tuple(band.get_facecolor()[0][:3]) == pytest.approx(ax.get_lines()[0].get_color())
    assert len({str(line.get_color()) for line in ax.get_lines()}) == 3
    said = words(ax)
    assert (said["x"], said["y"]) == ("masked runs", "information per row (nats)")
    assert (said["scales"], ax.get_ylim()[0]) == (("log", "linear"), 0)
    assert said["legend"] == ["95 % interval", "plug-in, pooled", "null", "exact"]


ESTIMATION = ("runs", "low", "high", "estimate", "null", "exact")


@pytest.mark.parametrize(
    ("draw", "frame"),
    [
        (exact.plot_tightness, pd.DataFrame({"bound": ["cmi"], "n": [1], "ratio": [1.0]})),
        (exact.plot_rates, rates([1.0, 2.0])),
        (exact.plot_ranks, pd.DataFrame({"method": ["cla"], "rank": [1], "information": [1.0]})),
        (exact.plot_chain, pd.DataFrame({"method": ["rac"], "links": [1], "information": [1.0], "merged": [1.0]})),
        (exact.plot_null, pd.DataFrame({"pooled": [True], "runs": [1], "bound": [1.0]})),
        (exact.plot_estimation, pd.DataFrame([dict.fromkeys(ESTIMATION, 1.0)])),
    ],
)  # fmt: skip
def test_given_axes_are_drawn_on(draw, frame):
    own = figure()[1]
    assert draw(frame, ax=own) is own
