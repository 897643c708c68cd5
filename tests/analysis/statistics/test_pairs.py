"""Pairs, ranks and resampling by hand: limits, ties, and the room that they take."""

import inspect
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import across_seeds, paired_claim
from analysis.statistics.agreement import design_pairs, granulated_tau, partial_tau, sign_error
from analysis.statistics.conditional_mi import conditional_mutual_information, conditioning_strata
from analysis.statistics.pairs import all_pairs, axis_pairs, check_design, dense_ranks, environment_pairs
from analysis.statistics.resampling import (
    adjust_p_values,
    bootstrap_means,
    bootstrap_weights,
    cluster_permutations,
    interval,
    permutation_p_value,
)
from analysis.statistics.table import Comparison


def test_whole_numbers_are_exact_below_two_to_the_53():
    assert dense_ranks([2.0**53 - 1, 2.0**53 - 2]).tolist() == [1, 0]
    assert dense_ranks([-(2.0**53) + 2, -(2.0**53) + 1]).tolist() == [1, 0]
    # From there on a float64 may stand for a neighbour of the number that was meant.
    assert dense_ranks([2.0**53, 2.0**53 - 1]).tolist() == [0, 0]
    assert dense_ranks([10.0**11, 10.0**11 + 1, 0.5]).tolist() == [1, 1, 0]


@pytest.mark.parametrize(("digits", "unit"), [(10, 1e-10), (2, 1e-2)])
def test_neighbours_tie_within_the_digits_that_were_asked_for(digits, unit):
    ranks = [dense_ranks([1.5, 1.5 * (1 + share * unit)], digits=digits).tolist() for share in (0.95, 1.05)]
    assert ranks == [[0, 0], [0, 1]]
    assert dense_ranks([-1.5, -1.5 * (1 + 0.95 * unit), -1.5 * (1 + 3 * unit)], digits=digits).tolist() == [1, 1, 0]


def test_infinities_tie_with_themselves_alone():
    assert dense_ranks([np.inf, 1.0, -np.inf, np.inf, -np.inf]).tolist() == [2, 1, 0, 2, 0]


def test_ten_digits_are_the_rule_and_columns_are_ranked_apart():
    assert dense_ranks([1.5, 1.5 + 1.4e-10]).tolist() == [0, 0]
    assert dense_ranks([1.5, 1.5 + 1.6e-10]).tolist() == [0, 1]
    assert dense_ranks([[1.5, 9.5], [0.5, 9.5], [2.5, 7.5]]).tolist() == [[1, 1], [0, 1], [2, 0]]
    with pytest.raises(ValueError, match="values holds NaN"):
        dense_ranks([[1.0, np.nan]])


def test_sums_over_cells_and_samples_are_those_of_a_loop():
    design = pd.DataFrame({"rank": [1, 2, 4, 1, 2, 4], "seed": [0, 0, 0, 1, 1, 1]})
    pairs = axis_pairs(design, "rank", fixed=["seed"])
    rng = np.random.default_rng(0)
    columns, weights = rng.normal(size=(len(pairs.left), 3)), rng.integers(0, 3, size=(5, 6)).astype(float)
    assert pairs.labels == ((0,), (1,))
    assert [sorted(p) for p in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)] == [
        [0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5],
    ]  # fmt: skip
    slow = np.zeros((5, 2, 3))
    for k, (i, j) in enumerate(zip(pairs.left, pairs.right, strict=True)):
        slow[:, int(k >= 3)] += (weights[:, i] * weights[:, j])[:, None] * columns[k]
    assert np.allclose(pairs.sums(columns, weights), slow, rtol=1e-13)
    assert np.allclose(pairs.sums(columns)[0], [columns[:3].sum(axis=0), columns[3:].sum(axis=0)], rtol=1e-13)


@pytest.mark.parametrize("cells", [1, 2])
def test_many_samples_are_summed_in_blocks(cells):
    """All pairs of 300 runs in 400 samples would take 140 MB at once, three columns in cells three times that."""
    runs, replicates = 300, 400
    if cells == 1:
        pairs = all_pairs(runs)
    else:
        pairs = axis_pairs(pd.DataFrame({"a": range(runs), "b": np.arange(runs) % 2}), "a", fixed=["b"])
    weights = bootstrap_weights(np.arange(runs), replicates=replicates)
    columns = np.ones((len(pairs.left), 3))
    tracemalloc.start()
    sums = pairs.sums(columns, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    assert sums.shape == (replicates, cells, 3)
    # Sums of whole numbers: exact.
    if cells == 1:
        assert np.array_equal(sums[:, 0, 0], (runs**2 - (weights**2).sum(axis=1)) / 2)


def test_environments_are_named_by_their_two_values_and_hold_the_right_pairs():
    design = pd.DataFrame({"rank": [4, 1, 2, 1], "seed": [0, 0, 0, 1]})
    found = environment_pairs(design, "rank", fixed=["seed"])
    assert found.labels == (("rank", 1, 2), ("rank", 1, 4), ("rank", 2, 4))
    assert [{int(i), int(j)} for i, j in zip(found.left, found.right, strict=True)] == [{1, 2}, {0, 1}, {0, 2}]
    assert found.starts.tolist() == [0, 1, 2]
    free = environment_pairs(design, "rank", fixed=[])
    assert [len(part) for part in np.split(free.left, free.starts[1:])] == [2, 2, 1]


def test_designs_with_holes_are_refused_by_name():
    design = pd.DataFrame({"a": [1, 2], "b": [1, None], "c": [None, 1]})
    check_design(design, ["a"])
    with pytest.raises(ValueError, match=r"no column 'd', 'e'; it has a, b, c"):
        check_design(design, ["a", "d", "e"])
    with pytest.raises(ValueError, match="missing values in 'b', 'c'"):
        check_design(design, ["a", "b", "c"])


def test_two_runs_are_enough():
    assert (all_pairs(2).left.tolist(), all_pairs(2).right.tolist()) == ([0], [1])
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        all_pairs(1)


def trust(difference, *, num_heldout, loss_range):
    return max(0.0, 1 - 2 * np.exp(-2 * num_heldout * (difference / (2 * loss_range)) ** 2)) ** 2


@pytest.mark.parametrize("options", [{}, {"loss_range": 0.5}])
def test_pairs_of_one_environment_weigh_by_how_sure_their_order_is(options):
    """Two cells of one environment: differences of 0.2 (the measure is right) and 0.3 (it is wrong)."""
    design = pd.DataFrame({"rank": [1, 2, 1, 2], "seed": [0, 0, 1, 1]})
    target, measure = np.array([0.0, 0.2, 0.0, 0.3]), np.array([0.0, 1.0, 1.0, 0.0])
    errors, labels = sign_error(measure, target, design, axes=["rank"], fixed=["seed"], num_heldout=200, **options)
    right, wrong = (
        max(trust(d, num_heldout=200, loss_range=options.get("loss_range", 1.0)) - 0.5, 0.0) for d in (0.2, 0.3)
    )
    assert right > 0
    assert errors[0, 0] == pytest.approx(wrong / (right + wrong), rel=1e-12)
    assert labels == (("rank", 1, 2),)


def test_a_tie_in_either_counts_a_half():
    design = pd.DataFrame({"rank": [1, 2, 1, 2], "seed": [0, 0, 1, 1]})
    measure = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    errors, _ = sign_error(measure, [1.0, 1.0, 0.0, 1.0], design, axes=["rank"], fixed=["seed"])
    assert errors.tolist() == [[0.25, 0.25]]


def test_samples_without_a_pair_leave_the_sign_error_open():
    design = pd.DataFrame({"rank": [1, 2, 4]})
    weights = np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 2.0, 0.0]])
    errors, _ = sign_error([0.0, 1.0, 2.0], [0.0, 1.0, 0.0], design, axes=["rank"], weights=weights)
    assert errors.shape == (3, 3, 1)
    assert np.array_equal(errors[..., 0], [[np.nan] * 3, [0.0, 0.5, 1.0], [0.0, np.nan, np.nan]], equal_nan=True)


def test_prepared_pairs_give_what_they_are_prepared_for():
    design = pd.DataFrame({"rank": [1, 2, 1, 2], "links": [1, 1, 3, 3]})
    prepared = design_pairs(design, axes=["rank", "links"])
    arguments = ([1.0, 2.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0], design)
    assert granulated_tau(*arguments, axes=["rank", "links"], prepared=prepared) == granulated_tau(
        *arguments, axes=["rank", "links"]
    )
    assert list(prepared.environments) == list(prepared.granulated) == ["rank", "links"]
    psi = granulated_tau(*arguments, axes=["rank", "links"], variant="b")
    # The measure is constant along the links: those groups are undefined and left out.
    assert psi["rank"].item() == psi["mean"].item() == 1.0
    assert np.isnan(psi["links"].item())


def test_partial_tau_of_several_measures_and_controls_in_samples():
    rng = np.random.default_rng(3)
    measures, target, controls = rng.normal(size=(12, 2)), rng.normal(size=12), rng.normal(size=(12, 3))
    weights = np.stack([np.ones(12), rng.integers(0, 3, size=12)]).astype(float)
    fast = partial_tau(measures, target, controls, weights=weights)
    assert fast.shape == (2, 2)
    pairs = all_pairs(12)
    for row, w in zip(fast, weights, strict=True):
        share = np.sqrt(w[pairs.left] * w[pairs.right])[:, None]
        x, y, c = (
            np.sign(v[pairs.left] - v[pairs.right]).reshape(len(pairs.left), -1) * share
            for v in (measures, target, controls)
        )
        rest_x, rest_y = (v - c @ np.linalg.lstsq(c, v, rcond=None)[0] for v in (x, y))
        expected = (rest_x * rest_y).sum(axis=0) / np.sqrt((rest_x**2).sum(axis=0) * (rest_y**2).sum())
        # Two solvers of one least-squares problem, condition number near one.
        assert np.allclose(row, expected, rtol=1e-9)


def conditional_entropy_by_hand(counts):
    """I / H of one cell's table of counts, {(v, g): n}."""
    total = sum(counts.values())
    v = {a: sum(n for (x, _), n in counts.items() if x == a) for a, _ in counts}
    g = {b: sum(n for (_, y), n in counts.items() if y == b) for _, b in counts}
    information = sum(n / total * np.log(n * total / (v[a] * g[b])) for (a, b), n in counts.items())
    return information / -sum(n / total * np.log(n / total) for n in g.values())


def test_ties_are_a_letter_a_minus_or_left_out():
    """Measure (0, 0, 1) against target (0, 1, 1): pair 01 ties in the measure, 12 in the target, 02 agrees."""
    design = pd.DataFrame({"rank": [1, 2, 4]})
    arguments = ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0], design)

    def given_nothing(**options):
        return conditional_mutual_information(*arguments, axes=["rank"], **options)["none"]

    symbol = {(0, -1): 1, (0, 1): 1, (-1, 0): 1, (1, 0): 1, (-1, -1): 1, (1, 1): 1}
    assert given_nothing(ties="symbol") == pytest.approx(conditional_entropy_by_hand(symbol), rel=1e-12)
    assert given_nothing() == given_nothing(ties="symbol")
    minus = {(-1, -1): 1 + 1 + 1, (-1, 1): 1, (1, -1): 1, (1, 1): 1}
    assert given_nothing(ties="minus") == pytest.approx(conditional_entropy_by_hand(minus), rel=1e-12)
    assert given_nothing(ties="drop") == pytest.approx(1.0)
    weighted = given_nothing(ties="symbol", weights=np.array([1.0, 2.0, 3.0]))
    expected = {(0, -1): 2, (0, 1): 2, (-1, 0): 6, (1, 0): 6, (-1, -1): 3, (1, 1): 3}
    assert weighted == pytest.approx(conditional_entropy_by_hand(expected), rel=1e-12)
    assert given_nothing(ties="drop", weights=np.array([1.0, 2.0, 3.0])) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="every pair is tied"):
        conditional_mutual_information([0.0, 0.0], [0.0, 1.0], design[:2], axes=["rank"], ties="drop")
    with pytest.raises(ValueError, match="ties must be"):
        given_nothing(ties="none")


def test_conditioning_sets_have_at_most_two_members_or_exactly_two():
    design = pd.DataFrame([(a, b, c) for a in (1, 2) for b in (1, 2) for c in (1, 2)], columns=["a", "b", "c"])
    jiang = conditioning_strata(design, axes=["a", "b", "c"])
    assert list(jiang.codes) == ["none", "a", "b", "c", "a + b", "a + c", "b + c"]
    assert list(jiang.counts.values()) == [1, 4, 4, 4, 16, 16, 16]
    assert len(jiang.left) == 56
    pgdl = conditioning_strata(design, axes=["a", "b", "c"], convention="pgdl")
    assert list(pgdl.codes) == ["a + b", "a + c", "b + c"]
    assert len(pgdl.left) == 64
    assert list(conditioning_strata(design, axes=["a", "b"], convention="pgdl").codes) == ["a + b"]
    for axes in (["a"], []):
        with pytest.raises(ValueError, match="conditions on two hyper-parameters"):
            conditioning_strata(design, axes=axes, convention="pgdl")
    with pytest.raises(ValueError, match="convention must be"):
        conditioning_strata(design, axes=["a"], convention="none")
    with pytest.raises(ValueError, match="design has 8 rows, measure and target have 2"):
        conditional_mutual_information([0.0, 1.0], [0.0, 1.0], design, axes=["a"])
    with pytest.raises(ValueError, match="no column 'd'"):
        conditioning_strata(design, axes=["d"])


def test_clusters_of_one_run_and_of_none():
    assert bootstrap_weights([5], replicates=1).tolist() == [[1.0]]
    for labels in ([], [[1, 2]]):
        with pytest.raises(ValueError, match="clusters must be a non-empty vector"):
            bootstrap_weights(labels, replicates=1)


def test_bootstrap_weights_draw_clusters_evenly():
    weights = bootstrap_weights(["a", "b", "b", "c"], replicates=30_000, seed=1)
    assert np.array_equal(weights[:, 1], weights[:, 2])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # Mean 1 and variance 2 / 3 of a multinomial over three; four standard errors of 30 000 draws.
    assert np.allclose(weights.mean(axis=0), 1.0, atol=0.02)
    assert np.allclose(weights.var(axis=0), 2 / 3, atol=0.03)
    assert not np.array_equal(weights, bootstrap_weights(["a", "b", "b", "c"], replicates=30_000, seed=2))


def test_permutations_move_equal_clusters_and_say_what_is_wrong():
    moved = list(cluster_permutations([0, 0, 1, 1, 2, 2], replicates=50, seed=3))
    assert len(moved) == 50
    assert {tuple(index[::2] // 2) for index in moved} == {
        (a, b, c) for a in range(3) for b in range(3) for c in range(3) if len({a, b, c}) == 3
    }
    assert all((index[1::2] == index[::2] + 1).all() for index in moved)
    with pytest.raises(ValueError, match="strata has 2 entries, clusters has 3"):
        list(cluster_permutations([0, 1, 2], replicates=1, strata=[0, 0]))
    with pytest.raises(ValueError, match="cluster number 1 lies in several"):
        list(cluster_permutations([0, 1, 1], replicates=1, strata=[0, 0, 1]))


def test_an_interval_needs_more_than_half_of_the_samples():
    samples = np.array([[1.0, 1.0, np.nan], [2.0, np.nan, np.nan], [3.0, 3.0, np.nan], [4.0, np.nan, 4.0]])
    low, high = interval(samples, confidence=0.5)
    assert np.array_equal(low, [1.75, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(high, [3.25, np.nan, np.nan], equal_nan=True)
    low, high = interval(np.array([1.0, np.nan, 3.0]))
    assert (low.item(), high.item()) == pytest.approx((1.05, 2.95))
    cube = interval(np.arange(24.0).reshape(4, 3, 2), confidence=0.5)
    assert cube[0].shape == cube[1].shape == (3, 2)
    assert cube[1][2, 1] == pytest.approx(5 + 6 * 2.25)
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match="confidence must lie in"):
            interval(np.zeros(3), confidence=confidence)


def test_p_values_count_both_tails_the_observed_and_ties_by_rounding():
    null = np.array([[0.5, 0.1], [-0.5 - 1e-13, 0.1], [0.4, -0.3]])
    assert permutation_p_value([0.5, np.nan], null).tolist()[0] == 3 / 4
    assert np.isnan(permutation_p_value([0.5, np.nan], null)[1])
    assert permutation_p_value(-0.5 - 5e-13, null[:, 0]).item() == 3 / 4
    assert permutation_p_value(0.5 + 5e-12, null[:, 0]).item() == 1 / 4


def test_corrections_by_hand_leave_what_is_unknown_out():
    p_values = [0.04, np.nan, 0.01, 0.5, 0.02]
    holm = adjust_p_values(p_values, method="holm")
    assert np.allclose(holm, [0.08, np.nan, 0.04, 0.5, 0.06], equal_nan=True)
    steps = adjust_p_values(p_values)
    assert np.allclose(steps, [0.04 * 4 / 3, np.nan, 0.04, 0.5, 0.04], equal_nan=True)
    assert adjust_p_values([0.6, 0.7], method="holm").tolist() == [1.0, 1.0]
    assert adjust_p_values([0.0, 1.0]).tolist() == [0.0, 1.0]
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            adjust_p_values([0.5, wrong])


def test_means_of_bootstrap_samples_have_the_binomials_spread_and_are_drawn_in_blocks():
    values = np.array([0.0, 1.0])
    means = bootstrap_means(values, replicates=40_000, seed=2)
    # Means 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4; four standard errors are 0.01.
    assert np.allclose([(means == m).mean() for m in (0.0, 0.5, 1.0)], [0.25, 0.5, 0.25], atol=0.01)
    assert len(bootstrap_means(values)) == 2000
    assert not np.array_equal(bootstrap_means(values, seed=0), bootstrap_means(values, seed=1))
    many = np.random.default_rng(0).normal(size=100_000)
    tracemalloc.start()
    means = bootstrap_means(many, replicates=150)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # at once, the indices and the values of 150 samples would take 240 MB
    assert len(means) == 150
    # A mean of 100 000 has a standard error of 0.0032.
    assert np.abs(means - many.mean()).max() < 0.02
    assert means.std() == pytest.approx(0.00316, rel=0.25)


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (across_seeds, {"confidence": 0.95}),
        (paired_claim, {"replicates": 2000, "seed": 0}),
        (bootstrap_means, {"replicates": 2000, "seed": 0}),
        (bootstrap_weights, {"seed": 0}),
        (cluster_permutations, {"seed": 0}),
        (interval, {"confidence": 0.95}),
        (Comparison, {"permutations": 999, "cmi_replicates": 100, "confidence": 0.95, "seed": 0}),
    ],
)
def test_what_is_not_said_is_what_the_committed_results_were_made_with(function, defaults):
    found = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    assert {name: found[name] for name in defaults} == defaults
