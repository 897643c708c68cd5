"""The comparison's figures draw the numbers that they were given."""

import matplotlib.pyplot as plt
import pytest

from analysis.plots.agreement import family_of, plot_agreement, plot_gap, plot_published
from analysis.plots.bench import benchmark_frame, plot_columns, plot_memory, plot_steps
from analysis.studies import generalization_error
from analysis.studies.claim import compare_task
from analysis.studies.made_up import CANDIDATES, made_up_runs
from analysis.studies.published import published_agreement

STEPS = {
    "tables": {
        "steps": {
            "columns": ["setting", "case", "seconds", "quartile_low", "quartile_high", "step_ratio", "arithmetic_ratio",
                        "adapter_saved_bytes"],
            "rows": [["s", "floor", 1.0, 1.0, 1.0, 1.0, 1.0, 0], ["s", "cla", 1.1, 1.0, 1.2, 1.1, 1.04, 2**20],
                     ["s", "lora", 1.3, 1.2, 1.4, 1.3, 1.1, 2**24]],
        },
        "cases": {"columns": ["case", "title"], "rows": [["floor", "floor"], ["cla", "cLA"], ["lora", "LoRA"]]},
    }
}  # fmt: skip


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_made_up_runs_reward_what_they_follow_and_nothing_else():
    follow = "measures/sharpness_worst_merged"
    table, claim = compare_task(
        made_up_runs(follow=follow, seed=1), loss="cross_entropy", replicates=99, permutations=99, progress=False
    )
    assert table.index[0] == follow
    assert table.loc[follow, "q"] < 0.1
    assert claim["verdict"] in ("contradicted", "undecided")
    ax = plot_agreement(table)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.sort_values("tau_b").index)
    chosen = [*table.index[:2], "measures/never_taken"]
    drawn = plot_agreement(table, measures=chosen)
    assert [label.get_text() for label in drawn.get_yticklabels()] == chosen[::-1]
    with pytest.raises(ValueError, match="no statistic"):
        plot_agreement(table, statistic="rho")


def test_the_bound_wins_a_world_that_follows_it():
    frame = made_up_runs(follow=CANDIDATES[0], seed=3)
    _, claim = compare_task(frame, loss="cross_entropy", replicates=99, permutations=19, progress=False)
    assert claim["verdict"] == "supported"
    with pytest.raises(ValueError, match="follow"):
        made_up_runs(follow="luck")


def test_scatter_and_rows_draw_every_point():
    frame = made_up_runs()
    ax = plot_gap(frame, measure="norm/update_sum")
    assert sum(len(line.get_xdata()) for line in ax.lines) == len(frame)
    with pytest.raises(ValueError, match="no column 'nothing'"):
        plot_gap(frame, measure="nothing")
    tau = published_agreement(generalization_error(), permutations=9)["tau"]
    bars = plot_published(tau, null_high=0.2).patches
    assert sorted(bar.get_width() for bar in bars)[:3] == pytest.approx(sorted([*tau, 0.4])[:3])


def test_benchmark_figures_name_cases_and_refuse_unknown_settings():
    frame = benchmark_frame(STEPS)
    assert [label.get_text() for label in plot_steps(frame, setting="s").get_yticklabels()] == ["LoRA", "cLA"]
    assert plot_memory(frame, setting="s").get_xscale() == "log"
    with pytest.raises(ValueError, match="accepted: s"):
        plot_steps(frame, setting="t")


def test_construction_marks_live_and_earlier_columns():
    ax = plot_columns({"c3LA": [(0, 1), (2, 3)], "cLA": [(0, 1)]}, in_features=4)
    picture = ax.images[0].get_array()
    assert picture.tolist() == [[1.0, 1.0, 0.0, 0.0], [0.35, 0.35, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("bound/direct", "bound"),
        ("unit-network/table1", "bound"),
        ("measures/hessian_top_merged", "landscape, curvature"),
        ("measures/intruders_paper", "intruders, spectrum"),
        ("norm/update_sum", "norm, size"),
        ("run/margin_q10", "fit"),
        ("run/train_error", "fit"),
        ("information/fast-rate", "information, code"),
    ],
)
def test_families_go_by_name(name, family):
    assert family_of(name) == family
