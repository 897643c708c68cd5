"""Cheap scalars of a finished run that may predict its generalization error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

import adapters
from analysis.tasks import Outputs
from theory.records import UpdateRecord

__all__ = ["run_measures"]


def _squared_norms(model: torch.nn.Module, base_state: Mapping[str, torch.Tensor]) -> tuple[float, float]:
    """Squared Frobenius norms of dW and W0 over the adapted matrices; factors are never multiplied out."""
    update = base = 0.0
    if hasattr(model, "peft_config"):
        for layer in adapters.factors(model):
            left, right = layer.left.double(), layer.right.double()
            update += float(((left.T @ left) * (right @ right.T)).sum())
            base += float(layer.base_weight.double().square().sum())
        return update, base
    for name, delta in adapters.delta_weights(model, base_state).items():
        update += float(delta.double().square().sum())
        base += float(base_state[f"{name}.weight"].double().square().sum())
    return update, base


def run_measures(
    model: torch.nn.Module,
    *,
    base_state: Mapping[str, torch.Tensor],
    updates: Sequence[UpdateRecord],
    train: Outputs,
) -> dict[str, float]:
    """Return scalars of a finished run by name.

    ``train_loss`` (not clipped) and ``train_error``; ``margin_mean`` and ``margin_q10`` (mean and 10 %
    quantile of the training margins, in logits); of the adapted matrices, heads left out:
    ``frobenius_norm_update`` |dW|_F over all of them, ``relative_update`` |dW|_F / |W0|_F,
    ``spectral_norm_sum`` sum |dW|_2, ``log_spectral_product`` sum ln |W0 + dW|_2; ``numbers_trained``
    of the adapters over all links and ``head_numbers_trained``; ``links``.
    """
    adapted = [record for record in updates if record["kind"] != "head"]
    heads = [record for record in updates if record["kind"] == "head"]
    update, base = _squared_norms(model, base_state)
    margins = train.margins
    return {
        "train_loss": float(np.average(train.losses, weights=train.weights)),
        "train_error": float(train.errors.mean()),
        "margin_mean": float(margins.mean()),
        "margin_q10": float(np.quantile(margins, 0.1)),
        "frobenius_norm_update": update**0.5,
        "relative_update": (update / base) ** 0.5 if base else float("nan"),
        "spectral_norm_sum": float(sum(record["norm_update"] for record in adapted)),
        "log_spectral_product": float(sum(np.log(record["norm_merged"]) for record in adapted)),
        "numbers_trained": float(sum(record["numbers_trained"] for record in adapted)),
        "head_numbers_trained": float(sum(record["numbers_trained"] for record in heads)),
        "links": float(max((record["links"] for record in adapted), default=1)),
    }
