"""The family of column methods: cLA, r-cLA, c3LA, r-c3LA and PaCA on this project's tuner."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from adapters.config import ColumnConfig
from adapters.families import Hooks, Wrap, peft_model, peft_targets, stored_bits
from adapters.layer import ColumnLayer
from theory.counting import log2_binomial

__all__ = ["COLUMNS"]


class _Columns(Hooks):
    def wrap(self, model: nn.Module, asked: Wrap) -> nn.Module:
        config = ColumnConfig(
            r=asked.rank,
            lora_alpha=asked.alpha,
            links=asked.links,
            seed=asked.seed,
            method=asked.method.key,
            modules_to_save=list(asked.heads) or None,
            **cast(dict[str, Any], peft_targets(model, asked.targets)),
        )
        return peft_model(model, config)

    def holds(self, layer: BaseTunerLayer, adapter: str) -> bool:
        return isinstance(layer, ColumnLayer) and adapter in layer.beyond_column_B

    def factors(self, layer: Any, adapter: str) -> tuple[Tensor, Tensor]:
        pairs = layer.columns_of(adapter)
        left = torch.cat([values for _, values in pairs], 1)
        columns = torch.cat([columns for columns, _ in pairs])
        right = torch.zeros(len(columns), layer.in_features, dtype=left.dtype, device=left.device)
        right[torch.arange(len(columns), device=left.device), columns] = 1.0
        if layer.stack:
            return left.unflatten(0, (*layer.stack, -1)), right.expand(*layer.stack, *right.shape)
        return left, right

    def describe(self, layer: Any, adapter: str, config: PeftConfig) -> dict[str, Any]:
        """Say what was trained; columns that the user gave may depend on the data, so their choice is counted."""
        assert isinstance(config, ColumnConfig)
        state, factor = layer.beyond_column_sum[adapter], layer.beyond_column_B[adapter].weight
        random = state.rule in ("random", "shuffled") and config.columns is None
        sizes = [len(state.columns_at(link)) for link in range(state.link + 1)]
        given = [] if config.columns is None else sizes
        return {
            "side_information_bits": sum((log2_binomial(layer.in_features, size) for size in given), 0.0),
            "rank": layer.r[adapter],
            "links": state.link + 1,
            "numbers_trained": layer.out_features // math.prod(layer.stack) * sum(sizes),
            "a_trained": False,
            "support": sorted(set(state.visited) | set(state.columns)),
            "bits": stored_bits(factor),
            "seed": config.seed if random else None,
        }

    def export(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Sum the columns of ``left`` that belong to equal rows of ``right`` (a chain that wrapped around)."""
        columns, slot = right.argmax(1).unique(return_inverse=True)
        if len(columns) == right.shape[0]:
            return left, right
        summed = left.new_zeros(left.shape[0], len(columns)).index_add_(1, slot, left)
        return summed, torch.eye(right.shape[1], dtype=right.dtype, device=right.device)[columns]


COLUMNS = _Columns()
