r"""Chains of LoRA links on PEFT's own LoRA layers (CoLA, arXiv:2401.04151; RAC-LoRA, arXiv:2410.08305).

A chain of K links of rank r is one LoRA of rank K r: the factors are concatenated, the scale alpha / r stays.
`LinkedFactor` takes the place of ``lora_A[name]`` and ``lora_B[name]``: earlier links frozen, the last one trained.
Its state dict holds the concatenation under LoRA's own key, and `LinkedLoraConfig` writes the matching rank and
alpha, so every save (``save_pretrained``, a Trainer checkpoint) is a plain LoRA adapter of all links so far, and
loading one into a chain puts its last r rows back into the live link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.config import say_how_many_links
from theory.draws import draw_normal

__all__ = ["LinkedFactor", "LinkedLoraConfig", "draw_factor", "link_layers"]


@dataclass
class LinkedLoraConfig(LoraConfig):
    """`peft.LoraConfig` that knows its chain; on disk it is a plain LoRA of rank ``r * (link + 1)``.

    Attributes:
        method: key of the method in `theory.methods.METHODS`.
        links: length of the chain.
        link: number of the live link, from 0.
        seed: seed from which A is drawn.
    """

    method: str = "lora"
    links: int = 1
    link: int = 0
    seed: int = 0

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        """Save; a chain that was left before its last link says so."""
        say_how_many_links(self, "saving")
        super().save_pretrained(save_directory, **kwargs)

    def to_dict(self) -> dict:
        """Return the plain LoRA configuration of all links so far."""
        plain = super().to_dict()
        for key in ("method", "links", "link", "seed"):
            plain.pop(key, None)
        plain["r"] *= self.link + 1
        plain["lora_alpha"] *= self.link + 1
        return plain


class LinkedFactor(nn.Module):
    """One factor of a chain: ``frozen`` (earlier links) beside ``live`` (trained).

    Args:
        weight: the live factor, (r, in_features) for A and (out_features, r) for B.
        axis: the axis along which links are concatenated, 0 for A and 1 for B.
        experts: number of matrices that share the factor's first axis; PEFT lays A of fused experts out as
            (experts * r, in_features), so that the links of each are concatenated apart. 1 elsewhere.
    """

    def __init__(self, weight: nn.Parameter, *, axis: int, experts: int = 1):
        super().__init__()
        self.axis, self.experts = axis, experts
        self.live = weight
        self.frozen: Tensor
        self.register_buffer("frozen", weight.detach().narrow(axis, 0, 0).clone(), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The factor of the whole chain so far."""
        return self._joined(self.frozen, self.live) if self.frozen.numel() else self.live

    def _joined(self, *links: Tensor) -> Tensor:
        if self.experts == 1:
            return torch.cat(links, self.axis)
        return torch.cat([link.unflatten(0, (self.experts, -1)) for link in links], 1).flatten(0, 1)

    def _split(self, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Undo `_joined`: the links before the last, and the last."""
        if self.experts == 1:
            return tuple(weight.split([weight.shape[self.axis] - rank, rank], self.axis))  # type: ignore[return-value]
        each, own = weight.unflatten(0, (self.experts, -1)), rank // self.experts
        frozen, live = each.split([each.shape[1] - own, own], 1)
        return frozen.flatten(0, 1), live.flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the factor; only the live part saves its input."""
        if not self.frozen.numel():
            return F.linear(x, self.live)
        if self.axis == 0:
            return torch.cat([F.linear(x, self.frozen), F.linear(x, self.live)], -1)
        split = self.frozen.shape[1]
        return F.linear(x[..., :split], self.frozen) + F.linear(x[..., split:], self.live)

    @torch.no_grad()
    def fold(self, fresh: Tensor) -> None:
        """Freeze the live part and start the next link from ``fresh``."""
        self.frozen = self._joined(self.frozen, self.live.detach())
        self.live.copy_(fresh)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[prefix + "weight"] = self.weight if keep_vars else self.weight.detach()

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        weight = state_dict.get(prefix + "weight")
        if weight is None:
            missing.append(prefix + "weight")
            return
        rank = self.live.shape[self.axis]
        links, rest = divmod(weight.shape[self.axis], rank)
        if rest or not links or weight.shape[1 - self.axis] != self.live.shape[1 - self.axis]:
            errors.append(f"size mismatch for {prefix}weight: {tuple(weight.shape)}, links of {tuple(self.live.shape)}")
            return
        with torch.no_grad():
            frozen, live = self._split(weight.to(self.live), rank)
            self.frozen = frozen.clone()
            self.live.copy_(live)


def draw_factor(like: Tensor, *, seed: int, name: str, link: int = 0) -> Tensor:
    r"""Draw A for one link: Gaussian, standard deviation :math:`1/\sqrt{3 n}` (n = in_features).

    That is the spread of PEFT's default (Kaiming-uniform), so its learning rates carry over; the draw follows
    the seed, the module's name and the link alone, to the last bit on every processor.

    >>> a = draw_factor(torch.empty(2, 3), seed=0, name="q")
    >>> bool((a == draw_factor(torch.empty(2, 3), seed=0, name="q")).all())
    True
    """
    std = 1 / math.sqrt(3 * like.shape[-1])
    return torch.from_numpy(draw_normal(*like.shape, key=f"{seed}/{name}/{link}", std=std)).to(like)


def link_layers(model: nn.Module, *, adapter: str, chained: bool, train_a: bool, seed: int) -> None:
    """Redraw A from the seed, freeze it where the method does, and make the factors chains where it chains.

    A is frozen through ``frozen_peft_weight_names``, which outlives ``set_adapter``.
    """
    for name, layer in lora_layers(model, adapter):
        a, b = cast(nn.Linear, layer.lora_A[adapter]), cast(nn.Linear, layer.lora_B[adapter])
        with torch.no_grad():
            a.weight.copy_(draw_factor(a.weight, seed=seed, name=name))
        if chained:
            experts = getattr(layer, "num_experts", 1)
            layer.lora_A[adapter] = LinkedFactor(cast(nn.Parameter, a.weight), axis=0, experts=experts)
            layer.lora_B[adapter] = LinkedFactor(cast(nn.Parameter, b.weight), axis=1)
        if not train_a:
            layer.frozen_peft_weight_names = {**layer.frozen_peft_weight_names, adapter: ("lora_A",)}
            layer._freeze_non_trainable_peft_weights()


def lora_layers(model: nn.Module, adapter: str) -> list[tuple[str, LoraLayer]]:
    """Return the LoRA layers that hold ``adapter``, with their names in the base model."""
    return [
        (name.removeprefix("base_model.model."), module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and adapter in module.lora_A
    ]
