r"""Theorem 1 of arXiv:2606.13767 in closed form: how far an update moves a feed-forward network.

The network is :math:`f_W(x) = s_L(W_L\, s_{L-1}(\dots s_1(W_1 x)))` with :math:`|x| \le C`. Write
:math:`a_l = |W_{0,l}|_2`, :math:`d_l = |dW_l|_2`, :math:`z_l = |s_l(0)|` and let :math:`s_l` be
:math:`\lambda_l`-Lipschitz. A network whose layers have norms at most :math:`c_l` has outputs within

.. math:: U_L(c) = C \prod_l \lambda_l c_l + \sum_s z_s \prod_{l>s} \lambda_l c_l .

Hidden states of ``W0 + dW`` and ``W0`` differ by at most
:math:`D_l \le \lambda_l (a_l D_{l-1} + d_l U_{l-1}(a+d))`, :math:`D_0 = 0`, since
:math:`(W_0 + dW) h' - W_0 h = W_0 (h' - h) + dW\, h'`. Subtracting the recursions of :math:`U(a+d)` and
:math:`U(a)` gives the same recursion, hence

.. math:: D_L = U_L(a + d) - U_L(a), \qquad \Phi_{dW} = 2 L_{loss} D_L,

and, with the roles of ``W0`` and ``dW`` exchanged, :math:`\Phi_{W0} = 2 L_{loss} (U_L(a+d) - U_L(d))`.
The paper writes both as sums of :math:`2^L` terms; ``theory.networks.errata`` compares the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from theory.arguments import LogNumber, NonNegative, NonNegatives, checked
from theory.checks import check_norms
from theory.records import exp_or_inf

__all__ = ["Network", "Phi", "correction", "deviation_log", "output_radius_log"]


@checked
@dataclass(frozen=True, kw_only=True)
class Network:
    """What Theorem 1 assumes known of a feed-forward network.

    Attributes:
        base_norms: |W0_l|_2, one per layer.
        lipschitz: Lipschitz constant of each activation; one number stands for all.
        offsets: |s_l(0)|, the norm of each activation's value at zero; one number stands for all.
        radius: C, with |x| <= C.
        loss_lipschitz: Lipschitz constant of the loss in the network's output.

    Raises:
        ValueError: if a number is NaN, infinite or negative, or the numbers of layers differ.
    """

    base_norms: NonNegatives
    lipschitz: NonNegatives = 1.0
    offsets: NonNegatives = 0.0
    radius: NonNegative = 1.0
    loss_lipschitz: NonNegative = 1.0
    _arrays: tuple[NDArray[np.float64], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        base = check_norms("base_norms", self.base_norms)
        lipschitz = check_norms("lipschitz", self.lipschitz, length=base.size)
        offsets = check_norms("offsets", self.offsets, length=base.size)
        object.__setattr__(self, "_arrays", (base, lipschitz, offsets))

    @property
    def norms(self) -> NDArray[np.float64]:
        """The base norms as an array."""
        return self._arrays[0]

    @property
    def depth(self) -> int:
        """Number of layers, L."""
        return self._arrays[0].size


@checked
@dataclass(frozen=True, kw_only=True)
class Phi:
    """Both correction terms of Theorem 1, in units of the loss; a value may be infinite, its log is not.

    Attributes:
        log_update: ln Phi_dW, of ``G(W0 + dW) <= G(W0) + Phi_dW``.
        log_base: ln Phi_W0, of ``G(W0 + dW) <= G(dW) + Phi_W0``.
    """

    log_update: LogNumber
    log_base: LogNumber

    @property
    def update(self) -> float:
        """Phi_dW."""
        return exp_or_inf(self.log_update)

    @property
    def base(self) -> float:
        """Phi_W0."""
        return exp_or_inf(self.log_base)


@checked
def correction(network: Network, *, update_norms: NonNegatives) -> Phi:
    """Evaluate both correction terms of Theorem 1 (arXiv:2606.13767, mended) in O(L), in log space.

    Statement: ``G(W0+dW) <= min(G(W0) + Phi_dW, G(dW) + Phi_W0)`` for every sample, G being the absolute
    difference of population and sample mean of a loss that is Lipschitz in the output.

    Differences of products are taken as ``prod(a+d) (1 - exp(-sum log(1 + d/a)))``, the ratio d/a as a difference of
    logarithms, so that no update is lost in rounding or underflow. The result is rounded up by what float64 can lose.

    Args:
        network: norms, constants and radius.
        update_norms: |dW_l|_2, one per layer (0 for a frozen layer).

    Returns:
        Phi_dW and Phi_W0 with their logarithms.

    Raises:
        ValueError: if a norm is NaN, infinite or negative, or the number of layers differs.

    >>> phi = correction(Network(base_norms=[10.0, 0.0]), update_norms=[0.0, 1.0])
    >>> round(phi.update, 9), round(phi.base, 9)
    (20.0, 20.0)
    """
    base, lipschitz, offsets = (_log(values) for values in network._arrays)
    update = _log(check_norms("update_norms", update_norms, length=network.depth))
    starts = np.append(_log_scalar(network.radius), offsets[:-1])
    log_total = _suffix_sums(lipschitz + np.logaddexp(base, update))
    factor = math.log(2) + _log_scalar(network.loss_lipschitz)
    slack = _rounding(base, update, lipschitz, starts, factor)
    return Phi(
        log_update=factor + _log_sum(starts + log_total + _log_excess(base, update)) + slack,
        log_base=factor + _log_sum(starts + log_total + _log_excess(update, base)) + slack,
    )


@checked
def output_radius_log(network: Network, *, norms: NonNegatives) -> float:
    """Return ln U_L(c): every output of a network with layer norms at most c lies within U_L(c).

    Args:
        network: constants and radius; its base norms are not used.
        norms: c_l, one per layer.
    """
    _, lipschitz, offsets = (_log(values) for values in network._arrays)
    bounds = _log(check_norms("norms", norms, length=network.depth))
    starts = np.append(_log_scalar(network.radius), offsets)
    products = np.append(_suffix_sums(lipschitz + bounds), 0.0)
    return _log_sum(starts + products) + _rounding(bounds, lipschitz, starts)


@checked
def deviation_log(
    network: Network,
    *,
    update_norms: NonNegatives,
    merged_norms: NonNegatives | None = None,
    base_input_norms: NonNegatives | None = None,
    merged_input_norms: NonNegatives | None = None,
    selected_norms: NonNegatives | None = None,
) -> float:
    r"""Return ln D_L, how far the outputs of W0 + dW and W0 can lie apart, from whatever is known.

    Both of these hold for each layer, and the smaller right side is taken:

    .. math:: D_l \le \lambda_l (a_l D_{l-1} + d_l u'_{l-1}), \quad D_l \le \lambda_l (c_l D_{l-1} + d_l u_{l-1}),

    where :math:`c_l = \min(|W_0 + dW|_2, a_l + d_l)` and :math:`u', u` bound the inputs of layer l with and
    without the update. For an update that lives in the columns S of W (cLA), :math:`|dW h| = |B h_S| \le d_l |h_S|`,
    so the part of the input in S may stand for u and u'. Without optional arguments this is Phi_dW / (2 L_loss);
    each optional argument can only lower it.

    Args:
        network: norms, constants and radius.
        update_norms: d_l.
        merged_norms: |W0_l + dW_l|_2.
        base_input_norms: largest norm of layer l's input in the network W0.
        merged_input_norms: the same in the network W0 + dW.
        selected_norms: largest norm of the coordinates of layer l's input, in either network, that the update
            reads; infinity where nothing is known is not accepted, repeat the input's norm instead.

    Returns:
        The logarithm of D_L in units of the output; a priori if every argument is, else a diagnostic for the
        inputs on which the norms were measured.

    Raises:
        ValueError: if a norm is NaN, infinite or negative, or the number of layers differs.

    >>> network = Network(base_norms=[1.0, 1.0])
    >>> loose = deviation_log(network, update_norms=[0.5, 0.5])
    >>> tight = deviation_log(network, update_norms=[0.5, 0.5], merged_norms=[1.0, 1.0])
    >>> round(math.exp(loose), 6), round(math.exp(tight), 6)
    (1.25, 1.0)
    """
    base, lipschitz, offsets = network._arrays
    depth = network.depth
    given = {
        "merged_norms": merged_norms,
        "base_input_norms": base_input_norms,
        "merged_input_norms": merged_input_norms,
        "selected_norms": selected_norms,
    }
    log_known = {
        name: np.full(depth, math.inf) if values is None else _log(check_norms(name, values, length=depth))
        for name, values in given.items()
    }
    update = check_norms("update_norms", update_norms, length=depth)
    log_base, log_update, log_lipschitz, log_offset = (_log(x) for x in (base, update, lipschitz, offsets))
    log_merged = np.minimum(log_known["merged_norms"], np.logaddexp(log_base, log_update))
    gap, base_size, merged_size = -math.inf, _log_scalar(network.radius), _log_scalar(network.radius)
    for layer in range(depth):
        base_size = min(base_size, log_known["base_input_norms"][layer])
        merged_size = min(merged_size, log_known["merged_input_norms"][layer])
        through_base = log_update[layer] + min(merged_size, log_known["selected_norms"][layer])
        through_merged = log_update[layer] + min(base_size, log_known["selected_norms"][layer])
        gap = log_lipschitz[layer] + min(
            np.logaddexp(log_base[layer] + gap, through_base), np.logaddexp(log_merged[layer] + gap, through_merged)
        )
        base_size = np.logaddexp(log_offset[layer], log_lipschitz[layer] + log_base[layer] + base_size)
        merged_size = np.logaddexp(log_offset[layer], log_lipschitz[layer] + log_merged[layer] + merged_size)
    return float(gap) + _rounding(log_base, log_update, log_lipschitz, log_offset, _log_scalar(network.radius))


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(values)


def _log_scalar(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _suffix_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(values[::-1])[::-1]


def _log_excess(kept: NDArray[np.float64], added: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(1 - prod_{l>=s} k_l / (k_l + a_l)) for each s from ln k and ln a.

    With ratio = ln a - ln k the product is exp(-S), S = sum ln(1 + exp(ratio)); S itself is summed in logarithms, since
    exp(ratio) underflows long before the sum stops to matter.
    """
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isneginf(added), -np.inf, added - kept)
    with np.errstate(divide="ignore", over="ignore"):
        # ln ln(1 + e^x) is x below -37, where ln(1 + e^x) = e^x (1 - e^x / 2 ...) and e^x < 2^-53
        log_terms = np.where(ratio < -37, ratio, np.log(np.logaddexp(0.0, ratio)))
        log_sums = np.logaddexp.accumulate(log_terms[::-1])[::-1]
        return np.where(log_sums < -37, log_sums, np.log(-np.expm1(-np.exp(log_sums))))


def _rounding(*logs: NDArray[np.float64] | float) -> float:
    """Return what the logarithm of a sum of products can lose: a few units in the last place of all it is made of.

    Each of the L partial sums that are added rounds at most by the unit in the last place of the sum of all magnitudes.
    """
    parts = np.concatenate([np.atleast_1d(one) for one in logs])
    finite = parts[np.isfinite(parts)]
    return float(2.0**-51 * (finite.size + np.abs(finite).sum()))


def _log_sum(logs: NDArray[np.float64]) -> float:
    top = float(logs.max())
    return top if math.isinf(top) else top + math.log(float(np.exp(logs - top).sum()))
