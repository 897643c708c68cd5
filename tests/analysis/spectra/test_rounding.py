"""Ranges of counts: what another route or precision computes stays within them, and a planted error does not."""

import copy
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.measures import choose_checkpoint
from analysis.runs import load_run
from analysis.spectra.intruders import Basis, Cosines, cosines, dense_cosines
from analysis.spectra.rounding import count_range, gaps, svd_error, turn
from analysis.statistics import dense_ranks, same
from analysis.statistics.rounding import interval_side
from analysis.studies import digits_runs
from analysis.tasks import Outputs, doubtful_errors, evaluate, forward_error, lowest, mean_error

SHAPES = [(30, 30), (40, 24), (24, 40), (200, 160)]


def weights(rows, columns, *, seed, rank=4, strength=0.3):
    """A float32 base and float32 factors: exact inputs, whatever the precision of what is computed from them."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, columns, generator=generator) / columns**0.5
    left = strength * torch.randn(rows, rank, generator=generator)
    return base, left, torch.randn(rank, columns, generator=generator) / columns**0.5


def in_precision(base, left, right, precision, *, dense, side="left", count=None):
    basis = Basis.of(base, precision=precision)
    if dense:
        tuned = base.to(precision) + left.to(precision) @ right.to(precision)
        return dense_cosines(basis, tuned, side=side, count=count)
    return cosines(basis, left, right, side=side, count=count)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_another_route_and_another_precision_stay_within_the_uncertainty(shape, side):
    for seed in range(3):
        parts = weights(*shape, seed=seed)
        exact = in_precision(*parts, torch.float64, dense=True, side=side)
        for precision, dense in ((torch.float32, True), (torch.float32, False), (torch.float64, False)):
            found = in_precision(*parts, precision, dense=dense, side=side)
            assert (np.abs(found.cosines - exact.cosines) <= found.uncertainty + exact.uncertainty).all()
        # and it is no idle bound: in float64 no vector of a generic matrix is in doubt
        assert np.median(exact.uncertainty) < 1e-9


def test_the_operator_stays_within_the_uncertainty_of_the_full_svd():
    parts = weights(300, 260, seed=1)
    fast = in_precision(*parts, torch.float64, dense=False, count=10)
    slow = in_precision(*parts, torch.float64, dense=True, count=10)
    assert fast.route == "operator"
    assert (np.abs(fast.cosines - slow.cosines) <= fast.uncertainty + slow.uncertainty).all()
    assert fast.uncertainty.max() < 1e-4


@pytest.mark.parametrize("shape", [(30, 30), (40, 24)])
def test_a_perturbation_as_large_as_the_error_stays_within_the_uncertainty(shape):
    """An adversary moves both matrices by what the backward error allows, in float32's size, computed in float64."""
    eps = torch.finfo(torch.float32).eps
    for seed in range(5):
        base, left, right = (part.double() for part in weights(*shape, seed=seed))
        honest = in_precision(base.float(), left.float(), right.float(), torch.float32, dense=True)
        generator = torch.Generator().manual_seed(100 + seed)

        def moved(matrix, generator=generator):
            push = torch.randn(matrix.shape, generator=generator, dtype=torch.float64)
            size = max(matrix.shape) * eps * torch.linalg.matrix_norm(matrix, 2)
            return matrix + push * size / torch.linalg.matrix_norm(push, 2)

        found = dense_cosines(Basis.of(moved(base)), moved(base + left @ right), count=None)
        assert (np.abs(found.cosines - honest.cosines) <= honest.uncertainty).all()


def test_vectors_that_share_a_singular_value_are_matched_as_a_subspace():
    base = torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5]))
    found = dense_cosines(Basis.of(base), base.double(), count=None)
    np.testing.assert_allclose(found.cosines, 1.0)
    assert found.uncertainty.max() < 1e-12


def test_a_vector_without_a_gap_can_have_any_cosine_of_its_subspace():
    """W's third and fourth vectors share a value; within their plane W0's are at 1 and at 0 from any cosine between."""
    base = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.7, 0.5], dtype=torch.float64))
    tuned = torch.diag(torch.tensor([3.0, 2.0, 0.9, 0.9, 0.5], dtype=torch.float64))
    found = dense_cosines(Basis.of(base), tuned, count=None)
    angles = np.linspace(0, np.pi, 200)
    reached = np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles)))
    for j in (2, 3):
        assert found.cosines[j] - found.uncertainty[j] <= reached.min()
        assert found.cosines[j] + found.uncertainty[j] >= reached.max() - 1e-12
    assert found.uncertainty[[0, 1, 4]].max() < 1e-12


def test_a_subspace_of_the_base_leaves_every_cosine_certain():
    """Two of W0's singular values are equal: their plane is defined, whichever basis of it was returned."""
    angle = math.acos(0.8)
    base = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0], dtype=torch.float64))
    turned = torch.eye(4, dtype=torch.float64)
    turned[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    tuned = turned @ torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64))
    found = dense_cosines(Basis.of(base), tuned, count=None)
    np.testing.assert_allclose(found.cosines, [0.8, 0.8, 1.0, 1.0])
    assert found.uncertainty.max() < 1e-6


def test_nearly_equal_values_of_the_base_leave_cosines_away_from_them_certain():
    angle = math.acos(0.8)
    base = torch.diag(torch.tensor([8.0, 4.0, 1.0, 1.0 - 1e-13], dtype=torch.float64))
    turned = torch.eye(4, dtype=torch.float64)
    turned[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    tuned = turned @ torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64))
    found = dense_cosines(Basis.of(base), tuned, count=None)
    np.testing.assert_allclose(found.cosines[:2], 0.8)
    assert found.uncertainty[:2].max() < 1e-6
    assert found.cosines[2] + found.uncertainty[2] >= 1 - 1e-6


@pytest.mark.parametrize("wrong", ["scaled by a hundredth", "one column dropped", "the other side"])
def test_a_planted_error_is_far_outside_the_uncertainty(wrong):
    base, left, right = weights(60, 60, seed=2)
    right_answer = in_precision(base, left, right, torch.float64, dense=False)
    if wrong == "the other side":
        other = in_precision(base, left, right, torch.float64, dense=False, side="right")
    elif wrong == "one column dropped":
        other = in_precision(base, left[:, 1:], right[1:], torch.float64, dense=False)
    else:
        other = in_precision(base, 1.01 * left, right, torch.float64, dense=False)
    apart = np.abs(other.cosines - right_answer.cosines) > other.uncertainty + right_answer.uncertainty
    assert apart.mean() > 0.9


def test_precision_is_float64_up_to_a_size_and_what_was_asked_for():
    assert Basis.of(torch.randn(8, 2000)).values.dtype == torch.float64
    assert Basis.of(torch.randn(8, 8), precision=torch.float32).values.dtype == torch.float32
    with pytest.raises(ValueError, match=r"precision must be torch\.float32 or torch\.float64, got torch\.float16"):
        Basis.of(torch.randn(8, 8), precision=torch.float16)


def test_turns_follow_the_gap_and_are_one_where_it_is_within_the_error():
    np.testing.assert_allclose(turn(1e-6, [1.0, 0.1, 1e-6, 0.0]), [2e-6, 2e-5, 1.0, 1.0], rtol=2e-5)
    assert turn(0.0, 0.0) == 0  # nothing is off, so nothing turns
    np.testing.assert_array_equal(gaps([4.0, 2.0, 0.5], square=True), [2.0, 1.5, 1.5])
    np.testing.assert_array_equal(gaps([4.0, 2.0, 0.5], square=False), [2.0, 1.5, 0.5])
    assert svd_error((10, 30), torch.float32, 2.0) == pytest.approx(30 * 2**-23 * 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2), st.floats(-1, 1)), min_size=1, max_size=30),
    st.floats(0.01, 1),
)
def test_no_move_within_the_uncertainty_leaves_the_range_and_both_ends_are_reached(values, threshold):
    value, off, push = np.array(values).T
    low, high = count_range(value, threshold, off)
    assert low <= (value + 0.999 * push * off < threshold).sum() <= high
    assert low == (value + off < threshold).sum()
    assert high == (value - off < threshold).sum()


def test_a_negative_or_unknown_uncertainty_is_refused():
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="uncertainty must not be negative or NaN"):
            count_range([0.5], 0.5, bad)


def test_the_smallest_of_several_says_how_clear_it_is():
    assert lowest([0.5], [0.1]) == (math.inf, False)
    assert lowest([0.5, math.nan], [0.1, 0.1]) == (math.inf, False)
    margin, doubtful = lowest([0.9, 0.5, 0.7], [0.01, 0.01, 0.01])
    assert (round(margin, 12), doubtful) == (0.2, False)
    assert lowest([0.5, 0.51], [0.01, 0.01])[1]
    assert lowest([0.5, 0.51, 0.6], [0.0, 0.0, 0.2])[1]  # the third can be the smallest


def test_near_ties_are_ties_wherever_they_lie():
    """A grid of ten digits parted these two, equal but for their last bit, because a step of the grid lies between."""
    step = 1.0000000005
    pair = [np.nextafter(step, 0), np.nextafter(step, 2)]
    assert len({f"{value:.9e}" for value in pair}) == 2
    assert dense_ranks([*pair, 2.0]).tolist() == [0, 0, 1]
    assert dense_ranks([1.0, 1.0 + 1e-8]).tolist() == [0, 1]
    assert dense_ranks([1e15, 1e15 + 1]).tolist() == [0, 1]  # whole numbers are exact
    assert dense_ranks([-np.inf, np.inf, 0.5, np.inf]).tolist() == [0, 2, 1, 2]
    assert same([0.1 + 0.2, 1.0, np.inf, 0.0], [0.3, 1.0 + 1e-9, np.inf, 1e-300]).tolist() == [True, False, True, False]


def test_an_interval_that_touches_zero_up_to_rounding_is_on_no_side():
    assert [interval_side(low, 2.0, scale=1.0) for low in (-0.1, 1e-16, 1e-12)] == [0, 0, 1]
    assert interval_side(-2.0, -1e-16, scale=1.0) == 0
    assert interval_side(-2.0, -1e-3, scale=1.0) == -1
    assert interval_side(math.nan, math.nan, scale=1.0) == 0


@pytest.fixture(scope="module")
def run_folder(model_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (path,) = digits_runs(["cla"], seeds=1, epochs=2, folder=folder, checkpoints=2)
    torch.set_num_threads(threads)
    return path


def test_float32_logits_are_off_by_no_more_than_the_forward_error_and_it_is_small(run_folder):
    run = load_run(run_folder)
    narrow = evaluate(run.model, run.task, run.task.heldout)
    wide = evaluate(copy.deepcopy(run.model).double(), run.task, run.task.heldout)
    off = forward_error(run.model, narrow.largest_logit)
    assert np.abs(narrow.margins - wide.margins).max() <= 2 * off
    assert abs(narrow.losses.mean() - wide.losses.mean()) <= mean_error(narrow.losses, off)
    assert abs(narrow.errors.sum() - wide.errors.sum()) <= doubtful_errors(narrow, off)
    assert 2 * off < 0.2 * np.median(np.abs(wide.margins))
    assert next(run.model.parameters()).dtype == torch.float32
    with pytest.raises(ValueError, match="no matrix"):
        forward_error(torch.nn.LayerNorm(3), 1.0)


def test_examples_near_the_decision_are_counted_and_no_others():
    ones = np.ones(4)
    outputs = Outputs(
        losses=ones, clipped=ones, errors=np.array([0.0, 1, 0, 1]), margins=np.array([3.0, -1e-3, 1e-3, -2.0]),
        predictions=ones, labels=ones, weights=ones, largest_logit=3.0,
    )  # fmt: skip
    assert [doubtful_errors(outputs, off) for off in (0.0, 1e-3, 1.0)] == [0, 2, 3]
    assert doubtful_errors(outputs, math.nan) == 4  # a forward pass that is not finite decides nothing


def test_the_choice_of_a_checkpoint_says_whether_it_is_clear(run_folder, tmp_path):
    choice = choose_checkpoint(run_folder)
    assert set(choice.chosen) == {"last", "best"}
    assert 0 < choice.margin < math.inf
    assert not choice.doubtful
    tied = shutil.copytree(run_folder, tmp_path / run_folder.name)
    for snapshot in (tied / "checkpoints").iterdir():
        shutil.rmtree(snapshot)
    alone = choose_checkpoint(tied)
    assert (alone.margin, alone.doubtful) == (math.inf, False)
    shutil.copytree(tied / "adapter", tied / "checkpoints" / "step-000001")
    same_weights = choose_checkpoint(tied)
    assert (same_weights.margin, same_weights.doubtful) == (0.0, True)
    assert same_weights.chosen["best"] is same_weights.chosen["last"]


def test_cosines_carry_their_uncertainty_into_the_range():
    found = Cosines(
        values=np.ones(3), cosines=np.array([0.2, 0.5, 0.9]), match=np.zeros(3, dtype=int), gap=np.ones(3),
        uncertainty=np.array([0.0, 1e-9, 1.0]), side="left", route="full svd",
    )  # fmt: skip
    assert count_range(found.cosines, 0.5, found.uncertainty) == (1, 3)
