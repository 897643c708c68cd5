"""Every constant is a supremum: it is never exceeded by a Jacobian norm, and a search comes close to it."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, ndtr, softmax

from theory.networks import lipschitz

FUNCTIONS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "sigmoid": expit,
    "gelu": lambda x: x * ndtr(x),
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * expit(x),
}


def test_every_activation_has_a_reference_function():
    assert set(FUNCTIONS) == set(lipschitz.ACTIVATIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_constant_is_the_largest_slope(name):
    act, function = lipschitz.ACTIVATIONS[name], FUNCTIONS[name]
    x = np.linspace(-12, 12, 48_001)
    slopes = np.abs(np.diff(function(x)) / np.diff(x))
    # A chord's slope is a mean of derivatives, so it never exceeds the constant (up to cancellation, 1e-11 here), and
    # at spacing 5e-4 the largest chord is within a second-order term, below 1e-6, of the largest derivative.
    assert slopes.max() <= act.lipschitz + 1e-11
    assert slopes.max() >= act.lipschitz - 1e-6
    assert abs(function(np.zeros(1))[0]) == act.offset
    growth = np.abs(function(x[x != 0]) - act.offset) / np.abs(x[x != 0])
    assert act.growth - 1e-3 <= growth.max() <= act.growth + 1e-9


@pytest.mark.parametrize(("name", "bracket"), [("gelu", (1.2, 1.6)), ("gelu_tanh", (1.2, 1.6)), ("silu", (2.0, 2.8))])
def test_smooth_constants_agree_with_a_maximisation_of_the_derivative(name, bracket):
    step = 1e-4
    function = FUNCTIONS[name]
    best = minimize_scalar(
        lambda x: -(function(x + step) - function(x - step)) / (2 * step), bounds=bracket, method="bounded"
    )
    # central difference: error step^2 |g'''| / 6 < 1e-8
    assert -best.fun == pytest.approx(lipschitz.ACTIVATIONS[name].lipschitz, abs=1e-8)


def test_softmax_jacobian_reaches_one_half_and_no_more():
    rng = np.random.default_rng(0)
    norms = []
    for _ in range(2_000):
        p = softmax(rng.normal(size=6) * rng.uniform(0, 12))
        norms.append(np.linalg.norm(np.diag(p) - np.outer(p, p), 2))
    assert max(norms) <= lipschitz.SOFTMAX + 1e-12
    p = softmax(np.array([0.0, 0.0, -40.0, -40.0]))
    assert np.linalg.norm(np.diag(p) - np.outer(p, p), 2) == pytest.approx(lipschitz.SOFTMAX, abs=1e-12)


def normalize(x, gain, offset, epsilon, centred):
    c = x - x.mean(-1, keepdims=True) if centred else x
    return gain * c / np.sqrt((c**2).mean(-1, keepdims=True) + epsilon) + offset


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("least_spread", [0.0, 0.3])
def test_normalization_constant_holds_for_pairs_and_is_attained(centred, least_spread):
    rng = np.random.default_rng(1)
    width, epsilon = 6, 1e-2
    gain, offset = rng.uniform(0.5, 2.0, width), rng.normal(size=width)
    gain[0] = 2.5
    constant = lipschitz.normalization(epsilon=epsilon, gain=gain.max(), least_spread=least_spread)
    x = rng.normal(size=(20_000, width)) * rng.uniform(0.05, 3, (20_000, 1))
    y = x + rng.normal(size=x.shape) * rng.uniform(1e-3, 1, (20_000, 1))

    def spread(v):
        c = v - v.mean(-1, keepdims=True) if centred else v
        return np.sqrt((c**2).mean(-1))

    inside = (spread(x) >= least_spread) & (spread(y) >= least_spread)
    change = normalize(x, gain, offset, epsilon, centred) - normalize(y, gain, offset, epsilon, centred)
    ratio = np.linalg.norm(change, axis=-1) / np.linalg.norm(x - y, axis=-1)
    assert inside.sum() > 1_000
    assert ratio[inside].max() <= constant + 1e-9
    # tight with equal gains: move across c from a token of exactly the least spread
    token = np.array([1.0, -1, 0, 0, 0, 0]) * least_spread * math.sqrt(width / 2)
    across = np.array([0, 0, 1.0, -1, 0, 0]) * 1e-6
    moved = normalize(token + across, 2.5, 0.0, epsilon, centred) - normalize(
        token - across, 2.5, 0.0, epsilon, centred
    )
    assert np.linalg.norm(moved) / np.linalg.norm(2 * across) == pytest.approx(constant, rel=1e-6)
    # without a least spread the constraint matters: a smaller spread breaks the constant of the larger one
    if least_spread:
        assert ratio.max() > constant


@pytest.mark.parametrize("centred", [True, False])
def test_normalization_radius_holds_and_is_approached(centred):
    rng = np.random.default_rng(2)
    width, epsilon, gain = 8, 1e-6, 1.7
    offset = rng.normal(size=width)
    radius = lipschitz.normalization_radius(width=width, gain=gain, offset=np.linalg.norm(offset))
    x = rng.normal(size=(5_000, width)) * 10
    sizes = np.linalg.norm(normalize(x, gain, offset, epsilon, centred), axis=-1)
    assert sizes.max() <= radius
    assert sizes.max() >= 0.8 * radius


def attention_map(tokens, score, value, causal):
    """One head and its Jacobian as an array (out token, out, in token, in), from the derivative in the docstring."""
    logits = tokens @ score @ tokens.T
    if causal:
        logits = np.where(np.tri(len(tokens), dtype=bool), logits, -np.inf)
    p = softmax(logits, axis=1)
    mean = p @ tokens
    jacobian = np.einsum("ij,ab->iajb", p, value)
    for i, weights in enumerate(p):
        centred = tokens - mean[i]
        covariance = (weights[:, None] * centred).T @ centred
        jacobian[i, :, i, :] += value @ covariance @ score.T
        jacobian[i] += np.einsum("aj,b->ajb", value @ (weights[:, None] * centred).T, score.T @ tokens[i])
    return p @ tokens @ value.T, jacobian


def token_norm(jacobian, rng):
    """Largest change of one token when every token moves by at most one, found by alternation."""
    best = 0.0
    for block in jacobian:
        u = rng.normal(size=block.shape[0])
        for _ in range(15):
            pulled = np.einsum("ajb,a->jb", block, u)
            moves = pulled / np.maximum(np.linalg.norm(pulled, axis=1, keepdims=True), 1e-300)
            u = np.einsum("ajb,jb->a", block, moves)
            size = np.linalg.norm(u)
            u = u / max(size, 1e-300)
        best = max(best, size)
    return best


@pytest.mark.parametrize("causal", [False, True])
def test_attention_derivative_agrees_with_finite_differences(causal):
    rng = np.random.default_rng(3)
    tokens, score, value = rng.normal(size=(4, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    _, jacobian = attention_map(tokens, score, value, causal)
    direction, step = rng.normal(size=tokens.shape), 1e-5
    forward = attention_map(tokens + step * direction, score, value, causal)[0]
    backward = attention_map(tokens - step * direction, score, value, causal)[0]
    predicted = np.einsum("iajb,jb->ia", jacobian, direction)
    np.testing.assert_allclose((forward - backward) / (2 * step), predicted, atol=1e-7)


def in_ball(tokens, radius):
    return tokens * np.minimum(1.0, radius / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-300))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("over", ["tokens", "sequence"])
def test_attention_constant_is_never_exceeded_on_its_ball(causal, over):
    rng = np.random.default_rng(4)
    tightest = 0.0
    for _ in range(400):
        length, width = int(rng.integers(1, 7)), int(rng.integers(1, 5))
        radius, scale = rng.uniform(0.2, 3), rng.uniform(0, 4)
        score, value = scale * rng.normal(size=(width, width)), rng.normal(size=(width, width))
        tokens = in_ball(rng.normal(size=(length, width)) * 3, radius)
        _, jacobian = attention_map(tokens, score, value, causal)
        flat = jacobian.reshape(length * width, -1)
        size = token_norm(jacobian, rng) if over == "tokens" else np.linalg.norm(flat, 2)
        bound = lipschitz.attention(
            radius=radius,
            score_norm=np.linalg.norm(score, 2),
            value_norm=np.linalg.norm(value, 2),
            length=length,
            over=over,
            mask="causal" if causal else "none",
        )
        assert size <= bound * (1 + 1e-9)
        tightest = max(tightest, size / bound)
    assert tightest > 0.5


@pytest.mark.parametrize(("over", "length", "factor"), [("tokens", 3, 2.0), ("sequence", 16, 2.5)])
@pytest.mark.parametrize(("radius", "scale"), [(1.0, 0.5), (2.0, 1.0), (3.0, 2.0)])
def test_attention_constant_is_approached_within_a_stated_factor(over, length, factor, radius, scale):
    # Two opposite tokens that all others attend to equally, and the others across them with a negative score among
    # themselves, make both derivatives of the scores large at once; a hill climb goes on from there.
    score, value = np.diag([scale, -scale]), np.eye(2)
    bound = lipschitz.attention(radius=radius, score_norm=scale, value_norm=1.0, length=length, over=over, mask="none")
    rng = np.random.default_rng(5)

    def size(tokens):
        _, jacobian = attention_map(tokens, score, value, causal=False)
        if over == "tokens":
            return token_norm(jacobian, np.random.default_rng(0))
        return np.linalg.norm(jacobian.reshape(2 * length, -1), 2)

    tokens = np.tile([0.0, radius], (length, 1))
    tokens[:2] = [[radius, 0.0], [-radius, 0.0]]
    best = size(tokens)
    for _ in range(300):
        trial = in_ball(tokens + rng.normal(size=tokens.shape) * radius * 10 ** rng.uniform(-3, 0), radius)
        if size(trial) > best:
            tokens, best = trial, size(trial)
    assert bound / factor <= best <= bound * (1 + 1e-9)


def test_attention_over_a_sequence_really_grows_as_the_root_of_its_length():
    ratios = []
    for length in (4, 64):
        tokens = np.zeros((length, 1))
        tokens[0] = 8.0
        tokens[1:] = 4.0  # every token attends to the first one
        _, jacobian = attention_map(tokens, np.eye(1), np.eye(1), causal=False)
        ratios.append(np.linalg.norm(jacobian.reshape(length, length), 2))
    assert ratios[1] / ratios[0] == pytest.approx(4.0, rel=1e-3)


def test_attention_constant_is_below_the_published_one():
    for length in (1, 8, 512):
        for turning in (0.0, 0.5, 50.0):
            ours = lipschitz.attention(radius=1.0, score_norm=turning, value_norm=1.0, length=length, over="sequence")
            assert ours <= math.sqrt(3) * math.sqrt((4 * length + 1) * turning**2 + length)


def test_heads_are_stacked_in_the_euclidean_norm():
    one = lipschitz.attention(radius=1.0, score_norm=1.0, value_norm=2.0, length=3)
    four = lipschitz.attention(radius=1.0, score_norm=1.0, value_norm=2.0, length=3, heads=4, output_norm=3.0)
    assert four == pytest.approx(3.0 * 2.0 * one)


def test_mlp_constant_holds_and_is_attained_by_a_rank_one_map():
    peak = math.sqrt(2.0)
    step = 1e-6
    function = lambda x: 3.0 * FUNCTIONS["gelu"](2.0 * x)  # noqa: E731
    slope = (function(peak / 2 + step) - function(peak / 2 - step)) / (2 * step)
    assert slope == pytest.approx(lipschitz.mlp(up_norm=2.0, down_norm=3.0, activation="gelu"), rel=1e-8)


def test_gated_mlp_constant_holds_on_its_ball_and_is_approached():
    rng = np.random.default_rng(6)
    tightest = 0.0
    for trial in range(300):
        width, hidden = (1, 1) if trial < 100 else (3, 5)
        gate, up, down = (
            rng.normal(size=(hidden, width)),
            rng.normal(size=(hidden, width)),
            rng.normal(size=(2, hidden)),
        )
        radius = rng.uniform(0.1, 4)
        x = in_ball(rng.normal(size=(1, width)) * radius, radius)[0]
        g, u = gate @ x, up @ x
        slope = expit(g) * (1 + g * (1 - expit(g)))
        jacobian = down @ ((slope * u)[:, None] * gate + (g * expit(g))[:, None] * up)
        bound = lipschitz.gated_mlp(
            radius=radius,
            gate_norm=np.linalg.norm(gate, 2),
            up_norm=np.linalg.norm(up, 2),
            down_norm=np.linalg.norm(down, 2),
            gate_row_norm=np.linalg.norm(gate, axis=1).max(),
            up_row_norm=np.linalg.norm(up, axis=1).max(),
        )
        assert np.linalg.norm(jacobian, 2) <= bound * (1 + 1e-9)
        tightest = max(tightest, np.linalg.norm(jacobian, 2) / bound)
    assert tightest > 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lipschitz.normalization(epsilon=0.0), "epsilon"),
        (lambda: lipschitz.normalization(epsilon=1e-6, gain=math.nan), "gain"),
        (lambda: lipschitz.normalization_radius(width=0), "width"),
        (lambda: lipschitz.attention(radius=math.inf, score_norm=1, value_norm=1, length=2), "radius"),
        (lambda: lipschitz.attention(radius=1, score_norm=-1, value_norm=1, length=2), "score_norm"),
        (lambda: lipschitz.attention(radius=1, score_norm=1, value_norm=1, length=0), "length"),
        (lambda: lipschitz.attention(radius=1, score_norm=1, value_norm=1, length=2, over="words"), "over"),
        (lambda: lipschitz.get_activation("mish"), "activation"),
        (
            lambda: lipschitz.gated_mlp(radius=1, gate_norm=1, up_norm=1, down_norm=1, activation="sigmoid"),
            "zero at zero",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
