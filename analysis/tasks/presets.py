"""The paper's fourteen data sets and ten models, read from ``presets.toml``.

Source: tables 2 and 3 of arXiv:2606.13767 (thirteen data sets; RTE, the fourteenth, occurs in its public code).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tasks.kinds import Kind

__all__ = ["DATASETS", "MODELS", "TINY_MODELS", "DatasetPreset", "ModelPreset"]


@dataclass(frozen=True, kw_only=True)
class DatasetPreset:
    """One data set.

    Attributes:
        name: the name on the command line.
        kind: kind of task.
        reader: which reader of ``analysis.tasks.publishers`` knows its publisher's format.
        metric_name: the paper's metric.
        hub: hub id, and configuration if any.
        columns: hub column of each role: text, text_pair, label, target, choices, image.
        splits: hub splits of training and held-out examples; two equal names: split by seed.
        label_names: classes in the order of the hub's integers, where it has them.
        label_range: range of a regression's label.
    """

    name: str
    kind: Kind
    reader: str
    metric_name: str
    hub: tuple[str, str | None]
    columns: Mapping[str, str]
    splits: tuple[str, str]
    label_names: tuple[str, ...] | None = None
    label_range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelPreset:
    """One of the paper's ten base models: its hub id and the settings that belong to its family."""

    name: str
    hub: str
    settings: str


def _dataset(name: str, entry: dict[str, Any]) -> DatasetPreset:
    """Return a data set from its table: arrays are tuples here, and a hub id alone has no configuration."""
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return DatasetPreset(name=name, **{**entry, **lists, "hub": (*entry["hub"], None)[:2]})


_ENTRIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

DATASETS: dict[str, DatasetPreset] = {name: _dataset(name, entry) for name, entry in _ENTRIES["datasets"].items()}
"""The fourteen, TREC counted once: ``trec`` has its 6 coarse classes, ``trec50`` its 50 fine ones."""

MODELS: dict[str, ModelPreset] = {name: ModelPreset(name=name, **entry) for name, entry in _ENTRIES["models"].items()}

TINY_MODELS: dict[str, str] = _ENTRIES["tiny_models"]
"""Name of a tiny random stand-in -> its architecture. The paper's ten models, and BERT."""
