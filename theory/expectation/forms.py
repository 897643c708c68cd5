r"""Bounds beyond table 1 of arXiv:2606.13767: count what is trained, use that W0 came before the sample.

The pretrained weights are independent of the fine-tuning sample S, so two facts are free:

* :math:`I(W_0 + dW; S) = I(dW; S)`: Xu and Raginsky's bound applies to the fine-tuned network itself, and
  no correction term is due (the lemma on adapters in arXiv:2402.16842);
* :math:`E\,gen(W_0) = 0`: the excess loss over W0 has the same expected gap as the loss.
"""

from __future__ import annotations

import math

from theory.arguments import Count, Extended, LogNumber, NonNegative, Positive, Probability, Range, Several, checked
from theory.assumptions import COUNTED, FEED_FORWARD, INDEPENDENT, MEAN, REACHABLE, SUB_GAUSSIAN
from theory.certificates import occam_bound
from theory.counting import upwards
from theory.expectation.table1 import XU_RAGINSKY, description_log, resolve_range
from theory.networks import Phi
from theory.records import Bound, exp_or_inf

__all__ = ["certificate", "direct", "excess", "information", "loss_change_from_log", "perturbation"]

ADAPTERS = "lemma on adapters, arXiv:2402.16842, from theorem 1 of arXiv:1705.07809"


@checked
def information(
    nats: NonNegative,
    *,
    num_examples: Count,
    sigma: Positive = 0.5,
    loss_range: Range | None = None,
    measured: tuple[str, ...] = (),
) -> Bound:
    r"""Evaluate :math:`|E\,gen| \le \sqrt{2 \sigma^2 I(W;S)/n}` (Xu and Raginsky, arXiv:1705.07809).

    Args:
        nats: I(W;S), or an upper bound of it.
        num_examples: n.
        sigma: sub-Gaussian parameter of the loss.
        loss_range: length of the loss's interval; 2 sigma by default.
        measured: names of inputs that were measured on data.

    Raises:
        ValueError: if an argument is out of range.

    >>> round(information(2.0, num_examples=100).value, 6)
    0.1
    """
    bits = nats / math.log(2)
    return Bound(
        name="information",
        log_value=description_log(bits, num_examples=num_examples, sigma=sigma),
        kind="expectation",
        source=XU_RAGINSKY,
        assumptions=(MEAN, SUB_GAUSSIAN),
        loss_range=resolve_range(loss_range, sigma),
        measured=measured,
        bits=bits,
    )


@checked
def direct(
    bits: NonNegative,
    *,
    num_examples: Count,
    sigma: Positive = 0.5,
    loss_range: Range | None = None,
    name: str = "direct",
    assumptions: tuple[str, ...] = (),
) -> Bound:
    r"""Bound the fine-tuned network by the bits of its update: :math:`\sigma\sqrt{2 \ln 2 \cdot bits / n}`.

    With bits = q X it is table 1 without Phi_W0, hence never larger. Picking a checkpoint or a learning rate
    costs nothing here: whatever was picked lies in the same set of 2^bits networks. A choice that the decoder
    must be told (a seed, a rank, which columns) belongs to the bits.

    Args:
        bits: length of a description of everything that depends on the sample: adapter, head, side information.
        num_examples: n.
        sigma: sub-Gaussian parameter of the loss.
        loss_range: length of the loss's interval; 2 sigma by default.
        name: the record's name.
        assumptions: what the description assumes.

    Raises:
        ValueError: if an argument is out of range.

    >>> round(direct(16 * 294912, num_examples=3668).value, 1)
    21.1
    """
    return Bound(
        name=name,
        log_value=description_log(bits, num_examples=num_examples, sigma=sigma),
        kind="expectation",
        source=ADAPTERS,
        assumptions=(MEAN, SUB_GAUSSIAN, INDEPENDENT, COUNTED, *assumptions),
        loss_range=resolve_range(loss_range, sigma),
        bits=bits,
    )


@checked
def excess(
    bits: NonNegative,
    *,
    loss_change: Extended,
    num_examples: Count,
    sigma: Positive = 0.5,
    loss_range: Range | None = None,
    name: str = "excess",
    measured: tuple[str, ...] = (),
    assumptions: tuple[str, ...] = (),
) -> Bound:
    r"""Bound the gap by the excess loss over W0: :math:`\min(\sigma \sqrt{2I/n}, D \sqrt{2I/n}, 2D)`.

    Proof: :math:`E\,gen(W_0) = 0`, so E gen(W) is the expected gap of :math:`loss_W - loss_{W0}`, which lies in
    [-D, D] and is therefore D-sub-Gaussian (Hoeffding); a gap of such a function is at most 2D. It is
    never above ``direct`` and tends to 0 with D and with 1/n.

    Args:
        bits: as in ``direct``; I <= bits ln 2.
        loss_change: D, in units of the loss; infinity for "not known". It must hold for every update that the
            algorithm can reach: a cap enforced in training, not a value measured on one run.
        num_examples: n.
        sigma: sub-Gaussian parameter of the loss.
        loss_range: length of the loss's interval; 2 sigma by default.
        name: the record's name.
        measured: names of inputs that were measured on data; makes it a diagnostic, not a guarantee.
        assumptions: what D assumes.

    Raises:
        ValueError: if an argument is out of range.

    >>> round(excess(16 * 294912, loss_change=0.001, num_examples=3668).value, 6)
    0.002
    """
    root = description_log(bits, num_examples=num_examples, sigma=sigma)
    log_change = math.log(loss_change) if loss_change > 0 else -math.inf
    scaled = -math.inf if bits == 0 else root - math.log(sigma) + log_change
    return Bound(
        name=name,
        log_value=min(root, scaled, math.log(2) + log_change),
        kind="expectation",
        source=f"excess loss over W0 in {XU_RAGINSKY}",
        assumptions=(MEAN, SUB_GAUSSIAN, INDEPENDENT, COUNTED, REACHABLE, *assumptions),
        loss_range=resolve_range(loss_range, sigma),
        measured=measured,
        bits=bits,
    )


@checked
def perturbation(
    phi: Phi, *, sigma: Positive = 0.5, loss_range: Range | None = None, measured: tuple[str, ...] = ()
) -> Bound:
    """Bound |E gen(W0 + dW)| by Phi_dW alone: theorem 1's first branch with E gen(W0) = 0.

    Args:
        phi: from ``theory.networks.perturbation.correction``.
        sigma: sub-Gaussian parameter of the loss, for the range.
        loss_range: length of the loss's interval; 2 sigma by default.
        measured: names of inputs that were measured on data.

    >>> round(perturbation(Phi(log_update=math.log(0.25), log_base=0.0)).value, 9)
    0.25
    """
    return Bound(
        name="perturbation",
        log_value=phi.log_update,
        kind="expectation",
        source="theorem 1 (mended), arXiv:2606.13767, with E gen(W0) = 0",
        assumptions=(
            MEAN,
            INDEPENDENT,
            FEED_FORWARD,
            REACHABLE,
        ),
        loss_range=resolve_range(loss_range, sigma),
        measured=measured,
    )


@checked
def certificate(
    bits: NonNegative,
    *,
    empirical_risk: NonNegative,
    num_examples: Several,
    delta: Probability,
    loss_range: Positive = 1.0,
) -> Bound:
    r"""Bound the risk of one run with high probability: the same count of bits in the Occam form.

    Statement: :math:`kl(\hat R \| R) \le (b \ln 2 + \ln(1/\delta))/n`, see ``theory.certificates.occam.occam_bound``.
    Unlike the other bounds it speaks of the risk itself, of the run at hand, and needs a bounded loss.

    Args:
        bits: length of the run's word in a prefix code fixed before the sample; q X bits are such a word.
        empirical_risk: mean loss on the sample of the network that the word decodes to.
        num_examples: n.
        delta: probability of failure.
        loss_range: the loss lies in [0, loss_range].

    Raises:
        ValueError: if delta is not strictly between 0 and 1, or the range is infinite, or a number out of range.

    >>> round(certificate(800, empirical_risk=0.1, num_examples=5452, delta=0.05).value, 4)
    0.2849
    """
    return occam_bound(empirical_risk, bits=bits, num_examples=num_examples, delta=delta, loss_range=loss_range)


@checked
def loss_change_from_log(log_deviation: LogNumber, *, loss_lipschitz: NonNegative = 1.0) -> float:
    """Return D = L_loss D_L from ``theory.networks.perturbation.deviation_log``, infinite where it exceeds float64."""
    if loss_lipschitz == 0:
        return 0.0
    return float(upwards(exp_or_inf(log_deviation + math.log(loss_lipschitz))))
