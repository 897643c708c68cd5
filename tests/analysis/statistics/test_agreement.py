"""Agreement statistics against slow loops, scipy, planted predictors and null worlds."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import kendalltau

from analysis.statistics.agreement import granulated_tau, kendall_tau, partial_tau, sign_error, tied_share
from analysis.statistics.conditional_mi import conditional_mutual_information
from analysis.statistics.pairs import all_pairs, axis_pairs, dense_ranks
from analysis.statistics.resampling import (
    adjust_p_values,
    bootstrap_weights,
    cluster_permutations,
    interval,
    permutation_p_value,
)
from analysis.statistics.table import Comparison, agreement_table, family_differences

AXES = ("method", "rank", "links")


def world(*, seed=0, levels=(3, 3, 2), seeds=2, noise=0.3):
    """A full grid in which the gap grows with every axis, and measures of known worth."""
    rng = np.random.default_rng(seed)
    rows = []
    for method, rank, links in product(*map(range, levels)):
        config = rng.normal()
        for run in range(seeds):
            gap = method + 0.8 * rank + 0.5 * links + noise * (config + rng.normal())
            rows.append({"method": f"m{method}", "rank": 2**rank, "links": 1 + links, "seed": run, "gap": gap})
    frame = pd.DataFrame(rows)
    frame["planted"] = frame["gap"] ** 3 + 5
    frame["noisy"] = frame["gap"] + rng.normal(size=len(frame))
    frame["reversed"] = -frame["gap"]
    frame["rank_alone"] = np.sqrt(frame["rank"])
    frame["noise"] = rng.normal(size=len(frame))
    frame["constant"] = 1.0
    return frame


def slow_tau(x, y, variant, weights=None):
    weights = np.ones(len(x)) if weights is None else weights
    s = both_x = both_y = pairs = 0.0
    for i, j in combinations(range(len(x)), 2):
        w = weights[i] * weights[j]
        a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
        s, both_x, both_y, pairs = s + w * a * b, both_x + w * a * a, both_y + w * b * b, pairs + w
    return s / pairs if variant == "a" else s / np.sqrt(both_x * both_y)


@given(
    x=hnp.arrays(np.int64, 9, elements=st.integers(0, 4)),
    y=hnp.arrays(np.int64, 9, elements=st.integers(0, 4)),
)
@settings(deadline=None, max_examples=60)
def test_tau_equals_scipy_and_the_slow_loop_with_ties(x, y):
    tau_a = kendall_tau(x, y, variant="a")[0]
    # A ratio of integers in both: equal to rounding.
    assert tau_a == pytest.approx(slow_tau(x, y, "a"), abs=1e-14)
    tau_b = kendall_tau(x, y)[0]
    reference = kendalltau(x, y).statistic
    assert np.isnan(tau_b) == np.isnan(reference)
    assert np.isnan(tau_b) or tau_b == pytest.approx(reference, abs=1e-14)


@given(
    x=hnp.arrays(np.float64, (7, 2), elements=st.floats(-5, 5)), y=hnp.arrays(np.float64, 7, elements=st.floats(-5, 5))
)
@settings(deadline=None, max_examples=40)
def test_tau_changes_sign_with_the_measure_and_ignores_monotone_maps(x, y):
    x, y = np.round(x, 3), np.round(y, 3)
    tau = kendall_tau(x, y, variant="a")
    assert np.allclose(kendall_tau(-x, y, variant="a"), -tau, atol=1e-14)
    assert np.allclose(kendall_tau(np.exp(x), y, variant="a"), tau, atol=1e-14)


def test_bootstrap_multiplicities_equal_copied_rows_without_the_copies_own_pairs():
    frame = world()
    weights = bootstrap_weights(frame.groupby(list(AXES)).ngroup(), replicates=5, seed=3)
    fast = kendall_tau(frame[["noisy", "noise"]], frame["gap"], weights=weights)
    for row, replicate in zip(fast, weights, strict=True):
        for value, name in zip(row, ("noisy", "noise"), strict=True):
            # Sums of a few hundred products of small integers: float64 is exact but for the division.
            assert value == pytest.approx(slow_tau(frame[name], frame["gap"], "b", replicate), abs=1e-13)


def test_granulated_tau_equals_the_loop_over_cells():
    frame = world(seeds=1)
    fast = granulated_tau(frame[["noisy", "noise"]], frame["gap"], frame, axes=AXES)
    for column, name in enumerate(("noisy", "noise")):
        psis = []
        for axis in AXES:
            others = [other for other in AXES if other != axis]
            cells = [slow_tau(c[name].values, c["gap"].values, "a") for _, c in frame.groupby(others)]
            psis.append(np.mean(cells))
            assert fast[axis][column] == pytest.approx(psis[-1], abs=1e-14)
        assert fast["mean"][column] == pytest.approx(np.mean(psis), abs=1e-14)


def test_granulated_tau_with_weights_equals_a_bootstrap_done_by_hand():
    frame = world(seeds=2)
    weights = bootstrap_weights(frame.groupby(list(AXES)).ngroup(), replicates=3, seed=1)
    fast = granulated_tau(
        frame["noisy"], frame["gap"], frame, axes=["rank"], fixed=["method", "links", "seed"], weights=weights
    )
    for value, w in zip(fast["rank"][:, 0], weights, strict=True):
        cells = []
        for _, cell in frame.groupby(["method", "links", "seed"]):
            if (w[cell.index] > 0).sum() > 1:
                cells.append(slow_tau(cell["noisy"].values, cell["gap"].values, "a", w[cell.index]))
        assert value == pytest.approx(np.mean(cells), abs=1e-13)


def test_a_nested_axis_is_not_held_fixed_where_its_parent_moves():
    design = pd.DataFrame({"method": ["lora", "c3la", "c3la"], "links": [1, 2, 3]})
    arguments = ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], design)
    crossed = granulated_tau(*arguments, axes=["method", "links"])
    nested = granulated_tau(*arguments, axes=["method", "links"], nested={"links": "method"})
    assert np.isnan(crossed["method"].item())
    assert nested["method"].item() == nested["links"].item() == 1.0
    errors, labels = sign_error(*arguments, axes=["method", "links"], nested={"links": "method"})
    assert labels == (("method", "c3la", "lora"), ("links", 2, 3))
    assert errors.tolist() == [[0.0], [0.0]]


def test_a_measure_that_only_knows_the_rank_scores_on_that_axis_alone():
    psi = granulated_tau(world(noise=0.0)["rank_alone"], world(noise=0.0)["gap"], world(), axes=AXES, fixed=["seed"])
    assert [psi[axis].item() for axis in AXES] == [0.0, 1.0, 0.0]


def test_sign_error_equals_the_loop_and_its_worst_environment_is_found():
    frame = world(seeds=2)
    errors, labels = sign_error(frame[["noisy"]], frame["gap"], frame, axes=AXES, fixed=["seed"])
    expected = {}
    for i, j in combinations(range(len(frame)), 2):
        a, b = frame.iloc[i], frame.iloc[j]
        differing = [axis for axis in AXES if a[axis] != b[axis]]
        if a["seed"] != b["seed"] or len(differing) != 1:
            continue
        key = (differing[0], *sorted([a[differing[0]], b[differing[0]]]))
        agree = np.sign(a["noisy"] - b["noisy"]) * np.sign(a["gap"] - b["gap"])
        expected.setdefault(key, []).append((1 - agree) / 2)
    assert set(labels) == set(expected)
    for label, error in zip(labels, errors[:, 0], strict=True):
        assert error == pytest.approx(np.mean(expected[label]), abs=1e-14)


def test_sign_error_is_zero_for_the_truth_one_for_its_reverse_and_a_half_for_a_constant():
    frame = world()
    errors, _ = sign_error(frame[["planted", "reversed", "constant"]], frame["gap"], frame, axes=AXES, fixed=["seed"])
    assert errors.min(axis=0).tolist() == [0.0, 1.0, 0.5]
    assert errors.max(axis=0).tolist() == [0.0, 1.0, 0.5]


def test_pairs_within_heldout_noise_do_not_count_in_the_sign_error():
    design = pd.DataFrame({"rank": [1, 2, 4]})
    target, measure = np.array([0.0, 0.001, 0.9]), np.array([1.0, 0.0, 2.0])
    every, labels = sign_error(measure, target, design, axes=["rank"])
    trusted, _ = sign_error(measure, target, design, axes=["rank"], num_heldout=1000)
    assert dict(zip(labels, every[:, 0], strict=True))["rank", 1, 2] == 1.0
    assert np.isnan(trusted[labels.index(("rank", 1, 2)), 0])
    assert np.nanmax(trusted) == 0.0


def test_partial_tau_with_one_control_is_kendalls_formula():
    frame = world()
    x, y, z = frame["noisy"], frame["gap"], frame["rank"]
    t_xy, t_xz, t_yz = (kendalltau(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (t_xy - t_xz * t_yz) / np.sqrt((1 - t_xz**2) * (1 - t_yz**2))
    # pinv of a 1 x 1 matrix and a square root: a few units in the last place.
    assert partial_tau(x, y, z)[0] == pytest.approx(expected, abs=1e-12)


def test_partial_tau_with_two_controls_equals_the_residuals_of_least_squares():
    frame = world()
    pairs = all_pairs(len(frame))
    signs = np.sign(frame.to_dict("series")["gap"].to_numpy()[pairs.left] - frame["gap"].to_numpy()[pairs.right])
    x = np.sign(frame["noisy"].to_numpy()[pairs.left] - frame["noisy"].to_numpy()[pairs.right])
    c = np.sign(frame[["rank", "noise"]].to_numpy()[pairs.left] - frame[["rank", "noise"]].to_numpy()[pairs.right])
    rest = [v - c @ np.linalg.lstsq(c, v, rcond=None)[0] for v in (x, signs)]
    expected = rest[0] @ rest[1] / np.sqrt((rest[0] @ rest[0]) * (rest[1] @ rest[1]))
    fast = partial_tau(frame["noisy"], frame["gap"], frame[["rank", "noise"]])[0]
    # Two solvers of one least-squares problem, condition number near one.
    assert fast == pytest.approx(expected, abs=1e-10)


def test_partial_tau_takes_out_what_the_control_explains():
    rng = np.random.default_rng(5)
    loss = rng.normal(size=250)
    gap, measure = loss + 0.5 * rng.normal(size=250), loss + 0.5 * rng.normal(size=250)
    assert kendall_tau(measure, gap)[0] > 0.4
    # Kendall's partial tau is not zero under conditional independence, only much smaller.
    assert abs(partial_tau(measure, gap, loss)[0]) < 0.2
    assert np.isnan(partial_tau(np.exp(loss), gap, loss)[0])


def slow_cmi(measure, target, design, subset, *, pgdl):
    """The definition, one ordered pair at a time, with dictionaries."""
    counts = {}
    for i, j in product(range(len(measure)), repeat=2):
        if i == j and not pgdl:
            continue
        v, g = np.sign(measure[i] - measure[j]), np.sign(target[i] - target[j])
        if pgdl:
            v, g = (1 if v > 0 else -1), (1 if g > 0 else -1)
        cell = tuple((design[name].iloc[i], design[name].iloc[j]) for name in subset)
        counts.setdefault(cell, {}).setdefault((v, g), 0)
        counts[cell][v, g] += 1
    total = sum(sum(table.values()) for table in counts.values())
    information = entropy = 0.0
    for table in counts.values():
        size = sum(table.values())
        share = 1 / len(counts) if pgdl else size / total
        p_v, p_g = {}, {}
        for (v, g), n in table.items():
            p_v[v], p_g[g] = p_v.get(v, 0) + n / size, p_g.get(g, 0) + n / size
        information += share * sum(n / size * np.log(n / size / (p_v[v] * p_g[g])) for (v, g), n in table.items())
        entropy -= share * sum(p * np.log(p) for p in p_g.values())
    return information / entropy if entropy > 1e-12 else np.nan


@pytest.mark.parametrize("convention", ["jiang", "pgdl"])
@pytest.mark.parametrize("name", ["noisy", "rank_alone", "noise"])
def test_conditional_mutual_information_equals_the_slow_loop(convention, name):
    frame = world(seeds=1)
    fast = conditional_mutual_information(frame[name], frame["gap"], frame, axes=AXES, convention=convention)
    for label, value in fast.items():
        subset = () if label == "none" else tuple(label.split(" + "))
        expected = slow_cmi(frame[name].values, frame["gap"].values, frame, subset, pgdl=convention == "pgdl")
        # Differences of entropies of order one: cancellation costs a few units of 1e-16 over 1e-1.
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_conditional_mutual_information_separates_the_truth_from_a_proxy():
    frame = world()
    scores = {
        name: conditional_mutual_information(frame[name], frame["gap"], frame, axes=AXES).min()
        for name in ("planted", "noisy", "rank_alone", "constant")
    }
    assert scores["planted"] == pytest.approx(1.0, abs=1e-12)
    assert scores["planted"] > scores["noisy"] > scores["rank_alone"]
    # Given the rank, a measure of the rank alone says nothing at all.
    assert scores["rank_alone"] == pytest.approx(0.0, abs=1e-12)
    assert scores["constant"] == pytest.approx(0.0, abs=1e-12)


def test_pgdl_refuses_a_design_with_empty_cells():
    frame = world()
    with pytest.raises(ValueError, match="not a full grid"):
        conditional_mutual_information(
            frame["noisy"].iloc[4:], frame["gap"].iloc[4:], frame.iloc[4:], axes=AXES, convention="pgdl"
        )


def test_dense_ranks_tie_two_evaluations_of_one_formula():
    values = np.array([np.log(2) + np.log(3), np.log(6), np.inf, -np.inf, 1e-300, 0.0])
    assert dense_ranks(values).tolist() == [3, 3, 4, 0, 2, 1]
    assert tied_share([1.0, 1.0 + 1e-13, 2.0])[0] == pytest.approx(1 / 3)


def test_cluster_permutations_keep_clusters_whole_and_inside_their_stratum():
    clusters = np.array([0, 0, 1, 1, 2, 2, 3])
    strata = np.array([0, 0, 0, 0, 1, 1, 1])
    for index in cluster_permutations(clusters, replicates=30, seed=0, strata=strata):
        assert sorted(index) == list(range(7))
        assert index.tolist() in ([0, 1, 2, 3, 4, 5, 6], [2, 3, 0, 1, 4, 5, 6])


def test_adjusted_p_values_control_their_error_rates_under_the_null():
    rng = np.random.default_rng(1)
    p_values = rng.uniform(size=(4000, 8))
    for method in ("holm", "benjamini-hochberg"):
        rate = np.mean([(adjust_p_values(row, method=method) <= 0.1).any() for row in p_values])
        # All nulls true: both control the family-wise rate at 0.1; 4000 trials give it +-0.014 at three sigma.
        assert 0.08 < rate < 0.114


def test_planted_predictor_is_found_and_the_null_measures_are_not():
    frame = world(seed=2)
    comparison = Comparison(target="gap", axes=AXES, controls=("rank",), permutations=199, cmi_replicates=19)
    names = ["planted", "noisy", "rank_alone", "noise", "constant"]
    table = agreement_table(frame, measures=names, comparison=comparison, progress=False)
    assert table.index[0] == "planted"
    assert table.loc["planted", ["tau_b", "granulated", "cmi"]].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert table.loc["planted", "robust_sign_error"] == 0.0
    assert table.loc["planted", "q"] < 0.05 < table.loc["noise", "q"]
    low, tau, high = table.loc["noisy", ["tau_b_low", "tau_b", "tau_b_high"]]
    assert 0 < low < tau < high <= 1
    assert np.isnan(table.loc["constant", "tau_b"])
    assert np.isnan(table.loc["constant", "p"])
    assert np.isnan(table.loc["rank_alone", "partial_tau"])
    assert (table["cmi_pgdl"].notna()).all()


def test_false_positive_rate_is_the_level_where_seeds_cluster():
    """Config-level measures against config-level gaps: independent runs would be wrong here, clusters are right."""
    rng = np.random.default_rng(0)
    configs, seeds, trials = 14, 4, 300
    clusters = np.repeat(np.arange(configs), seeds)
    naive, right = 0, 0
    for trial in range(trials):
        measure = np.repeat(rng.normal(size=configs), seeds)
        gap = np.repeat(rng.normal(size=configs), seeds) + 0.1 * rng.normal(size=configs * seeds)
        tau = kendall_tau(measure, gap)
        for labels in (clusters, np.arange(configs * seeds)):
            shuffled = np.array([gap[i] for i in cluster_permutations(labels, replicates=39, seed=trial)])
            null = kendall_tau(shuffled.T, measure)[:, None]
            hit = permutation_p_value(tau, null)[0] <= 0.05
            right, naive = right + (hit and labels is clusters), naive + (hit and labels is not clusters)
    # 300 trials at 0.05: three standard errors are 0.038.
    assert right / trials <= 0.088
    assert naive / trials > 0.2


def test_bootstrap_interval_covers_the_true_tau():
    """Bivariate normal: tau = (2 / pi) arcsin(rho)."""
    rng = np.random.default_rng(4)
    rho, runs, trials = 0.6, 40, 200
    truth = 2 / np.pi * np.arcsin(rho)
    covered = 0
    for trial in range(trials):
        x = rng.normal(size=runs)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=runs)
        weights = bootstrap_weights(np.arange(runs), replicates=200, seed=trial)
        low, high = interval(kendall_tau(x, y, weights=weights)[:, 0])
        covered += low <= truth <= high
    # Nominal 0.95; the percentile interval with 40 runs is a little short. Three standard errors are 0.046.
    assert 0.89 < covered / trials <= 1.0


def test_measures_missing_in_some_runs_are_judged_on_the_others():
    frame = world()
    frame["partial"] = frame["gap"].where(frame["method"] != "m0")
    comparison = Comparison(target="gap", axes=AXES, permutations=19, cmi_replicates=0)
    table = agreement_table(frame, measures=["partial", "noise"], comparison=comparison, progress=False)
    assert table.loc["partial", "runs"] == (frame["method"] != "m0").sum()
    assert table.loc["noise", "runs"] == len(frame)
    assert table.loc["partial", "tau_b"] == pytest.approx(1.0)


def test_paired_differences_favour_the_planted_measure_and_leave_two_noises_undecided():
    frame = world(seed=7, seeds=5)
    frame["noise2"] = np.random.default_rng(9).normal(size=len(frame))
    comparison = Comparison(target="gap", axes=AXES)
    against = family_differences(frame, champion="planted", rivals=["noise", "reversed"], comparison=comparison)
    assert against["verdict"].tolist() == ["champion", "champion"]
    noise = family_differences(frame, champion="noise", rivals=["noise2", "planted"], comparison=comparison)
    assert noise["verdict"].tolist() == ["undecided", "rival"]
    assert noise.loc["planted", "difference"] == pytest.approx(noise["tau_champion"].iloc[1] - 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kendall_tau([1.0], [1.0]), "at least two runs"),
        (lambda: kendall_tau([1.0, np.nan], [1.0, 2.0]), "NaN"),
        (lambda: kendall_tau([1.0, 2.0], [1.0, 2.0, 3.0]), "one row per run"),
        (lambda: kendall_tau([1.0, 2.0], [1.0, 2.0], variant="c"), "variant"),
        (lambda: granulated_tau([1.0, 2.0], [1.0, 2.0], pd.DataFrame({"a": [1, 2]}), axes=["b"]), "no column 'b'"),
        (lambda: granulated_tau([1.0, 2.0], [1.0, 2.0], pd.DataFrame({"a": [1, 2]}), axes=[]), "at least one"),
        (lambda: axis_pairs(pd.DataFrame({"a": [1, None]}), "a", fixed=[]), "missing values"),
        (lambda: sign_error([1.0, 2.0], [1.0, 2.0], pd.DataFrame({"a": [1, 1]}), axes=["a"]), "differ in exactly one"),
        (lambda: bootstrap_weights([0, 1], replicates=0), "replicates"),
        (lambda: list(cluster_permutations([0, 0, 1], replicates=1)), "nothing can be shuffled"),
        (lambda: adjust_p_values([1.5]), r"\[0, 1\]"),
        (lambda: adjust_p_values([0.5], method="none"), "unknown method"),
        (lambda: interval(np.zeros(3), confidence=1.0), "confidence"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
