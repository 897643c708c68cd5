"""PAC-Bayes-kl: certificates for predictors drawn at random from a posterior."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from theory.arguments import (
    Count,
    Extendeds,
    Fractions,
    NonNegatives,
    Positive,
    Positives,
    Probability,
    Reals,
    Several,
    checked,
)
from theory.checks import check_integer, check_number, check_probability
from theory.kl import kl_upper

__all__ = ["gaussian_divergence", "gibbs_risk_upper", "pac_bayes_kl_bound"]


@checked
def pac_bayes_kl_bound(
    gibbs_risk: Fractions, *, divergence: Extendeds, num_examples: Several, delta: Probability
) -> NDArray[np.float64]:
    r"""Bound the risk of a predictor drawn from a posterior Q, for every Q at once.

    With probability at least 1 - delta,

    .. math:: kl(\hat R(Q) \| R(Q)) \le \frac{KL(Q \| P) + \ln(2\sqrt n / \delta)}{n}

    (Langford & Seeger 2001; the constant is Maurer's, arXiv:cs/0411099: the exponential moment
    E exp(n kl(Rhat || R)) is at most 2 sqrt(n)). P is fixed before the data; the loss lies in [0, 1].

    Args:
        gibbs_risk: mean over Q of the empirical risk, in [0, 1].
        divergence: KL(Q || P) in nats.
        num_examples: n.
        delta: failure probability.

    Returns:
        Upper bound on the mean over Q of the risk.

    Raises:
        ValueError: if the risk is not in [0, 1], the divergence is negative, n < 2, or delta is 0 or 1.

    >>> round(float(pac_bayes_kl_bound(0.1, divergence=300.0, num_examples=5452, delta=0.05)), 4)
    0.2292
    """
    num_examples = check_integer("num_examples", num_examples, minimum=2)
    delta = check_probability("delta", delta)
    divergence = np.asarray(divergence, dtype=np.float64)
    if not (divergence >= 0).all():
        raise ValueError(f"divergence must be nats of at least 0, got {divergence}")
    return kl_upper(gibbs_risk, (divergence + math.log(2 * math.sqrt(num_examples) / delta)) / num_examples)


@checked
def gibbs_risk_upper(sampled_risk: NonNegatives, *, num_draws: Count, delta: Probability) -> NDArray[np.float64]:
    """Bound the posterior's mean empirical risk by the mean over draws from it.

    Each draw's empirical risk lies in [0, 1], so Hoeffding's kl form holds with ln(1/delta)/num_draws
    (Langford & Caruana 2001 use ln(2/delta), which also covers the other side).

    Args:
        sampled_risk: mean empirical risk over the draws.
        num_draws: independent draws from the posterior.
        delta: failure probability, on top of the bound's own.

    Returns:
        Upper bound on the posterior's mean empirical risk.

    >>> round(float(gibbs_risk_upper(0.1, num_draws=1000, delta=0.01)), 4)
    0.1312
    """
    num_draws = check_integer("num_draws", num_draws, minimum=1)
    return kl_upper(sampled_risk, -math.log(check_probability("delta", delta)) / num_draws)


@checked
def gaussian_divergence(shift: Reals, *, posterior_scale: Positives, prior_scale: Positive) -> float:
    r"""KL divergence of two Gaussians with diagonal covariance, in nats.

    .. math:: \sum_i \ln\frac{s_P}{s_i} + \frac{s_i^2 + \mu_i^2}{2 s_P^2} - \frac12

    Args:
        shift: posterior mean minus prior mean, shape (d,).
        posterior_scale: standard deviations s_i, shape (d,) or a scalar.
        prior_scale: standard deviation s_P; if it was chosen on the data, pay for the grid it came from.

    Raises:
        ValueError: if a scale is not above 0.

    >>> gaussian_divergence([3.0, 4.0], posterior_scale=1.0, prior_scale=1.0)
    12.5
    """
    prior_scale = check_number("prior_scale", prior_scale, positive=True)
    mean, scale = np.broadcast_arrays(np.asarray(shift, dtype=np.float64), np.asarray(posterior_scale, np.float64))
    if not (scale > 0).all():
        raise ValueError("posterior_scale must be above 0")
    return float(np.sum(np.log(prior_scale / scale) + (scale**2 + mean**2) / (2 * prior_scale**2) - 0.5))
