"""How often does a certificate fail, and how far is it from the truth? Simulated worlds with a known risk.

In each world several predictors compete and the one that looks best on the sample is certified, as a
training run would do; the violation rate must not exceed delta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theory.certificates import (
    cross_entropy_bound,
    disagreement_bound,
    excess_loss_bound,
    fold_bound,
    occam_bound,
    pac_bayes_kl_bound,
    recursive_bound,
    smoothed_cross_entropy,
    subsampled_bound,
)
from theory.checks import check_integer, check_probability
from theory.records import Bound

__all__ = ["coverage_table"]

_WORDS, _BITS, _EXAMPLES = 16, 4, 500
Worlds = tuple[Bound | NDArray[np.float64], NDArray[np.float64]]


def _best(rng: np.random.Generator, experiments: int, risk: float, n: int = _EXAMPLES) -> NDArray[np.float64]:
    """Errors of the candidate that looks best on n examples, shape (experiments,)."""
    return rng.binomial(n, risk, size=(experiments, _WORDS)).min(axis=1) / n


def _occam(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    risk = _best(rng, experiments, 0.2)
    return occam_bound(risk, bits=_BITS, num_examples=_EXAMPLES, delta=delta), np.full(experiments, 0.2)


def _subsampled(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    wrong = np.rint(_best(rng, experiments, 0.2) * _EXAMPLES).astype(int)
    sampled = rng.hypergeometric(wrong, _EXAMPLES - wrong, 200) / 200
    bound = subsampled_bound(sampled, bits=_BITS, num_examples=_EXAMPLES, num_sampled=200, delta=delta)
    return bound, np.full(experiments, 0.2)


def _pac_bayes(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    risk = rng.uniform(0.1, 0.4, size=_WORDS)
    empirical = rng.binomial(_EXAMPLES, risk, size=(experiments, _WORDS)) / _EXAMPLES
    weights = np.exp(-0.3 * _EXAMPLES * (empirical - empirical.min(axis=1, keepdims=True)))
    posterior = weights / weights.sum(axis=1, keepdims=True)
    divergence = (posterior * np.log(np.maximum(posterior, 1e-300) * _WORDS)).sum(axis=1).clip(min=0)
    gibbs = (posterior * empirical).sum(axis=1)
    bound = pac_bayes_kl_bound(gibbs, divergence=divergence, num_examples=_EXAMPLES, delta=delta)
    return bound, posterior @ risk


def _cross_entropy(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    values, law, alphas = np.array([0.999, 0.6, 1e-9]), np.array([0.85, 0.1, 0.05]), (0.02, 0.05, 0.1, 0.2)
    probability = values[rng.choice(3, p=law, size=(experiments, 2, _EXAMPLES))]
    chosen = np.log(probability).mean(axis=-1).argmax(axis=1)
    probability = np.take_along_axis(probability, chosen[:, None, None], 1)[:, 0]
    found = cross_entropy_bound(probability, bits=1, num_classes=6, delta=delta, alphas=alphas)
    truth = np.array([law @ smoothed_cross_entropy(values, alpha=a, num_classes=6) for a in alphas])
    return found.bound, truth[np.searchsorted(alphas, found.alpha)]


def _excess(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    old = (rng.random((experiments, 1, _EXAMPLES)) < 0.3).astype(float)
    new = np.where(rng.random((experiments, 4, _EXAMPLES)) < 0.05, 0.0, old)
    best = np.take_along_axis(new, new.mean(axis=-1).argmin(axis=1)[:, None, None], 1)[:, 0]
    return excess_loss_bound(best, old[:, 0], bits=2, delta=delta), np.full(experiments, 0.3 * 0.95)


def _chain(rng: np.random.Generator, experiments: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors of W0 and two links that each mend a part of the errors before, and their risks."""
    errors, risks = [(rng.random((experiments, _EXAMPLES)) < 0.4)], [0.4]
    for end in (_EXAMPLES // 2, _EXAMPLES):
        candidates = errors[-1][:, None] & (rng.random((experiments, 4, _EXAMPLES)) < 0.7)
        best = candidates[:, :, :end].mean(axis=-1).argmin(axis=1)
        errors.append(np.take_along_axis(candidates, best[:, None, None], 1)[:, 0])
        risks.append(0.7 * risks[-1])
    return np.stack(errors, axis=1).astype(float), np.array(risks)


def _folds(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    errors, risks = _chain(rng, experiments)
    half = _EXAMPLES // 2
    on_fold = np.stack([errors[:, 1, :half].mean(axis=-1), errors[:, 2, half:].mean(axis=-1)], axis=1)
    bound = fold_bound(on_fold, bits=2, fold_sizes=[half, half], delta=delta)
    return np.asarray(bound.value)[:, 1], np.full(experiments, risks[2])


def _recursive(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    errors, risks = _chain(rng, experiments)
    half = _EXAMPLES // 2
    bound = recursive_bound(errors, bits=[2, 2], fold_sizes=[half, half], delta=delta)
    return np.asarray(bound.value)[:, 2], np.full(experiments, risks[2])


def _disagreement(rng: np.random.Generator, experiments: int, delta: float) -> Worlds:
    surrogate = occam_bound(_best(rng, experiments, 0.2), bits=_BITS, num_examples=_EXAMPLES, delta=delta / 2)
    differ = rng.binomial(_EXAMPLES, 0.03, size=experiments) / _EXAMPLES
    bound = disagreement_bound(surrogate, differ, num_unlabelled=_EXAMPLES, delta=delta / 2)
    return bound, np.full(experiments, 0.23)


_CERTIFICATES: Mapping[str, Callable[[np.random.Generator, int, float], Worlds]] = {
    "Occam (prefix code)": _occam,
    "subsampled Occam": _subsampled,
    "PAC-Bayes-kl": _pac_bayes,
    "smoothed cross-entropy": _cross_entropy,
    "excess loss (empirical Bernstein)": _excess,
    "chain, fold per link": _folds,
    "chain, recursive": _recursive,
    "disagreement": _disagreement,
}


def coverage_table(*, experiments: int = 2000, delta: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Simulate every certificate and count its violations.

    Args:
        experiments: independent samples per certificate, of 500 examples each.
        delta: failure probability the certificates are asked for.
        seed: of the simulation.

    Returns:
        One row per certificate: ``certificate``, ``experiments``, ``delta``, ``violation_rate``, and
        ``bound_over_truth``, the median ratio of the bound to the true risk.

    Raises:
        ValueError: if there are fewer than 100 experiments or delta is not strictly between 0 and 1.

    >>> bool((coverage_table(experiments=200)["violation_rate"] <= 0.17).all())
    True
    """
    check_integer("experiments", experiments, minimum=100)
    delta = check_probability("delta", delta)
    rows = []
    for position, (name, simulate) in enumerate(_CERTIFICATES.items()):
        found, truth = simulate(np.random.default_rng([seed, position]), experiments, delta)
        bound = np.asarray(found.value if isinstance(found, Bound) else found)
        rate, ratio = float((bound < truth).mean()), float(np.median(bound / truth))
        rows.append((name, experiments, delta, rate, ratio))
    return pd.DataFrame(rows, columns=["certificate", "experiments", "delta", "violation_rate", "bound_over_truth"])
