"""Figures of certificates draw the bound, the errors with their interval, and the bits of each part."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from analysis.plots.certificates import plot_bound_against_bits, plot_certificates, plot_code_parts
from analysis.plots.style import figure, method_colors
from theory.certificates import occam_bound

RECORDS = [
    {
        "choice": {"method": "cla"}, "bound": 0.5, "empirical": {"error": 0.125}, "majority_error": 0.75,
        "heldout": {"error": 0.25, "low": 0.1875, "high": 0.375}, "code": {"bits_by_part": {"head": 40, "steps": 8}},
    },
    {
        "choice": {"method": "lora"}, "bound": 0.625, "empirical": {"error": 0.0}, "majority_error": 0.5,
        "heldout": {"error": 0.375, "low": 0.125, "high": 0.5}, "code": {"bits_by_part": {"head": 20, "links": 5}},
    },
]  # fmt: skip


def test_certificates_stand_over_both_errors(bars, words):
    ax = plot_certificates(RECORDS)
    assert np.allclose([(p.get_x() + p.get_width() / 2, p.get_height()) for p in ax.patches], [(0, 0.5), (1, 0.625)])
    colors = [to_hex(method_colors()[key]) for key in ("cla", "lora")]
    assert [to_hex(patch.get_facecolor()) for patch in ax.patches] == colors
    held = bars(ax)
    assert np.allclose([one["points"] for one in held], [[(0.1, 0.25)], [(1.1, 0.375)]])
    assert np.allclose(
        [one["segments"] for one in held], [[[[0.1, 0.1875], [0.1, 0.375]]], [[[1.1, 0.125], [1.1, 0.5]]]]
    )
    assert [(one["color"], one["marker"]) for one in held] == [(color, "s") for color in colors]
    sample = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert np.allclose([np.ravel(line.get_data()) for line in sample], [[-0.1, 0.125], [0.9, 0.0]])
    assert [to_hex(line.get_color()) for line in sample] == colors
    (level,) = (line for line in ax.get_lines() if line.get_label() == "commonest class")
    assert list(level.get_ydata()) == [0.75, 0.75]
    said = words(ax)
    assert sorted(said["legend"]) == ["certified", "commonest class", "held-out, 95 %", "sample"]
    assert said["y"] == "0-1 error"
    assert ax.get_ylim() == (0, 1)
    assert ax.get_xlim() == pytest.approx((-0.6, 1.6))
    assert ax.get_xticks().tolist() == [0, 1]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cLA", "LoRA"]


def test_one_certificate_is_named_in_the_legend(words):
    legend = words(plot_certificates(RECORDS[:1]))["legend"]
    assert sorted(legend) == ["certified", "commonest class", "held-out, 95 %", "sample"]


def test_parts_of_a_code_are_stacked_and_a_missing_part_takes_no_room(words):
    ax = plot_code_parts(RECORDS)
    drawn = [
        (c.get_label(), [(p.get_x(), p.get_width(), p.get_y() + p.get_height() / 2) for p in c]) for c in ax.containers
    ]
    assert [name for name, _ in drawn] == ["head", "steps", "links"]
    assert np.allclose(
        [boxes for _, boxes in drawn],
        [[(0, 40, 0), (0, 20, 1)], [(40, 8, 0), (20, 0, 1)], [(48, 0, 0), (20, 5, 1)]],
    )
    assert len({to_hex(c[0].get_facecolor()) for c in ax.containers}) == 3
    said = words(ax)
    assert (said["x"], said["rows"], said["down"]) == ("bits", ["cLA", "LoRA"], True)
    assert ax.get_yticks().tolist() == [0, 1]
    assert said["legend"] == ["head", "steps", "links"]


def test_the_occam_bound_is_drawn_over_the_whole_axis(points, words):
    ax = plot_bound_against_bits(num_examples=[1000, 50], empirical_risk=0.2, delta=0.1, most_bits=399)
    drawn = points(ax)
    for n in (1000, 50):
        line = drawn[f"n = {n:,}"]
        assert [x for x, _ in line] == pytest.approx(list(range(400)))
        expected = occam_bound(0.2, bits=np.arange(400.0), num_examples=n, delta=0.1).value
        assert [y for _, y in line] == pytest.approx(expected.tolist())
    assert drawn["error on the sample"] == [(0.0, 0.2), (1.0, 0.2)]
    assert ax.get_ylim() == (0, 1)
    assert len({line.get_color() for line in ax.get_lines()}) == 3
    said = words(ax)
    assert (said["x"], said["y"]) == ("code length (bits)", "certified 0-1 error")
    assert said["legend"] == ["n = 1,000", "n = 50", "error on the sample"]


def test_defaults_are_those_that_are_said(points):
    drawn = points(plot_bound_against_bits(num_examples=[100]))
    assert drawn["n = 100"][-1] == (8000.0, occam_bound(0.1, bits=8000, num_examples=100, delta=0.05).value)
    assert drawn["error on the sample"][0][1] == 0.1


@pytest.mark.parametrize("draw", [plot_certificates, plot_code_parts])
def test_axes_are_the_given_ones_and_nothing_is_refused(draw):
    own = figure()[1]
    assert draw(RECORDS, ax=own) is own
    with pytest.raises(ValueError, match="certificates must hold at least one record"):
        draw([])


def test_curves_go_on_given_axes():
    own = figure()[1]
    assert plot_bound_against_bits(num_examples=[10], ax=own) is own
