"""One style: sizes in inches, a colour per method, the same bytes each time."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from analysis.plots.style import COLUMN_WIDTH, PAGE_WIDTH, figure, method_colors, save
from theory.methods import METHODS


def test_every_method_has_a_colour_of_its_own():
    colors = method_colors()
    assert list(colors) == list(METHODS)
    assert len(set(colors.values())) == len(METHODS)
    assert colors["fft"] == (0.2, 0.2, 0.2)
    # seaborn's colour-blind palette starts with this blue
    assert colors["lora"] == pytest.approx((1 / 255, 115 / 255, 178 / 255))


def test_figures_fit_the_reports_column_and_leave_the_users_style_alone():
    before = dict(mpl.rcParams)
    fig, ax = figure()
    assert fig.get_size_inches().tolist() == [3.33, 2.2]
    assert (COLUMN_WIDTH, PAGE_WIDTH) == (3.33, 6.95)
    assert not ax.spines["top"].get_visible()
    assert not ax.spines["right"].get_visible()
    assert ax.xaxis.label.get_fontsize() == 7.5
    assert dict(mpl.rcParams) == before
    fig, grid = figure(5.0, 4.0, rows=2, columns=3, sharex=True)
    assert np.shape(grid) == (2, 3)
    assert fig.get_size_inches().tolist() == [5.0, 4.0]
    assert grid[0][0].get_shared_x_axes().joined(grid[0][0], grid[1][2])


@pytest.mark.parametrize("was", [True, False])
def test_figures_leave_interactive_mode_as_the_backend_set_it(was):
    with mpl.rc_context():
        mpl.interactive(was)
        figure()
        assert mpl.is_interactive() == was
        mpl.interactive(False)


@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_the_same_figure_is_saved_as_the_same_bytes_and_closed(ending, tmp_path):
    paths = []
    for name in ("first", "second"):
        fig, ax = figure()
        ax.plot([1, 2], [3, 4], label="a line")
        ax.legend()
        paths.append(save(fig, tmp_path / name / f"plot.{ending}"))
        assert not plt.fignum_exists(fig.number)
    assert paths[0] == tmp_path / "first" / f"plot.{ending}"
    content = paths[0].read_bytes()
    assert content == paths[1].read_bytes()
    assert [path.name for path in paths[0].parent.iterdir()] == [f"plot.{ending}"]
    if ending == "svg":
        assert b"<text" in content  # text stays text
        assert b"<dc:date>" not in content
    if ending == "png":
        assert plt.imread(paths[0]).shape[:2] == (440, 666)  # 2.2 by 3.33 inches at 200 dots each
    if ending == "pdf":
        assert b"CreationDate" not in content
