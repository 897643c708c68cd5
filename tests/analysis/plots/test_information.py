"""Estimates are drawn against the gap that the same runs measured, with both ends of their intervals."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis.plots.information import plot_estimates
from analysis.plots.style import figure


def frame(*rows):
    return pd.DataFrame(rows, columns=["quantity", "method", "gap", "bound", "bound_low", "bound_high"])


def test_estimates_have_their_ends_and_tell_column_methods_apart(bars, points, words):
    estimates = frame(
        ("ld-mi", "cla", 0.5, 0.75, 0.5, 1.5),
        ("ld-mi", "c3la", 0.25, 0.5, 0.5 + 1e-16, 0.625),
        ("ld-mi", "lora", 0.125, 1.0, 0.75, 1.25),
        ("fast-rate", "lora", 1.0, 2.0, 1.0, 4.0),
    )
    ax = plot_estimates(estimates)
    drawn = bars(ax)
    assert [one["points"] for one in drawn] == [[(0.125, 1.0)], [(0.5, 0.75), (0.25, 0.5)], [(1.0, 2.0)]]
    assert drawn[0]["segments"] == [[[0.125, 0.75], [0.125, 1.25]]]
    assert drawn[1]["segments"] == [[[0.5, 0.5], [0.5, 1.5]], [[0.25, 0.5], [0.25, 0.625]]]
    assert drawn[2]["segments"] == [[[1.0, 1.0], [1.0, 4.0]]]
    assert [one["marker"] for one in drawn] == ["o", "o", "^"]
    assert [one["color"] for one in drawn] == ["#0173b2", "#0173b2", "#029e73"]
    faces = [to_hex(container.lines[0].get_markerfacecolor()) for container in ax.containers]
    assert faces == ["#ffffff", "#0173b2", "#ffffff"]
    assert np.allclose(points(ax)["bound = gap"], [(0, 0), (1.1, 1.1)])
    assert ax.get_xlim() == pytest.approx((0, 1.1))
    assert ax.get_ylim()[0] == 0
    said = words(ax)
    assert (said["x"], said["y"]) == ("measured gap, 0-1 loss", "estimated bound on the gap")
    assert said["legend"] == ["bound = gap", "ld-MI"]


def test_unknown_quantities_are_refused_and_given_axes_are_drawn_on():
    own = figure()[1]
    assert plot_estimates(frame(("e-cmi", "cla", 0.5, 0.5, 0.25, 1.0)), ax=own) is own
    with pytest.raises(ValueError, match="unknown quantity 'rumour'; accepted: ld-mi, e-cmi, fast-rate"):
        plot_estimates(frame(("rumour", "cla", 0.5, 0.5, 0.25, 1.0)))
