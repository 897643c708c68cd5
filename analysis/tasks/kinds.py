"""What a model is asked for."""

from __future__ import annotations

from typing import Literal

__all__ = ["CLASSIFICATION", "HELDOUT", "KINDS", "METRICS", "Kind"]


Kind = Literal["image-classification", "text-classification", "multiple-choice", "regression", "causal-lm"]


KINDS: tuple[Kind, ...] = (
    "image-classification",
    "text-classification",
    "multiple-choice",
    "regression",
    "causal-lm",
)

CLASSIFICATION: tuple[Kind, ...] = ("image-classification", "text-classification")
"""Kinds with one label per example out of fixed classes."""

METRICS = ("accuracy", "matthews", "pearson", "perplexity")
"""What ``analysis.tasks.evaluation.metric`` computes."""

HELDOUT = ("test", "heldout", "validation", "valid", "dev", "val")
"""Names of the part of a data set that is held out, the first that is there."""
