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
from numpy.typing import ArrayLike, NDArray

from theory.checks import check_norms, check_number
from theory.records import exp_or_inf

__all__ = ["Network", "Phi", "correction", "deviation_log", "output_radius_log"]


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

    base_norms: ArrayLike
    lipschitz: ArrayLike = 1.0
    offsets: ArrayLike = 0.0
    radius: float = 1.0
    loss_lipschitz: float = 1.0
    _arrays: tuple[NDArray[np.float64], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        base = check_norms("base_norms", self.base_norms)
        lipschitz = check_norms("lipschitz", self.lipschitz, length=base.size)
        offsets = check_norms("offsets", self.offsets, length=base.size)
        check_number("radius", self.radius)
        check_number("loss_lipschitz", self.loss_lipschitz)
        object.__setattr__(self, "_arrays", (base, lipschitz, offsets))

    @property
    def norms(self) -> NDArray[np.float64]:
        """The base norms as an array."""
        return self._arrays[0]

    @property
    def depth(self) -> int:
        """Number of layers, L."""
        return self._arrays[0].size


@dataclass(frozen=True, kw_only=True)
class Phi:
    """Both correction terms of Theorem 1, in units of the loss; a value may be infinite, its log is not.

    Attributes:
        log_update: ln Phi_dW, of ``G(W0 + dW) <= G(W0) + Phi_dW``.
        log_base: ln Phi_W0, of ``G(W0 + dW) <= G(dW) + Phi_W0``.
    """

    log_update: float
    log_base: float

    @property
    def update(self) -> float:
        """Phi_dW."""
        return exp_or_inf(self.log_update)

    @property
    def base(self) -> float:
        """Phi_W0."""
        return exp_or_inf(self.log_base)


def correction(network: Network, *, update_norms: ArrayLike) -> Phi:
    """Evaluate both correction terms of Theorem 1 (arXiv:2606.13767, mended) in O(L), in log space.

    Statement: ``G(W0+dW) <= min(G(W0) + Phi_dW, G(dW) + Phi_W0)`` for every sample, G being the absolute
    difference of population and sample mean of a loss that is Lipschitz in the output.

    Differences of products are taken as ``prod(a+d) (1 - exp(-sum log(1 + d/a)))``, so that a small update
    is not lost in rounding.

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
    base, lipschitz, offsets = network._arrays
    update = check_norms("update_norms", update_norms, length=network.depth)
    starts = _log(np.append(network.radius, offsets[:-1]))
    with np.errstate(divide="ignore"):
        log_total = _suffix_sums(np.log(lipschitz) + np.log(base + update))
    factor = math.log(2 * network.loss_lipschitz) if network.loss_lipschitz > 0 else -math.inf
    return Phi(
        log_update=factor + _log_sum(starts + log_total + _log_excess(base, update)),
        log_base=factor + _log_sum(starts + log_total + _log_excess(update, base)),
    )


def output_radius_log(network: Network, *, norms: ArrayLike) -> float:
    """Return ln U_L(c): every output of a network with layer norms at most c lies within U_L(c).

    Args:
        network: constants and radius; its base norms are not used.
        norms: c_l, one per layer.
    """
    _, lipschitz, offsets = network._arrays
    bounds = check_norms("norms", norms, length=network.depth)
    with np.errstate(divide="ignore"):
        products = np.append(_suffix_sums(np.log(lipschitz) + np.log(bounds)), 0.0)
    return _log_sum(_log(np.append(network.radius, offsets)) + products)


def deviation_log(
    network: Network,
    *,
    update_norms: ArrayLike,
    merged_norms: ArrayLike | None = None,
    base_input_norms: ArrayLike | None = None,
    merged_input_norms: ArrayLike | None = None,
    selected_norms: ArrayLike | None = None,
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
    log_merged = np.minimum(log_known["merged_norms"], _log(base + update))
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
    return float(gap)


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(values)


def _log_scalar(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _suffix_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(values[::-1])[::-1]


def _log_excess(kept: NDArray[np.float64], added: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(1 - prod_{l>=s} kept_l / (kept_l + added_l)) for each s."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_ratio = np.where(added == 0, 0.0, -np.log1p(added / kept))
        return np.log(-np.expm1(_suffix_sums(log_ratio)))


def _log_sum(logs: NDArray[np.float64]) -> float:
    top = float(logs.max())
    return top if math.isinf(top) else top + math.log(float(np.exp(logs - top).sum()))
