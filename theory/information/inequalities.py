r"""From mutual information to generalization: each inequality once, as a function of numbers.

S = (Z_1..Z_n) is an i.i.d. sample, W what was learned, gap = E[R(W) - R_S(W)] (risk minus training risk, in
expectation over S and the training noise). In the supersample setting Z~ is an n x 2 array of examples, U are n fair
bits, row i trains on column U_i; L_i0, L_i1 are the two losses of row i, in [0, 1], and D_i = L_i1 - L_i0.
Everything is in nats. All bounds here hold in expectation; where the information comes from ``theory.information.cmi``
they are estimates of bounds.

One proof serves for all of them: ``theory.information.variational.dual_gap``.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar

from theory.arguments import Count, Extended, Fraction, Fractions, NonNegatives, Numbers, Positive, checked
from theory.assumptions import IID, IN_RANGE, MEAN, SUB_GAUSSIAN, SUPERSAMPLE
from theory.checks import check_norms
from theory.counting import upwards
from theory.information.variational import dual_gap
from theory.kl import binary_kl, kl_upper
from theory.records import Bound, Quantity

__all__ = [
    "cmi",
    "e_cmi",
    "fast_rate",
    "individual_sample",
    "interpolating",
    "ld_mi",
    "single_loss",
    "xu_raginsky",
]


Informations = Annotated[ArrayLike, Numbers(minimum=-1e-9, finite=False)]
"""Nats; an estimate may round to just below 0 and counts as 0."""


def _nats(informations: ArrayLike) -> NDArray[np.float64]:
    array = np.atleast_1d(np.asarray(informations, dtype=np.float64))
    if array.ndim != 1:
        raise ValueError(f"informations must hold one number per row, got shape {array.shape}")
    return np.maximum(array, 0.0)


def _supersample(name: str, value: float, source: str, *, of: Quantity = "gap") -> Bound:
    return Bound(
        name=name,
        of=of,
        value=min(float(upwards(value)), 1.0) if of == "risk" else float(upwards(value)),
        kind="expectation",
        source=source,
        assumptions=(MEAN, IID, SUPERSAMPLE, IN_RANGE),
    )


@checked
def xu_raginsky(information: Extended, *, num_examples: Count, sigma: Positive = 0.5) -> Bound:
    """Return sigma sqrt(2 I(W;S) / n): Xu and Raginsky, arXiv:1705.07809, Theorem 1.

    Assumes that loss(w, Z) is sigma-sub-Gaussian for every w; sigma = 1/2 for a loss in [0, 1].

    Args:
        information: I(W;S), nats; infinity is allowed and gives infinity.
        num_examples: n.
        sigma: in units of the loss.

    >>> round(xu_raginsky(2.0, num_examples=100).value, 9)
    0.1
    """
    return Bound(
        name="xu-raginsky",
        value=float(upwards(sigma * math.sqrt(2 / num_examples) * math.sqrt(information))),
        kind="expectation",
        source="Xu and Raginsky, theorem 1, arXiv:1705.07809",
        assumptions=(MEAN, IID, SUB_GAUSSIAN),
        loss_range=2 * sigma,
    )


@checked
def individual_sample(informations: Informations, *, sigma: Positive = 0.5) -> Bound:
    """Return the mean over i of sigma sqrt(2 I(W;Z_i)): Bu, Zou, Veeravalli, arXiv:1901.04609, Proposition 1.

    Assumes that loss(W, Z) with W and Z independent is sigma-sub-Gaussian. Never above ``xu_raginsky``: for
    independent examples sum I(W;Z_i) <= I(W;S), and the root is concave.

    Args:
        informations: I(W;Z_i) per example, or one number for a symmetric algorithm; nats.
        sigma: in units of the loss.

    >>> round(individual_sample([0.02, 0.02]).value, 9)
    0.1
    """
    return Bound(
        name="individual-sample",
        value=float(upwards(sigma * np.sqrt(2 * _nats(informations)).mean())),
        kind="expectation",
        source="Bu, Zou, Veeravalli, proposition 1, arXiv:1901.04609",
        assumptions=(MEAN, IID, SUB_GAUSSIAN),
        loss_range=2 * sigma,
    )


@checked
def cmi(information: Extended, *, num_examples: Count) -> Bound:
    """Return sqrt(2 CMI / n), CMI = I(W;U|Z~): Steinke and Zakynthinou, arXiv:2001.09122, loss in [0, 1].

    CMI is at most n ln 2. I(losses; U | Z~) may stand for it (data processing), and so may their joint estimate.

    >>> round(cmi(0.5, num_examples=100).value, 9)
    0.1
    """
    value = math.sqrt(2 / num_examples) * math.sqrt(information)
    return _supersample("cmi", value, "Steinke and Zakynthinou, arXiv:2001.09122")


@checked
def e_cmi(train_risk: Fraction, informations: Informations) -> Bound:
    r"""Return the largest risk R with d(r || (r + R)/2) <= mean of I(L_i0, L_i1; U_i): arXiv:2210.06422.

    The loss that was trained on has mean r, and mean (r + R)/2 once U is made independent; data processing to a coin
    and convexity of d. Loss in [0, 1]. f-CMI (arXiv:2110.01584) and unconditional information may stand in.

    Args:
        train_risk: r, the mean training loss.
        informations: per row, or their mean; nats.

    Returns:
        A bound on the risk, at most 1.

    >>> round(e_cmi(0.0, 0.01 * math.log(2)).value, 4)
    0.0138
    """
    middle = float(kl_upper(train_risk, upwards(_nats(informations).mean())))
    return _supersample("e-cmi", min(2 * middle - train_risk, 1.0), "arXiv:2210.06422", of="risk")


@checked
def ld_mi(
    informations: Informations,
    *,
    form: Literal["root", "binary", "magnitude"] = "root",
    magnitudes: Fractions | None = None,
    weights: NonNegatives | None = None,
) -> Bound:
    r"""Return a bound on the gap from I(D_i; U_i), loss differences against bits: Wang and Mao, arXiv:2302.02432.

    gap_i = E[s D_i] with s = 1 - 2 U_i. Once U is independent of D, ln E exp(lambda s D) = ln E cosh(lambda D):

    * ``"root"``: cosh lambda <= exp(lambda^2 / 2) gives the mean of sqrt(2 I), the published form.
    * ``"binary"``: cosh itself; the largest g with d((1 + g)/2 || 1/2) <= I. Never above the root, never above 1.
    * ``"magnitude"``: the law of |D| too. Where most differences are zero it is smaller by far. This plays the part
      of the second moment in arXiv:2410.22887; the exact cumulant generating function is used here.

    Args:
        informations: per row, or one number where rows are exchangeable or pooled; nats.
        form: one of the three.
        magnitudes: sample or support of |D|, in [0, 1]; for ``"magnitude"``.
        weights: of the magnitudes, summing to one; equal if left out.

    >>> round(ld_mi(0.005).value, 9)
    0.1
    >>> round(ld_mi(math.log(2), form="binary").value, 9)
    1.0
    """
    values, source = _nats(informations), "Wang and Mao, arXiv:2302.02432"
    if form == "root":
        return _supersample("ld-mi", float(np.sqrt(2 * values).mean()), source)
    if form == "binary":
        return _supersample("ld-mi-binary", float(np.mean([_fair_coin_bias(value) for value in values])), source)
    if magnitudes is None:
        raise ValueError("magnitudes must be given for the form 'magnitude', got None")
    sizes = check_norms("magnitudes", magnitudes)
    share = (
        np.full(len(sizes), 1 / len(sizes)) if weights is None else check_norms("weights", weights, length=len(sizes))
    )
    if abs(share.sum() - 1) > 1e-9:
        raise ValueError(f"weights must sum to 1, got {share.sum()}")
    sizes, where = np.unique(sizes, return_inverse=True)
    share = np.bincount(where, weights=share)

    def cumulant(lam: float) -> float:
        # cosh t - 1 = 2 sinh(t/2)^2 keeps small lambda exact
        return float(np.log1p(share @ (2 * np.sinh(np.minimum(lam * sizes, 600) / 2) ** 2)))

    second = float(share @ sizes**2)
    gaps = [min(dual_gap(value, cumulant, variance=second, upper=600.0), 1.0) for value in values]
    return _supersample("ld-mi-magnitude", float(np.mean(gaps)), source)


def _fair_coin_bias(information: float) -> float:
    """Return the largest g with d((1 + g)/2 || 1/2) <= I, by brentq, and a little above where it stops."""
    if information >= math.log(2):
        return 1.0
    g = brentq(lambda g: float(binary_kl((1 + g) / 2, 0.5)) - information, 0.0, 1.0, xtol=1e-16)
    return min(g * (1 + 1e-11) + 1e-15, 1.0)


@checked
def single_loss(informations: Informations) -> Bound:
    r"""Return the mean of sqrt(2 I(L_i0; U_i)), a bound on the gap from one of each row's two losses.

    gap_i = E[s L_i1] - E[s L_i0] with s = 1 - 2 U_i, and both terms have the same size when rows are exchangeable.
    As E s = 0, centre L at 1/2: ln E exp(lambda s (L - 1/2)) <= lambda^2 / 8, so each term is at most sqrt(I/2).
    arXiv:2302.02432 states 2 sqrt(2 I); centring gains the factor of two. Loss in [0, 1].

    >>> round(single_loss(0.005).value, 9)
    0.1
    """
    value = float(np.sqrt(2 * _nats(informations)).mean())
    return _supersample("single-loss", value, "arXiv:2302.02432, centred")


@checked
def fast_rate(
    train_risk: Fraction, informations: Informations, *, source: Literal["difference", "pair", "single"] = "difference"
) -> Bound:
    r"""Return inf of (1 + c1) r + I / c2, a bound on the risk that is linear in the information.

    * ``"difference"`` (I(D_i; U_i)) or ``"pair"`` (I(L_i0, L_i1; U_i)): with G = s D (held-out minus training loss),
      R - (1 + c1) r <= E[G+ - (1 + c1) G-], whose exponential moment under independence is at most 1 if
      exp(c2) + exp(-(1 + c1) c2) <= 2.
    * ``"single"`` (I(L_i0; U_i)): as in arXiv:2302.02432, exp(2 c2) + exp(-2 (1 + c1) c2) <= 2, half the c2.

    The smallest c1 for each c2 is known, and c2 is minimised over. At r = 0 it is I / ln 2, and for ``"single"``
    2 I / ln 2. Loss in [0, 1].

    Args:
        train_risk: r.
        informations: per row, or their mean; nats.
        source: whose information it is.

    Returns:
        A bound on the risk, at most 1.

    >>> round(fast_rate(0.0, 0.01 * math.log(2)).value, 9)
    0.01
    """
    return _supersample(
        "fast-rate", _fast_rate(train_risk, informations, source), "arXiv:2302.02432, fast rate", of="risk"
    )


def _fast_rate(risk: float, informations: ArrayLike, source: str) -> float:
    information = float(_nats(informations).mean()) * (2 if source == "single" else 1)
    if risk == 0:
        return min(information / math.log(2), 1.0)
    if information == 0:
        return risk

    def value(log_rate: float) -> float:
        # log_rate = ln(c2 / (ln 2 - c2)) covers 0 < c2 < ln 2; -ln(2 - e^c2) / c2 is the smallest 1 + c1
        rate = math.log(2) / (1 + math.exp(-log_rate))
        return -math.log1p(-math.expm1(rate)) / rate * risk + information / rate

    best = minimize_scalar(value, bounds=(-25, 30), method="bounded", options={"xatol": 1e-9})
    return min(float(best.fun), 1.0)


@checked
def interpolating(informations: Informations) -> Bound:
    r"""Return sum I(D_i; U_i) / (n ln 2): the risk itself, not a bound, for 0-1 loss and zero training error.

    D_i is then nonzero exactly when the held-out example is misclassified, and tells U_i when it is: an erasure
    channel (arXiv:2302.02432).

    >>> round(interpolating(0.1 * math.log(2)).value, 9)
    0.1
    """
    value = float(_nats(informations).mean() / math.log(2))
    return _supersample("interpolating", value, "Wang and Mao, arXiv:2302.02432", of="risk")
