"""The table of agreement says, column by column, what the single statistics say of the same samples."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tqdm import tqdm

from analysis.statistics import Comparison, agreement_table, crossed, crossed_tau, family_differences
from analysis.statistics.agreement import granulated_tau, kendall_tau, partial_tau, sign_error, tied_share
from analysis.statistics.conditional_mi import conditional_mutual_information
from analysis.statistics.resampling import (
    adjust_p_values,
    bootstrap_weights,
    cluster_permutations,
    interval,
    permutation_p_value,
)
from analysis.statistics.table import _with_verdicts

AXES = ("method", "rank")


def world():
    """A grid of 3 methods and 3 ranks, two tasks, two seeds; runs of one configuration and task are a cluster."""
    rng = np.random.default_rng(11)
    frame = pd.DataFrame(
        [(m, r, t, s) for m in "abc" for r in (1, 2, 4) for t in ("t", "u") for s in (0, 1)],
        columns=["method", "rank", "task", "seed"],
    )
    frame["gap"] = rng.normal(size=36) + np.log2(frame["rank"]) + (frame["task"] == "u") * 3
    frame["good"] = frame["gap"] + rng.normal(size=36)
    frame["coarse"] = (frame["gap"] / 3 + 2 * rng.normal(size=36)).round()
    frame["loss"] = rng.normal(size=36) + frame["gap"] / 2
    return frame


COMPARISON = Comparison(
    target="gap", axes=AXES, fixed=("seed", "task"), strata=("task",), controls=("loss", "rank"),
    permutations=30, cmi_replicates=7, confidence=0.8, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def frame():
    return world()


@pytest.fixture(scope="module")
def table(frame):
    return agreement_table(frame, measures=["coarse", "good"], comparison=COMPARISON, progress=False)


@pytest.fixture(scope="module")
def drawn(frame):
    """The two ways in which runs are drawn, shuffles, and bootstrap multiplicities, of the table."""
    clusters = frame.groupby(["method", "rank", "task"]).ngroup().to_numpy()
    strata = frame["task"].to_numpy()
    weights = bootstrap_weights(pd.factorize(clusters)[0], replicates=7, seed=5)
    shuffles = list(cluster_permutations(pd.factorize(clusters)[0], replicates=30, seed=5, strata=strata))
    return {"configuration": clusters, "seed": frame["seed"].to_numpy()}, shuffles, weights


def ends(statistic, ways):
    """The interval that the table should have."""
    return [end.item() for end in crossed(statistic, ways).interval(confidence=0.8)]


def test_columns_stand_in_their_order_best_first(table):
    assert list(table.index) == ["good", "coarse"]
    assert table.index.name == "measure"
    assert list(table.columns) == [
        "runs", "clusters", "ties", "tau_b", "tau_b_low", "tau_b_high", "tau_a", "p", "q", "p_holm", "granulated",
        "granulated_low", "granulated_high", "granulated_p", "psi_method", "psi_rank", "sign_error",
        "robust_sign_error", "robust_sign_error_null", "robust_sign_error_p", "worst_environment", "partial_tau",
        "partial_tau_low", "partial_tau_high", "partial_loss", "partial_rank", "cmi", "cmi_low", "cmi_high",
        "cmi_given", "cmi_null", "cmi_p", "cmi_pgdl",
    ]  # fmt: skip
    assert table["runs"].tolist() == [36, 36]
    assert table["clusters"].tolist() == [18, 18]


def test_tau_its_interval_and_its_p_values(frame, table, drawn):
    ways, shuffles, _ = drawn
    gap = frame["gap"].to_numpy()
    for name in table.index:
        row, x = table.loc[name], frame[name]
        assert row["tau_b"] == kendall_tau(x, gap)[0]
        assert row["tau_a"] == kendall_tau(x, gap, variant="a")[0]
        assert row["ties"] == tied_share(x)[0]
        low, high = ends(lambda weights, x=x: kendall_tau(x, gap, weights=weights), ways)
        # Sums of the same terms in another order.
        assert [row["tau_b_low"], row["tau_b_high"]] == pytest.approx([low, high], rel=1e-9)
        null = np.array([kendall_tau(x, gap[index])[0] for index in shuffles])
        assert row["p"] == permutation_p_value(row["tau_b"], null)
    assert table.loc["coarse", "ties"] > 0 == table.loc["good", "ties"]
    p_values = table["p"].to_numpy()
    assert len(set(p_values)) == 2
    assert table["q"].tolist() == adjust_p_values(p_values).tolist()
    assert table["p_holm"].tolist() == adjust_p_values(p_values, method="holm").tolist()


def test_granulated_tau_holds_seed_and_task_fixed(frame, table, drawn):
    ways, shuffles, _ = drawn
    gap, options = frame["gap"].to_numpy(), {"axes": AXES, "fixed": ("seed", "task")}
    for name in table.index:
        row, x = table.loc[name], frame[name]
        found = granulated_tau(x, gap, frame, **options)
        # Means of tens of fractions, summed in another order.
        assert [row["psi_method"], row["psi_rank"], row["granulated"]] == pytest.approx(
            [found[key].item() for key in ("method", "rank", "mean")], rel=1e-12
        )
        low, high = ends(lambda w, x=x: granulated_tau(x, gap, frame, weights=w, **options)["mean"], ways)
        assert [row["granulated_low"], row["granulated_high"]] == pytest.approx([low, high], rel=1e-9)
        null = np.array([granulated_tau(x, gap[index], frame, **options)["mean"].item() for index in shuffles])
        assert row["granulated_p"] == permutation_p_value(row["granulated"], null)


def test_the_worst_environment_is_named_and_compared_with_the_worst_of_the_null(frame, table, drawn):
    gap, options = frame["gap"].to_numpy(), {"axes": AXES, "fixed": ("seed", "task")}
    for name in table.index:
        row = table.loc[name]
        errors, labels = sign_error(frame[name], gap, frame, **options)
        assert row["sign_error"] == pytest.approx(errors.mean(), rel=1e-12)
        assert row["robust_sign_error"] == errors.max()
        assert row["worst_environment"] == " ".join(map(str, labels[errors[:, 0].argmax()]))
        null = np.array([sign_error(frame[name], gap[index], frame, **options)[0].max() for index in drawn[1]])
        assert row["robust_sign_error_null"] == pytest.approx(null.mean(), rel=1e-12)
        assert row["robust_sign_error_p"] == (1 + (null <= errors.max() + 1e-12).sum()) / 31


def test_partial_taus_take_out_all_controls_and_each(frame, table, drawn):
    gap, controls = frame["gap"], frame[["loss", "rank"]]
    for name in table.index:
        row, x = table.loc[name], frame[name]
        assert row["partial_tau"] == pytest.approx(partial_tau(x, gap, controls)[0], rel=1e-12)
        low, high = ends(lambda weights, x=x: partial_tau(x, gap, controls, weights=weights), drawn[0])
        assert [row["partial_tau_low"], row["partial_tau_high"]] == pytest.approx([low, high], rel=1e-9)
        for control in ("loss", "rank"):
            assert row[f"partial_{control}"] == pytest.approx(partial_tau(x, gap, frame[control])[0], rel=1e-12)


def test_conditional_information_uses_its_own_number_of_samples(frame, table, drawn):
    _, shuffles, weights = drawn
    gap = frame["gap"].to_numpy()
    for name in table.index:
        row, x = table.loc[name], frame[name]
        observed = conditional_mutual_information(x, gap, frame, axes=AXES)
        assert (row["cmi"], row["cmi_given"]) == (observed.min(), observed.idxmin())
        samples = [
            conditional_mutual_information(x, gap, frame, axes=AXES, weights=row_weights).min()
            for row_weights in weights[:7]
        ]
        low, high = interval(np.array(samples), confidence=0.8)
        assert (row["cmi_low"], row["cmi_high"]) == (low, high)
        null = np.array([conditional_mutual_information(x, gap[i], frame, axes=AXES).min() for i in shuffles[:7]])
        assert row["cmi_null"] == pytest.approx(null.mean(), rel=1e-12)
        assert row["cmi_p"] == permutation_p_value(row["cmi"], null)
        pgdl = conditional_mutual_information(x, gap, frame, axes=AXES, convention="pgdl").min()
        assert row["cmi_pgdl"] == pgdl


def small(**options):
    return Comparison(target="gap", axes=AXES, permutations=9, cmi_replicates=0, **options)


def test_an_incomplete_grid_has_no_pgdl_score_and_no_draws_no_interval(frame):
    part = frame[~(frame["method"].eq("a") & frame["rank"].eq(4))]
    row = agreement_table(part, measures=["good"], comparison=small(), progress=False).loc["good"]
    assert np.isnan(row[["cmi_pgdl", "cmi_low", "cmi_high", "cmi_null", "cmi_p"]].astype(float)).all()
    assert row["cmi"] > 0
    assert "partial_tau" not in row
    one = Comparison(target="gap", axes=("rank",), permutations=9, cmi_replicates=0)
    assert np.isnan(agreement_table(frame, measures=["good"], comparison=one, progress=False).loc["good", "cmi_pgdl"])


def test_clusters_are_axes_and_fixed_columns_but_the_seed_unless_named(frame):
    def clusters(**options):
        return agreement_table(frame, measures=["good"], comparison=small(**options), progress=False)["clusters"].item()

    assert clusters() == 9
    assert clusters(fixed=("seed", "task")) == 18
    assert clusters(cluster=("task", "rank", "seed")) == 12


def test_nested_axes_reach_the_statistics(frame):
    chain = frame.assign(links=np.where(frame["method"] == "c", frame["rank"], 1)).query("rank == 1 or method == 'c'")
    options = {"target": "gap", "axes": ("method", "links"), "permutations": 9, "cmi_replicates": 0}
    options |= {"fixed": ("seed", "task")}
    crossed, nested = (
        agreement_table(chain, measures=["good"], comparison=Comparison(nested=n, **options), progress=False).iloc[0]
        for n in ((), (("links", "method"),))
    )
    expected = granulated_tau(
        chain["good"], chain["gap"], chain, axes=("method", "links"), fixed=("seed", "task"), nested={"links": "method"}
    )
    assert nested["psi_method"] == expected["method"].item() != crossed["psi_method"]


def test_three_runs_that_know_a_measure_are_enough(frame):
    part = frame[["method", "rank", "seed", "task", "gap"]].iloc[[0, 4, 8, 12]].assign(x=[1.0, 2.0, 3.0, np.nan])
    table = agreement_table(part, measures=["x"], comparison=small(), progress=False)
    assert table.loc["x", "runs"] == 3
    with pytest.raises(ValueError, match="measure 'x' is known for 2 runs; at least three are needed"):
        agreement_table(part.iloc[1:], measures=["x"], comparison=small(), progress=False)
    with pytest.raises(ValueError, match="no column 'y'"):
        agreement_table(part, measures=["x", "y"], comparison=small(), progress=False)
    with pytest.raises(ValueError, match=r"no column \(no measure was given\)"):
        agreement_table(part, measures=[], comparison=small(), progress=False)
    with pytest.raises(ValueError, match="no column 'z'"):
        agreement_table(part, measures=["x"], comparison=small(controls=("z",)), progress=False)
    holes = part.assign(gap=[1.0, np.nan, 2.0, 3.0])
    with pytest.raises(ValueError, match="missing values in 'gap'"):
        agreement_table(holes, measures=["x"], comparison=small(), progress=False)


def test_runs_without_a_control_do_not_count(frame):
    part = frame.assign(loss=frame["loss"].where(frame["method"] != "a"))
    row = agreement_table(part, measures=["good"], comparison=small(controls=("loss",)), progress=False).iloc[0]
    assert row["runs"] == 24


def test_differences_are_those_of_runs_that_know_both_and_say_where_the_verdict_tips(frame):
    part = frame.assign(good=frame["good"].where(frame.index != 0))
    stated = dataclasses.replace(COMPARISON, margin=0.9)
    table = family_differences(part, champion="good", rivals=["coarse", "loss"], comparison=stated)
    assert table.index.tolist() == ["coarse", "loss"]
    assert table.index.name == "rival"
    known = part.iloc[1:]
    ways = {"configuration": known.groupby(["method", "rank", "task"]).ngroup(), "seed": known["seed"]}
    for rival in ("coarse", "loss"):
        row = table.loc[rival]
        tau, above = crossed_tau(known[["good", rival]], known["gap"], ways)
        low, high = above.interval(confidence=0.8)
        assert row["runs"] == 35
        assert row[["tau_champion", "tau_rival"]].tolist() == tau.value.tolist()
        assert (row["difference"], row["low"], row["high"]) == (above.value.item(), low.item(), high.item())
        assert (row["standard_error"], row["degrees"]) == (above.standard_error.item(), above.degrees.item())
        assert (row["p_champion"], row["p_rival"]) == (above.p_above().item(), above.p_below().item())
        assert row["p_equivalent"] == above.p_equivalent(0.9).item()
    three = frame.iloc[[0, 4, 9]]
    assert family_differences(three, champion="good", rivals=["loss"], comparison=COMPARISON)["runs"].item() == 3
    with pytest.raises(ValueError, match="2 runs know both 'good' and 'loss'; at least three are needed"):
        family_differences(three.iloc[1:], champion="good", rivals=["loss"], comparison=COMPARISON)


def test_a_side_wins_by_its_corrected_p_value_and_edge_is_the_way_to_the_level():
    table = pd.DataFrame(
        {
            "p_champion": [0.010, 0.99, 0.04, 0.5],
            "p_rival": [0.99, 0.010, 0.96, 0.5],
            "p_equivalent": [0.9, 0.9, 0.9, 0.04],
        }
    )
    found = _with_verdicts(table, level=0.1)
    assert found["p_champion_holm"].tolist() == pytest.approx([0.04, 1.0, 0.12, 1.0])
    assert found["p_rival_holm"].tolist() == pytest.approx([1.0, 0.04, 1.0, 1.0])
    assert found["verdict"].tolist() == ["champion", "rival", "undecided", "equivalent"]
    assert found["edge"].tolist() == pytest.approx([0.01, 0.01, 0.07, 0.95])
    assert _with_verdicts(table.drop(columns="p_equivalent"), level=0.1)["verdict"].iloc[3] == "undecided"


def test_the_bar_moves_once_a_measure(frame, monkeypatch):
    moved = []
    monkeypatch.setattr(tqdm, "update", lambda self, n=1: moved.append(n))
    agreement_table(frame, measures=["coarse", "good"], comparison=small(), progress=True)
    assert sum(moved) == 2
