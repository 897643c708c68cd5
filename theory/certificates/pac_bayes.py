"""PAC-Bayes-kl: certificates for predictors drawn at random from a posterior."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from theory.arguments import (
    Count,
    Extendeds,
    Fractions,
    Positive,
    Positives,
    Probability,
    Reals,
    Several,
    checked,
)
from theory.assumptions import IID, IN_RANGE, POSTERIOR
from theory.counting import upwards
from theory.kl import kl_upper
from theory.records import Bound

__all__ = ["gaussian_divergence", "gibbs_risk_upper", "pac_bayes_kl_bound"]


@checked
def pac_bayes_kl_bound(
    gibbs_risk: Fractions, *, divergence: Extendeds, num_examples: Several, delta: Probability
) -> Bound:
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
        A bound on the mean over Q of the risk.

    Raises:
        ValueError: if the risk is not in [0, 1], the divergence is negative, n < 2, or delta is 0 or 1.

    >>> round(pac_bayes_kl_bound(0.1, divergence=300.0, num_examples=5452, delta=0.05).value, 4)
    0.2292
    """
    log_moment = math.log(2) + math.log(num_examples) / 2
    budget = upwards((np.asarray(divergence, dtype=np.float64) + log_moment - math.log(delta)) / num_examples)
    return Bound(
        name="pac-bayes-kl",
        of="risk",
        value=kl_upper(gibbs_risk, budget),
        kind="high-probability",
        delta=delta,
        source="PAC-Bayes-kl, Langford and Seeger (2001), constant of arXiv:cs/0411099",
        assumptions=(IID, POSTERIOR, IN_RANGE),
        measured=("gibbs_risk", "divergence"),
    )


@checked
def gibbs_risk_upper(sampled_risk: Fractions, *, num_draws: Count, delta: Probability) -> Bound:
    """Bound the posterior's mean empirical risk by the mean over draws from it.

    Each draw's empirical risk lies in [0, 1], so Hoeffding's kl form holds with ln(1/delta)/num_draws
    (Langford & Caruana 2001 use ln(2/delta), which also covers the other side).

    Args:
        sampled_risk: mean empirical risk over the draws.
        num_draws: independent draws from the posterior.
        delta: failure probability, on top of the bound's own.

    Returns:
        A bound on the posterior's mean risk on the sample.

    >>> round(gibbs_risk_upper(0.1, num_draws=1000, delta=0.01).value, 4)
    0.1312
    """
    return Bound(
        name="gibbs-risk",
        of="risk",
        about="sample",
        value=kl_upper(sampled_risk, upwards(-math.log(delta) / num_draws)),
        kind="high-probability",
        delta=delta,
        source="Langford and Caruana (2001)",
        assumptions=(POSTERIOR, IN_RANGE),
        measured=("sampled_risk",),
    )


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

    >>> round(gaussian_divergence([3.0, 4.0], posterior_scale=1.0, prior_scale=1.0), 9)
    12.5
    """
    mean, scale = np.broadcast_arrays(np.asarray(shift, dtype=np.float64), np.asarray(posterior_scale, np.float64))
    with np.errstate(over="ignore"):
        total = float(np.sum(_spread_divergence(scale, prior_scale) + (mean / prior_scale) ** 2 / 2))
    return float(upwards(total)) * (1 + 2.0**-48)


def _spread_divergence(scale: NDArray[np.float64], prior_scale: float) -> NDArray[np.float64]:
    """Return ln(P/s) + s^2 / 2 P^2 - 1/2 = (e^t - 1 - t) / 2 with t = 2 ln(s/P), by its series where it is small."""
    near = np.abs(scale / prior_scale - 1) < 0.4
    t = 2 * np.where(near, np.log1p((scale - prior_scale) / prior_scale), np.log(scale) - math.log(prior_scale))
    inner = np.ones_like(t)
    for k in range(22, 2, -1):
        inner = 1 + np.where(near, t, 0.0) / k * inner
    result: NDArray[np.float64] = np.where(near, t**2 / 4 * inner, (np.expm1(t) - t) / 2)
    return result
