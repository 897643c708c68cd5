r"""How far fine-tuning can move a transformer's output: Theorem 1's recursion, carried through real blocks.

Theorem 1 of arXiv:2606.13767 treats maps act(W x). A transformer also has attention, products, norms and skips, so
three numbers are carried from layer to layer in place of (D_l, U_l), each a supremum over inputs and over tokens:

* ``difference``: |h - h'|, with h the token in the network f_{W0} and h' in f_{W0+dW};
* ``base``: |h|;  ``updated``: |h'|.

Norms are Euclidean within a token and the maximum over tokens, so nothing grows with the sequence length. Every step
is stated and proved where it is done; together they bound sup |f_{W0+dW} - f_{W0}| over inputs in a ball whose radius
must be given. Dot-product attention is not globally Lipschitz (arXiv:2006.04710), so without one there is no bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Count, NonNegative, Positive, checked
from theory.checks import check_choice, check_integer, check_number
from theory.networks.lipschitz import get_activation
from theory.networks.signal import Projection, Signal

__all__ = ["Attention", "Block", "FeedForward", "Norm", "Projection", "Signal", "transformer_perturbation"]


@checked
@dataclass(frozen=True, kw_only=True)
class Norm:
    """LayerNorm or RMSNorm, not trained.

    Attributes:
        width: d.
        epsilon: the norm's epsilon, above zero.
        gain: max|g|.
        offset: |b|_2 (0 for RMSNorm).
        least_spread: lower bound on the standard deviation (LayerNorm) or root mean square (RMSNorm) of the tokens
            of f_{W0}. 0 holds for all inputs; a value measured on data makes the result a diagnostic for those inputs.
    """

    width: Count
    epsilon: Positive
    gain: NonNegative = 1.0
    offset: NonNegative = 0.0
    least_spread: NonNegative = 0.0

    @checked
    def apply(self, signal: Signal) -> Signal:
        r"""Bound a norm's output.

        In the coordinates of ``lipschitz.normalization`` the norm is sqrt(d) times a projection to the sphere, where
        |u/|u| - v/|v|| <= 2 |u - v| / (|u| + |v|). The token of f_{W0} has spread at least rho, the one of f_{W0+dW} at
        least rho - |h - h'| / sqrt(d). Two outputs differ by at most twice the radius without the offset. A token of
        size s comes out no larger than max|g| s / sqrt(s^2/d + epsilon) + |b|.
        """
        check_number("epsilon", self.epsilon, positive=True)
        rho, root = check_number("least_spread", self.least_spread), math.sqrt(self.width)
        before = math.sqrt(rho**2 + self.epsilon)
        after = math.sqrt(max(rho - signal.difference / root, 0.0) ** 2 + self.epsilon)
        difference = min(2 * self.gain * signal.difference / (before + after), 2 * self.gain * root)

        def reach(size: float) -> float:
            return self.gain * size / math.hypot(size / root, math.sqrt(self.epsilon)) + self.offset

        return Signal(difference=difference, base=reach(signal.base), updated=reach(signal.updated))


@checked
@dataclass(frozen=True, kw_only=True)
class Attention:
    """Multi-head self-attention; a causal or padding mask, rotary positions and grouped-query heads are covered.

    Attributes:
        query, key, value: norms per head or per group of heads (one number stands for each of them).
        output: the matrix after the heads are concatenated.
        heads: number of query heads.
        head_width: width of a head; scores are divided by its root.
    """

    query: Projection
    key: Projection
    value: Projection
    output: Projection
    heads: Count
    head_width: Count

    @checked
    def apply(self, signal: Signal) -> Signal:
        r"""Bound attention, head by head.

        Scores: q'k - q~'k~ = (q - q~)'k + q~'(k - k~) or with the roles exchanged; call the smaller bound e. Two
        softmax rows whose logits differ by at most e have total variation at most tanh(e/2): at most the largest of
        |expit(a) - expit(b)| with |a - b| <= 2 e. Values: sum_j P_j v_j - P~_j v~_j = sum_j P_j (v_j - v~_j) +
        sum_j (P_j - P~_j) v~_j, and the second sum is at most the total variation times the diameter 2 max|W_v h|
        (a bias of the values does not count). Heads are stacked in l2, then the output matrix is applied.
        """
        heads = check_integer("heads", self.heads)
        check_integer("head_width", self.head_width)

        def projected(projection: Projection) -> tuple[NDArray[np.float64], ...]:
            base, update, merged, bias = projection.per_head(heads)
            difference = np.minimum(
                base * signal.difference + update * signal.updated, merged * signal.difference + update * signal.base
            )
            return difference, base * signal.base, merged * signal.updated, bias

        query_change, query, query_new, query_bias = projected(self.query)
        key_change, key, key_new, key_bias = projected(self.key)
        value_change, value, value_new, value_bias = projected(self.value)
        query, query_new, key, key_new = query + query_bias, query_new + query_bias, key + key_bias, key_new + key_bias
        scores = np.minimum(query_change * key + query_new * key_change, query_change * key_new + query * key_change)
        variation = np.tanh(scores / math.sqrt(self.head_width) / 2)
        change = value_change + 2 * variation * np.minimum(value, value_new)
        stacked = Signal(
            difference=float(np.linalg.norm(change)),
            base=float(np.linalg.norm(value + value_bias)),
            updated=float(np.linalg.norm(value_new + value_bias)),
        )
        return self.output.apply(stacked)


@checked
@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """down(act(up h)), or the gated down(act(gate h) * (up h)) of Llama when ``gate`` is given."""

    up: Projection
    down: Projection
    activation: str
    hidden_width: Count
    gate: Projection | None = None

    @checked
    def apply(self, signal: Signal) -> Signal:
        r"""Bound the two kinds.

        Plain: |act(x)| <= growth |x| + offset sqrt(width). Gated: a*b - a~*b~ = (a - a~)*b + a~*(b - b~) with
        |a*b|_2 <= |a|_inf |b|_2, where |G h|_inf <= (largest row norm) |h| + |bias|.
        """
        act = get_activation(self.activation)
        offset = act.offset * math.sqrt(check_integer("hidden_width", self.hidden_width))

        def activated(x: Signal) -> Signal:
            return Signal(
                difference=act.lipschitz * x.difference,
                base=act.growth * x.base + offset,
                updated=act.growth * x.updated + offset,
            )

        if self.gate is None:
            return self.down.apply(activated(self.up.apply(signal)))
        if act.offset:
            raise ValueError(f"activation of a gate must be zero at zero, got {self.activation!r}")
        gate, up = activated(self.gate.apply(signal)), self.up.apply(signal)

        def largest_entry(projection: Projection, whole: Signal, slope: float) -> tuple[float, float]:
            if projection.row_norm is None:
                return whole.base, whole.updated
            rows, bias = slope * projection.row_norm, slope * float(np.linalg.norm(projection.bias))
            return min(whole.base, rows * signal.base + bias), min(whole.updated, rows * signal.updated + bias)

        gate_entry = largest_entry(self.gate, gate, act.growth)
        up_entry = largest_entry(self.up, up, 1.0)
        product = Signal(
            difference=min(
                gate.difference * up_entry[0] + gate_entry[1] * up.difference,
                gate.difference * up_entry[1] + gate_entry[0] * up.difference,
            ),
            base=min(gate_entry[0] * up.base, gate.base * up_entry[0]),
            updated=min(gate_entry[1] * up.updated, gate.updated * up_entry[1]),
        )
        return self.down.apply(product)


@checked
@dataclass(frozen=True, kw_only=True)
class Block:
    """One transformer block.

    Attributes:
        placement: ``"post"``: h -> norm2(y + ff(y)), y = norm1(h + att(h)) (BERT, RoBERTa); ``"pre"``:
            h -> y + ff(norm2(y)), y = h + att(norm1(h)) (ViT, GPT-2 and, with RMSNorm, Llama).
    """

    attention: Attention
    feed_forward: FeedForward
    norms: tuple[Norm, Norm]
    placement: Literal["pre", "post"]

    @checked
    def apply(self, signal: Signal) -> Signal:
        """Carry the three suprema through the block."""
        first, second = self.norms
        if check_choice("placement", self.placement, ("pre", "post")) == "post":
            middle = first.apply(signal + self.attention.apply(signal))
            return second.apply(middle + self.feed_forward.apply(middle))
        middle = signal + self.attention.apply(first.apply(signal))
        return middle + self.feed_forward.apply(second.apply(middle))


@checked
def transformer_perturbation(
    blocks: Sequence[Block], *, radius: NonNegative, final_norm: Norm | None = None, head: Projection | None = None
) -> Signal:
    r"""Bound sup |f_{W0+dW}(x) - f_{W0}(x)| for an encoder or a decoder, over inputs whose tokens lie in a ball.

    Theorem 1 of arXiv:2606.13767 for transformers, derived here: D_0 = 0, U_0 = radius, then each block's steps. For
    a loss that is L-Lipschitz in the output, the loss moves by at most L * difference, and the first branch of
    Theorem 1 reads G(W0+dW) <= G(W0) + 2 L * difference. The embedding and the norms are taken as not trained; the
    output is one token's state (classification token, last token, or a mean over tokens: the bound holds for each).

    How loose it is: without ``least_spread`` a norm costs 1/sqrt(epsilon), and with the epsilon of BERT or ViT (1e-12)
    practically every update meets the cap, twice the radius of the last norm. With spreads measured on data one small
    block is bounded within a factor of about twenty in the tests, and depth multiplies that.

    Args:
        blocks: in order; at least one.
        radius: largest Euclidean norm of an embedded token (positions included). For BERT it is that of the
            embedding's LayerNorm, ``normalization_radius``.
        final_norm: norm after the last block (pre-norm models).
        head: linear map on top; its update may be measured too.

    Returns:
        The suprema at the output; ``difference`` is never above base + updated.

    Raises:
        ValueError: if a list is empty or a number is out of its range.

    >>> still = Projection(base=1.0)
    >>> norm = Norm(width=4, epsilon=1e-5)
    >>> attention = Attention(query=still, key=still, value=still, output=still, heads=1, head_width=4)
    >>> feed_forward = FeedForward(up=still, down=still, activation="gelu", hidden_width=4)
    >>> block = Block(attention=attention, feed_forward=feed_forward, norms=(norm, norm), placement="pre")
    >>> transformer_perturbation([block], radius=1.0, final_norm=norm).difference
    0.0
    """
    if not blocks:
        raise ValueError("blocks must hold at least one block, got none")
    check_number("radius", radius)
    signal = Signal(difference=0.0, base=float(radius), updated=float(radius))
    for block in blocks:
        signal = _capped(block.apply(signal))
    for last in (final_norm, head):
        signal = signal if last is None else _capped(last.apply(signal))
    return signal


def _capped(signal: Signal) -> Signal:
    return Signal(
        difference=min(signal.difference, signal.base + signal.updated), base=signal.base, updated=signal.updated
    )
