"""The registry of data sets, and the base models; the paper's fourteen and ten are read from ``presets.toml``.

Source: tables 2 and 3 of arXiv:2606.13767 (thirteen data sets; RTE, the fourteenth, occurs in its public code).
How to add a data set: ``analysis/tasks/ADD_A_DATA_SET.md``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tasks.kinds import KINDS, METRICS, Kind
from theory.checks import check_choice, check_integer, check_text
from theory.registry import Registry, check_reference

__all__ = ["DATASETS", "MODELS", "TINY_MODELS", "Dataset", "ModelPreset", "register_dataset"]


_ROLES = ("text", "text_pair", "label", "target", "choices", "image")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set.

    Attributes:
        name: the name on the command line.
        title: the name in tables and figures.
        kind: kind of task.
        reader: a function that reads its publisher's format, ``folder -> {"train": rows, "heldout": rows}``, as
            ``"package.module:function"``; see ``analysis.tasks.publishers``.
        metric_name: ``"accuracy"``, ``"matthews"``, ``"pearson"`` or ``"perplexity"``.
        num_train: examples of its published training split.
        columns: hub column of each role: text, text_pair, label, target, choices, image. Whether there is a second
            text decides the training settings, so they are stated without a hub too.
        hub: hub id, and configuration if any; None where it is on no hub.
        splits: hub splits of training and held-out examples; two equal names: split by seed.
        label_names: classes in the order of the hub's integers, where it has them.
        label_range: range of a regression's label.

    Raises:
        TypeError, ValueError: if a field makes no sense; the message names it.

    >>> Dataset(name="x", title="X", kind="causal-lm", reader="a:b", metric_name="f1", num_train=9, columns={})
    Traceback (most recent call last):
    ValueError: metric_name must be one of accuracy, matthews, pearson, perplexity; got 'f1'
    """

    name: str
    title: str
    kind: Kind
    reader: str
    metric_name: str
    num_train: int
    columns: Mapping[str, str]
    hub: tuple[str, str | None] | None = None
    splits: tuple[str, str] = ("train", "test")
    label_names: tuple[str, ...] | None = None
    label_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_text("name", self.name)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", self.name) or self.name in ("digits", "custom"):
            raise ValueError(
                f"name must be lower-case letters, digits and _.-, and not digits or custom: {self.name!r}"
            )
        check_text("title", self.title)
        check_choice("kind", self.kind, KINDS)
        check_reference("reader", self.reader)
        check_choice("metric_name", self.metric_name, METRICS)
        check_integer("num_train", self.num_train, minimum=2)
        for role in self.columns:
            check_choice("columns", role, _ROLES)
        if self.hub is not None and (not isinstance(self.hub, tuple) or len(self.hub) != 2):
            raise TypeError(f"hub must be (id, configuration or None), got {self.hub!r}")
        if self.kind == "regression" and self.label_range is None:
            raise ValueError("label_range must be given for a regression: its loss is clipped there")


@dataclass(frozen=True, kw_only=True)
class ModelPreset:
    """One of the paper's ten base models: its hub id and the settings that belong to its family."""

    name: str
    hub: str
    settings: str


def _dataset(name: str, entry: dict[str, Any]) -> Dataset:
    """Return a data set from its table: arrays are tuples here, and a hub id alone has no configuration."""
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Dataset(name=name, **{**entry, **lists, "hub": (*entry["hub"], None)[:2]})


_ENTRIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

DATASETS: Registry[Dataset] = Registry(
    "data set", group="beyond_lora.datasets", accepts=Dataset, name=lambda dataset: dataset.name
)
"""The paper's fourteen, and what packages outside add. TREC counts once: ``trec`` has its 6 coarse classes, ``trec50``
its 50 fine ones."""

for _name, _entry in _ENTRIES["datasets"].items():
    DATASETS.register(_dataset(_name, _entry))

register_dataset = DATASETS.register

MODELS: dict[str, ModelPreset] = {name: ModelPreset(name=name, **entry) for name, entry in _ENTRIES["models"].items()}

TINY_MODELS: dict[str, str] = _ENTRIES["tiny_models"]
"""Name of a tiny random stand-in -> its architecture. The paper's ten models, and BERT."""
