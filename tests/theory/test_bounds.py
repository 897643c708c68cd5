import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from theory import bounds, layers
from theory.methods import METHODS
from theory.networks import Phi
from theory.records import Bound

ROBERTA = layers.for_model("roberta-base")
VIT = layers.for_model("vit-base")
LLAMA = layers.for_model("llama3-8b")


@pytest.mark.parametrize(
    ("shapes", "n", "method", "links", "expected"),
    [
        # sqrt(2 ln2 q X / n) / 2 with X = 16 * 24 * 1536, 16 * 24 * 768 and three times the latter.
        (ROBERTA, 3668, "lora", 1, 29.9),
        (ROBERTA, 3668, "cla", 1, 21.1),
        (ROBERTA, 3668, "rac", 3, 36.6),
        (VIT, 50_000, "lora", 1, 8.1),
        (VIT, 50_000, "paca", 1, 5.7),
        (VIT, 50_000, "c3la", 3, 9.9),
    ],
)
def test_table1_gives_the_hand_worked_numbers(shapes, n, method, links, expected):
    bound = bounds.table1(shapes, method=method, num_examples=n, links=links)
    assert round(bound.value, 1) == expected
    assert bound.vacuous
    assert bound.kind == "expectation"


def test_bits_budget_of_a_bound_of_one_is_two_n_over_ln2():
    # sigma sqrt(2 ln2 b / n) = 1 at b = 2 n / ln 2 for sigma = 1/2: 10,583 bits for MRPC.
    budget = 2 * 3668 / math.log(2)
    assert int(budget) == 10_583
    assert bounds.direct(budget, num_examples=3668).value == pytest.approx(1.0)
    assert not bounds.direct(0.99 * budget, num_examples=3668).vacuous


def test_table1_adds_the_correction_term_also_beyond_float64():
    phi = Phi(log_update=0.0, log_base=math.log(2.5))
    root = bounds.table1(ROBERTA, method="cla", num_examples=3668)
    whole = bounds.table1(ROBERTA, method="cla", num_examples=3668, phi=phi)
    assert whole.value == pytest.approx(root.value + 2.5)
    huge = bounds.table1(ROBERTA, method="cla", num_examples=3668, phi=Phi(log_update=0.0, log_base=5000.0))
    assert huge.log_value == pytest.approx(5000.0)
    assert math.isinf(huge.value)
    assert huge.vacuous


counts = st.integers(1, 10**7)
sigmas = st.floats(0.01, 10)
logs = st.floats(-50, 50)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=5),
    st.sampled_from(list(METHODS)),
    counts,
    sigmas,
    st.integers(1, 5),
    logs,
)
def test_direct_bound_is_never_above_table1(shapes, method, n, sigma, links, log_base):
    """A <= Table 1."""
    setting = {"num_examples": n, "sigma": sigma}
    phi = Phi(log_update=0.0, log_base=log_base)
    table = bounds.table1(shapes, method=method, rank=1, links=links, phi=phi, **setting)
    found = {one.name: one for one in bounds.evaluate(shapes, method=method, rank=1, links=links, **setting)}
    assert found["direct"].log_value <= table.log_value + 1e-12
    assert found["cheapest"].log_value <= found["direct"].log_value
    assert found["direct"].value == pytest.approx(found["table1-root"].value)
    for name in ("support", "gauge-fixed"):
        assert name not in found or found["cheapest"].log_value <= found[name].log_value


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(0, 1e9), counts, sigmas, st.floats(0, 100))
def test_excess_bound_is_never_above_direct_nor_above_phi(bits, n, sigma, change):
    """B <= A, and B <= Phi_dW = 2 D whatever the information."""
    setting = {"num_examples": n, "sigma": sigma}
    excess = bounds.excess(bits, loss_change=change, **setting)
    assert excess.log_value <= bounds.direct(bits, **setting).log_value
    assert excess.value <= 2 * change * (1 + 1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(1, 1e9), counts, sigmas, st.floats(1.01, 50))
def test_bounds_shrink_with_examples_and_grow_with_bits_and_sigma(bits, n, sigma, factor):
    value = bounds.direct(bits, num_examples=n, sigma=sigma).value
    assert bounds.direct(bits, num_examples=4 * n, sigma=sigma).value == pytest.approx(value / 2)
    assert bounds.direct(bits * factor**2, num_examples=n, sigma=sigma).value == pytest.approx(factor * value)
    assert bounds.direct(bits, num_examples=n, sigma=sigma * factor).value == pytest.approx(factor * value)


def test_excess_bound_tends_to_nothing_with_the_cap_and_with_the_sample():
    values = [bounds.excess(1e6, loss_change=0.5**k, num_examples=1000).value for k in range(30)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-8
    assert bounds.excess(1e3, loss_change=1.0, num_examples=10**12).value < 1e-4
    assert bounds.excess(1e3, loss_change=0.0, num_examples=10).value == 0.0
    assert bounds.excess(0.0, loss_change=1.0, num_examples=10).value == 0.0


def test_unknown_loss_change_leaves_the_direct_bound():
    excess = bounds.excess(5e5, loss_change=math.inf, num_examples=1000)
    assert excess.value == bounds.direct(5e5, num_examples=1000).value


@pytest.mark.parametrize("n", [10, 101, 1000])
@pytest.mark.parametrize("change", [0.01, 0.5])
def test_one_bit_learner_obeys_the_bounds_within_a_factor_of_four(n, change):
    """Exact truth: W0 loses 1/2, the other choice 1/2 + D z with z = +-1 fair; one bit says which, by training loss.

    gen = -D mean(z) where the mean is negative, so E gen = D E|mean z| / 2, summed exactly over the binomial.
    """
    successes = np.arange(n + 1)
    mean = 2 * successes / n - 1
    truth = change * float(np.sum(binom.pmf(successes, n, 0.5) * np.abs(mean))) / 2
    excess = bounds.excess(1, loss_change=change, num_examples=n).value
    assert truth < excess < 4 * truth
    assert excess <= bounds.direct(1, num_examples=n).value


def test_gauge_fixed_factors_rebuild_the_product():
    """Constructive: r(m+n-r) numbers and r column names rebuild B A exactly."""
    rng = np.random.default_rng(0)
    rows, columns, rank = 9, 12, 3
    left, right = rng.normal(size=(rows, rank)), rng.normal(size=(rank, columns))
    product = left @ right
    pivots = np.sort(rng.choice(columns, size=rank, replace=False))
    others = np.setdiff1d(np.arange(columns), pivots)
    stored_columns = product[:, pivots]
    stored_mix = np.linalg.lstsq(stored_columns, product[:, others], rcond=None)[0]
    numbers = bounds.gauge_fixed_numbers(out_features=rows, in_features=columns, rank=rank)
    assert stored_columns.size + stored_mix.size == numbers == rank * (rows + columns - rank)
    rebuilt = np.empty_like(product)
    rebuilt[:, pivots], rebuilt[:, others] = stored_columns, stored_columns @ stored_mix
    np.testing.assert_allclose(rebuilt, product, atol=1e-12)


@pytest.mark.parametrize(("total", "chosen"), [(5, 0), (5, 5), (10, 3), (768, 16), (4096, 64)])
def test_log2_binomial_agrees_with_whole_numbers(total, chosen):
    assert bounds.log2_binomial(total, chosen) == pytest.approx(math.log2(math.comb(total, chosen)), abs=1e-8)


def test_information_and_bits_agree():
    nats = 123.0
    by_bits = bounds.direct(nats / math.log(2), num_examples=77, sigma=0.3).value
    assert bounds.information(nats, num_examples=77, sigma=0.3).value == pytest.approx(by_bits)
    assert by_bits == pytest.approx(0.3 * math.sqrt(2 * nats / 77))


@pytest.mark.parametrize("kept", [1, 4, 16])
def test_column_energy_gains_what_the_selected_share_of_a_bounded_activation_leaves(kept):
    """|h_i| <= 1 a priori (tanh): |h_S| <= sqrt(r) where |h| <= sqrt(m), so cLA's D shrinks by sqrt(r / m)."""
    width = 16
    network = bounds.Network(base_norms=[1.0], radius=math.sqrt(width))
    whole = bounds.deviation_log(network, update_norms=[0.1])
    selected = bounds.deviation_log(network, update_norms=[0.1], selected_norms=[math.sqrt(kept)])
    assert math.exp(selected - whole) == pytest.approx(math.sqrt(kept / width))


def test_certificate_is_a_high_probability_bound_on_the_risk_and_needs_a_bounded_loss():
    found = bounds.certificate(500, empirical_risk=0.05, num_examples=5452, delta=0.05)
    assert (found.kind, found.confidence, found.vacuous) == ("high-probability", 0.95, False)
    # Pinsker: R <= Rhat + sqrt((b ln2 + ln(1/delta)) / (2n)), never better than the inversion.
    pinsker = 0.05 + math.sqrt((500 * math.log(2) + math.log(20)) / (2 * 5452))
    assert 0.05 < found.value < pinsker
    counted = 16 * bounds.method_numbers(ROBERTA, method="cla", rank=16)
    assert bounds.certificate(counted, empirical_risk=0.05, num_examples=3668, delta=0.05).vacuous
    with pytest.raises(ValueError, match=r"loss_range must be a finite number above 0, got inf"):
        bounds.certificate(1, empirical_risk=0.1, num_examples=9, delta=0.1, loss_range=math.inf)
    with pytest.raises(ValueError, match=r"delta must lie strictly between 0 and 1, got 1.0"):
        bounds.certificate(1, empirical_risk=0.1, num_examples=9, delta=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_bound_takes_as_many_lines_of_python_for_each_further_layer(method, count_lines):
    def work(copies: int) -> int:
        network = bounds.Network(base_norms=np.full(64 * copies, 3.0), radius=10.0)
        options = {"num_examples": 9074, "links": 3, "network": network, "update_norms": 0.1}
        return count_lines(lambda: bounds.evaluate(LLAMA * copies, method=method, **options))

    one, two, three = (work(copies) for copies in (1, 2, 3))
    assert three - two == two - one > 0


def test_bound_records_say_what_must_be_said():
    found = bounds.evaluate(ROBERTA, method="lora", num_examples=3668, loss_change=0.1)
    assert {one.name for one in found} == {"table1-root", "direct", "support", "gauge-fixed", "cheapest", "excess"}
    for bound in found:
        assert bound.assumptions
        assert "arXiv:" in bound.source
        assert bound.unit == "loss"
        assert bound.loss_range == 1.0
        assert json.loads(json.dumps(bound.to_dict()))["vacuous"] == bound.vacuous


def test_bound_record_checks_itself():
    with pytest.raises(ValueError, match=r"delta must be given for a high-probability bound alone"):
        Bound(name="x", kind="high-probability", source="s", value=0.1)
    with pytest.raises(ValueError, match=r"kind must be one of"):
        Bound(name="x", kind="certain", source="s", value=0.1)
    with pytest.raises(ValueError, match=r"value must be given, or log_value"):
        Bound(name="x", kind="expectation", source="s")
    assert Bound(name="x", kind="expectation", source="s", value=3.0, unit="nats").vacuous is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_examples": 0}, "num_examples must be an integer of at least 1, got 0"),
        ({"sigma": 0.0}, "sigma must be a finite number above 0, got 0.0"),
        ({"sigma": math.nan}, "sigma must be .* got nan"),
        ({"bits": -1}, "bits must be .* above 0, got -1"),
        ({"bits": math.inf}, "bits must be .* got inf"),
        ({"rank": 0}, "rank must be an integer of at least 1, got 0"),
        ({"rank": -4}, "rank must be .* got -4"),
        ({"rank": 769}, "rank must be at most in_features 768 of .* got 769"),
        ({"links": 0}, "links must be .* got 0"),
        ({"loss_range": -1.0}, "loss_range must be .* got -1.0"),
        ({"method": "dora"}, "unknown method 'dora'"),
    ],
)
@pytest.mark.parametrize("function", [bounds.table1, bounds.evaluate])
def test_bad_input_is_named(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(ROBERTA, **{"method": "lora", "num_examples": 100, **options})


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match=r"num_examples must be an integer .* got 3.5 of type float"):
        bounds.direct(1, num_examples=3.5)
    with pytest.raises(TypeError, match=r"num_examples .* got True"):
        bounds.direct(1, num_examples=True)
    with pytest.raises(TypeError, match=r"bits .* got '16'"):
        bounds.table1(ROBERTA, method="cla", num_examples=10, bits="16")
    with pytest.raises(ValueError, match=r"rank must be an integer of at least 1 and at most 4, got 5"):
        bounds.gauge_fixed_numbers(out_features=4, in_features=9, rank=5)
    with pytest.raises(ValueError, match=r"chosen must be .* got 11"):
        bounds.log2_binomial(10, 11)


def test_a_frame_keeps_gap_and_risk_apart_and_its_latex_fits_a_column():
    gaps = bounds.evaluate(ROBERTA, method="lora", num_examples=3668)
    risk = bounds.certificate(500, empirical_risk=0.05, num_examples=5452, delta=0.05)
    frame = bounds.bounds_frame([*gaps, risk])
    assert (frame["gap"].isna() == (frame["bound"] == "certificate")).all()
    assert (frame["risk"].notna() == (frame["bound"] == "certificate")).all()
    lines = frame.to_latex().splitlines()
    # 3.3 inches of 7-point type hold about 65 characters.
    assert max(len(line) for line in lines if not line.startswith("%")) <= 65
    assert sum(line.count("&") == 4 for line in lines) == len(frame) + 1
