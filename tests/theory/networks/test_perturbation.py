import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.networks.errata import ExactNetwork, enumerated, random_network, recursed
from theory.networks.perturbation import Network, correction, deviation_log, output_radius_log


def as_floats(exact, **options):
    network = Network(
        base_norms=[float(x) for x in exact.base_norms],
        lipschitz=[float(x) for x in exact.lipschitz],
        offsets=[float(x) for x in exact.offsets],
        radius=float(exact.radius),
        **options,
    )
    return network, [float(x) for x in exact.update_norms]


@pytest.mark.parametrize("depth", range(1, 11))
def test_recursion_and_enumeration_are_equal_in_exact_rationals(depth):
    for seed in range(3 if depth < 9 else 1):
        exact = random_network(depth, seed=seed)
        assert recursed(exact) == enumerated(exact)


@pytest.mark.parametrize("depth", range(1, 11))
def test_closed_form_equals_the_exact_recursion(depth):
    for seed in range(20):
        exact = random_network(depth, seed=100 + seed)
        network, update = as_floats(exact, loss_lipschitz=0.5)
        phi = correction(network, update_norms=update)
        # Twenty logarithms of numbers below 40 and one exponential: well within 1e-13.
        assert phi.update == pytest.approx(float(recursed(exact)[0]), rel=1e-13)
        assert phi.base == pytest.approx(float(recursed(exact)[1]), rel=1e-13)


def test_hand_worked_case():
    # L = 2, a = (10, 0), d = (0, 1): the merged network is x -> 10 x, the plain one x -> 0; twice 10.
    phi = correction(Network(base_norms=[10, 0]), update_norms=[0, 1])
    assert phi.update == pytest.approx(20)
    # One layer, offset left out by the difference: Phi_dW = 2 C lambda d.
    one = Network(base_norms=[3.0], lipschitz=0.5, offsets=7.0, radius=2.0, loss_lipschitz=4.0)
    assert correction(one, update_norms=[0.25]).update == pytest.approx(2 * 4 * 2 * 0.5 * 0.25)


def test_small_updates_do_not_drown_in_rounding():
    base, update = [Fraction(3, 2)] * 8, [Fraction(1, 10**17)] * 8
    exact = ExactNetwork(base_norms=base, update_norms=update, lipschitz=[1] * 8, offsets=[Fraction(1, 3)] * 8)
    network, norms = as_floats(exact)
    # prod(a + d) - prod(a) as floats would be exactly 0 here.
    assert math.prod(1.5 + 1e-17 for _ in range(8)) == math.prod([1.5] * 8)
    assert correction(network, update_norms=norms).update == pytest.approx(2 * float(recursed(exact)[0]), rel=1e-13)


def deep(depth):
    network = Network(base_norms=np.full(depth, 50.0), lipschitz=1.1, offsets=0.3, radius=5.0)
    return lambda: correction(network, update_norms=np.full(depth, 0.7))


def test_ten_thousand_layers_take_no_more_steps_than_ten_and_a_few_numbers_each(count_lines):
    assert count_lines(deep(10_000)) == count_lines(deep(10))
    peaks = []
    for depth in (10_000, 20_000):
        tracemalloc.start()
        deep(depth)()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Arrays of L numbers of eight bytes: twice the layers, twice the memory, and never a matrix of L^2.
    assert peaks[1] < 2 * peaks[0] < 2 * 10_000 * 8 * 30


def test_ten_thousand_layers_do_not_overflow():
    depth = 10_000
    phi = deep(depth)()
    assert math.isinf(phi.update)
    assert math.isfinite(phi.log_update)
    # The first term alone, by hand: ln 2 + ln 5 + L ln(1.1 * 50.7) + ln(1 - (50 / 50.7)^L).
    assert phi.log_update == pytest.approx(math.log(10) + depth * math.log(1.1 * 50.7), rel=1e-6)


def test_zero_update_or_zero_base_leaves_nothing():
    network = Network(base_norms=[2.0, 3.0, 1.0], offsets=1.0)
    assert correction(network, update_norms=0.0).update == 0.0
    nothing = Network(base_norms=[0.0, 0.0, 0.0], offsets=1.0)
    assert correction(nothing, update_norms=[1.0, 2.0, 3.0]).base == 0.0
    assert correction(Network(base_norms=[0.0, 0.0]), update_norms=[0.0, 0.0]).update == 0.0


def test_one_frozen_layer_makes_the_network_of_the_update_constant():
    # With d_2 = 0 and no offsets, Phi_W0 is 2 C prod(a + d): the backbone removed, nothing is left to subtract.
    phi = correction(Network(base_norms=[2.0, 3.0]), update_norms=[1.0, 0.0])
    assert phi.base == pytest.approx(2 * 3 * 3)


norms = st.floats(0.0, 50.0)
layer = st.tuples(norms, norms, st.floats(0.01, 3.0), st.floats(0.0, 3.0))


def as_network(rows):
    base, update, lipschitz, offsets = zip(*rows, strict=True)
    return Network(base_norms=base, lipschitz=lipschitz, offsets=offsets), list(update)


networks = st.lists(layer, min_size=1, max_size=8).map(as_network)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(networks)
def test_correction_is_the_difference_of_output_radii(drawn):
    network, update = drawn
    base = np.asarray(network.base_norms)
    total = math.exp(output_radius_log(network, norms=base + update))
    plain = math.exp(output_radius_log(network, norms=base))
    removed = math.exp(output_radius_log(network, norms=update))
    phi = correction(network, update_norms=update)
    # The differences taken here lose digits; the closed form does not: absolute tolerance of the larger radius.
    assert phi.update == pytest.approx(2 * (total - plain), rel=1e-9, abs=1e-9 * total)
    assert phi.base == pytest.approx(2 * (total - removed), rel=1e-9, abs=1e-9 * total)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(networks)
def test_deviation_without_measurements_is_half_of_phi(drawn):
    network, update = drawn
    phi = correction(network, update_norms=update)
    log_deviation = deviation_log(network, update_norms=update)
    assert math.exp(log_deviation) == pytest.approx(phi.update / 2, rel=1e-9, abs=1e-300)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(networks, st.integers(0, 7), st.floats(1.0, 4.0))
def test_correction_grows_with_every_norm(drawn, position, factor):
    network, update = drawn
    position %= network.depth
    larger = list(update)
    larger[position] *= factor
    slack = 1 + 1e-12
    assert correction(network, update_norms=update).update <= correction(network, update_norms=larger).update * slack


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from(["dense", "columns"]))
def test_measured_norms_tighten_and_still_cover_the_truth(seed, depth, kind):
    """C <= B's Phi, and above the deviation on the inputs on which the norms were measured."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 7, size=depth + 1)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    base = [rng.normal(size=shape) for shape in shapes]
    update = [rng.normal(size=shape) * rng.uniform(0, 1) for shape in shapes]
    supports = [np.arange(shape[1]) for shape in shapes]
    if kind == "columns":
        supports = [np.sort(rng.choice(shape[1], size=(shape[1] + 1) // 2, replace=False)) for shape in shapes]
        for matrix, support in zip(update, supports, strict=True):
            matrix[:, np.setdiff1d(np.arange(matrix.shape[1]), support)] = 0
    shifts = [rng.normal(size=shape[0]) for shape in shapes]
    inputs = rng.normal(size=(16, widths[0]))

    def run(matrices):
        hidden, seen = inputs, []
        for matrix, shift in zip(matrices, shifts, strict=True):
            seen.append(hidden)
            hidden = np.tanh(hidden @ matrix.T + shift)
        return hidden, seen

    merged = [w + dw for w, dw in zip(base, update, strict=True)]
    outputs, merged_inputs = run(merged)
    plain_outputs, plain_inputs = run(base)
    truth = np.linalg.norm(outputs - plain_outputs, axis=1).max()

    def largest(batches):
        return [np.linalg.norm(batch, axis=1).max() for batch in batches]

    def spectral(matrices):
        return [np.linalg.norm(matrix, 2) for matrix in matrices]

    network = Network(
        base_norms=spectral(base),
        offsets=[np.linalg.norm(np.tanh(shift)) for shift in shifts],
        radius=np.linalg.norm(inputs, axis=1).max(),
    )
    selected = [
        max(np.linalg.norm(one[:, s], axis=1).max(), np.linalg.norm(two[:, s], axis=1).max())
        for one, two, s in zip(plain_inputs, merged_inputs, supports, strict=True)
    ]
    optional = {
        "merged_norms": spectral(merged),
        "merged_input_norms": largest(merged_inputs),
        "base_input_norms": largest(plain_inputs),
        "selected_norms": selected,
    }
    given_norms, previous = {}, deviation_log(network, update_norms=spectral(update))
    assert previous == pytest.approx(correction(network, update_norms=spectral(update)).log_update - math.log(2))
    for name, values in optional.items():
        given_norms[name] = values
        tighter = deviation_log(network, update_norms=spectral(update), **given_norms)
        assert tighter <= previous + 1e-9
        assert truth <= math.exp(tighter) * (1 + 1e-9)
        previous = tighter


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Network(base_norms=[1.0, math.nan]), "base_norms must hold .* got nan at position 1"),
        (lambda: Network(base_norms=[-1.0]), "base_norms must hold .* got -1.0 at position 0"),
        (lambda: Network(base_norms=[]), "base_norms must hold .* shape"),
        (lambda: Network(base_norms=[1.0, 2.0], lipschitz=[1.0]), "lipschitz must hold 2 numbers"),
        (lambda: Network(base_norms=[1.0], radius=math.inf), "radius must be a finite number"),
        (lambda: Network(base_norms=[1.0], loss_lipschitz=-2.0), "loss_lipschitz must be .* got -2.0"),
        (lambda: correction(Network(base_norms=[1.0]), update_norms=[1.0, 2.0]), "update_norms must hold 1 numbers"),
        (lambda: correction(Network(base_norms=[1.0]), update_norms=[math.inf]), "update_norms must .* got inf"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
