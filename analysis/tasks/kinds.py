"""What a model is asked for."""

from __future__ import annotations

from typing import Literal

__all__ = ["KINDS", "Kind"]


Kind = Literal["image-classification", "text-classification", "multiple-choice", "regression", "causal-lm"]


KINDS: tuple[Kind, ...] = (
    "image-classification",
    "text-classification",
    "multiple-choice",
    "regression",
    "causal-lm",
)
