"""The models that the adapter benchmark compares: one base, and everything that can be put on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from peft import LoraConfig, MissConfig, PeftConfig, ShiraConfig
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import adapters
from adapters.families import peft_model
from theory.defaults import RANK, usual_alpha

__all__ = ["CASES", "LLAMA_8B", "LLAMA_CPU", "LLAMA_QUICK", "Case", "Setting", "attach", "base_model", "batch"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One place of the benchmark's grid: a Llama architecture with random weights, and a batch.

    Attributes:
        hidden: width; inner: width of the MLP; layers: depth; heads: attention heads; kv_heads: key and value
            heads; vocabulary: tokens.
        length: tokens per sequence; sequences: sequences per batch.
        dtype: of the base weights, ``"float32"`` or ``"bfloat16"``.
        targets: ``"all-linear"`` or ``"q,v"``.
        rank: r.
        device: ``"cpu"`` or ``"cuda"``.
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 1024
    length: int = 256
    sequences: int = 8
    dtype: str = "float32"
    targets: str = "all-linear"
    rank: int = RANK
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the place, as the result's keys use it."""
        return f"{self.targets}/{self.length}/{self.dtype}"

    @property
    def target_modules(self) -> str | list[str]:
        """The targets as PEFT writes them."""
        return "all-linear" if self.targets == "all-linear" else ["q_proj", "v_proj"]


LLAMA_CPU = Setting(hidden=512, inner=1408, layers=3, heads=8, kv_heads=8)
LLAMA_QUICK = Setting(hidden=128, inner=352, layers=2, heads=4, kv_heads=4, sequences=2)
LLAMA_8B = Setting(
    hidden=4096, inner=14336, layers=32, heads=32, kv_heads=8, vocabulary=128256, length=2048, sequences=1,
    dtype="bfloat16", device="cuda",
)  # fmt: skip


def base_model(setting: Setting, *, seed: int = 0) -> nn.Module:
    """Build a Llama with random weights, in training mode, cache off."""
    config = LlamaConfig(
        hidden_size=setting.hidden,
        intermediate_size=setting.inner,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        num_key_value_heads=setting.kv_heads,
        vocab_size=setting.vocabulary,
        max_position_embeddings=max(2048, setting.length),
        use_cache=False,
    )
    dtype = getattr(torch, setting.dtype)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]), torch.device(setting.device):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(previous)
    return model.train()


def batch(setting: Setting, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw one batch of random tokens, labels included."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(setting.vocabulary, (setting.sequences, setting.length), generator=generator)
    tokens = tokens.to(setting.device)
    return {"input_ids": tokens, "labels": tokens}


class NaiveGather(nn.Module):
    """The sparse path as one writes it first: gather the columns, multiply, scale, add; plain autograd."""

    def __init__(self, base: nn.Linear, *, rank: int, scale: float):
        super().__init__()
        self.base, self.scale = base, scale
        self.factor = nn.Linear(rank, base.out_features, bias=False, device=base.weight.device, dtype=torch.float32)
        nn.init.zeros_(self.factor.weight)
        self.columns: torch.Tensor
        self.register_buffer("columns", torch.arange(rank, device=base.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the base output plus the scaled update."""
        picked = x.index_select(-1, self.columns)
        return self.base(x) + self.scale * F.linear(picked, self.factor.weight.to(x.dtype))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way of fine-tuning.

    Attributes:
        title: what tables call it.
        attach: (model, setting) -> the model to train, adapted in place.
        removable: whether ``model.unload()`` gives the base back.
    """

    title: str
    attach: Callable[[nn.Module, Setting], nn.Module]
    removable: bool = True


def _floor(model: nn.Module, setting: Setting) -> nn.Module:
    return model.requires_grad_(False)


def _full(model: nn.Module, setting: Setting) -> nn.Module:
    return model.requires_grad_(True)


def _peft(make: Callable[[Setting], PeftConfig]) -> Callable[[nn.Module, Setting], nn.Module]:
    return lambda model, setting: peft_model(model, make(setting))


def _lora(setting: Setting, **changes) -> LoraConfig:
    return LoraConfig(
        r=setting.rank,
        lora_alpha=int(usual_alpha(setting.rank)),
        target_modules=setting.target_modules,
        lora_dropout=0.0,
        **changes,
    )


def _frozen_a(model: nn.Module, setting: Setting) -> nn.Module:
    adapted = peft_model(model, _lora(setting))
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
    return adapted


def _naive(model: nn.Module, setting: Setting) -> nn.Module:
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            wanted = name != "lm_head" if setting.targets == "all-linear" else name in ("q_proj", "v_proj")
            if isinstance(child, nn.Linear) and wanted:
                setattr(parent, name, NaiveGather(child, rank=setting.rank, scale=2.0))
    return model


def _ours(method: str, *, links: int = 1, moves: int = 0) -> Callable[[nn.Module, Setting], nn.Module]:
    def attach_ours(model: nn.Module, setting: Setting) -> nn.Module:
        prepared = adapters.prepare(
            model,
            method,
            rank=setting.rank,
            alpha=usual_alpha(setting.rank),
            target_modules=setting.target_modules,
            links=links,
            modules_to_save=[],
        )
        for _ in range(moves):
            adapters.merge_and_continue(prepared.model)
        return prepared.model

    return attach_ours


CASES: dict[str, Case] = {
    "floor": Case(title="frozen base (floor)", attach=_floor, removable=False),
    "lora": Case(title="LoRA (peft)", attach=_peft(_lora)),
    "lora-frozen-a": Case(title="LoRA, A frozen (peft)", attach=_frozen_a),
    "dora": Case(title="DoRA (peft)", attach=_peft(lambda setting: _lora(setting, use_dora=True))),
    "miss": Case(
        title="MiSS (peft)",
        attach=_peft(lambda s: MissConfig(r=s.rank, target_modules=s.target_modules, miss_dropout=0.0)),
    ),
    "shira": Case(
        title="SHiRA (peft)",
        attach=_peft(lambda s: ShiraConfig(r=max(1, s.rank // 2), target_modules=s.target_modules)),
    ),
    "naive-gather": Case(title="cLA, naive gather", attach=_naive, removable=False),
    "cla": Case(title="cLA", attach=_ours("cla")),
    "r-cla": Case(title="r-cLA", attach=_ours("r-cla")),
    "c3la": Case(title="c3LA, third link", attach=_ours("c3la", links=3, moves=2)),
    "fft": Case(title="full fine-tuning", attach=_full, removable=False),
}


def attach(base: nn.Module, key: str, setting: Setting, *, copy_base: bool = True) -> nn.Module:
    """Put one case on a base model.

    Every case but full fine-tuning lets gradients flow into the embeddings' output, as gradient checkpointing and
    most training loops do, so that all of them back-propagate through every layer.

    Args:
        base: from :func:`base_model`.
        key: a key of ``CASES``.
        setting: the setting of ``base``.
        copy_base: adapt a copy and leave ``base`` alone.

    Raises:
        ValueError: if there is no such case.
    """
    if key not in CASES:
        raise ValueError(f"unknown case {key!r}; accepted: {', '.join(CASES)}")
    model = copy.deepcopy(base) if copy_base else base
    model = CASES[key].attach(model, setting)
    if key != "fft":
        cast(PreTrainedModel, model).get_input_embeddings().register_forward_hook(
            lambda module, args, output: output.requires_grad_()
        )
    return model.train()
