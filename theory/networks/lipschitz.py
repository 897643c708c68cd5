r"""Lipschitz constants of what stands between the linear maps of a network: activations, norms, softmax, attention.

Constants are for the Euclidean norm unless a docstring says otherwise. The largest derivative of a smooth
activation sits where its second derivative vanishes, so each constant is a number with a derivation, not a fit.
A constant that holds only on a set (a ball, tokens with a least spread) takes that set as an argument.

Sources: Kim, Papamakarios, Mnih, arXiv:2006.04710 (dot-product attention is not globally Lipschitz); Castin, Ablin,
Peyre, arXiv:2312.14820 (its constant on a ball grows with the radius and about sqrt(sequence length)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.optimize import brentq
from scipy.special import ndtr

from theory.arguments import Count, NonNegative, Positive, checked
from theory.checks import check_choice

__all__ = [
    "ACTIVATIONS",
    "SOFTMAX",
    "Activation",
    "attention",
    "gated_mlp",
    "gelu_erf",
    "gelu_tanh",
    "get_activation",
    "mlp",
    "normalization",
    "normalization_radius",
    "residual",
    "silu",
]

SOFTMAX = 0.5
"""Softmax in l2: v' (diag(p) - p p') v = Var_p(v) <= (max v - min v)^2 / 4 <= |v|^2 / 2, tight at (1/2, 1/2)."""


def gelu_erf() -> float:
    r"""Return the Lipschitz constant of x Phi(x), the exact GELU.

    With phi the normal density, the derivative is Phi(x) + x phi(x) and the second one phi(x) (2 - x^2), which
    vanishes at x = sqrt 2 alone on x > 0; the derivatives at x and -x add up to one, so the largest modulus is
    Phi(sqrt 2) + sqrt(2) phi(sqrt 2) = Phi(sqrt 2) + 1 / (e sqrt(pi)).

    >>> round(gelu_erf(), 12)
    1.128904145185
    """
    return float(ndtr(math.sqrt(2.0))) + 1.0 / (math.e * math.sqrt(math.pi))


def gelu_tanh() -> float:
    r"""Return the Lipschitz constant of x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), GPT-2's GELU.

    With t = tanh u, the derivative is (1 + t)/2 + x (1 - t^2) u'/2 and the second derivative has the sign of
    u' + x u''/2 - x t u'^2. That changes sign once on x > 0 (between 1 and 2); derivatives at x and -x add up to one.

    >>> round(gelu_tanh(), 6)
    1.128993
    """
    scale, cubic = math.sqrt(2.0 / math.pi), 0.044715

    def parts(x: float) -> tuple[float, float, float]:
        return math.tanh(scale * (x + cubic * x**3)), scale * (1 + 3 * cubic * x * x), 6 * scale * cubic * x

    def curvature(x: float) -> float:
        t, first, second = parts(x)
        return first + x * second / 2 - x * t * first * first

    x = brentq(curvature, 1.0, 2.0, xtol=1e-15)
    t, first, _ = parts(x)
    return (1 + t) / 2 + x * (1 - t * t) * first / 2


def silu() -> float:
    r"""Return the Lipschitz constant of x sigmoid(x), SiLU or swish: (1 + t) / 2 where t tanh t = 1.

    The derivative is s + x s (1 - s) and the second one s (1 - s) (2 - x tanh(x/2)), which vanishes where t = x/2
    has t tanh t = 1. There s = (1 + 1/t)/2 and s (1 - s) = (1 - 1/t^2)/4, and the sum is (1 + t)/2.

    >>> round(silu(), 12)
    1.099839320129
    """
    return (1.0 + brentq(lambda t: t * math.tanh(t) - 1.0, 1.0, 1.5, xtol=1e-15)) / 2.0


@checked
@dataclass(frozen=True, kw_only=True)
class Activation:
    """A coordinatewise activation, as the constants that a perturbation bound needs.

    Attributes:
        name: the name used in model configurations.
        lipschitz: smallest L with |act(x) - act(y)| <= L |x - y|.
        growth: smallest c with |act(x) - act(0)| <= c |x|; at most ``lipschitz``, and one for GELU and SiLU.
        offset: |act(0)| per coordinate; over a layer of width d the offset vector has norm offset * sqrt(d).
    """

    name: str
    lipschitz: NonNegative
    growth: NonNegative
    offset: NonNegative = 0.0


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation(name="identity", lipschitz=1.0, growth=1.0),
        Activation(name="relu", lipschitz=1.0, growth=1.0),
        Activation(name="tanh", lipschitz=1.0, growth=1.0),
        Activation(name="sigmoid", lipschitz=0.25, growth=0.25, offset=0.5),
        Activation(name="gelu", lipschitz=gelu_erf(), growth=1.0),
        Activation(name="gelu_tanh", lipschitz=gelu_tanh(), growth=1.0),
        Activation(name="silu", lipschitz=silu(), growth=1.0),
    )
}


@checked
def get_activation(name: str) -> Activation:
    """Look an activation up; transformers' ``gelu_new`` and ``gelu_pytorch_tanh`` are the tanh form.

    Raises:
        ValueError: if no activation has that name; the message lists the names.

    >>> get_activation("gelu_new").name
    'gelu_tanh'
    """
    known = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu", "linear": "identity"}
    return ACTIVATIONS[check_choice("activation", known.get(name, name), tuple(ACTIVATIONS))]


@checked
def normalization(*, epsilon: Positive, gain: NonNegative = 1.0, least_spread: NonNegative = 0.0) -> float:
    r"""Return the Lipschitz constant of LayerNorm or RMSNorm over tokens whose spread is at least ``least_spread``.

    LayerNorm maps x to g * c / sqrt(|c|^2/d + epsilon) + b with c = x - mean(x); RMSNorm has c = x and b = 0. Append
    sqrt(d epsilon) to c as one more coordinate: the map is sqrt(d) times the projection of that vector to the unit
    sphere, and u, v with |u|, |v| >= s have |u/|u| - v/|v|| <= |u - v| / sqrt(|u| |v|) <= |u - v| / s (law of
    cosines). Centring is a projection, so the constant is max|g| / sqrt(rho^2 + epsilon) for any two tokens with
    spread sqrt(|c|^2/d) at least rho; the set need not be convex. The Jacobian attains it at spread rho on directions
    across c (LayerNorm: if d >= 3), so it is tight.

    Args:
        epsilon: the norm's epsilon, above zero; 1e-12 (BERT, ViT) makes the global constant a million.
        gain: max|g|, no unit.
        least_spread: rho, a lower bound on every token's standard deviation (LayerNorm) or root mean square (RMSNorm);
            0 holds for every input.

    Raises:
        ValueError: if an argument is out of its range.

    >>> round(normalization(epsilon=1e-6), 6)
    1000.0
    """
    return gain / math.hypot(least_spread, math.sqrt(epsilon))


@checked
def normalization_radius(
    *, width: Count, gain: NonNegative = 1.0, offset: NonNegative = 0.0, epsilon: NonNegative = 0.0
) -> float:
    r"""Return the radius of the ball that LayerNorm or RMSNorm maps everything into: max|g| sqrt(d) + |b|_2.

    |c| / sqrt(|c|^2/d + epsilon) < sqrt(d). This is what makes attention after a norm Lipschitz at all.

    Args:
        width: d, the model's width.
        gain: max|g|.
        offset: |b|_2, Euclidean norm of the bias vector (0 for RMSNorm).
        epsilon: ignored by the supremum; accepted so that a norm's settings can be passed on whole.

    >>> normalization_radius(width=64)
    8.0
    """
    return gain * math.sqrt(width) + offset


@checked
def attention(
    *,
    radius: NonNegative,
    score_norm: NonNegative,
    value_norm: NonNegative,
    length: Count,
    heads: Count = 1,
    output_norm: NonNegative = 1.0,
    over: Literal["tokens", "sequence"] = "tokens",
    mask: Literal["none", "causal", "any"] = "any",
) -> float:
    r"""Return a Lipschitz constant of dot-product self-attention on sequences whose tokens lie in a ball.

    One head maps tokens x_1..x_N to y_i = sum_j P_ij V x_j, P_i = softmax_j(x_i' M x_j), M = Q'K / sqrt(head width).
    It has no global Lipschitz constant (arXiv:2006.04710). Its derivative along (e_j), with m_i = sum_j P_ij x_j, is

        sum_j P_ij V e_j  +  V Cov_{P_i}(x) M' e_i  +  V sum_j P_ij (x_j - m_i) (M' x_i) . e_j .

    On |x_j| <= R: Cov <= R^2, and by Cauchy-Schwarz the last term is at most |V| |M| R^2 (sum_j P_ij |e_j|^2)^(1/2).

    * ``over="tokens"``, the norm max_i |x_i|: |V| (1 + 2 |M| R^2), whatever the length.
    * ``over="sequence"``, the Frobenius norm: if the columns of P sum to at most k^2, then
      sum_ij P_ij |e_j|^2 <= k^2 |e|_F^2 and the constant is |V| (k + |M| R^2 (1 + k)). Always k <= sqrt N: below
      sqrt 3 |V| ((4N + 1) |M|^2 R^4 + N)^(1/2), the bound of arXiv:2312.14820, with its growth in R and N. Logits lie
      within |M| R^2 of zero, so P_ij <= exp(2 |M| R^2) / (keys that i sees): k <= exp(|M| R^2) without a mask, the
      mean-field regime, and k <= exp(|M| R^2) sqrt(1 + ln N) under a causal one (harmonic sum).

    Any mask only restricts P, and the derivative's bounds stay. Rotary positions turn queries and keys and leave
    norms alone: read |M| as |Q| |K| / sqrt(head width). H heads with the same norms are stacked, hence sqrt(H), then
    mapped by the output matrix.

    Args:
        radius: R, largest Euclidean norm of an input token; must be given.
        score_norm: |M| of one head (or |Q| |K| / sqrt(head width)), the largest over heads.
        value_norm: |V| of one head, the largest over heads.
        length: N, number of tokens; ignored by ``over="tokens"``.
        heads: H.
        output_norm: spectral norm of the output matrix.
        over: norm on sequences: ``"tokens"`` or ``"sequence"``.
        mask: ``"none"``, ``"causal"`` or ``"any"`` (padding too); what is known of the keys that a token sees.

    Raises:
        ValueError: if an argument is out of its range.

    >>> attention(radius=2.0, score_norm=0.25, value_norm=1.0, length=16)
    3.0
    >>> attention(radius=2.0, score_norm=0.25, value_norm=1.0, length=16, over="sequence")
    9.0
    """
    turning = score_norm * radius * radius
    spread = {"none": 1.0, "causal": 1.0 + math.log(length), "any": math.inf}[mask]
    columns = math.sqrt(min(length, spread * math.exp(min(2.0 * turning, 700.0))))
    mixing = 1.0 + 2.0 * turning if over == "tokens" else columns + turning * (1.0 + columns)
    return output_norm * value_norm * mixing * math.sqrt(heads)


@checked
def residual(branch: NonNegative) -> float:
    """Return the constant of x + f(x): one plus that of f.

    >>> residual(0.5)
    1.5
    """
    return 1.0 + branch


@checked
def mlp(*, up_norm: NonNegative, down_norm: NonNegative, activation: str = "gelu") -> float:
    """Return the constant of down(act(up(x))): the product of the three.

    >>> mlp(up_norm=2.0, down_norm=3.0, activation="relu")
    6.0
    """
    return get_activation(activation).lipschitz * up_norm * down_norm


@checked
def gated_mlp(
    *,
    radius: NonNegative,
    gate_norm: NonNegative,
    up_norm: NonNegative,
    down_norm: NonNegative,
    gate_row_norm: NonNegative | None = None,
    up_row_norm: NonNegative | None = None,
    activation: str = "silu",
) -> float:
    r"""Return the constant of down(act(gate x) * (up x)), SwiGLU, on |x| <= radius; the product has no global one.

    With |a * b|_2 <= |a|_inf |b|_2, |act(t)| <= c |t| and |G x|_inf <= |G|_rows |x| (|G|_rows the largest row norm),

        |down| R ( L min(|G| |U|_rows, |G|_rows |U|) + c min(|G|_rows |U|, |G| |U|_rows) ).

    Args:
        radius: R, largest Euclidean norm of the input.
        gate_norm: |G|, spectral.
        up_norm: |U|, spectral.
        down_norm: spectral norm of the last matrix.
        gate_row_norm: |G|_rows; the spectral norm, which is never smaller, if left out.
        up_row_norm: |U|_rows; likewise.
        activation: the gate's, with act(0) = 0.

    Raises:
        ValueError: if an argument is out of its range, or the activation is not zero at zero.

    >>> round(gated_mlp(radius=2.0, gate_norm=1.0, up_norm=1.0, down_norm=1.0, activation="relu"), 6)
    4.0
    """
    act = get_activation(activation)
    if act.offset:
        raise ValueError(f"activation of a gate must be zero at zero, got {activation!r}")
    gate_rows = gate_norm if gate_row_norm is None else min(gate_norm, gate_row_norm)
    up_rows = up_norm if up_row_norm is None else min(up_norm, up_row_norm)
    product = min(gate_norm * up_rows, gate_rows * up_norm)
    scale = down_norm * radius
    return scale * product * (act.lipschitz + act.growth)
