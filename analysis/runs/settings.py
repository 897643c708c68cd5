"""Training settings by model family: the paper's, and this project's own defaults, read from ``settings.toml``.

Source of the paper's: the published commands and defaults of the public code of arXiv:2606.13767.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SETTINGS", "Settings", "get_settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Training settings of one model family.

    Attributes:
        learning_rate: of adapters (of B for LoRA+).
        full_learning_rate: of full fine-tuning.
        head_learning_rate: of the new head, under every method; None takes the method's own rate.
        batch_size: examples per step.
        epochs: passes over the training split.
        links: chain length of chained methods.
        weight_decay: AdamW's.
        scheduler: transformers' name of the learning rate's schedule.
        warmup: share of the steps spent warming up.
        max_length: tokens per example.
        lr_ratio: lr_B / lr_A of LoRA+.
        source: where the numbers come from.
    """

    learning_rate: float
    full_learning_rate: float
    batch_size: int
    epochs: float
    links: int
    weight_decay: float = 0.01
    scheduler: str = "linear"
    warmup: float = 0.1
    max_length: int = 128
    lr_ratio: float = 16.0
    head_learning_rate: float | None = None
    source: str


_ENTRIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SETTINGS: dict[str, Settings] = {name: Settings(**entry) for name, entry in _ENTRIES.items()}


def get_settings(name: str) -> Settings:
    """Look training settings up by name.

    Raises:
        ValueError: if there are none of that name.

    >>> get_settings("roberta").learning_rate
    0.0003
    """
    if name not in SETTINGS:
        raise ValueError(f"unknown settings {name!r}; accepted: {', '.join(SETTINGS)}")
    return SETTINGS[name]
