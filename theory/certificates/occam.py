"""Certificates for one run whose predictor is written down in a prefix code fixed before the data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.arguments import (
    Count,
    Fraction,
    Fractions,
    NonNegative,
    NonNegatives,
    Positive,
    Probability,
    Several,
    checked,
)
from theory.assumptions import CODE_FIRST, IID, IN_RANGE, SUBSAMPLED, UNLABELLED, ZERO_ONE
from theory.counting import upwards
from theory.kl import binary_kl, kl_upper
from theory.records import Bound

__all__ = ["choice_bits", "disagreement_bound", "kraft_sum", "occam_bound", "spare_bits", "subsampled_bound"]

OCCAM = "Occam bound, Langford, JMLR 6 (2005)"


@checked
def occam_bound(
    empirical_risk: NonNegatives,
    *,
    bits: NonNegatives,
    num_examples: Several,
    delta: Probability,
    loss_range: Positive = 1.0,
) -> Bound:
    r"""Bound the risk of a predictor that a prefix code names in b bits.

    With probability at least 1 - delta over n i.i.d. examples, for every code word at once,

    .. math:: kl(\hat R \| R) \le \frac{b \ln 2 + \ln(1/\delta)}{n}

    (Langford, JMLR 6, 2005, the Occam bound, for losses in [0, 1]). Why: for one fixed predictor,
    P(kl(Rhat || R) > c, Rhat < R) <= exp(-n c) (Hoeffding 1963, theorem 1: also for losses between 0
    and 1); give it the share delta 2^-b of the failures; the shares add up to at most delta by Kraft's
    inequality. Because it holds for every word at once, how the word was found is free: learning
    rates, epochs, early stopping, seeds of the batches and the search itself.

    Assumptions: the code was fixed before the sample; the loss lies in [0, loss_range].

    Args:
        empirical_risk: mean loss of the decoded predictor on the sample, in [0, loss_range].
        bits: length of its code word; broadcast.
        num_examples: n.
        delta: failure probability, strictly between 0 and 1.
        loss_range: where the loss ends; 1 for the 0-1 loss.

    Returns:
        A bound on the risk, in the loss's own unit, of the broadcast shape.

    Raises:
        TypeError: if ``num_examples`` is no integer.
        ValueError: if a risk lies outside its range, n is smaller than 2, or delta is 0 or 1.

    >>> round(occam_bound(0.1, bits=800, num_examples=5452, delta=0.05).value, 4)
    0.2849
    """
    risk = share_of_range("empirical_risk", empirical_risk, loss_range)
    budget = upwards((np.asarray(bits, dtype=np.float64) * math.log(2) - math.log(delta)) / num_examples)
    return Bound(
        name="certificate",
        of="risk",
        value=np.minimum(upwards(loss_range * kl_upper(risk, budget)), loss_range),
        kind="high-probability",
        delta=delta,
        source=OCCAM,
        assumptions=(IID, CODE_FIRST, IN_RANGE),
        loss_range=loss_range,
        measured=("empirical_risk",),
        bits=bits,
    )


@checked
def spare_bits(
    target_risk: Fraction, *, empirical_risk: NonNegative, num_examples: Several, delta: Probability
) -> float:
    """Return the longest code for which :func:`occam_bound` stays at ``target_risk``, in bits, rounded down.

    Returns:
        Bits, negative if no code can do it, 0-1 loss.

    Raises:
        ValueError: if the target does not lie above the empirical risk.

    >>> round(spare_bits(0.5, empirical_risk=0.02, num_examples=200, delta=0.05), 1)
    167.4
    """
    if not empirical_risk < target_risk <= 1:
        raise ValueError(f"target_risk must lie in ({empirical_risk}, 1], got {target_risk}")
    bits = (num_examples * float(binary_kl(empirical_risk, target_risk)) + math.log(delta)) / math.log(2)
    return bits if math.isinf(bits) else bits - abs(bits) * 2.0**-45


@checked
def choice_bits(sizes: Iterable[Count]) -> float:
    """Return what choosing on the data costs: the sum of log2 of the number of options of every choice.

    A union bound over M alternatives divides delta by M, which is the same as log2 M further bits. It
    covers grids of hyper-parameters that the decoder needs, checkpoints and early stopping for
    predictors that are not themselves code words, and the choice among several certificates.

    Raises:
        ValueError: if a choice has no option.

    >>> choice_bits([4, 8])
    5.0
    """
    return float(sum(math.log2(size) for size in sizes))


@checked
def kraft_sum(lengths: NonNegatives) -> float:
    """Return the sum of 2^-length over a code's words (lengths in bits); a prefix code has at most 1.

    >>> kraft_sum([1, 2, 2])
    1.0
    """
    return float(np.sum(2.0 ** -np.asarray(lengths, dtype=np.float64)))


@checked
def subsampled_bound(
    sampled_risk: NonNegatives,
    *,
    bits: NonNegatives,
    num_examples: Several,
    num_sampled: Several,
    delta: Probability,
    form: Literal["kl", "hoeffding"] = "kl",
    loss_range: Positive = 1.0,
) -> Bound:
    r"""Bound the risk when the empirical risk itself was only estimated on a random subsample.

    Lotfi et al. (arXiv:2312.17173) with m examples of which k are drawn i.i.d. uniformly,
    after the predictor was fixed, s = k / (k + m) and a loss in an interval of length Delta:

    .. math:: R \le \hat R_{sub} + \Delta\sqrt{\frac{b\ln 2 + \ln\frac{1}{s\delta}}{2m}}
              + \Delta\sqrt{\frac{\ln\frac{1}{(1-s)\delta}}{2k}}

    Why: the second root is Hoeffding's step from the subsample to the whole sample, at confidence
    (1-s) delta and with no union, as the draw came after the predictor; the first is the Occam bound at
    s delta. ``form="kl"`` takes both steps by kl inversion instead (never worse, by Pinsker), with the
    same split of delta. A draw without replacement satisfies it as well (Hoeffding 1963, theorem 4).

    Args:
        sampled_risk: mean loss on the subsample, in [0, loss_range].
        bits: code length.
        num_examples: m, the size of the whole sample.
        num_sampled: k, the size of the subsample.
        delta: failure probability.
        form: ``"kl"`` or the paper's ``"hoeffding"``.
        loss_range: Delta, the loss lying in [0, Delta].

    Returns:
        A bound on the risk (the Hoeffding form may exceed ``loss_range``).

    Raises:
        ValueError: if a risk lies outside its range or a size is below 2.

    >>> round(subsampled_bound(0.1, bits=800, num_examples=5452, num_sampled=1000, delta=0.05).value, 4)
    0.3201
    """
    log_delta, log_both = math.log(delta), math.log(num_sampled + num_examples)
    nats = np.asarray(bits, dtype=np.float64) * math.log(2)
    complexity = upwards((nats - math.log(num_sampled) + log_both - log_delta) / num_examples)
    estimation = upwards((log_both - math.log(num_examples) - log_delta) / num_sampled)
    risk = share_of_range("sampled_risk", sampled_risk, loss_range)
    if form == "kl":
        value = kl_upper(kl_upper(risk, estimation), complexity)
    else:
        value = risk + np.sqrt(complexity / 2) + np.sqrt(estimation / 2)
    return Bound(
        name="subsampled",
        of="risk",
        value=upwards(loss_range * value),
        kind="high-probability",
        delta=delta,
        source="Lotfi et al., arXiv:2312.17173",
        assumptions=(IID, CODE_FIRST, SUBSAMPLED, IN_RANGE),
        loss_range=loss_range,
        measured=("sampled_risk",),
        bits=bits,
    )


@checked
def disagreement_bound(
    surrogate_bound: Bound, disagreement: Fractions, *, num_unlabelled: Several, delta: Probability
) -> Bound:
    r"""Carry a quantised surrogate's certificate over to the full-precision predictor.

    For the 0-1 loss, h wrong implies that the surrogate g is wrong or that h and g disagree, so

    .. math:: R(h) \le R(g) + P(h \ne g) \le R(g) + kl^{-1}\Bigl(\hat d, \frac{\ln(1/\delta)}{m}\Bigr)

    (the idea of arXiv:2602.23128). The disagreement needs no labels, but its m examples must be
    independent of both predictors: held-out inputs, never the training inputs.

    Args:
        surrogate_bound: the certificate of R(g), a bound on the risk of a loss in [0, 1] with a delta of its own.
        disagreement: share of the unlabelled examples on which h and g differ.
        num_unlabelled: m.
        delta: failure probability of this step; the two add up.

    Returns:
        A bound on R(h), at most 1, with the sum of both deltas.

    Raises:
        ValueError: if the surrogate's bound is no such bound, a rate is not in [0, 1], or the deltas add up to 1.

    >>> from theory.certificates import occam_bound
    >>> surrogate = occam_bound(0.1, bits=800, num_examples=5452, delta=0.05)
    >>> carried = disagreement_bound(surrogate, 0.01, num_unlabelled=500, delta=0.01)
    >>> round(carried.value - surrogate.value, 4), round(carried.delta, 2)
    (0.03, 0.06)
    """
    surrogate = surrogate_bound
    if surrogate.of != "risk" or surrogate.delta is None or surrogate.loss_range != 1:
        stated = f"{surrogate.of}, {surrogate.kind}, range {surrogate.loss_range}"
        raise ValueError(f"surrogate_bound must bound the risk of a loss in [0, 1] with high probability, got {stated}")
    if surrogate.delta + delta >= 1:
        raise ValueError(f"delta must leave the sum with the surrogate's {surrogate.delta} below 1, got {delta}")
    step = kl_upper(disagreement, upwards(-math.log(delta) / num_unlabelled))
    return Bound(
        name="disagreement",
        of="risk",
        about=surrogate.about,
        value=np.minimum(upwards(surrogate.value + step), 1.0),
        kind="high-probability",
        delta=surrogate.delta + delta,
        source=f"arXiv:2602.23128 on {surrogate.source}",
        assumptions=tuple(dict.fromkeys((*surrogate.assumptions, UNLABELLED, ZERO_ONE))),
        measured=(*surrogate.measured, "disagreement"),
        bits=surrogate.bits,
    )


def share_of_range(name: str, risk: ArrayLike, loss_range: float) -> NDArray[np.float64]:
    """Return a mean loss as its share of the loss's range.

    Raises:
        ValueError: if it lies outside [0, loss_range].
    """
    array = np.asarray(risk, dtype=np.float64)
    if (array > loss_range).any():
        raise ValueError(f"{name} must lie in [0, {loss_range:g}], the loss's range; got {array.max()}")
    result: NDArray[np.float64] = np.minimum(array / loss_range, 1.0)
    return result
