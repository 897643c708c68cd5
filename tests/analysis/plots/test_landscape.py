"""Figures of landscapes share one scale, mark centre and path, and draw each grid the right way round."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, to_hex

from analysis.geometry import Landscape
from analysis.plots.interactive import surfaces_page
from analysis.plots.landscape import plot_contours, plot_lines, plot_sharpness_pairs, plot_surfaces
from analysis.plots.style import PAGE_WIDTH, figure, method_colors


def plane(values, **fields):
    values = np.asarray(values, dtype=float)
    made = {
        "x": np.arange(values.shape[-1]) - 1.0, "center_loss": 0.5, "space": "merged", "normalization": "filter",
        "directions": "random", "direction_norms": (1.0, 1.0), "center_norm": 2.0, "method": "exact", "evaluations": 6,
    }  # fmt: skip
    if values.ndim == 2:
        made["y"] = 10.0 * np.arange(values.shape[0])
    return Landscape(values=values, **(made | fields))


SMALL = plane([[1.0, 2.0, 4.0], [8.0, 16.0, 3.0]], title="small", path=np.array([[0.0, 5.0], [1.0, 10.0]]))
LARGE = plane([[0.5, 1.0, 1.0], [1.0, 64.0, np.nan]], title="large", explained=(0.75, 0.205))


def test_contours_share_logarithmic_levels_and_mark_centre_and_path():
    used = plot_contours([SMALL, LARGE], levels=7)
    assert [ax.get_title() for ax in used] == ["small", "large"]
    for ax in used:
        (drawn,) = ax.collections
        assert isinstance(drawn.norm, LogNorm)
        assert np.allclose(drawn.levels, 2.0 ** np.arange(-1, 7), rtol=1e-6)
        star = next(line for line in ax.get_lines() if line.get_marker() == "*")
        assert np.ravel(star.get_data()).tolist() == [0, 0]
        assert ax.get_aspect() == 1
    (path,) = (line for line in used[0].get_lines() if line.get_marker() == ".")
    assert np.stack(path.get_data(), axis=1).tolist() == SMALL.path.tolist()
    assert len(used[1].get_lines()) == 1
    assert (used[0].get_xlabel(), used[0].get_ylabel()) == ("a / ‖d‖", "b / ‖d‖")
    assert (used[1].get_xlabel(), used[1].get_ylabel()) == ("PC 1 (75 %)", "PC 2 (20 %)")
    assert used[0].dataLim.bounds == (-1.0, 0.0, 2.0, 10.0)
    bar = used[0].figure.axes[-1]
    assert bar.get_ylabel() == "loss (nats)"
    assert bar.get_ylim() == pytest.approx((0.5, 64.0), rel=1e-6)
    assert used[0].figure.get_size_inches()[0] == PAGE_WIDTH


@pytest.mark.parametrize("worst", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_white_and_the_largest_loss_does_not(worst):
    """The filled polygons cover the finite half of the grid: corners with a value, not the one without."""
    (ax,) = plot_contours([plane([[1.0, 1.0, 1.0], [1.0, 2.0, worst]])], log=False, levels=3)
    (drawn,) = ax.collections
    assert np.allclose(drawn.levels, [1, 4 / 3, 5 / 3, 2])
    assert [len(path.vertices) > 0 for path in drawn.get_paths()] == [True, True, True]
    corners = np.concatenate([path.vertices for path in drawn.get_paths() if len(path.vertices)])
    assert (corners == [0.0, 10.0]).all(axis=1).any()
    assert not (corners == [1.0, 10.0]).all(axis=1).any()
    assert to_hex(drawn.get_edgecolor()[0]) == to_hex(drawn.get_facecolor()[0])


def test_panels_fill_rows_and_the_rest_stays_empty():
    used = plot_contours([SMALL] * 3, columns=2, panel_height=1.0, width=5.0)
    fig = used[0].figure
    assert fig.get_size_inches().tolist() == [5.0, 2.25]
    grid = used[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 2)
    assert [ax.get_subplotspec().num1 for ax in used] == [0, 1, 2]
    assert [ax.axison for ax in fig.axes[:4]] == [True, True, True, False]
    two = plot_contours([SMALL] * 2)
    assert two[0].get_subplotspec().get_gridspec().ncols == 2
    five = plot_contours([SMALL] * 5)
    assert (five[0].get_subplotspec().get_gridspec().nrows, five[0].get_subplotspec().get_gridspec().ncols) == (2, 4)


def test_outer_labels_stand_at_the_left_and_at_the_bottom_alone():
    used = plot_contours([SMALL] * 3, columns=2, outer_labels=True)
    assert [(ax.xaxis.label.get_visible(), ax.yaxis.label.get_visible()) for ax in used] == [
        (False, True), (True, False), (True, True),
    ]  # fmt: skip
    shown = [(ax.xaxis.get_tick_params()["labelbottom"], ax.yaxis.get_tick_params()["labelleft"]) for ax in used]
    assert shown == [(False, True), (True, False), (True, True)]
    every = plot_contours([SMALL] * 3, columns=2)
    assert all(ax.xaxis.label.get_visible() and ax.yaxis.label.get_visible() for ax in every)


def test_levels_are_fourteen_and_logarithmic_unless_said_otherwise():
    (ax,) = plot_contours([SMALL])
    assert len(ax.collections[0].levels) == 15
    assert isinstance(ax.collections[0].norm, LogNorm)
    (linear,) = plot_contours([SMALL], log=False)
    assert not isinstance(linear.collections[0].norm, LogNorm)
    assert (linear.collections[0].norm.vmin, linear.collections[0].norm.vmax) == (1, 16)


@pytest.mark.parametrize("draw", [plot_contours, plot_surfaces])
def test_what_cannot_be_drawn_is_refused(draw):
    with pytest.raises(ValueError, match="at least one landscape"):
        draw([])
    with pytest.raises(ValueError, match="at least one landscape, each of two directions"):
        draw([SMALL, plane([1.0, 2.0])])
    with pytest.raises(ValueError, match="no landscape has a finite loss"):
        draw([plane(np.full((2, 2), np.nan))])


def test_a_logarithm_needs_a_positive_loss():
    with pytest.raises(ValueError, match="log=True needs a positive loss"):
        plot_contours([plane(np.zeros((2, 2)))])
    (ax,) = plot_contours([plane([[0.0, 1.0], [4.0, 2.0]])])
    assert ax.collections[0].norm.vmin == 1.0
    (flat,) = plot_contours([plane([[-1.0, 0.0], [-1.0, 0.0]])], log=False)
    assert (flat.collections[0].norm.vmin, flat.collections[0].norm.vmax) == (-1.0, 1.0)


@pytest.mark.parametrize("log", [False, True])
def test_surfaces_share_one_height(log):
    used = plot_surfaces([SMALL, LARGE], log=log, elevation=20.0, azimuth=-50.0)
    low, high = (np.log10(0.5), np.log10(64.0)) if log else (0.5, 64.0)
    for ax in used:
        assert ax.get_zlim() == pytest.approx((low, high))
        assert (ax.elev, ax.azim) == (20.0, -50.0)
        assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == pytest.approx((low, high))
    assert [ax.get_title() for ax in used] == ["small", "large"]
    # matplotlib colours a face by the mean height of its corners; the axes' limits hold x and y apart.
    shown = np.log10(SMALL.values) if log else SMALL.values
    corners = (shown[0, :-1], shown[0, 1:], shown[1, :-1], shown[1, 1:])
    assert np.allclose(used[0].collections[0].get_array(), np.mean(corners, axis=0))
    assert used[0].xy_dataLim.extents.tolist() == [-1.0, 0.0, 1.0, 10.0]


def test_surfaces_fill_rows_and_are_seen_from_the_usual_place():
    used = plot_surfaces([SMALL] * 3, columns=2, panel_height=1.5, width=4.0)
    fig = used[0].figure
    assert fig.get_size_inches().tolist() == [4.0, 3.0]
    assert [ax._axis3don for ax in fig.axes[:4]] == [True, True, True, False]
    assert (used[0].elev, used[0].azim) == (30.0, -60.0)
    assert used[0].get_zlim() == (1.0, 16.0)
    wide = plot_surfaces([SMALL] * 5)[0].get_subplotspec().get_gridspec()
    assert (wide.nrows, wide.ncols) == (2, 4)


def test_lines_draw_the_loss_or_its_rise(points, words):
    first, second = plane([1.0, 2.0], title="one", center_loss=0.75), plane([4.0, 3.0], title="two", center_loss=1.0)
    ax = plot_lines([first, second])
    assert points(ax) == {"one": [(-1, 1.0), (0, 2.0)], "two": [(-1, 4.0), (0, 3.0)]}
    said = words(ax)
    assert (said["x"], said["y"], said["legend"]) == ("a / ‖d‖", "loss (nats)", ["one", "two"])
    rise = plot_lines([first, second], rise=True, ax=figure()[1])
    assert points(rise) == {"one": [(-1, 0.25), (0, 1.25)], "two": [(-1, 3.0), (0, 2.0)]}
    assert rise.get_ylabel() == "rise of the loss (nats)"
    between = plane([1.0, 2.0], directions="interpolation")
    assert plot_lines([between], ax=figure()[1]).get_xlabel() == "t"
    assert plot_lines([between], ax=figure()[1]).get_legend() is None
    assert plot_lines([between, first], ax=figure()[1]).get_xlabel() == "a / ‖d‖"
    with pytest.raises(ValueError, match="must be a line"):
        plot_lines([first, SMALL])


def test_chains_are_drawn_against_what_they_chain_seed_by_seed(words):
    rows = [
        ("t", "cla", 0, "last", 1.0), ("t", "c3la", 0, "last", 2.0), ("t", "cla", 1, "last", 3.0),
        ("t", "c3la", 1, "last", 2.5), ("t", "c3la", 2, "last", 99.0), ("u", "lora", 0, "last", 5.0),
        ("u", "cola", 0, "last", 4.0), ("t", "cla", 0, "best", 7.0), ("t", "c3la", 0, "best", 8.0),
    ]  # fmt: skip
    runs = pd.DataFrame(rows, columns=["task", "method", "seed", "checkpoint", "x"])
    ax = plot_sharpness_pairs(runs, "x")
    drawn = [
        (line.get_marker(), to_hex(line.get_color()), np.stack(line.get_data(), axis=1).tolist())
        for line in ax.get_lines()
    ]
    assert drawn[0] == ("o", to_hex(method_colors()["c3la"]), [[1.0, 2.0], [3.0, 2.5]])
    assert drawn[1][::2] == ("o", [])
    assert drawn[2] == ("^", to_hex(method_colors()["cola"]), [[5.0, 4.0]])
    assert drawn[3][::2] == ("^", [])
    assert len(drawn) == 5
    assert all(line.get_linestyle() == "None" for line in (ax.get_lines()[0], ax.get_lines()[2]))
    diagonal = np.array(drawn[4][2])
    assert (diagonal[:, 0] == diagonal[:, 1]).all()
    assert diagonal[0, 0] < 1.0
    assert diagonal[1, 0] > 5.0
    assert ax.get_aspect() == 1
    said = words(ax)
    assert (said["x"], said["y"]) == ("the method it chains (nats)", "chain (nats)")
    assert said["legend"] == ["t", "u"]
    best = plot_sharpness_pairs(runs, "x", checkpoint="best", ax=figure()[1])
    assert np.stack(best.get_lines()[0].get_data(), axis=1).tolist() == [[7.0, 8.0]]


def test_a_page_holds_every_surface_with_its_axes_and_says_how_it_was_measured():
    page = surfaces_page([SMALL, plane([[1.0, np.inf], [np.nan, 2.0]], title="</script>", center_loss=0.123456)])
    data = json.loads(re.search(r"const surfaces = (.*);\n", page)[1].replace("<\\/", "</"))
    assert [surface["title"] for surface in data] == ["small", "</script>"]
    assert data[0]["x"] == [-1, 0, 1]
    assert data[0]["y"] == [0, 10]
    assert data[0]["values"] == SMALL.values.tolist()
    assert data[0]["center"] == 0.5
    assert data[1]["values"] == [[1.0, None], [None, 2.0]]
    assert data[1]["about"] == (
        "merged space, random directions, filter normalisation, 6 evaluations (exact), loss at the centre 0.1235."
    )
    assert page.count("</script>") == 1
    assert "@DATA@" not in page
    for refused in ([], [SMALL, plane([1.0, 2.0])]):
        with pytest.raises(ValueError, match="at least one landscape, each of two directions"):
            surfaces_page(refused)


def test_checkpoints_have_the_colour_of_their_own_loss_and_ends_their_own_height():
    path = np.array([[0.0, 5.0], [1.0, 10.0]])
    beside = plane([[1.0, 2.0, 4.0], [8.0, 16.0, 3.0]], title="p", path=path, path_losses=(8.0, 2.0))
    (ax,) = plot_contours([beside])
    (points,) = (part for part in ax.collections if len(part.get_offsets()) == 2)
    assert points.get_array().tolist() == [8.0, 2.0]
    assert points.norm.vmin == 1.0
    line = dataclasses.replace(
        beside, values=np.array([1.0, 4.0]), x=np.array([-0.5, 1.5]), y=np.zeros(0), path=np.array([[0.0], [1.0]])
    )
    for rise, below in ((False, 0.0), (True, line.center_loss)):
        _, ends = plot_lines([line], rise=rise).get_lines()
        assert ends.get_xdata().tolist() == [0.0, 1.0]
        assert ends.get_ydata().tolist() == [8.0 - below, 2.0 - below]
