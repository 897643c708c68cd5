"""Per-example losses, errors and margins of a model in eval mode, and the paper's metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import matthews_corrcoef

from analysis.tasks.kinds import METRICS
from analysis.tasks.task import Task

__all__ = ["Outputs", "doubtful_errors", "evaluate", "metric"]


_LOGITS = 2**25
"""A quarter of a gigabyte in float64, of which an evaluation holds about four at a time."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a model does on each example of a list, in the list's order.

    Attributes:
        losses: cross-entropy in nats (the mean over an example's tokens for causal LM) or squared error,
            not clipped, shape (N,).
        clipped: the same with each prediction's loss clipped at the task's ``max_loss``, shape (N,).
        errors: 0-1 loss (the share of wrong tokens for causal LM; NaN for regression), shape (N,).
        margins: the true class's logit minus the largest other, shape (N,); NaN where undefined.
        predictions: predicted class or value, shape (N,); NaN for causal LM.
        labels: true class or value, shape (N,); NaN for causal LM.
        weights: predictions per example (tokens for causal LM, else 1), shape (N,).
        largest_logit: the largest |logit| (or |prediction|), which scales rounding; NaN where it was not kept.
    """

    losses: NDArray[np.float64]
    clipped: NDArray[np.float64]
    errors: NDArray[np.float64]
    margins: NDArray[np.float64]
    predictions: NDArray[np.float64]
    labels: NDArray[np.float64]
    weights: NDArray[np.float64]
    largest_logit: float = math.nan


def _classified(logits: torch.Tensor, labels: torch.Tensor, max_loss: float) -> list[torch.Tensor]:
    losses = -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    predictions = logits.argmax(-1)
    true = logits.gather(-1, labels[..., None])[..., 0]
    others = logits.scatter(-1, labels[..., None], -math.inf).amax(-1)
    # A NaN loss must stay NaN: torch.clamp keeps it.
    return [losses, losses.clamp(max=max_loss), (predictions != labels).double(), true - others, predictions.double()]


def _token_means(logits: torch.Tensor, labels: torch.Tensor, max_loss: float) -> list[torch.Tensor]:
    logits, labels = logits[:, :-1], labels[:, 1:]
    counted = labels != -100
    parts = _classified(logits, labels.clamp(min=0), max_loss)[:4]
    weights = counted.sum(-1).clamp(min=1)
    means = [torch.where(counted, part, 0.0).sum(-1) / weights for part in parts]
    return [*means, weights.double()]


def evaluate(
    model: torch.nn.Module, task: Task, examples: Sequence[dict[str, Any]], *, batch_size: int = 128
) -> Outputs:
    """Evaluate a model on a list of examples: eval mode (restored afterwards), no gradient, float64 losses.

    The forward pass has the precision of the model's parameters; a model in float64 gets its inputs in float64.
    Examples are batched by length so that little is padded; the result is in the list's order.

    Args:
        model: takes a collated batch.
        task: its collate function, kind and clipping.
        examples: encoded examples.
        batch_size: examples per forward pass.

    Raises:
        ValueError: if there are no examples.
    """
    if len(examples) == 0:
        raise ValueError("examples must not be empty")
    first = next(model.parameters())
    device, wide = first.device, first.dtype == torch.float64
    order = list(range(len(examples)))
    if task.kind in ("text-classification", "regression", "causal-lm"):
        order.sort(key=lambda i: len(examples[i]["input_ids"]))
    columns: list[list[torch.Tensor]] = []
    largest = 0.0
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for chosen in _batches(order, examples, task, batch_size):
                batch = task.collate([examples[i] for i in chosen])
                batch = {
                    key: value.to(device, torch.float64) if wide and value.is_floating_point() else value.to(device)
                    for key, value in batch.items()
                }
                labels = batch.pop("labels")
                logits = model(**batch).logits.double()
                least, most = logits.aminmax()  # abs() would copy a language model's logits
                largest = max(largest, -float(least), float(most))
                if task.kind == "causal-lm":
                    losses, clipped, errors, margins, weights = _token_means(logits, labels, task.max_loss)
                    missing = torch.full_like(losses, math.nan)
                    part = [losses, clipped, errors, margins, missing, missing, weights]
                elif task.kind == "regression":
                    predictions = logits[:, 0]
                    losses = (predictions - labels) ** 2
                    missing = torch.full_like(losses, math.nan)
                    clipped = losses.clamp(max=task.max_loss)
                    part = [losses, clipped, missing, missing, predictions, labels, torch.ones_like(losses)]
                else:
                    losses, clipped, errors, margins, predictions = _classified(logits, labels, task.max_loss)
                    part = [losses, clipped, errors, margins, predictions, labels, torch.ones_like(losses)]
                columns.append([column.double().cpu() for column in part])
    finally:
        model.train(training)
    values = []
    for column in zip(*columns, strict=True):
        value = np.empty(len(order))
        value[order] = torch.cat(column).numpy()
        values.append(value)
    names = ("losses", "clipped", "errors", "margins", "predictions", "labels", "weights")
    return Outputs(**dict(zip(names, values, strict=True)), largest_logit=largest)


def _batches(
    order: Sequence[int], examples: Sequence[dict[str, Any]], task: Task, batch_size: int
) -> Iterator[list[int]]:
    """Cut an order by length into batches; a language model's hold at most :data:`_LOGITS` logits each."""
    batch: list[int] = []
    for i in order:
        full = len(batch) == batch_size
        if task.kind == "causal-lm":
            full = full or (len(batch) + 1) * len(examples[i]["input_ids"]) * task.num_labels > _LOGITS
        if batch and full:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def doubtful_errors(outputs: Outputs, logit_error: float) -> int:
    """Count the examples whose 0-1 error rounding can flip: the true and the largest other logit nearly tie.

    A recount from the same weights on another processor may differ by that many errors, no more.

    Args:
        outputs: from `evaluate`, of a classification task.
        logit_error: how far rounding moves a logit, from `analysis.tasks.rounding.forward_error`.

    Raises:
        ValueError: if the outputs have no 0-1 error per example (regression, causal LM).
    """
    if np.isnan(outputs.errors).any() or (outputs.weights != 1).any():
        raise ValueError("outputs have no 0-1 error per example; those of classification alone can be doubtful")
    return int((~(np.abs(outputs.margins) > 2 * logit_error)).sum())  # a NaN decides nothing


def metric(outputs: Outputs, name: str) -> float:
    """Compute the paper's metric: accuracy, Matthews or Pearson correlation (each times 1), or perplexity.

    Perplexity is exp of the mean loss over all target tokens, not clipped. A correlation with a constant
    is NaN, not 0.

    Raises:
        ValueError: if the metric is unknown.
    """
    if name == "accuracy":
        return float(1.0 - outputs.errors.mean())
    if name == "perplexity":
        return float(np.exp(np.average(outputs.losses, weights=outputs.weights)))
    if name in ("matthews", "pearson"):
        predictions, labels = outputs.predictions, outputs.labels
        if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
            return math.nan
        if name == "pearson":
            return float(np.corrcoef(predictions, labels)[0, 1])

        return float(matthews_corrcoef(labels.astype(int), predictions.astype(int)))
    raise ValueError(f"unknown metric {name!r}; accepted: {', '.join(METRICS)}")
