"""Coverage of every certificate: simulated worlds whose true risk is known, and an adversary who picks.

Each test runs 4,000 experiments at delta = 0.1 and counts how often a bound fails for any word of the
code (or for the word an oracle would pick). The rate may exceed delta by three standard deviations of
its own binomial noise, sqrt(0.1 * 0.9 / 4000) = 0.0047; each test also states how tight the bound is.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.certificates import (
    choice_bits,
    cross_entropy_bound,
    disagreement_bound,
    empirical_bernstein,
    excess_loss_bound,
    fold_bound,
    gaussian_divergence,
    gibbs_risk_upper,
    kraft_sum,
    occam_bound,
    pac_bayes_kl_bound,
    recursive_bound,
    smoothed_cross_entropy,
    smoothed_range,
    spare_bits,
    subsampled_bound,
)
from theory.kl import binary_kl

EXPERIMENTS = 4000
DELTA = 0.1
ALLOWED = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / EXPERIMENTS)


@pytest.fixture
def rng():
    return np.random.default_rng(20260613)


def _pick(array, index):
    return np.take_along_axis(array, index[:, None], 1)[:, 0]


def test_occam_covers_every_word_of_a_nonuniform_code(rng):
    lengths = np.concatenate([np.full(4, 4), np.full(48, 6)])
    assert kraft_sum(lengths) == 1.0
    risk = rng.uniform(0.05, 0.4, size=lengths.size)
    empirical = rng.binomial(400, risk, size=(EXPERIMENTS, lengths.size)) / 400
    bound = occam_bound(empirical, bits=lengths, num_examples=400, delta=DELTA).value
    failures = (risk > bound).any(axis=1).mean()
    # Chernoff loses a factor of a few against the exact binomial tail, no more: not a vacuous bound.
    assert DELTA / 20 <= failures <= ALLOWED
    # 400 examples, 6 bits: kl ~ 0.016, that is about 0.18 * sqrt(risk (1 - risk)) above.
    assert (bound <= 1.9 * np.maximum(empirical, 0.05) + 0.02).all()
    assert np.median(bound / risk) <= 1.6


def test_occam_covers_losses_between_zero_and_one(rng):
    words, n = 8, 100
    losses = rng.beta(0.2, 0.8, size=(EXPERIMENTS, words, n))
    bound = occam_bound(3 * losses.mean(axis=-1), bits=3, num_examples=n, delta=DELTA, loss_range=3.0).value
    assert 0 < (bound < 3 * 0.2).any(axis=1).mean() <= ALLOWED
    assert np.median(bound) <= 2 * 3 * 0.2


def test_ignoring_the_union_over_the_words_fails(rng):
    risk = np.full(256, 0.3)
    empirical = rng.binomial(500, risk, size=(EXPERIMENTS, 256)) / 500
    unpaid = occam_bound(empirical, bits=0, num_examples=500, delta=DELTA).value
    paid = occam_bound(empirical, bits=choice_bits([256]), num_examples=500, delta=DELTA).value
    assert (risk > unpaid).any(axis=1).mean() > 0.9
    assert (risk > paid).any(axis=1).mean() <= ALLOWED


@pytest.mark.parametrize("form", ["kl", "hoeffding"])
def test_subsampling_covers_and_kl_is_never_looser(rng, form):
    words, n, k = 16, 2000, 400
    wrong = rng.binomial(n, 0.2, size=(EXPERIMENTS, words))
    chosen = wrong.argmin(axis=1)
    sampled = rng.hypergeometric(_pick(wrong, chosen), n - _pick(wrong, chosen), k) / k
    sizes = {"bits": 4, "num_examples": n, "num_sampled": k, "delta": DELTA}
    bound = subsampled_bound(sampled, form=form, **sizes).value
    assert (bound < 0.2).mean() <= ALLOWED
    assert np.median(bound) <= 1.7 * 0.2
    assert (
        subsampled_bound(sampled, form="kl", **sizes).value
        <= subsampled_bound(sampled, form="hoeffding", **sizes).value
    ).all()


def test_smoothed_cross_entropy_covers_with_the_best_alpha_of_the_grid(rng):
    values, law = np.array([0.999, 0.6, 1e-9]), np.array([0.85, 0.1, 0.05])
    n, words, alphas = 300, 4, (0.02, 0.05, 0.1, 0.2)
    probability = values[rng.choice(3, p=law, size=(EXPERIMENTS, words, n))]
    found = cross_entropy_bound(probability, bits=2, num_classes=6, delta=DELTA, alphas=alphas)
    truths = np.array([law @ smoothed_cross_entropy(values, alpha=a, num_classes=6) for a in alphas])
    truth = truths[np.searchsorted(alphas, found.alpha)]
    assert (found.bound.value < truth).any(axis=1).mean() <= ALLOWED
    assert np.median(found.bound.value / truth) <= 2
    low, high = smoothed_range(0.05, num_classes=6)
    reached = smoothed_cross_entropy([1.0, 0.0], alpha=0.05, num_classes=6)
    np.testing.assert_allclose(reached, [low, high], rtol=1e-12)


def test_pac_bayes_covers_the_posterior_that_an_oracle_picks_against_it(rng):
    words, n = 32, 500
    risk = rng.uniform(0.1, 0.4, size=words)
    empirical = rng.binomial(n, risk, size=(EXPERIMENTS, words)) / n
    tilt = np.where(empirical < risk, n * binary_kl(empirical, risk), 0.0)
    for temperature in (0.5, 1.0):
        posterior = np.exp(temperature * tilt - (temperature * tilt).max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        divergence = (posterior * np.log(np.maximum(posterior, 1e-300) * words)).sum(axis=1).clip(min=0)
        gibbs = (posterior * empirical).sum(axis=1)
        bound = pac_bayes_kl_bound(gibbs, divergence=divergence, num_examples=n, delta=DELTA).value
        truth = (posterior * risk).sum(axis=1)
        assert (bound < truth).mean() <= ALLOWED
        assert np.median(bound / truth) <= 1.5


def test_the_constant_of_pac_bayes_kl_is_two_root_n():
    # E exp(n kl(K/n || p)) for Binomial K does not depend on p: sum_k C(n,k) (k/n)^k (1-k/n)^(n-k).
    for n in (1, 2, 3, 8, 50, 150):
        moment = sum(
            Fraction(math.comb(n, k)) * Fraction(k, n) ** k * Fraction(n - k, n) ** (n - k) for k in range(n + 1)
        )
        assert moment**2 <= 4 * n
        assert moment**2 >= n


def test_gibbs_sampling_covers(rng):
    sampled = rng.binomial(300, 0.15, size=EXPERIMENTS) / 300
    bound = gibbs_risk_upper(sampled, num_draws=300, delta=DELTA).value
    assert DELTA / 10 <= (bound < 0.15).mean() <= ALLOWED
    assert np.median(bound) <= 1.4 * 0.15


def test_gaussian_divergence_agrees_with_simulation(rng):
    shift, scale = np.array([0.3, -1.0]), np.array([0.5, 1.5])
    draws = shift + scale * rng.standard_normal((400_000, 2))
    log_ratio = -0.5 * ((draws - shift) / scale) ** 2 - np.log(scale) + 0.5 * (draws / 2.0) ** 2 + np.log(2.0)
    expected = gaussian_divergence(shift, posterior_scale=scale, prior_scale=2.0)
    # The log ratio's standard deviation is about 1.1: 400,000 draws leave 0.0018.
    assert abs(log_ratio.sum(axis=1).mean() - expected) <= 0.008


def test_empirical_bernstein_covers_and_beats_hoeffding_on_small_variance(rng):
    values = (rng.random((EXPERIMENTS, 1000)) < 0.02).astype(float)
    bound = empirical_bernstein(values, complexity=0.0, delta=DELTA).value
    assert (bound < 0.02).mean() <= ALLOWED
    assert np.median(bound) <= 2 * 0.02
    assert np.median(bound) < 0.02 + math.sqrt(math.log(1 / DELTA) / 2000)


@pytest.mark.parametrize("base", ["hoeffding", "kl"])
def test_excess_loss_covers(rng, base):
    words, n, bits = 4, 1000, 2
    old = (rng.random((EXPERIMENTS, 1, n)) < 0.3).astype(float)
    mended = rng.random((EXPERIMENTS, words, n)) < 0.05
    new = np.where(mended, 0.0, old)
    bound = excess_loss_bound(new, np.broadcast_to(old, new.shape), bits=bits, delta=DELTA, base=base).value
    truth = 0.3 * 0.95
    assert (bound < truth).any(axis=1).mean() <= ALLOWED
    assert np.median(bound) <= 1.4 * truth


def test_the_excess_form_beats_occam_when_few_losses_change(rng):
    old = (rng.random(20_000) < 0.3).astype(float)
    new = np.where(rng.random(20_000) < 0.01, 0.0, old)
    excess = excess_loss_bound(new, old, bits=100, delta=DELTA).value
    assert new.mean() < excess < occam_bound(new.mean(), bits=100, num_examples=20_000, delta=DELTA).value


def _chain(rng, risks, words, sizes):
    """Errors of W_0..W_k; link j is the best of ``words`` candidates on folds 1..j (so it overfits)."""
    n, ends = sum(sizes), np.cumsum(sizes)
    links = [rng.random((EXPERIMENTS, n)) < risks[0]]
    for end, risk in zip(ends, risks[1:], strict=True):
        candidates = rng.random((EXPERIMENTS, words, n)) < risk
        best = candidates[:, :, :end].mean(axis=-1).argmin(axis=1)
        links.append(np.take_along_axis(candidates, best[:, None, None], 1)[:, 0])
    return np.stack(links, axis=1).astype(float)


def test_chain_certificates_cover_every_link(rng):
    risks, sizes, words = np.array([0.5, 0.3, 0.2]), [100, 200], 8
    errors = _chain(rng, risks, words, sizes)
    bits = [3.0, 3.0]
    recursive = recursive_bound(errors, bits=bits, fold_sizes=sizes, delta=DELTA).value
    assert (recursive < risks).any(axis=1).mean() <= ALLOWED
    on_fold = np.stack([errors[:, 1, :100].mean(axis=-1), errors[:, 2, 100:].mean(axis=-1)], axis=1)
    folds = fold_bound(on_fold, bits=bits, fold_sizes=sizes, delta=DELTA).value
    assert (folds < risks[1:]).any(axis=1).mean() <= ALLOWED
    assert (np.median(folds, axis=0) <= 1.6 * risks[1:]).all()
    # Independent errors are the recursion's worst case: it pays for three indicators of half the loss.
    assert (np.median(recursive, axis=0) <= 2.2 * risks).all()


def test_the_recursion_gains_when_links_change_little(rng):
    n = 2000
    base = (rng.random(n) < 0.2).astype(float)
    errors = np.stack([base, base, base])
    bits = [400.0, 400.0]
    recursive = recursive_bound(errors, bits=bits, fold_sizes=[n // 2, n // 2], delta=DELTA, gamma=1.0).value
    whole = occam_bound(base.mean(), bits=sum(bits), num_examples=n, delta=DELTA).value
    assert recursive[1] < occam_bound(base.mean(), bits=bits[0], num_examples=n, delta=DELTA).value
    assert recursive[0] <= recursive[1] <= recursive[2]
    assert whole < 0.6


def test_disagreement_carries_a_surrogates_certificate_over(rng):
    words, n, m = 16, 1000, 500
    surrogate_risk, disagreement = 0.2, 0.03
    wrong = rng.binomial(n, surrogate_risk, size=(EXPERIMENTS, words)).min(axis=1) / n
    differ = rng.binomial(m, disagreement, size=EXPERIMENTS) / m
    surrogate = occam_bound(wrong, bits=4, num_examples=n, delta=DELTA / 2)
    bound = disagreement_bound(surrogate, differ, num_unlabelled=m, delta=DELTA / 2).value
    # Worst case: every disagreement is a new error of the target.
    truth = surrogate_risk + disagreement
    assert (bound < truth).mean() <= ALLOWED
    assert np.median(bound) <= 1.4 * truth


@given(st.floats(0, 0.9), st.floats(0, 5000), st.integers(10, 10_000), st.floats(0.001, 0.5))
def test_occam_moves_the_right_way(risk, bits, n, delta):
    bound = occam_bound(risk, bits=bits, num_examples=n, delta=delta).value
    assert risk <= bound <= 1
    assert bound <= occam_bound(risk, bits=bits + 8, num_examples=n, delta=delta).value + 1e-12
    assert bound >= occam_bound(risk, bits=bits, num_examples=2 * n, delta=delta).value - 1e-12
    assert bound >= occam_bound(risk, bits=bits, num_examples=n, delta=min(2 * delta, 0.9)).value - 1e-12


@given(st.floats(0, 0.4), st.floats(0.01, 0.5))
def test_spare_bits_inverts_occam(risk, gap):
    bits = spare_bits(risk + gap, empirical_risk=risk, num_examples=5452, delta=0.05)
    if bits >= 0:
        # The bound's slope in bits is below 1e-3 here, kl inversion is exact to 1e-12.
        assert abs(occam_bound(risk, bits=bits, num_examples=5452, delta=0.05).value - risk - gap) <= 1e-9


@pytest.mark.parametrize("delta", [0, 1, -0.1, 1.5, float("nan")])
def test_delta_must_lie_strictly_between_zero_and_one(delta):
    surrogate = occam_bound(0.1, bits=1, num_examples=10, delta=0.05)
    for bound in (
        lambda: occam_bound(0.1, bits=1, num_examples=10, delta=delta).value,
        lambda: pac_bayes_kl_bound(0.1, divergence=1, num_examples=10, delta=delta).value,
        lambda: subsampled_bound(0.1, bits=1, num_examples=10, num_sampled=5, delta=delta).value,
        lambda: excess_loss_bound([0, 1], [0, 1], bits=1, delta=delta).value,
        lambda: fold_bound([0.1], bits=1, fold_sizes=[10], delta=delta).value,
        lambda: disagreement_bound(surrogate, 0.1, num_unlabelled=10, delta=delta).value,
    ):
        with pytest.raises(ValueError, match="delta"):
            bound()


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="num_examples must be an integer of at least 2"):
        occam_bound(0.1, bits=1, num_examples=1, delta=0.05)
    with pytest.raises(ValueError, match="must lie in"):
        occam_bound(1.2, bits=1, num_examples=10, delta=0.05)
    with pytest.raises(ValueError, match="bits"):
        occam_bound(0.2, bits=-1, num_examples=10, delta=0.05)
    with pytest.raises(ValueError, match="0 or 1"):
        recursive_bound(np.full((2, 4), 0.5), bits=[1], fold_sizes=[4], delta=0.05)
    with pytest.raises(ValueError, match="gamma"):
        recursive_bound(np.zeros((2, 4)), bits=[1], fold_sizes=[4], delta=0.05, gamma=2)
    with pytest.raises(ValueError, match="span"):
        empirical_bernstein([0.0, 2.0], complexity=0, delta=0.1)
    with pytest.raises(ValueError, match="losses must lie"):
        excess_loss_bound([0, 2], [0, 1], bits=1, delta=0.1)
    with pytest.raises(ValueError, match="alpha"):
        smoothed_range(0.0, num_classes=3)
    with pytest.raises(ValueError, match="target_risk"):
        spare_bits(0.1, empirical_risk=0.2, num_examples=10, delta=0.1)
    with pytest.raises(ValueError, match="divergence"):
        pac_bayes_kl_bound(0.1, divergence=-1.0, num_examples=10, delta=0.1)
