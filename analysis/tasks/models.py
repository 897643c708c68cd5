"""Base models by local folder, hub id, or as tiny random stand-ins."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_MULTIPLE_CHOICE_MAPPING

from analysis.tasks.hub import hub_reachable
from analysis.tasks.kinds import Kind
from analysis.tasks.presets import MODELS
from analysis.tasks.quiet import quiet_transformers
from analysis.tasks.redraw import redraw
from analysis.tasks.tiny_models import tiny_model_folder

__all__ = [
    "load_image_processor",
    "load_pretrained",
    "load_tokenizer",
    "resolve_model",
    "supports_multiple_choice",
    "weights_folder",
]


@functools.lru_cache(maxsize=16)
def resolve_model(spec: str) -> str:
    """Turn a model's name into something ``from_pretrained`` accepts.

    Args:
        spec: a local folder, a local GGUF file, ``tiny:NAME`` (a tiny random stand-in, see
            ``analysis.tasks.tiny_models``), one of the ten preset names of ``analysis.tasks.presets.MODELS``, or a hub
            id.

    Raises:
        ValueError: if it looks like a folder but is none, or a folder without ``config.json``.
    """
    if spec.startswith("tiny:"):
        return str(tiny_model_folder(spec.removeprefix("tiny:")))
    path = Path(spec).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"model folder {spec!r} holds no config.json; give a folder saved by save_pretrained")
        return str(path)
    if path.is_file():
        if not _is_gguf(path):
            raise ValueError(f"model file {spec!r} is no GGUF file; give that, or a folder saved by save_pretrained")
        return str(path)
    if spec in MODELS:
        return MODELS[spec].hub
    if path.is_absolute() or spec.startswith((".", "~")) or spec.count("/") > 1:
        raise ValueError(f"no model folder at {spec!r}")
    return spec


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _from_pretrained(factory: Any, spec: str, **kwargs: Any) -> Any:
    target = resolve_model(spec)
    if Path(target).is_file():
        target, kwargs["gguf_file"] = str(Path(target).parent), Path(target).name
    local = Path(target).is_dir() or not hub_reachable()
    try:
        with quiet_transformers():
            return factory.from_pretrained(target, local_files_only=local, **kwargs)
    except ImportError as error:
        if "gguf_file" not in kwargs:
            raise
        raise ValueError(f"model {spec!r} is a GGUF file; reading it needs the package gguf: {error}") from None
    except (OSError, ConnectionError) as error:
        if Path(target).is_dir():
            raise ValueError(f"model folder {spec!r} cannot be loaded: {str(error).splitlines()[0]}") from None
        offline = "" if hub_reachable() else " (offline)"
        raise ValueError(
            f"model {spec!r} is no local folder and cannot be fetched from the hub{offline}; give a local folder"
        ) from None


def weights_folder(spec: str) -> Path:
    """Return a local folder of a model's weights: the folder itself, or the hub's files, fetched once.

    Args:
        spec: see :func:`resolve_model`.

    Raises:
        ValueError: if it is neither a local folder nor reachable on the hub.
    """
    target = resolve_model(spec)
    if Path(target).is_dir():
        return Path(target)
    try:
        wanted = ["*.safetensors", "*.json", "*.bin"]
        return Path(snapshot_download(target, allow_patterns=wanted, local_files_only=not hub_reachable()))
    except (OSError, ConnectionError, ValueError):
        offline = "" if hub_reachable() else " (offline)"
        raise ValueError(
            f"model {spec!r} is no local folder and cannot be fetched from the hub{offline}; give a local folder"
        ) from None


def load_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; one without a padding token pads with its end-of-text token.

    Raises:
        ValueError: if the model cannot be found, or has neither token.
    """
    tokenizer = _from_pretrained(AutoTokenizer, spec)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {spec!r} has neither a padding nor an end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_image_processor(spec: str) -> BaseImageProcessor:
    """Load the processor that resizes and normalises a model's images.

    Raises:
        ValueError: if the model cannot be found.
    """
    return _from_pretrained(AutoImageProcessor, spec)


def supports_multiple_choice(spec: str) -> bool:
    """Whether transformers has a multiple-choice head for this architecture (decoders have none)."""
    return type(_from_pretrained(AutoConfig, spec)) in MODEL_FOR_MULTIPLE_CHOICE_MAPPING


def load_pretrained(spec: str, *, kind: Kind, num_labels: int, seed: int) -> PreTrainedModel:
    """Load a base model for a kind of task, its missing head drawn by ``seed``.

    Args:
        spec: see :func:`resolve_model`; a GGUF file is dequantised, and what comes back is a plain model.
        kind: kind of task.
        num_labels: classes of the head; ignored by causal LM and multiple choice.
        seed: seed of the new weights.

    Returns:
        The model, in float32 and eval mode.

    Raises:
        ValueError: if the model cannot be found, or its architecture has no head of this kind.
    """
    factory = {
        "image-classification": transformers.AutoModelForImageClassification,
        "text-classification": transformers.AutoModelForSequenceClassification,
        "regression": transformers.AutoModelForSequenceClassification,
        "multiple-choice": transformers.AutoModelForMultipleChoice,
        "causal-lm": transformers.AutoModelForCausalLM,
    }[kind]
    kwargs: dict[str, Any] = {"dtype": torch.float32}
    if kind != "causal-lm":
        kwargs["ignore_mismatched_sizes"] = True
    if kind in ("image-classification", "text-classification", "regression"):
        kwargs["num_labels"] = num_labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model, info = _from_pretrained(factory, spec, output_loading_info=True, **kwargs)
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise ValueError(f"model {spec!r} has no head for {kind} tasks; give another model") from None
    if kind == "causal-lm" and _sees_what_follows(model.config.get_text_config()):
        raise ValueError(
            f"model {spec!r} is an encoder: it sees the tokens that a causal LM must predict; give a decoder"
        )
    if kind != "image-classification" and model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = load_tokenizer(spec).pad_token_id
    if Path(resolve_model(spec)).is_file() and getattr(model, "hf_quantizer", None) is not None:
        # Its numbers are plain. Marked as quantised, the Trainer would not train it, nor save_pretrained save it.
        model.hf_quantizer.remove_quantization_config(model)
    model.missing_keys = sorted(info["missing_keys"])
    redraw(model, [*model.missing_keys, *(str(key[0]) for key in info["mismatched_keys"])], seed=seed)
    return cast(PreTrainedModel, model.eval())


def _sees_what_follows(config: Any) -> bool:
    """Whether an architecture attends to later tokens: transformers gives encoders a causal head all the same."""
    causal = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    # XLNet permutes: without a mask of its own it sees every token, and no masked-LM head gives it away.
    return config.model_type == "xlnet" or (config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not causal)
