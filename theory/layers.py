"""Shapes of the matrices that an adapter changes: of known models, a config, a module, or given by hand.

Nothing is downloaded: ``models.toml`` holds the ten models of arXiv:2606.13767. Names are those of the
base model in transformers 5.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from theory.arguments import Count, checked
from theory.checks import check_integer, shown
from theory.heads import HasModules, head_modules, is_inside, is_trained_in_full, trained_heads

__all__ = [
    "MODELS",
    "MODEL_NAMES",
    "QUERY_VALUE",
    "LayerShape",
    "for_model",
    "from_config",
    "from_list",
    "from_module",
    "is_target",
    "select",
]

TargetModules = str | Sequence[str]

_SIZES = ("out_features", "in_features")
_ENTRIES = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))

MODELS: dict[str, dict[str, Any]] = {key: entry["config"] for key, entry in _ENTRIES.items()}
"""The ten models of arXiv:2606.13767 by key, each as the arguments of its transformers config class."""

MODEL_NAMES: dict[str, str] = {key: entry["name"] for key, entry in _ENTRIES.items()}
"""Their names as tables and figures show them."""


@checked
@dataclass(frozen=True)
class LayerShape:
    """Shape of one weight matrix W: ``out_features`` rows, ``in_features`` columns, as in ``torch.nn.Linear``.

    >>> LayerShape("h.0.attn.c_attn", 2304, 768).size
    1769472
    """

    name: str
    out_features: Count
    in_features: Count

    @property
    def size(self) -> int:
        """Number of entries, m n."""
        return self.out_features * self.in_features


class _Shapes:
    """The kind of an argument that holds layers, however they are given."""

    def __call__(self, name: str, value: Any) -> tuple[LayerShape, ...]:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError(f"{name} must be a list of layers, got {shown(value)} of type {type(value).__name__}")
        return _shapes(name, value)


Layers = Annotated[Iterable[LayerShape] | Iterable[tuple[str, int, int]] | Iterable[tuple[int, int]], _Shapes()]


QUERY_VALUE = {
    "vit": ("q_proj", "v_proj", "query", "value"),
    "bert": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "roberta": ("query", "value"),
    "deberta-v2": ("query_proj", "value_proj"),
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "qwen2_moe": ("q_proj", "v_proj"),
    "qwen3_moe": ("q_proj", "v_proj"),
    "gpt_oss": ("q_proj", "v_proj"),
    "phi3": ("qkv_proj",),
    "albert": ("query", "value"),
    "modernbert": ("Wqkv",),
    "whisper": ("q_proj", "v_proj"),
    "wav2vec2": ("q_proj", "v_proj"),
    "hubert": ("q_proj", "v_proj"),
    "clip": ("q_proj", "v_proj"),
    "dinov2": ("q_proj", "v_proj"),
    "swin": ("q_proj", "v_proj"),
    "mamba": ("in_proj",),
    "mamba2": ("in_proj",),
    "falcon_mamba": ("in_proj",),
}
"""Model type -> what adapters adapt where no targets are given: the endings of its query and value projections.

Fused projections hold the keys too. State spaces have neither; of their projections, fast kernels read all weights but
those of ``in_proj`` past the module that holds them, and with them past an adapter.
"""


@checked
def for_model(key: str, *, target_modules: TargetModules | None = None) -> tuple[LayerShape, ...]:
    """Return the adapted matrices of one of the paper's ten models.

    Args:
        key: one of ``MODELS``, which are in the order of the paper's table 2.
        target_modules: as in PEFT: name suffixes, a regular expression for the whole name, or
            ``"all-linear"``; query and value by default (GPT-2's fused ``c_attn`` holds both, and the keys).

    Raises:
        ValueError: if the model is unknown, or nothing matches.

    >>> [(layer.out_features, layer.in_features) for layer in for_model("llama3-8b")[:2]]
    [(4096, 4096), (1024, 4096)]
    """
    if key not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}; got {key!r}")
    return from_config(MODELS[key], target_modules=target_modules)


@checked
def from_config(config: object, *, target_modules: TargetModules | None = None) -> tuple[LayerShape, ...]:
    """Return the adapted matrices of the base model that a transformers config describes.

    Args:
        config: a transformers config object, or a mapping as in ``config.json``; model types ViT, BERT,
            RoBERTa, DeBERTa-v2, Llama, Mistral, Qwen2 and GPT-2.
        target_modules: see ``for_model``.

    Raises:
        ValueError: if the model type is not known, a number is missing or not positive, or nothing matches.

    >>> from_config({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12})[0]
    LayerShape(name='h.0.attn.c_attn', out_features=2304, in_features=768)
    """
    model_type = _read(config, "model_type")
    builders = {"gpt2": _gpt2_layers, "vit": _vit_layers, "bert": _bert_layers, "roberta": _bert_layers}
    builders |= {"deberta-v2": _bert_layers}
    builders |= dict.fromkeys(("llama", "mistral", "qwen2"), _llama_layers)
    if model_type not in builders:
        raise ValueError(
            f"config.model_type must be one of {', '.join(builders)}, got {model_type!r}; "
            "for others use from_module or from_list"
        )
    return select(builders[model_type](config), QUERY_VALUE[model_type] if target_modules is None else target_modules)


@checked
def from_module(
    module: HasModules, *, target_modules: TargetModules | None = None, trained_in_full: Iterable[str] | None = None
) -> tuple[LayerShape, ...]:
    """Return the adapted matrices of a live torch module (read by its attributes; torch is not imported).

    Linear layers are told by a weight, ``in_features`` and ``out_features`` (quantised ones too); transformers'
    ``Conv1D``, whose weight is (in, out), by its class name. What lies inside an adapted layer (``base_layer``,
    factors) is not listed again. What is trained in full beside the adapter is never adapted; ``"all-linear"`` and the
    usual targets leave out every head (``theory.heads``).

    Args:
        module: anything with ``named_modules()``; a meta-device module will do.
        target_modules: see ``for_model``; by default query and value where ``module.config.model_type`` is
            known, else ``"all-linear"``.
        trained_in_full: names, or their endings, of the modules trained in full beside the adapter; None takes the
            model's head, but a language model's.

    Raises:
        TypeError: if it has no ``named_modules``.
        ValueError: if nothing matches.
    """
    full = trained_heads(module) if trained_in_full is None else tuple(trained_in_full)
    every = target_modules is None or str(target_modules).lower() == "all-linear"
    heads = head_modules(module) if every else ()
    if target_modules is None:
        model_type = getattr(getattr(module, "config", None), "model_type", "")
        target_modules = QUERY_VALUE.get(model_type, "all-linear")
    layers = (one for one in _linear_layers(module) if not is_trained_in_full(one.name, full))
    return select((layer for layer in layers if not is_inside(layer.name, heads)), target_modules)


@checked
def from_list(shapes: Layers) -> tuple[LayerShape, ...]:
    """Return layers given by hand as (name, out_features, in_features) or (out_features, in_features).

    Raises:
        ValueError: if there is none, or one is not of that form, or a number is not positive.

    >>> from_list([(4, 8), ("head", 2, 4)])[0]
    LayerShape(name='layer.0', out_features=4, in_features=8)
    """
    return _shapes("shapes", shapes)


def _shapes(name: str, shapes: Iterable[Any]) -> tuple[LayerShape, ...]:
    layers = []
    for position, shape in enumerate(shapes):
        if isinstance(shape, LayerShape):
            layers.append(shape)
        elif isinstance(shape, (tuple, list)) and len(shape) in (2, 3):
            label, rows, columns = shape if len(shape) == 3 else (f"layer.{position}", *shape)
            if not isinstance(label, str):
                raise TypeError(f"{name}[{position}] must begin with a name where it holds three, got {shown(shape)}")
            pairs = zip(_SIZES, (rows, columns), strict=True)
            sizes = (check_integer(f"{size} of {name}[{position}] ({label!r})", number) for size, number in pairs)
            layers.append(LayerShape(label, *sizes))
        else:
            raise ValueError(f"{name} must hold (name, out_features, in_features), got {shown(shape)} at {position}")
    if not layers:
        raise ValueError(f"{name} must hold at least one layer, got none")
    return tuple(layers)


@checked
def select(layers: Iterable[LayerShape], target_modules: TargetModules) -> tuple[LayerShape, ...]:
    """Keep the layers that PEFT's ``target_modules`` would match.

    Args:
        layers: linear layers, heads left out.
        target_modules: see :func:`is_target`.

    Raises:
        TypeError: if ``target_modules`` is neither a string nor a list of strings.
        ValueError: if nothing matches; the message lists what there is.

    >>> [layer.name for layer in select(from_list([("a.q", 2, 2), ("a.k", 2, 2)]), ["q"])]
    ['a.q']
    """
    layers = tuple(layers)
    kept = tuple(layer for layer in layers if is_target(layer.name, target_modules))
    if not kept:
        endings = sorted({layer.name.rsplit(".", 1)[-1] for layer in layers})
        raise ValueError(f"target_modules {target_modules!r} matches no layer; names end in {', '.join(endings)}")
    return kept


@checked
def is_target(name: str, target_modules: TargetModules) -> bool:
    """Whether PEFT's ``target_modules`` match the dotted name of a linear layer.

    Args:
        name: of the layer.
        target_modules: ``"all-linear"`` matches every one; another string is a regular expression for the whole name;
            a list holds names or their endings after a dot.

    Raises:
        TypeError: if ``target_modules`` is neither a string nor a list of strings.

    >>> is_target("encoder.q", ["q"]), is_target("encoder.q", "q"), is_target("encoder.q", ".*[.]q")
    (True, False, True)
    """
    if isinstance(target_modules, str):
        try:
            return target_modules.lower() == "all-linear" or re.fullmatch(target_modules, name) is not None
        except re.error as error:
            raise ValueError(f"target_modules must be a regular expression, got {target_modules!r}: {error}") from None
    return any(name == target or name.endswith(f".{target}") for target in target_modules)


def _read(config: Any, *names: str, default: Any = None) -> Any:
    for name in names:
        value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if value is not None:
            return value
    if default is None:
        raise ValueError(f"config must hold {' or '.join(names)}, got {type(config).__name__} without")
    return default


def _read_sizes(config: Any, *names: tuple[str, ...]) -> list[int]:
    return [check_integer(f"config.{aliases[0]}", _read(config, *aliases)) for aliases in names]


def _named(prefix: str, depth: int, shapes: Mapping[str, tuple[int, int]]) -> Iterator[LayerShape]:
    for index in range(depth):
        for name, (rows, columns) in shapes.items():
            yield LayerShape(f"{prefix}.{index}.{name}", rows, columns)


def _encoder_sizes(config: Any) -> list[int]:
    return _read_sizes(config, ("hidden_size",), ("num_hidden_layers",), ("intermediate_size",))


def _vit_layers(config: Any) -> Iterator[LayerShape]:
    hidden, depth, mlp = _encoder_sizes(config)
    attention = {f"attention.{name}_proj": (hidden, hidden) for name in "qkvo"}
    return _named("layers", depth, {**attention, "mlp.fc1": (mlp, hidden), "mlp.fc2": (hidden, mlp)})


def _bert_layers(config: Any) -> Iterator[LayerShape]:
    hidden, depth, mlp = _encoder_sizes(config)
    suffix = "_proj" if _read(config, "model_type") == "deberta-v2" else ""
    shapes = {f"attention.self.{name}{suffix}": (hidden, hidden) for name in ("query", "key", "value")}
    shapes["attention.output.dense"] = (hidden, hidden)
    shapes["intermediate.dense"] = (mlp, hidden)
    shapes["output.dense"] = (hidden, mlp)
    return _named("encoder.layer", depth, shapes)


def _llama_layers(config: Any) -> Iterator[LayerShape]:
    hidden, depth, mlp = _encoder_sizes(config)
    heads = check_integer("config.num_attention_heads", _read(config, "num_attention_heads"))
    kv_heads = check_integer("config.num_key_value_heads", _read(config, "num_key_value_heads", default=heads))
    head_size = check_integer("config.head_dim", _read(config, "head_dim", default=hidden // heads))
    query, value = heads * head_size, kv_heads * head_size
    shapes = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (value, hidden),
        "self_attn.v_proj": (value, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    return _named("layers", depth, shapes)


def _gpt2_layers(config: Any) -> Iterator[LayerShape]:
    hidden, depth = _read_sizes(config, ("n_embd", "hidden_size"), ("n_layer", "num_hidden_layers"))
    mlp = check_integer("config.n_inner", _read(config, "n_inner", default=4 * hidden))
    attention = {"attn.c_attn": (3 * hidden, hidden), "attn.c_proj": (hidden, hidden)}
    return _named("h", depth, {**attention, "mlp.c_fc": (mlp, hidden), "mlp.c_proj": (hidden, mlp)})


def _linear_layers(module: HasModules) -> Iterator[LayerShape]:
    adapted: tuple[str, ...] = ()
    for name, child in module.named_modules():
        if name.startswith(adapted):
            continue
        if hasattr(child, "base_layer"):
            adapted += (f"{name}.",)
        weight = getattr(child, "weight", None)
        if type(child).__name__ == "Conv1D":
            columns, rows = (int(size) for size in child.weight.shape)
            yield LayerShape(name, rows, columns)
        elif weight is not None and hasattr(child, "in_features") and hasattr(child, "out_features"):
            yield LayerShape(name, int(child.out_features), int(child.in_features))
