"""Closed forms of the exact models against Monte Carlo, against each other, and as the truth that bounds must cover."""

import math
from dataclasses import fields

import numpy as np
import pytest

from theory.solvable.chain import circulant_sketches, gaussian_chain
from theory.solvable.finite import coin_model, coin_posterior, enumerate_model, table_information
from theory.solvable.regression import column_regression, gaussian_mean, linear_regression, sketched_regression


def problem(rng, n=12, m=6, p=2):
    return rng.normal(size=(n, m)), rng.normal(size=(p, m))


def sampled_information(x, y):
    """Gaussian mutual information from sample covariances: independent of every formula under test."""
    both = np.cov(np.hstack([x, y]).T)
    k = x.shape[1]
    logs = [np.linalg.slogdet(c)[1] for c in (both[:k, :k], both[k:, k:], both)]
    return (logs[0] + logs[1] - logs[2]) / 2


MODELS = {
    "mean": lambda rng: gaussian_mean(num_examples=5, dimension=2, data_std=1.5, weight_std=0.4),
    "columns": lambda rng: column_regression(*problem(rng, n=6, m=4), [0, 2], label_std=0.7, weight_std=0.3),
    "sketch": lambda rng: sketched_regression(*problem(rng, n=6, m=4), rng.normal(size=(2, 4)), weight_std=0.5),
    "ridge": lambda rng: linear_regression(
        *[v.T[:6] for v in (np.ones((2, 6)), np.ones((1, 6)))], weight_std=0.2, ridge=2.0
    ),
    "chain": lambda rng: (
        gaussian_chain(
            *problem(rng, n=6, m=4), circulant_sketches(in_features=4, rank=2, links=3), weight_std=0.5
        ).model
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_closed_forms_agree_with_monte_carlo(name):
    model = MODELS[name](np.random.default_rng(20))
    runs = model.simulate(repeats=40_000, rng=np.random.default_rng(21))
    mean, error = runs.gap
    assert abs(mean - model.gap()) < 4.5 * error
    assert abs(runs.test.mean() - model.test_risk()) < 4.5 * runs.test.std() / math.sqrt(len(runs.test))
    # One output at a time (outputs are independent and alike); the bias of a sample estimate is about
    # k n / (2 repeats) < 1e-3 nats and its standard error sqrt(k / repeats), so 0.05 is more than four of them.
    weights, targets = runs.weights[:, :, 0], runs.targets[:, :, 0]
    total = model.outputs * sampled_information(weights, targets)
    assert total == pytest.approx(model.information(), abs=0.05)
    single = [model.outputs * sampled_information(weights, targets[:, i : i + 1]) for i in range(model.num_examples)]
    np.testing.assert_allclose(single, model.individual_informations(), atol=0.03)


@pytest.mark.parametrize("name", MODELS)
def test_bounds_cover_the_gap_and_individual_examples_share_the_information(name):
    model = MODELS[name](np.random.default_rng(22))
    assert 0 < model.gap() <= model.individual_sample()
    assert model.gap() <= model.xu_raginsky()
    for reference in (None, np.zeros((model.features.shape[1], model.outputs))):
        assert model.gap() <= model.excess_individual_sample(reference=reference)
        assert model.gap() <= model.excess_xu_raginsky(reference=reference)
    assert model.individual_informations().sum() <= model.information() + 1e-9


def test_mean_estimation_has_the_textbook_values():
    n, d, s, tau = 8, 3, 2.0, 0.5
    model = gaussian_mean(num_examples=n, dimension=d, data_std=s, weight_std=tau)
    assert model.information() == pytest.approx(d / 2 * math.log(1 + s**2 / (n * tau**2)))
    assert model.gap() == pytest.approx(2 * s**2 * d / n)
    still = gaussian_mean(num_examples=n, dimension=d, data_std=s, weight_std=0.0)
    assert still.information() == math.inf
    assert still.xu_raginsky() == math.inf
    np.testing.assert_allclose(still.individual_informations(), d / 2 * math.log(n / (n - 1)))
    # Bu et al., section IV, d = 1: s^2 (n+1)/n sqrt(2 ln(n/(n-1))); ours uses the exact law and is a little lower.
    one = gaussian_mean(num_examples=n, data_std=s, weight_std=0.0)
    published = s**2 * (n + 1) / n * math.sqrt(2 * math.log(n / (n - 1)))
    assert 0.75 * published < one.individual_sample() < published


def test_xu_raginsky_cumulant_agrees_with_sampling_of_the_product_measure():
    # The bound is (I + ln E exp(lambda (R(B) - R_S(B)))) / lambda at the best lambda; recompute it by sampling B and S
    # independently over a grid of lambda.
    model = MODELS["columns"](np.random.default_rng(23))
    runs = model.simulate(repeats=200_000, rng=np.random.default_rng(24))
    fit = model.features @ runs.weights
    rolled = np.roll(runs.targets, 1, axis=0)
    sample_risk = ((rolled - fit) ** 2).sum(2).mean(1)
    risk = model.outputs * model.label_std**2 + ((model.means - fit) ** 2).sum(2).mean(1)
    grid = np.linspace(0.2, 6, 60)
    sampled = min((model.information() + math.log(np.exp(lam * (risk - sample_risk)).mean())) / lam for lam in grid)
    # sampling error of the log-mean-exp at the best lambda is below one per cent
    assert model.xu_raginsky() == pytest.approx(sampled, rel=0.02)


@pytest.mark.parametrize("start_from_zero", [True, False])
def test_excess_loss_cumulant_agrees_with_sampling_of_the_product_measure(start_from_zero):
    model = MODELS["columns"](np.random.default_rng(33))
    reference = np.zeros((2, model.outputs)) if start_from_zero else model.estimator @ model.means
    runs = model.simulate(repeats=200_000, rng=np.random.default_rng(34))
    noise = np.roll(runs.targets, 1, axis=0) - model.means
    deviation = (2 * noise * (model.features @ (runs.weights - reference))).sum(2).mean(1)
    grid = np.linspace(0.05, 6, 120)
    with np.errstate(over="ignore"):
        sampled = min((model.information() + math.log(np.exp(lam * deviation).mean())) / lam for lam in grid)
    # sampling error of the log-mean-exp below the singularity is a few per cent, and the sample mean falls short of it
    assert model.excess_xu_raginsky(reference=reference) == pytest.approx(sampled, rel=0.05)


def test_excess_loss_makes_individual_samples_asymptotically_exact():
    ratios, losses = [], []
    for n in (8, 32, 128):
        model = gaussian_mean(num_examples=n, dimension=2, weight_std=1 / math.sqrt(n))
        ratios.append(model.excess_individual_sample() / model.gap())
        losses.append(model.individual_sample() / model.gap())
    assert ratios == sorted(ratios, reverse=True)
    assert 1 < ratios[-1] < 1.01
    # the bound on the loss itself falls as 1 / sqrt n: four times the examples double its ratio
    assert losses[2] / losses[1] == pytest.approx(2.0, rel=0.1)


def test_least_squares_gap_counts_trained_numbers_whatever_the_columns():
    rng = np.random.default_rng(25)
    x, w = problem(rng)
    x[:, :2] *= 10.0
    strong = column_regression(x, w, [0, 1], weight_std=0.3)
    weak = column_regression(x, w, [2, 3], weight_std=0.3)
    dense = sketched_regression(x, w, rng.normal(size=(2, 6)), weight_std=0.3)
    for model in (strong, weak, dense):
        assert model.gap() == pytest.approx(2 * model.outputs * 2 / 12)
    # a well-excited column pins its weights down, so the noise hides more of the sample
    assert strong.information() < 0.5 * weak.information()
    assert dense.information() != pytest.approx(weak.information(), rel=0.05)


def test_column_regression_is_a_selector_sketch():
    x, w = problem(np.random.default_rng(26))
    left = column_regression(x, w, [4, 1], weight_std=0.3)
    right = sketched_regression(x, w, np.eye(6)[[4, 1]], weight_std=0.3)
    assert left.information() == pytest.approx(right.information())
    assert left.test_risk() == pytest.approx(right.test_risk())


def random_sketches(rng, count, rank=2, m=6):
    return [rng.normal(size=(rank, m)) for _ in range(count)]


@pytest.mark.parametrize("kind", ["circulant", "random"])
@pytest.mark.parametrize("links", [1, 2, 3, 5])
def test_information_of_a_chain_is_the_sum_over_its_links(kind, links):
    rng = np.random.default_rng(27)
    x, w = problem(rng)
    frozen = (
        circulant_sketches(in_features=6, rank=2, links=links) if kind == "circulant" else random_sketches(rng, links)
    )
    chain = gaussian_chain(x, w, frozen, label_std=0.8, weight_std=0.4)
    assert chain.link_informations().sum() == pytest.approx(chain.model.information(), rel=1e-9)
    assert (chain.link_informations() > 0).all()
    assert chain.merged_information() <= chain.model.information() + 1e-9


def test_merged_update_equals_the_links_until_windows_wrap_and_less_after():
    x, w = problem(np.random.default_rng(28))
    for links in (1, 2, 3):
        chain = gaussian_chain(x, w, circulant_sketches(in_features=6, rank=2, links=links), weight_std=0.4)
        assert chain.merged_information() == pytest.approx(chain.model.information(), rel=1e-9)
    wrapped = gaussian_chain(x, w, circulant_sketches(in_features=6, rank=2, links=6), weight_std=0.4)
    assert wrapped.merged_information() < 0.9 * wrapped.model.information()


def test_chain_link_information_agrees_with_sampled_conditional_information():
    x, w = problem(np.random.default_rng(29), n=5, m=4, p=1)
    chain = gaussian_chain(x, w, circulant_sketches(in_features=4, rank=2, links=2), weight_std=0.5)
    runs = chain.model.simulate(repeats=40_000, rng=np.random.default_rng(30))
    b, y = runs.weights[:, :, 0], runs.targets[:, :, 0]
    # I(B_2; S | B_1) = I(B_2; S, B_1) - I(B_2; B_1), each from sample covariances
    second = sampled_information(b[:, 2:], np.hstack([y, b[:, :2]])) - sampled_information(b[:, 2:], b[:, :2])
    np.testing.assert_allclose(
        [sampled_information(b[:, :2], y), second], chain.link_informations(), atol=0.05
    )  # four standard errors, as above


def test_one_link_is_plain_column_regression():
    x, w = problem(np.random.default_rng(31))
    chain = gaussian_chain(x, w, circulant_sketches(in_features=6, rank=3, links=1), weight_std=0.3)
    model = column_regression(x, w, [0, 1, 2], weight_std=0.3)
    assert chain.model.information() == pytest.approx(model.information())
    assert chain.model.gap() == pytest.approx(model.gap())


def test_circulant_windows_cover_every_column_even_when_rank_does_not_divide():
    sketches = circulant_sketches(in_features=7, rank=3, links=3)
    np.testing.assert_array_equal(np.vstack(sketches), np.eye(7))


@pytest.mark.parametrize("num_examples", [1, 2, 4])
@pytest.mark.parametrize("probability", [0.5, 0.3])
@pytest.mark.parametrize("inverse_temperature", [0.0, 0.4, math.inf])
def test_coin_sums_over_counts_equal_full_enumeration(num_examples, probability, inverse_temperature):
    quick = coin_model(num_examples=num_examples, probability=probability, inverse_temperature=inverse_temperature)
    slow = enumerate_model(
        [[0, 1], [1, 0]],
        [1 - probability, probability],
        num_examples=num_examples,
        inverse_temperature=inverse_temperature,
    )
    for field in fields(quick):
        np.testing.assert_allclose(
            getattr(quick, field.name), getattr(slow, field.name), atol=1e-12, err_msg=field.name
        )


def test_every_bound_covers_the_exact_gap_on_random_finite_models():
    rng = np.random.default_rng(32)
    tightest = {}
    for trial in range(60):
        size, hypotheses = int(rng.integers(2, 4)), int(rng.integers(2, 5))
        losses = rng.random((hypotheses, size))
        if trial % 2:
            losses = (losses < 0.5).astype(float)
        truth = enumerate_model(
            losses,
            rng.dirichlet(np.ones(size)),
            num_examples=int(rng.integers(1, 4)),
            inverse_temperature=float(rng.choice([0.5, 2.0, math.inf])),
        )
        assert truth.gap >= -1e-12
        assert truth.ld_mi <= truth.pair + 1e-12 <= truth.e_cmi + 2e-12
        assert truth.e_cmi <= truth.f_cmi + 1e-12
        assert truth.f_cmi * truth.num_examples <= truth.cmi + 1e-9
        assert truth.individual * truth.num_examples <= truth.sample + 1e-9
        assert truth.cmi <= truth.sample + 1e-12
        for name, value in truth.bounds().items():
            assert value >= truth.gap - 1e-9, name
            if truth.gap > 1e-6:
                tightest[name] = min(tightest.get(name, math.inf), value / truth.gap)
    # none of them is vacuous: each comes within a factor of 2.5 of the truth somewhere
    assert max(tightest.values()) < 2.5


def test_interpolating_learner_has_its_risk_in_the_information_exactly():
    # Thresholds on four ordered points, labels given by one of them: the minimiser always fits.
    points, thresholds = np.arange(4), np.arange(5)
    labels = points >= 2
    losses = ((points[None] >= thresholds[:, None]) != labels).astype(float)
    truth = enumerate_model(losses, [0.1, 0.4, 0.3, 0.2], num_examples=3)
    assert truth.train_risk == 0
    assert truth.ld_mi / math.log(2) == pytest.approx(truth.risk, abs=1e-12)
    assert truth.bounds()["fast-rate"] == pytest.approx(truth.risk, abs=1e-9)


def test_fair_coin_is_where_individual_samples_are_asymptotically_exact():
    truth = coin_model(num_examples=401)
    ratios = {name: value / truth.gap for name, value in truth.bounds().items()}
    assert truth.gap == pytest.approx(1 / math.sqrt(2 * math.pi * 401), rel=2e-3)
    for name in ("individual", "single-loss", "ld-mi-magnitude"):
        assert 1 <= ratios[name] < 1.001
    # sqrt(pi ln 2) from one bit of information, sqrt 2 from half of the rows being ties
    assert ratios["bits"] == pytest.approx(math.sqrt(math.pi * math.log(2)), rel=5e-3)
    assert ratios["ld-mi"] == pytest.approx(math.sqrt(2), rel=5e-3)


def test_cold_posterior_learns_more_than_a_hot_one():
    values = [coin_model(num_examples=20, inverse_temperature=b).sample for b in (0.0, 0.01, 0.1, 1.0, math.inf)]
    assert values[0] == pytest.approx(0.0, abs=1e-12)
    assert values == sorted(values)
    assert values[-1] < math.log(2)
    assert coin_posterior(3).tolist() == [0, 0, 1, 1]


def test_table_information_of_independent_and_of_equal_symbols():
    assert table_information(np.outer([0.2, 0.8], [0.5, 0.3, 0.2])) == pytest.approx(0.0, abs=1e-15)
    assert table_information(np.eye(8)) == pytest.approx(math.log(8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_mean(num_examples=0, weight_std=1.0), "num_examples"),
        (lambda: gaussian_mean(num_examples=3, weight_std=-1.0), "weight_std"),
        (lambda: gaussian_mean(num_examples=3, data_std=0.0, weight_std=1.0), "data_std"),
        (lambda: linear_regression(np.ones((3, 2)), np.ones((3, 1)), weight_std=1.0), "features"),
        (lambda: linear_regression([[math.nan]], [[1.0]], weight_std=1.0), "features"),
        (lambda: linear_regression(np.eye(3), np.ones((2, 1)), weight_std=1.0), "means"),
        (lambda: column_regression(np.eye(3), np.ones((1, 3)), [0, 0], weight_std=1.0), "columns"),
        (lambda: column_regression(np.eye(3), np.ones((1, 3)), [3], weight_std=1.0), "columns"),
        (lambda: circulant_sketches(in_features=4, rank=5, links=1), "rank"),
        (lambda: gaussian_chain(np.eye(3), np.ones((1, 3)), [], weight_std=1.0), "sketches"),
        (lambda: enumerate_model([[0, 2]], [0.5, 0.5], num_examples=1), "losses"),
        (lambda: enumerate_model([[0, 1]], [0.5, 0.6], num_examples=1), "probabilities"),
        (lambda: enumerate_model([[0, 1], [1, 0]], [0.5, 0.5], num_examples=12), "num_examples"),
        (lambda: coin_model(num_examples=3, probability=1.0), "probability"),
        (lambda: coin_model(num_examples=3, inverse_temperature=-1.0), "inverse_temperature"),
        (
            lambda: gaussian_mean(num_examples=3, weight_std=1.0).simulate(repeats=1, rng=np.random.default_rng(0)),
            "repeats",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
