"""From the weights of a real transformer to blocks of ``networks.transformer``: BERT, ViT, Llama, GPT-2 layouts.

Arrays only: a ``state_dict`` of torch tensors works, and nothing here imports torch. DeBERTa's disentangled attention
adds position terms to the scores and is not covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Count, NonNegative, Positive, checked
from theory.checks import check_choice, check_integer, check_number
from theory.networks.signal import Projection
from theory.networks.transformer import Attention, Block, FeedForward, Norm

__all__ = ["FAMILIES", "read_transformer"]


@dataclass(frozen=True)
class _Layout:
    """Where one family keeps its matrices, below the prefix of layer i."""

    layer: str
    query: str
    key: str
    value: str
    output: str
    up: str
    down: str
    norms: tuple[str, str]
    placement: Any = "pre"
    final: str | None = None
    gate: str | None = None
    fused: str | None = None


_BERT = _Layout(
    layer="encoder.layer.{}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    placement="post",
)
FAMILIES: dict[str, tuple[_Layout, ...]] = {
    "bert": (_BERT,),
    "roberta": (_BERT,),
    "vit": (
        _Layout(
            layer="layers.{}.",
            query="attention.q_proj",
            key="attention.k_proj",
            value="attention.v_proj",
            output="attention.o_proj",
            up="mlp.fc1",
            down="mlp.fc2",
            norms=("layernorm_before", "layernorm_after"),
            final="layernorm",
        ),
        _Layout(
            layer="encoder.layer.{}.",
            query="attention.attention.query",
            key="attention.attention.key",
            value="attention.attention.value",
            output="attention.output.dense",
            up="intermediate.dense",
            down="output.dense",
            norms=("layernorm_before", "layernorm_after"),
            final="layernorm",
        ),
    ),
    "llama": (
        _Layout(
            layer="layers.{}.",
            query="self_attn.q_proj",
            key="self_attn.k_proj",
            value="self_attn.v_proj",
            output="self_attn.o_proj",
            up="mlp.up_proj",
            down="mlp.down_proj",
            gate="mlp.gate_proj",
            norms=("input_layernorm", "post_attention_layernorm"),
            final="norm",
        ),
    ),
    "gpt2": (
        _Layout(
            layer="h.{}.",
            query="attn.c_attn",
            key="attn.c_attn",
            value="attn.c_attn",
            output="attn.c_proj",
            up="mlp.c_fc",
            down="mlp.c_proj",
            norms=("ln_1", "ln_2"),
            final="ln_f",
            fused="attn.c_attn",
        ),
    ),
}
"""Family -> the layouts that transformers has used for it, newest first."""


def _find(weights: Mapping[str, Any], family: str) -> tuple[_Layout, str]:
    for layout in FAMILIES[family]:
        ending = f"{layout.layer.format(0)}{layout.query}.weight"
        prefixes = [name[: -len(ending)] for name in weights if name.endswith(ending)]
        if len(prefixes) == 1:
            return layout, prefixes[0]
    raise ValueError(f"weights must hold exactly one {family!r} model, got {len(weights)} names that do not fit")


@dataclass(kw_only=True)
class _Reader:
    """Takes matrices and norms out of a model by name, in order of use, and remembers which updates it met.

    Attributes:
        weights: name -> array.
        changes: module name -> dW.
        layout: where the family keeps its matrices.
        transposed: whether matrices are stored in_features x out_features, as GPT-2's are.
        epsilon: the norms' epsilon.
        spreads: ``Norm.least_spread`` of the norms that are still to come.
        used: names in ``changes`` that belong to a module met so far.
    """

    weights: Mapping[str, Any]
    changes: Mapping[str, NDArray[np.float64]]
    layout: _Layout
    transposed: bool
    epsilon: float
    spreads: list[float]
    used: set[str] = field(default_factory=set)

    def array(self, name: str) -> NDArray[np.float64]:
        if name not in self.weights:
            raise ValueError(f"weights must hold {name!r}, got none of that name")
        return np.asarray(self.weights[name], dtype=np.float64)

    def bias(self, name: str) -> NDArray[np.float64] | None:
        return self.array(f"{name}.bias") if f"{name}.bias" in self.weights else None

    def matrix(self, name: str) -> NDArray[np.float64]:
        stored = self.array(f"{name}.weight")
        return stored.T if self.transposed else stored

    def projection(self, name: str, *, blocks: int = 1, third: int | None = None) -> Projection:
        weight, bias = self.matrix(name), self.bias(name)
        matching = next((key for key in self.changes if key == name or key.endswith("." + name)), None)
        change = np.zeros_like(weight) if matching is None else self.changes[matching]
        self.used.add(matching or "")
        if change.shape != weight.shape:
            raise ValueError(f"update of {name!r} must have shape {weight.shape}, got {change.shape}")
        if third is not None:
            rows = slice(third * len(weight) // 3, (third + 1) * len(weight) // 3)
            weight, change, bias = weight[rows], change[rows], None if bias is None else bias[rows]
        return Projection.of(weight, change, bias=bias, heads=blocks)

    def norm(self, name: str) -> Norm:
        gain, offset = self.array(f"{name}.weight"), self.bias(name)
        return Norm(
            width=gain.size,
            epsilon=self.epsilon,
            gain=float(np.abs(gain).max()),
            offset=0.0 if offset is None else float(np.linalg.norm(offset)),
            least_spread=self.spreads.pop(0),
        )

    def attention(self, at: str, *, heads: int, groups: int) -> Attention:
        names = (self.layout.query, self.layout.key, self.layout.value)
        thirds = (None, None, None) if self.layout.fused is None else (0, 1, 2)
        query, key, value = (
            self.projection(at + name, blocks=blocks, third=third)
            for name, blocks, third in zip(names, (heads, groups, groups), thirds, strict=True)
        )
        output = at + self.layout.output
        width = self.matrix(output).shape[1]
        return Attention(
            query=query,
            key=key,
            value=value,
            output=self.projection(output),
            heads=heads,
            head_width=width // heads,
        )

    def feed_forward(self, at: str, *, activation: str) -> FeedForward:
        return FeedForward(
            up=self.projection(at + self.layout.up),
            down=self.projection(at + self.layout.down),
            gate=None if self.layout.gate is None else self.projection(at + self.layout.gate),
            activation=activation,
            hidden_width=len(self.matrix(at + self.layout.up)),
        )

    def block(self, at: str, *, heads: int, groups: int, activation: str) -> Block:
        first, second = self.layout.norms
        return Block(
            attention=self.attention(at, heads=heads, groups=groups),
            feed_forward=self.feed_forward(at, activation=activation),
            norms=(self.norm(at + first), self.norm(at + second)),
            placement=self.layout.placement,
        )


@checked
def read_transformer(
    weights: Mapping[str, Any],
    updates: Mapping[str, Any],
    *,
    family: str,
    heads: Count,
    epsilon: Positive,
    activation: str,
    key_value_heads: Count | None = None,
    least_spreads: Sequence[NonNegative] | None = None,
) -> tuple[list[Block], Norm | None]:
    """Measure the spectral norms of a transformer and its update, head by head, for ``transformer_perturbation``.

    Args:
        weights: name -> array, as in ``model.state_dict()``; the base model W0.
        updates: module name -> dW, out_features x in_features (as ``adapters.delta_weights`` gives them); modules that
            are not named were not trained.
        family: ``"bert"``, ``"roberta"``, ``"vit"``, ``"llama"`` (also TinyLlama, DeepSeek-Coder) or ``"gpt2"``.
        heads: number of query heads.
        epsilon: the norms' epsilon.
        activation: of the feed-forward part, as in the configuration's ``hidden_act``.
        key_value_heads: of grouped-query attention; as many as ``heads`` if left out.
        least_spreads: ``Norm.least_spread`` of each norm in order of use, if measured on data.

    Returns:
        The blocks and the norm after the last one (None for BERT).

    Raises:
        ValueError: if the names do not fit the family, an update belongs to no block, or shapes do not fit.
    """
    check_choice("family", family, tuple(FAMILIES))
    count, groups = check_integer("heads", heads), check_integer("key_value_heads", key_value_heads or heads)
    check_number("epsilon", epsilon, positive=True)
    layout, prefix = _find(weights, family)
    depth = 0
    while f"{prefix}{layout.layer.format(depth)}{layout.query}.weight" in weights:
        depth += 1
    norms_needed = 2 * depth + (layout.final is not None)
    spreads = list(least_spreads) if least_spreads is not None else [0.0] * norms_needed
    if len(spreads) != norms_needed:
        raise ValueError(f"least_spreads must hold {norms_needed} numbers, one per norm, got {len(spreads)}")
    reader = _Reader(
        weights=weights,
        changes={name.removesuffix(".weight"): np.asarray(value, dtype=np.float64) for name, value in updates.items()},
        layout=layout,
        transposed=family == "gpt2",
        epsilon=epsilon,
        spreads=spreads,
    )
    found = [
        reader.block(prefix + layout.layer.format(index), heads=count, groups=groups, activation=activation)
        for index in range(depth)
    ]
    final = None if layout.final is None else reader.norm(prefix + layout.final)
    unused = set(reader.changes) - reader.used
    if unused:
        raise ValueError(f"updates must belong to the blocks of the model, got {sorted(unused)[:4]}")
    return found, final
