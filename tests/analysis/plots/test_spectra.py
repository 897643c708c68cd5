"""Figures of spectra draw what was counted."""

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from analysis.plots.spectra import plot_intruders, plot_similarity, plot_singular_values
from analysis.plots.style import figure, method_colors


def test_intruders_are_lines_with_bands_where_seeds_give_them(points, words):
    frame = pd.DataFrame({"epsilon": [0.2, 0.5], "intruders": [1, 4], "share": [0.1, 0.4]})
    band = frame.assign(low=[0, 3], high=[2, 6])
    ax = plot_intruders({"cla": band, "c3la": frame, "other": frame * 2})
    assert points(ax) == {
        "cLA": [(0.2, 1.0), (0.5, 4.0)],
        "c3LA": [(0.2, 1.0), (0.5, 4.0)],
        "other": [(0.4, 2.0), (1.0, 8.0)],
    }
    assert [line.get_linestyle() for line in ax.get_lines()] == ["-", "--", "-"]
    assert [to_hex(line.get_color()) for line in ax.get_lines()[:2]] == [
        to_hex(method_colors()[key]) for key in ("cla", "c3la")
    ]
    (drawn,) = ax.collections
    assert {tuple(v) for v in drawn.get_paths()[0].vertices.tolist()} == {(0.2, 0), (0.2, 2), (0.5, 3), (0.5, 6)}
    assert to_hex(drawn.get_facecolor()[0]) == to_hex(method_colors()["cla"])
    said = words(ax)
    assert (said["x"], said["y"]) == ("threshold ε on the best cosine", "intruder dimensions")
    assert said["legend"] == ["cLA", "c3LA", "other"]
    assert ax.get_xlim() == (0, 1)
    assert ax.get_ylim()[0] == 0
    shares = plot_intruders({"cla": frame}, column="share", ax=figure()[1])
    assert points(shares) == {"cLA": [(0.2, 0.1), (0.5, 0.4)]}
    assert shares.get_ylabel() == "share of singular vectors"


def test_singular_values_keep_their_index_and_leave_out_what_is_zero(points, words):
    ax = plot_singular_values({"lora": np.array([4.0, 1e-11, 1e-12, 0.0]), "flat": np.array([3, 2])})
    assert points(ax) == {"LoRA": [(1.0, 4.0), (2.0, 1e-11)], "flat": [(1.0, 3.0), (2.0, 2.0)]}
    said = words(ax)
    assert said["scales"] == ("log", "log")
    assert (said["x"], said["y"], said["legend"]) == ("index", "singular value", ["LoRA", "flat"])
    small = plot_singular_values({"small": np.array([1e-6, 1e-13])}, ax=figure()[1])
    assert points(small) == {"small": [(1.0, 1e-6), (2.0, 1e-13)]}
    assert points(plot_singular_values({"none": np.zeros(2)}, ax=figure()[1])) == {"none": []}


def test_similarity_is_a_picture_from_zero_to_one_with_i_upwards(words):
    values = np.array([[0.9, 0.5, 0.25], [0.75, 0.1, 0.2]])
    ax = plot_similarity(values, title="layer")
    (image,) = ax.images
    assert image.get_array().tolist() == values.tolist()
    assert image.get_clim() == (0, 1)
    assert list(image.get_extent()) == [0.5, 3.5, 0.5, 2.5]
    assert image.origin == "lower"
    said = words(ax)
    assert (said["x"], said["y"], ax.get_title()) == ("j", "i", "layer")
    assert ax.figure.axes[1].get_ylabel() == "φ(i, j)"
    own = figure()[1]
    assert plot_similarity(values, ax=own) is own
