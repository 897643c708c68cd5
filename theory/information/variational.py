r"""The one inequality behind every information bound, for any function and for squares.

Donsker and Varadhan: for any function g of (X, Y) with mean zero under P_X P_Y,

    E_{XY} g  <=  inf_{lambda > 0} ( I(X; Y) + ln E_{P_X P_Y} exp(lambda g) ) / lambda .

Everything is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import minimize_scalar

from theory.arguments import Count, Extended, NonNegative, Range, checked
from theory.checks import check_integer, check_number

__all__ = ["chi_square_gap", "dual_gap"]


@checked
def dual_gap(
    information: Extended, cumulant: Callable[[float], float], *, variance: NonNegative, upper: Range = math.inf
) -> float:
    r"""Return inf over 0 < lambda < upper of (I + cumulant(lambda)) / lambda, the inequality that all bounds share.

    Every lambda gives a valid bound, so a minimum found numerically is one too. The quotient is quasi-convex when the
    cumulant generating function is convex, as they are.

    Args:
        information: I, in nats.
        cumulant: lambda -> ln E exp(lambda g) under the product measure, g of mean zero.
        variance: that of g, which sets the scale of the search.
        upper: where the cumulant generating function ceases to be finite.

    >>> round(dual_gap(0.5, lambda t: t * t / 2, variance=1.0), 9)
    1.0
    """
    check_number("information", information, finite=False)
    check_number("variance", variance)
    if information == 0 or variance == 0:
        return 0.0
    if math.isinf(information):
        return math.inf
    guess = (math.log(2) + math.log(information) - math.log(variance)) / 2
    high = min(guess + 14, math.log(upper) if math.isfinite(upper) else math.inf)
    low = min(guess, high) - 14

    def quotient(log_lambda: float) -> float:
        rate = math.exp(log_lambda)
        value = (information + cumulant(rate)) / rate if rate > 0 else math.inf
        return value if math.isfinite(value) else math.inf

    best = minimize_scalar(quotient, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(best.fun)


@checked
def chi_square_gap(
    information: Extended, *, variance: NonNegative, dimension: Count, noncentrality: NonNegative = 0.0
) -> float:
    r"""Return the individual-sample bound for squared loss under Gaussian data, which is not sub-Gaussian.

    With W and Z independent the loss is |b + v|^2, v ~ N(0, c I_p), and with x = 2 c lambda

        ln E exp(-lambda (loss - E loss)) = (p/2) (x - ln(1 + x)) + |b|^2 lambda x / (1 + x) ,

    finite for every lambda > 0: the gap E_indep loss - E_joint loss needs the lower tail alone, which is lighter than
    Gaussian. Bu, Zou, Veeravalli (arXiv:1901.04609, section IV) use its bound lambda^2 (p c^2 + 2 c |b|^2), which
    gives 2 sqrt((p c^2 + 2 c |b|^2) I); the exact function is never above that. It stays below p c + |b|^2, the mean.

    Args:
        information: I(W;Z_i), nats; may be infinite.
        variance: c, per coordinate.
        dimension: p.
        noncentrality: |b|^2.

    >>> chi_square_gap(0.01, variance=1.0, dimension=1) < 2 * math.sqrt(0.01)
    True
    """
    check_number("information", information, finite=False)
    c, p = check_number("variance", variance), check_integer("dimension", dimension)
    b = check_number("noncentrality", noncentrality)
    mean = p * c + b
    if math.isinf(information):
        return mean

    def cumulant(lam: float) -> float:
        x = 2 * c * lam
        return p / 2 * (x - math.log1p(x)) + b * lam * x / (1 + x)

    return min(dual_gap(information, cumulant, variance=2 * p * c * c + 4 * c * b), mean)
