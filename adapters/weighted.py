"""Weighted sums of column adapters: columns add exactly, without the singular values that sums of LoRA take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from adapters.config import ColumnConfig
from adapters.layer import ColumnLayer

__all__ = ["fill_weighted", "weighted_config"]

_SELECTORS = ("method", "r", "rank_pattern", "seed", "links", "link", "columns")


def weighted_config(
    configs: dict[str, ColumnConfig], layers: dict[str, ColumnLayer], adapters: Sequence[str], weights: Sequence[float]
) -> ColumnConfig:
    """Return the configuration of an adapter that can hold the weighted sum of others.

    Adapters that select their columns alike keep their selector; others are put together on the union of their columns,
    which has to be the same in every layer.

    Args:
        configs: the model's adapters by name.
        layers: its adapted layers by name.
        adapters: names of the summands.
        weights: one number each.

    Raises:
        ValueError: if there is no such adapter, weights do not fit, or layers differ in their columns.
    """
    if not adapters or len(adapters) != len(weights):
        raise ValueError(f"weights must be as many as adapters, at least one, got {len(weights)} for {len(adapters)}")
    for name, weight in zip(adapters, weights, strict=True):
        if not isinstance(configs.get(name), ColumnConfig):
            raise ValueError(f"adapters must name column adapters of the model ({', '.join(configs)}), got {name!r}")
        if not math.isfinite(weight):
            raise ValueError(f"weights must be finite, got {weight!r} for {name!r}")
        if configs[name].modules_to_save:
            raise ValueError(f"adapter {name!r} has modules_to_save, which cannot be added; merge them by hand")
    members = {key: one for key, one in layers.items() if any(name in one.beyond_column_B for name in adapters)}
    chosen = {key: sorted(_columns(one, adapters)) for key, one in members.items()}
    first = replace(
        configs[adapters[0]], target_modules=sorted(members), exclude_modules=None, layers_to_transform=None,
        layers_pattern=None, inference_mode=True, base_shapes=None,
    )  # fmt: skip
    if _alike(configs, adapters):
        return first
    union = next(iter(chosen.values()))
    other = next((key for key, columns in chosen.items() if columns != union), None)
    if other is not None:
        raise ValueError(
            f"adapters {list(adapters)} select other columns in layer {other!r} than in {next(iter(chosen))!r}; export "
            "them with export_to_lora and add them by PEFT's LoRA with combination_type='cat'"
        )
    size = len(union)
    return replace(
        first,
        method="cla",
        r=size,
        lora_alpha=size,
        rank_pattern={},
        alpha_pattern={},
        links=1,
        link=0,
        columns=[union],
    )


@torch.no_grad()
def fill_weighted(
    configs: dict[str, ColumnConfig],
    layers: dict[str, ColumnLayer],
    adapters: Sequence[str],
    weights: Sequence[float],
    name: str,
) -> None:
    """Write the weighted sum of ``adapters`` into the adapter ``name``, which `weighted_config` described."""
    alike = _alike(configs, [*adapters, name])
    for layer in layers.values():
        if name not in layer.beyond_column_B:
            continue
        state, factor = layer.beyond_column_sum[name], layer.beyond_column_B[name].weight.zero_()
        for adapter, weight in zip(adapters, weights, strict=True):
            if adapter not in layer.beyond_column_B:
                continue
            scale = weight * layer.scaling[adapter] / layer.scaling[name]
            if alike:
                factor.add_(layer.beyond_column_B[adapter].weight, alpha=scale)
                state.values.add_(layer.beyond_column_sum[adapter].values, alpha=scale)
                continue
            for columns, values in layer.columns_of(adapter):
                slots = torch.searchsorted(state.live_index, columns)  # the union is sorted and holds them all
                factor.index_add_(1, slots, (values * weight / layer.scaling[name]).to(factor))


def _alike(configs: dict[str, ColumnConfig], adapters: Sequence[str]) -> bool:
    selectors: list[Any] = [[getattr(configs[name], key) for key in _SELECTORS] for name in adapters]
    return all(selector == selectors[0] for selector in selectors)


def _columns(layer: ColumnLayer, adapters: Sequence[str]) -> set[int]:
    held = [layer.columns_of(name) for name in adapters if name in layer.beyond_column_B]
    return {column for pairs in held for columns, _ in pairs for column in columns.tolist()}
