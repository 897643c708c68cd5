"""The transformer recursion against networks that are really run: never exceeded, and not vacuously so."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit, ndtr, softmax

from theory.networks.lipschitz import normalization_radius
from theory.networks.signal import Projection, Signal
from theory.networks.transformer import Attention, Block, FeedForward, Norm, transformer_perturbation

WIDTH, HEADS, HIDDEN, LENGTH, EPSILON = 8, 2, 12, 5, 1e-3
SHAPES = {
    "query": (WIDTH, WIDTH),
    "key": (WIDTH, WIDTH),
    "value": (WIDTH, WIDTH),
    "output": (WIDTH, WIDTH),
    "up": (HIDDEN, WIDTH),
    "gate": (HIDDEN, WIDTH),
    "down": (WIDTH, HIDDEN),
}


class Network:
    """A small transformer in numpy: ``kind`` is bert (post-norm), vit (pre-norm) or llama (pre-RMSNorm, SwiGLU)."""

    def __init__(self, kind, rng, depth=2, scale=0.5, adapted=("query", "value"), size=0.1):
        self.kind, self.depth = kind, depth
        self.shapes = dict(SHAPES)
        if kind == "llama":  # grouped queries: one key and value head for two query heads
            self.shapes["key"] = self.shapes["value"] = (WIDTH // HEADS, WIDTH)
        self.base = [
            {k: scale * rng.normal(size=s) / math.sqrt(s[1]) for k, s in self.shapes.items()} for _ in range(depth)
        ]
        self.update = [
            {k: (size if k in adapted else 0.0) * rng.normal(size=s) / math.sqrt(s[1]) for k, s in self.shapes.items()}
            for _ in range(depth)
        ]
        biased = kind != "llama"
        self.bias = [{k: biased * 0.1 * rng.normal(size=s[0]) for k, s in self.shapes.items()} for _ in range(depth)]
        self.gain = [rng.uniform(0.5, 1.5, (2, WIDTH)) for _ in range(depth)]
        self.offset = [biased * 0.1 * rng.normal(size=(2, WIDTH)) for _ in range(depth)]

    def norm(self, x, gain, offset):
        c = x if self.kind == "llama" else x - x.mean(-1, keepdims=True)
        return gain * c / np.sqrt((c**2).mean(-1, keepdims=True) + EPSILON) + offset

    def attend(self, x, weight, bias):
        q, k, v = (x @ weight[name].T + bias[name] for name in ("query", "key", "value"))
        size = WIDTH // HEADS
        q = q.reshape(*x.shape[:-1], HEADS, size)
        k, v = (np.repeat(y.reshape(*x.shape[:-1], -1, size), HEADS * size // y.shape[-1], -2) for y in (k, v))
        logits = np.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(size)
        if self.kind == "llama":
            logits = np.where(np.tri(x.shape[1], dtype=bool), logits, -np.inf)
        mixed = np.einsum("bhij,bjhd->bihd", softmax(logits, axis=-1), v).reshape(*x.shape)
        return mixed @ weight["output"].T + bias["output"]

    def feed(self, x, weight, bias):
        up = x @ weight["up"].T + bias["up"]
        if self.kind == "llama":
            gate = x @ weight["gate"].T
            hidden = gate * expit(gate) * up
        else:
            hidden = up * ndtr(up)
        return hidden @ weight["down"].T + bias["down"]

    def run(self, x, adapted, spreads=None):
        for layer in range(self.depth):
            update = self.update[layer]
            weight = {k: w + (update[k] if adapted else 0.0) for k, w in self.base[layer].items()}
            bias, gain, offset = self.bias[layer], self.gain[layer], self.offset[layer]
            if self.kind == "bert":
                x = x + self.attend(x, weight, bias)
                x = self.note(x, spreads, gain[0], offset[0])
                x = x + self.feed(x, weight, bias)
                x = self.note(x, spreads, gain[1], offset[1])
            else:
                x = x + self.attend(self.note(x, spreads, gain[0], offset[0]), weight, bias)
                x = x + self.feed(self.note(x, spreads, gain[1], offset[1]), weight, bias)
        return x if self.kind == "bert" else self.note(x, spreads, np.ones(WIDTH), np.zeros(WIDTH))

    def note(self, x, spreads, gain, offset):
        if spreads is not None:
            c = x if self.kind == "llama" else x - x.mean(-1, keepdims=True)
            spreads.append(float(np.sqrt((c**2).mean(-1)).min()))
        return self.norm(x, gain, offset)

    def bound(self, radius, spreads=None):
        spreads = iter(spreads if spreads is not None else [0.0] * (2 * self.depth + 1))

        def norm(gain, offset):
            return Norm(
                width=WIDTH,
                epsilon=EPSILON,
                gain=np.abs(gain).max(),
                offset=np.linalg.norm(offset),
                least_spread=next(spreads),
            )

        blocks = []
        for layer in range(self.depth):
            heads = {"query": HEADS, "key": self.shapes["key"][0] * HEADS // WIDTH}
            heads["value"] = heads["key"]
            p = {
                k: Projection.of(w, self.update[layer][k], bias=self.bias[layer][k], heads=heads.get(k, 1))
                for k, w in self.base[layer].items()
            }
            gated = self.kind == "llama"
            blocks.append(
                Block(
                    attention=Attention(
                        query=p["query"],
                        key=p["key"],
                        value=p["value"],
                        output=p["output"],
                        heads=HEADS,
                        head_width=WIDTH // HEADS,
                    ),
                    feed_forward=FeedForward(
                        up=p["up"],
                        down=p["down"],
                        activation="silu" if gated else "gelu",
                        hidden_width=HIDDEN,
                        gate=p["gate"] if gated else None,
                    ),
                    norms=tuple(norm(g, o) for g, o in zip(self.gain[layer], self.offset[layer], strict=True)),
                    placement="post" if self.kind == "bert" else "pre",
                )
            )
        final = None if self.kind == "bert" else norm(np.ones(WIDTH), np.zeros(WIDTH))
        return transformer_perturbation(blocks, radius=radius, final_norm=final)


def inputs(rng, radius, count=200):
    x = rng.normal(size=(count, LENGTH, WIDTH))
    x *= radius * rng.uniform(0.02, 1, (count, LENGTH, 1)) / np.linalg.norm(x, axis=-1, keepdims=True)
    return x


def moved(network, x):
    return np.linalg.norm(network.run(x, adapted=True) - network.run(x, adapted=False), axis=-1).max()


@pytest.mark.parametrize("kind", ["bert", "vit", "llama"])
def test_no_random_transformer_moves_more_than_the_bound(kind):
    rng = np.random.default_rng(10)
    for trial in range(60):
        adapted = [("query", "value"), ("query", "key", "value", "output"), tuple(SHAPES)][trial % 3]
        depth, scale, size = trial % 3 + 1, 10 ** rng.uniform(-1.5, 0.5), 10 ** rng.uniform(-5, 0)
        network = Network(kind, rng, depth=depth, scale=scale, adapted=adapted, size=size)
        radius = 10 ** rng.uniform(-1, 1.5)
        bound = network.bound(radius)
        x = inputs(rng, radius)
        assert moved(network, x) <= bound.difference
        assert np.linalg.norm(network.run(x, adapted=False), axis=-1).max() <= bound.base * (1 + 1e-12)
        assert np.linalg.norm(network.run(x, adapted=True), axis=-1).max() <= bound.updated * (1 + 1e-12)


@pytest.mark.parametrize(("kind", "factor"), [("bert", 25), ("vit", 35), ("llama", 20)])
def test_with_measured_spreads_one_block_is_bounded_within_a_stated_factor(kind, factor):
    rng = np.random.default_rng(11)
    tightest = math.inf
    for _ in range(10):
        network = Network(kind, rng, depth=1, scale=0.3, size=1e-3)
        x = inputs(rng, 3.0)
        x *= 3.0 / np.linalg.norm(x, axis=-1, keepdims=True)
        spreads = []
        network.run(x, adapted=False, spreads=spreads)
        bound, truth = network.bound(3.0, spreads).difference, moved(network, x)
        assert truth <= bound <= network.bound(3.0).difference
        tightest = min(tightest, bound / truth)
    assert tightest < factor


@pytest.mark.parametrize("kind", ["bert", "vit", "llama"])
def test_the_bound_vanishes_with_the_update_and_grows_with_it(kind):
    network = Network(kind, np.random.default_rng(12))
    full = [dict(update) for update in network.update]
    values = []
    for factor in (0.0, 1e-13, 1e-11, 1.0):
        network.update = [{k: factor * w for k, w in update.items()} for update in full]
        values.append(network.bound(2.0).difference)
    assert values[0] == 0.0
    assert all(small < large for small, large in pairwise(values))
    # linear for small updates (the spread of the merged norms from rounding is 1e-16 / 1e-13)
    assert values[2] / values[1] == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("kind", ["vit", "llama"])
def test_a_large_update_meets_the_cap_of_the_final_norm_and_no_more(kind):
    network = Network(kind, np.random.default_rng(15), size=1e6)
    cap = 2 * math.sqrt(WIDTH)
    assert 0.999 * cap < network.bound(2.0).difference <= cap


def test_one_linear_map_with_aligned_update_attains_its_bound():
    weight, update = np.diag([2.0, 1.0]), np.diag([0.5, 0.0])
    step = Projection.of(weight, update).apply(Signal(difference=0.0, base=3.0, updated=3.0))
    x = np.array([3.0, 0.0])
    assert np.linalg.norm(update @ x) == pytest.approx(step.difference)
    assert step.updated == pytest.approx(np.linalg.norm((weight + update) @ x))


def test_attention_saturates_for_large_queries():
    # However far the scores move, weights are probabilities: the change stays below the diameter of the values.
    still = Projection(base=1.0)
    layer = Attention(
        query=Projection(base=1.0, update=1e9), key=still, value=still, output=still, heads=1, head_width=4
    )
    result = layer.apply(Signal(difference=0.0, base=1.0, updated=1.0))
    assert result.difference == pytest.approx(2.0)


def test_query_shift_bound_is_attained_by_two_opposite_values():
    # Logits 0 +- e move the weights of two keys by tanh(e/2); values at +-1 turn that into 2 tanh(e/2) exactly.
    e = 0.7
    before, after = softmax([-e / 2, e / 2]), softmax([e / 2, -e / 2])
    assert abs((before - after) @ np.array([1.0, -1.0])) == pytest.approx(2 * math.tanh(e / 2))


def test_rotary_positions_do_not_change_the_norms_used():
    rng = np.random.default_rng(13)
    angle = rng.normal()
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    query = rng.normal(size=(2, 5))
    assert Projection.of(turn @ query).base == pytest.approx(Projection.of(query).base)


def test_embedding_norm_gives_the_radius_of_an_encoder():
    rng = np.random.default_rng(14)
    network = Network("bert", rng)
    x = network.norm(rng.normal(size=(100, LENGTH, WIDTH)) * 50, 1.3, 0.2 * np.ones(WIDTH))
    radius = normalization_radius(width=WIDTH, gain=1.3, offset=0.2 * math.sqrt(WIDTH))
    assert np.linalg.norm(x, axis=-1).max() <= radius
    assert moved(network, x) <= network.bound(radius).difference


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transformer_perturbation([], radius=1.0), "blocks"),
        (lambda: Network("vit", np.random.default_rng(0)).bound(math.inf), "radius"),
        (lambda: Network("vit", np.random.default_rng(0)).bound(-1.0), "radius"),
        (lambda: Projection(base=math.nan), "base"),
        (lambda: Projection(base=1.0, update=-1.0), "update"),
        (lambda: Projection.of(np.ones((3, 2)), heads=2), "heads"),
        (lambda: Projection.of(np.ones((3, 2)), np.ones((2, 2))), "update"),
        (lambda: Signal(difference=math.nan, base=1.0, updated=1.0), "difference"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
