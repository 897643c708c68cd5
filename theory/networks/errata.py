r"""Theorem 1 of arXiv:2606.13767 as typeset: its 2^L terms in exact rationals, three errata, a counter-example.

With bits of the index i saying which layers carry ``W0`` and which ``dW``, the paper writes

.. math:: \Phi_{dW} = 2 L_{loss} \Big[ C \prod_l \lambda_l \sum_{i=1}^{2^L-1} \prod_{j=1}^L P(i,j)
    + \sum_{i \le 2^L-2,\ i \ne 2^a-1} F(i) \Big], \qquad
    F(i) = z_{L-\psi(i)} \prod_{j=1}^{\psi(i)} \lambda_{L-j+1} H(i,j), \quad \psi(i) = \lfloor \log_2 i \rfloor

and :math:`\Phi_{W0}` with :math:`2 \le i \le 2^L` in the first sum and :math:`i \le 2^L-1, i \ne 2^a, a \in [L]`
in the second. As typeset on the paper's project page:

* E1: P(i,j) reads the parity of :math:`\lfloor (i-1)/2^{L-1} \rfloor`, which does not depend on j; it must be
  :math:`2^{L-j}`. (Odd: the norm of W0; even: of dW; layer L-j+1.)
* E2: H(i,j), by the parity of :math:`\lfloor i/2^{\psi(i)-j} \rfloor`, gives dW for odd and W0 for even, opposite
  to the index sets that the sums leave out (:math:`2^a-1`, all ones, is to be the path of W0 alone).
* E3: in :math:`\Phi_{W0}` the second sum must leave out i = 1 too; as typeset it adds z_L, a harmless slack.

With all three mended the sums equal the closed form of ``theory.networks.perturbation`` exactly.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated

import numpy as np

from theory.arguments import Count, Integer, Whole, checked
from theory.checks import check_choice, check_integer

__all__ = [
    "ERRATA",
    "ExactNetwork",
    "ScalarNetwork",
    "enumerated",
    "find_counterexample",
    "random_network",
    "recursed",
    "violates",
]

ERRATA = ("E1", "E2", "E3")
Number = Fraction | int


@dataclass(frozen=True, kw_only=True)
class ExactNetwork:
    """The inputs of theorem 1 as exact rationals, one entry per layer, layer 1 first.

    Attributes:
        base_norms: a_l = |W0_l|.
        update_norms: d_l = |dW_l|.
        lipschitz: Lipschitz constants of the activations.
        offsets: z_l = |s_l(0)|.
        radius: C.
    """

    base_norms: Sequence[Number]
    update_norms: Sequence[Number]
    lipschitz: Sequence[Number]
    offsets: Sequence[Number]
    radius: Number = 1


@checked
def random_network(depth: Annotated[int, Integer(1, 100)], *, seed: Whole) -> ExactNetwork:
    """Draw theorem 1's inputs as fractions of small whole numbers.

    Args:
        depth: number of layers.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)

    def draw() -> list[Fraction]:
        return [Fraction(int(rng.integers(0, 20)), int(rng.integers(1, 9))) for _ in range(depth)]

    return ExactNetwork(base_norms=draw(), update_norms=draw(), lipschitz=draw(), offsets=draw(), radius=draw()[0])


@checked
def recursed(network: ExactNetwork) -> tuple[Fraction, Fraction]:
    """Return Phi_dW / (2 L_loss) and Phi_W0 / (2 L_loss) by the recursions of theorem 1's proof, exactly.

    >>> one = ExactNetwork(base_norms=[10, 0], update_norms=[0, 1], lipschitz=[1, 1], offsets=[0, 0])
    >>> recursed(one)
    (Fraction(10, 1), Fraction(10, 1))
    """
    results = []
    for kept, added in (
        (network.base_norms, network.update_norms),
        (network.update_norms, network.base_norms),
    ):
        gap, size = Fraction(0), Fraction(network.radius)
        for kept_norm, added_norm, lipschitz, offset in zip(
            kept, added, network.lipschitz, network.offsets, strict=True
        ):
            gap = lipschitz * (kept_norm * gap + added_norm * size)
            size = offset + lipschitz * (kept_norm + added_norm) * size
        results.append(gap)
    return results[0], results[1]


@checked
def enumerated(network: ExactNetwork, *, mended: Collection[str] = ERRATA) -> tuple[Fraction, Fraction]:
    """Return Phi_dW / (2 L_loss) and Phi_W0 / (2 L_loss) by the paper's 2^L terms, exactly.

    Args:
        network: depth at most 20, for the time's sake.
        mended: which errata to mend; none gives the theorem as typeset.

    Raises:
        ValueError: if an erratum is unknown or the network too deep.

    >>> one = ExactNetwork(base_norms=[10, 0], update_norms=[0, 1], lipschitz=[1, 1], offsets=[0, 0])
    >>> enumerated(one)[0], enumerated(one, mended=())[0]
    (Fraction(10, 1), Fraction(0, 1))
    """
    for erratum in mended:
        check_choice("mended", erratum, ERRATA)
    depth = check_integer("depth", len(network.base_norms), maximum=20)
    last = 2**depth
    scale = math.prod(map(Fraction, network.lipschitz), start=Fraction(network.radius))

    def first_sum(indices: range) -> Fraction:
        return scale * sum(_path(network, index, exponent_fixed="E1" in mended) for index in indices)

    def second_sum(indices: Iterator[int]) -> Fraction:
        return sum((_offset_path(network, index, labels_fixed="E2" in mended) for index in indices), Fraction(0))

    ones = {2**a - 1 for a in range(1, depth + 1)}
    powers = {2**a for a in range(0 if "E3" in mended else 1, depth + 1)}
    update = first_sum(range(1, last)) + second_sum(i for i in range(1, last - 1) if i not in ones)
    base = first_sum(range(2, last + 1)) + second_sum(i for i in range(1, last) if i not in powers)
    return update, base


def _path(network: ExactNetwork, index: int, *, exponent_fixed: bool) -> Fraction:
    depth = len(network.base_norms)
    product = Fraction(1)
    for j in range(1, depth + 1):
        odd = (index - 1) // 2 ** (depth - j if exponent_fixed else depth - 1) % 2
        product *= (network.base_norms if odd else network.update_norms)[depth - j]
    return product


def _offset_path(network: ExactNetwork, index: int, *, labels_fixed: bool) -> Fraction:
    depth, psi = len(network.base_norms), index.bit_length() - 1
    product = Fraction(network.offsets[depth - psi - 1])
    for j in range(1, psi + 1):
        odd = index // 2 ** (psi - j) % 2
        norms = network.base_norms if odd == labels_fixed else network.update_norms
        product *= Fraction(network.lipschitz[depth - j]) * norms[depth - j]
    return product


@dataclass(frozen=True, kw_only=True)
class ScalarNetwork:
    """A network of width one with whole weights and activations ``t -> t + z_l``, all 1-Lipschitz.

    Attributes:
        base: the weights W0_l.
        update: the updates dW_l.
        offsets: z_l, not negative.
        point: the input x; the radius is |x|.
    """

    base: tuple[int, ...]
    update: tuple[int, ...]
    offsets: tuple[int, ...]
    point: int = 1

    def deviation(self) -> int:
        """Return |f_{W0+dW}(x) - f_{W0}(x)|, exactly."""
        merged, plain = self.point, self.point
        for base, update, offset in zip(self.base, self.update, self.offsets, strict=True):
            merged, plain = (base + update) * merged + offset, base * plain + offset
        return abs(merged - plain)

    def exact(self) -> ExactNetwork:
        """Return what theorem 1 needs to know of this network."""
        return ExactNetwork(
            base_norms=[abs(weight) for weight in self.base],
            update_norms=[abs(weight) for weight in self.update],
            lipschitz=[1] * len(self.base),
            offsets=self.offsets,
            radius=abs(self.point),
        )


@checked
def violates(network: ScalarNetwork, *, mended: Collection[str] = ()) -> bool:
    """Return whether the network moves further than theorem 1 allows with only the given errata mended.

    >>> violates(ScalarNetwork(base=(1, 0), update=(0, 1), offsets=(0, 0)))
    True
    """
    return network.deviation() > enumerated(network.exact(), mended=mended)[0]


@checked
def find_counterexample(
    *, mended: Collection[str] = (), max_depth: Count = 4, largest: Count = 9, tries: Count = 2000, seed: Whole = 0
) -> ScalarNetwork | None:
    """Search random networks for one that breaks theorem 1 as typeset, and make it as small as it gets.

    Args:
        mended: errata mended before the search; ``("E1", "E3")`` isolates E2, all three leave none to find.
        max_depth: depths 1 to this are drawn.
        largest: whole numbers of at most this size are drawn.
        tries: networks drawn before giving up.
        seed: of the draws.

    Returns:
        A network that no deletion of a layer and no smaller number leaves a counter-example, or None.

    >>> find_counterexample(mended=("E2", "E3"))
    ScalarNetwork(base=(0, 1), update=(1, 0), offsets=(0, 0), point=1)
    """
    rng = np.random.default_rng(seed)
    for _ in range(tries):
        depth = int(rng.integers(1, max_depth + 1))
        base, update = rng.integers(-largest, largest + 1, size=(2, depth)).tolist()
        offsets = rng.integers(0, largest + 1, size=depth).tolist()
        network = ScalarNetwork(
            base=tuple(base), update=tuple(update), offsets=tuple(offsets), point=int(rng.integers(0, largest + 1))
        )
        if violates(network, mended=mended):
            return _minimise(network, mended)
    return None


def _minimise(network: ScalarNetwork, mended: Collection[str]) -> ScalarNetwork:
    while True:
        smaller = next((one for one in _smaller(network) if violates(one, mended=mended)), None)
        if smaller is None:
            return network
        network = smaller


def _smaller(network: ScalarNetwork) -> Iterator[ScalarNetwork]:
    """Yield the network without one layer, then with one number nearer to zero or without its sign."""
    parts = (network.base, network.update, network.offsets)
    for layer in range(len(network.base)) if len(network.base) > 1 else ():
        base, update, offsets = (part[:layer] + part[layer + 1 :] for part in parts)
        yield replace(network, base=base, update=update, offsets=offsets)
    for value in _nearer(network.point):
        yield replace(network, point=value)
    for which, part in enumerate(parts):
        for layer, number in enumerate(part):
            for value in _nearer(number):
                changed = [*parts[:which], (*part[:layer], value, *part[layer + 1 :]), *parts[which + 1 :]]
                yield replace(network, base=changed[0], update=changed[1], offsets=changed[2])


def _nearer(number: int) -> list[int]:
    sign = 1 if number > 0 else -1
    candidates = [0, sign, number // 2 if number > 0 else -(-number // 2), number - sign]
    return [-number] * (number < 0) + [value for value in candidates if abs(value) < abs(number)]
