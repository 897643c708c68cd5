"""Figures of the benchmarks draw ratios, half their quartiles, bytes and columns."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from analysis.plots.bench import adapter_memory, adapter_steps, benchmark_frame, column_construction
from analysis.plots.style import PAGE_WIDTH, figure

RESULT = {
    "tables": {
        "steps": {
            "columns": ["setting", "case", "seconds", "quartile_low", "quartile_high", "step_ratio", "arithmetic_ratio",
                        "adapter_saved_bytes"],
            "rows": [["s", "floor", 1.0, 1.0, 1.0, 1.0, 1.0, 0], ["s", "cla", 2.0, 1.5, 2.5, 1.5, 1.25, 2**20],
                     ["s", "lora", 4.0, 3.0, 4.0, 3.0, 1.75, 2**24], ["s", "fft", 1.0, 1.0, 1.0, 2.0, 1.5, 0],
                     ["t", "cla", 9.0, 9.0, 9.0, 9.0, 9.0, 9]],
        },
        "cases": {"columns": ["case", "title"],
                  "rows": [["floor", "floor"], ["cla", "cLA"], ["lora", "LoRA"], ["fft", "full"]]},
    }
}  # fmt: skip


def test_steps_are_bars_with_half_their_quartiles_and_the_arithmetic_marked(bars, words):
    ax = adapter_steps(benchmark_frame(RESULT), setting="s")
    boxes = [(p.get_width(), p.get_y() + p.get_height() / 2, to_hex(p.get_facecolor())) for p in ax.patches]
    assert [box[0] for box in boxes] == [2.0, 3.0, 1.5]
    assert np.allclose([box[1] for box in boxes], [0, 1, 2])
    assert [box[2] for box in boxes] == ["#949494", "#0173b2", "#d55e00"]
    # Quartiles of seconds as shares of the seconds: LoRA 3 * (4 - 3) / 4 / 2, cLA 1.5 * 1 / 2 / 2.
    assert bars(ax)[0]["segments"] == [[[2, 0], [2, 0]], [[2.625, 1], [3.375, 1]], [[1.125, 2], [1.875, 2]]]
    marks = next(line for line in ax.get_lines() if line.get_label() == "arithmetic alone")
    assert np.stack(marks.get_data(), axis=1).tolist() == [[1.5, 0], [1.75, 1], [1.25, 2]]
    assert (marks.get_marker(), marks.get_linestyle()) == ("|", "None")
    assert any(list(line.get_xdata()) == [1, 1] for line in ax.get_lines())
    assert ax.get_xlim()[0] == 0.9
    said = words(ax)
    assert (said["rows"], said["x"]) == (["full", "LoRA", "cLA"], "step time / frozen floor (s)")
    assert said["legend"] == ["arithmetic alone"]
    assert ax.get_yticks().tolist() == [0, 1, 2]
    own = figure()[1]
    assert adapter_steps(benchmark_frame(RESULT), setting="t", ax=own) is own


def test_memory_is_in_mebibytes_and_leaves_out_what_keeps_none(words):
    ax = adapter_memory(benchmark_frame(RESULT), setting="s")
    assert [(p.get_width(), to_hex(p.get_facecolor())) for p in ax.patches] == [(16.0, "#0173b2"), (1.0, "#d55e00")]
    assert np.allclose([p.get_y() + p.get_height() / 2 for p in ax.patches], [0, 1])
    said = words(ax)
    assert (said["rows"], said["scales"][0]) == (["LoRA", "cLA"], "log")
    assert said["x"] == "MiB kept above the floor (s)"
    own = figure()[1]
    assert adapter_memory(benchmark_frame(RESULT), setting="s", ax=own) is own


@pytest.mark.parametrize("draw", [adapter_steps, adapter_memory])
def test_settings_that_were_not_measured_are_refused(draw):
    with pytest.raises(ValueError, match="setting 'u' was not measured; accepted: s, t"):
        draw(benchmark_frame(RESULT), setting="u")


def test_construction_marks_live_and_earlier_columns():
    ax = column_construction({"c3LA": [(0, 1), (2, 3), ()], "cLA": [(0, 1)]}, in_features=4)
    first, second = ax.figure.axes
    assert ax is first
    assert first.images[0].get_array().tolist() == [[1.0, 1.0, 0.0, 0.0], [0.35, 0.35, 1.0, 1.0], [0.35] * 4]
    assert second.images[0].get_array().tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 1.2)
    assert (first.get_title(), second.get_title()) == ("c3LA", "cLA")
    assert [label.get_text() for label in first.get_yticklabels()] == ["1", "2", "3"]
    assert first.get_yticks().tolist() == [0, 1, 2]
    assert (first.get_ylabel(), second.get_ylabel()) == ("link", "")
    assert first.get_xlabel() == second.get_xlabel() == "column of W"
    # A row of 0.16 inches for each link of the longest chain.
    assert ax.figure.get_size_inches() == pytest.approx((PAGE_WIDTH, 0.7 + 3 * 0.16))
    assert first.get_shared_x_axes().joined(first, second)
