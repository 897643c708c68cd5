"""Figures of curvature draw densities with their errors and eigenvalues with their residuals."""

import numpy as np
from matplotlib.colors import to_hex

from analysis.geometry import Density, Eigenvalues
from analysis.plots.curvature import densities, top_eigenvalue_bars
from analysis.plots.style import figure, method_colors


def density(values, errors):
    empty = np.zeros((1, 1))
    return Density(
        nodes=empty, weights=empty, grid=np.arange(float(len(values))), density=np.array(values),
        standard_error=np.array(errors), width=0.1, dimension=3,
    )  # fmt: skip


def eigenvalues(values, residuals):
    return Eigenvalues(
        values=np.array(values), residuals=np.array(residuals), vectors=np.zeros((3, len(values))), products=9,
        converged=True,
    )  # fmt: skip


def test_densities_stop_at_the_floor_and_carry_one_standard_error(words):
    ax = densities({"cla": density([1.0, 0.5, 0.005], [0.25, 0.6, 0.1]), "mine": density([2.0], [0.0])}, floor=0.01)
    first, second = ax.get_lines()
    assert first.get_xdata().tolist() == [0, 1, 2]
    assert first.get_ydata()[:2].tolist() == [1.0, 0.5]
    assert np.isnan(first.get_ydata()[2])
    assert second.get_ydata().tolist() == [2.0]
    band = {tuple(v) for v in ax.collections[0].get_paths()[0].vertices.round(12).tolist()}
    assert band == {(0, 0.75), (0, 1.25), (1, 0.01), (1, 1.1), (2, 0.01), (2, 0.105)}
    assert to_hex(first.get_color()) == to_hex(method_colors()["cla"]) == to_hex(ax.collections[0].get_facecolor()[0])
    said = words(ax)
    assert (said["scales"], said["legend"]) == (("linear", "log"), ["cLA", "mine"])
    assert (said["x"], said["y"]) == ("eigenvalue of the Hessian", "density")
    own = figure()[1]
    drawn = densities({"a": density([1.0, 2e-6, 5e-7], [0, 0, 0])}, ax=own)
    assert drawn is own
    assert np.isnan(own.get_lines()[0].get_ydata()).tolist() == [False, False, True]


def test_eigenvalues_are_bars_side_by_side_with_their_residual_on_both_sides(bars, words):
    ax = top_eigenvalue_bars({"lora": eigenvalues([4.0, 2.0], [0.5, 0.25]), "x": eigenvalues([3.0], [1.0])})
    boxes = [[(patch.get_x(), patch.get_height(), patch.get_width()) for patch in c] for c in ax.containers[1::2]]
    assert np.allclose(boxes[0], [(-0.2, 4.0, 0.4), (0.8, 2.0, 0.4)])
    assert np.allclose(boxes[1], [(0.2, 3.0, 0.4)])
    ends = [one["segments"] for one in bars(ax)]
    assert np.allclose(ends[0], [[[0, 3.5], [0, 4.5]], [[1, 1.75], [1, 2.25]]])
    assert np.allclose(ends[1], [[[0.4, 2.0], [0.4, 4.0]]])
    assert to_hex(ax.patches[0].get_facecolor()) == to_hex(method_colors()["lora"])
    # A tick stands in the middle of its group of bars.
    assert np.allclose(ax.get_xticks(), [0.2, 1.2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2"]
    said = words(ax)
    assert (said["x"], said["y"]) == ("index", "eigenvalue of the Hessian")
    assert said["legend"] == ["LoRA", "x"]
    own = figure()[1]
    assert top_eigenvalue_bars({"x": eigenvalues([3.0], [1.0])}, ax=own) is own
