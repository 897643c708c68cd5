"""The comparison's figures draw the numbers that they were given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis.measures import families
from analysis.plots.agreement import plot_agreement, plot_gap, plot_published
from analysis.plots.style import figure, method_colors
from analysis.studies.claim import compare_task
from analysis.studies.made_up import CANDIDATES, made_up_runs

STATED = families(CANDIDATES) | {"measures/never_taken": "curvature"}
MADE_UP = {
    "norm/a": "norm", "never/taken": "fit", "bound/direct": "bound", "size/b": "norm", "run/loss": "fit", "x": "fit",
}  # fmt: skip


def test_made_up_runs_reward_what_they_follow_and_nothing_else():
    follow = "measures/sharpness_worst_merged"
    table, claim = compare_task(
        made_up_runs(follow=follow, seed=1), loss="cross_entropy", permutations=99, progress=False
    )
    assert table.index[0] == follow
    assert table.loc[follow, "q"] < 0.1
    assert claim["verdict"] in ("contradicted", "undecided")
    ax = plot_agreement(table, families=STATED)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.sort_values("tau_b").index)
    chosen = [*table.index[:2], "measures/never_taken"]
    drawn = plot_agreement(table, families=STATED, measures=chosen)
    assert [label.get_text() for label in drawn.get_yticklabels()] == chosen[::-1]
    assert {line.get_color() for line in ax.lines} > {"#0173b2", "#d55e00", "#cc78bc", "#029e73", "#949494"}
    with pytest.raises(ValueError, match="lacks measures/never_taken"):
        plot_agreement(table, families=families(CANDIDATES), measures=chosen)
    with pytest.raises(ValueError, match="no statistic"):
        plot_agreement(table, families=STATED, statistic="rho")


def test_the_bound_wins_a_world_that_follows_it():
    frame = made_up_runs(follow=CANDIDATES[0], seed=3)
    _, claim = compare_task(frame, loss="cross_entropy", permutations=19, progress=False)
    assert claim["verdict"] == "supported"
    with pytest.raises(ValueError, match="follow"):
        made_up_runs(follow="luck")


def table():
    return pd.DataFrame(
        {"tau_b": [0.25, np.nan, 0.75, -0.5, 0.5], "tau_b_low": [0.0, 0, 0.5, -0.75, 0.25], "cmi": 0.1,
         "tau_b_high": [0.5, 0, 1.0, -0.25, 0.75], "q": [0.05, 0.0, 0.051, 0.01, 0.2]},
        index=["norm/a", "never/taken", "bound/direct", "size/b", "run/loss"],
    )  # fmt: skip


def test_a_forest_draws_estimates_in_their_intervals_and_fills_what_is_significant(words):
    ax = plot_agreement(table(), families=MADE_UP)
    names = ["size/b", "norm/a", "run/loss", "bound/direct"]
    stems = [line for line in ax.get_lines()[:-1] if line.get_marker() == "None"]
    dots = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert [np.ravel(line.get_data()).tolist() for line in stems] == [
        [-0.75, -0.25, 0, 0], [0.0, 0.5, 1, 1], [0.25, 0.75, 2, 2], [0.5, 1.0, 3, 3],
    ]  # fmt: skip
    assert [np.ravel(line.get_data()).tolist() for line in dots] == [[-0.5, 0], [0.25, 1], [0.5, 2], [0.75, 3]]
    colors = ["#029e73", "#029e73", "#949494", "#0173b2"]
    assert [to_hex(line.get_color()) for line in stems] == colors
    assert [to_hex(line.get_markeredgecolor()) for line in dots] == colors
    assert [to_hex(line.get_markerfacecolor()) for line in dots] == [*colors[:2], "#ffffff", "#ffffff"]
    assert list(ax.get_lines()[-1].get_xdata()) == [0, 0]
    said = words(ax)
    assert (said["rows"], said["x"]) == (names, "tau-b with measured G(W)")
    assert said["legend"] == ["norm", "fit", "bound"]
    assert ax.get_ylim() == pytest.approx((-0.7, 3.7))
    assert ax.get_yticks().tolist() == [0, 1, 2, 3]
    own = figure()[1]
    without = plot_agreement(
        table().drop(columns="q"), families=MADE_UP, statistic="cmi", measures=["run/loss", "x"], ax=own
    )
    assert without is own
    assert (words(own)["rows"], words(own)["x"]) == (["x", "run/loss"], "normalised conditional MI")
    dot = [line for line in own.get_lines() if line.get_marker() == "o"][1]
    assert np.ravel(dot.get_data()).tolist() == [0.1, 1]
    assert to_hex(dot.get_markerfacecolor()) == "#ffffff"
    stem = [line for line in own.get_lines()[:-1] if line.get_marker() == "None"][1]
    assert np.isnan(stem.get_xdata()).all()


@pytest.mark.parametrize(
    ("measure", "unit", "target", "x", "y"),
    [
        ("bound/direct", "log", "gap/cross_entropy", "bound/direct, log", "measured G(W), nats"),
        ("norm/a", "", "gap/zero_one", "norm/a", "measured G(W), 0-1 loss"),
    ],
)
def test_a_scatter_has_every_run_in_its_methods_colour(measure, unit, target, x, y, points, words):
    frame = pd.DataFrame({"method": ["cla", "lora", "cla"], measure: [1.0, 2.0, 3.0], target: [0.5, 0.25, 0.75]})
    ax = plot_gap(frame, measure=measure, unit=unit, target=target)
    assert points(ax) == {"cLA": [(1.0, 0.5), (3.0, 0.75)], "LoRA": [(2.0, 0.25)]}
    assert [(line.get_marker(), line.get_linestyle()) for line in ax.get_lines()] == [("o", "None")] * 2
    assert [to_hex(line.get_color()) for line in ax.get_lines()] == [
        to_hex(method_colors()[key]) for key in ("cla", "lora")
    ]
    said = words(ax)
    assert (said["x"], said["y"], said["legend"]) == (x, y, ["cLA", "LoRA"])
    own = figure()[1]
    assert plot_gap(frame, measure=measure, target=target, ax=own) is own
    with pytest.raises(ValueError, match="no column 'nothing'"):
        plot_gap(frame, measure="nothing", target=target)
    with pytest.raises(ValueError, match="no column 'method'"):
        plot_gap(frame.drop(columns="method"), measure=measure, target=target)


def test_a_scatter_draws_the_gap_of_cross_entropy_unless_told_otherwise(points):
    frame = pd.DataFrame({"method": ["cla"], "norm/a": [1.0], "gap/cross_entropy": [0.5]})
    assert points(plot_gap(frame, measure="norm/a")) == {"cLA": [(1.0, 0.5)]}


def test_plot_published_are_bars_in_order_with_mean_and_chance(words):
    tau = pd.Series({("m", "b"): 0.5, ("m", "a"): -0.25, ("n", "a"): 0.2})
    ax = plot_published(tau, null_high=0.125)
    bars = [(p.get_width(), p.get_y() + p.get_height() / 2) for p in ax.containers[0]]
    assert np.allclose(bars, [(-0.25, 0), (0.2, 1), (0.5, 2)])
    levels = [line.get_xdata()[0] for line in ax.get_lines()]
    assert levels == pytest.approx([0.0, 0.15])
    (span,) = (patch for patch in ax.patches if patch not in ax.containers[0])
    assert (span.get_x(), span.get_width()) == (-0.125, 0.25)
    said = words(ax)
    assert (said["rows"], said["x"]) == (["m / a", "n / a", "m / b"], "tau-b, bounds against G(W)")
    assert sorted(said["legend"]) == ["chance, 95 % of means", "mean 0.15"]
    assert ax.get_yticks().tolist() == [0, 1, 2]
    own = figure()[1]
    assert plot_published(tau, ax=own) is own
    assert len(own.patches) == 3
