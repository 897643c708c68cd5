"""Train an adapter for a short code: few numbers through a random subspace, quantised while training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from tqdm.auto import tqdm

from adapters import prepare, target_names
from analysis.certificates.replay import Replay, transformer_blocks
from analysis.certificates.subspace import Subspace
from analysis.tasks import Task
from theory.certificates import GroupCode, SubspaceCode, fit_levels, nearest
from theory.heads import is_inside

__all__ = ["ShortCodeRun", "TrainingOptions", "adapted_modules", "reached_subspace", "train_short_code"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How w is trained; none of it is needed by the decoder, so none of it is paid for.

    Attributes:
        epochs: passes in floating point.
        quantized_epochs: passes through the quantiser, with straight-through gradients, after them.
        batch_size: examples per step, of similar length.
        learning_rate: Adam's peak rate for w; |P w| = |w|, so 0.1 is 0.1 per step for the whole group.
        seed: seed of the batches.
        progress: whether a progress bar is shown.
    """

    epochs: int = 4
    quantized_epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 0.1
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        if self.epochs < 0 or self.quantized_epochs < 0 or self.epochs + self.quantized_epochs < 1:
            raise ValueError(f"epochs and quantized_epochs must not be negative nor both 0, got {self}")
        if self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"batch_size must be at least 1 and learning_rate above 0, got {self}")


@dataclass(frozen=True, eq=False)
class ShortCodeRun:
    """A trained short code.

    Attributes:
        code: the quantised adapter, ready to be encoded.
        full_precision: w at the end of the floating-point passes, float32, by group: the adapter that the
            quantised one stands in for.
        seconds_per_step: mean time of an optimizer step.
    """

    code: SubspaceCode
    full_precision: dict[str, np.ndarray]
    seconds_per_step: float


def adapted_modules(model: nn.Module, *, targets: str, layers: int) -> list[str]:
    """Name the linear modules to adapt in the last ``layers`` blocks (0: in all).

    Args:
        model: a transformers model.
        targets: ``"attention"`` (the method's usual targets: query and value) or ``"all-linear"``.
        layers: number of blocks, counted from the output.

    Raises:
        ValueError: if there are not that many blocks or nothing in them matches.
    """
    prefix, blocks = transformer_blocks(model)
    if layers > len(blocks):
        raise ValueError(f"layers must be at most the model's {len(blocks)} blocks (0 means all), got {layers}")
    first = len(blocks) - layers if layers else 0
    inside = [f"{prefix}.{index}" for index in range(first, len(blocks))]
    wanted = None if targets == "attention" else targets
    names = [name for name in target_names(model, wanted) if is_inside(name, inside)]
    if not names:
        raise ValueError(f"targets {targets!r} match no module of {type(model).__name__}")
    return names


def reached_subspace(base: nn.Module, choice: Mapping[str, Any], *, heads: Sequence[str]) -> Subspace:
    """Adapt a base model as a choice says and return the subspace its code moves in; seeds decide the rest.

    Args:
        base: the pretrained model with its head as drawn by ``choice["seed"]``; adapted in place.
        choice: a point of the certificate's grid.
        heads: modules trained in full beside the adapter.
    """
    rank, seed, head = choice["rank"], choice["seed"], list(heads)
    names = adapted_modules(base, targets=choice["targets"], layers=choice["layers"])
    prepared = prepare(
        base,
        choice["method"],
        rank=rank,
        alpha=2.0 * rank,
        target_modules=names,
        seed=seed,
        modules_to_save=head,
    )
    numbers = {"adapter": choice["adapter_numbers"], "head": choice["head_numbers"]}
    return Subspace(prepared.model.eval(), numbers=numbers, seed=seed)


def _batches(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Draw a pass over the examples in batches of similar length, in random order."""
    order, window = rng.permutation(len(lengths)), 16 * batch_size
    sizes = np.asarray(lengths)
    parts = [order[i : i + window] for i in range(0, len(order), window)]
    order = np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in parts])
    batches = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


class _Quantizer:
    """Levels per group, fitted when quantised training begins; gradients pass straight through to w."""

    def __init__(self, w: Mapping[str, Tensor], choice: Mapping[str, Any]) -> None:
        self.choice, self.levels, self.codes = choice, {}, {}
        for group, value in w.items():
            levels, self.codes[group] = fit_levels(
                value.detach().numpy(), choice["levels"], quantizer=choice["quantizer"]
            )
            self.levels[group] = torch.from_numpy(levels)

    def __call__(self, w: Mapping[str, Tensor]) -> dict[str, Tensor]:
        result = {}
        for group, value in w.items():
            levels = self.levels[group]
            symbols = torch.from_numpy(nearest(value.detach().numpy(), levels.numpy()))
            result[group] = levels[symbols].to(value.dtype) + (value - value.detach())
        return result

    def code(self, w: Mapping[str, Tensor]) -> SubspaceCode:
        groups = {
            group: GroupCode.quantize(
                value.detach().numpy(), levels=self.levels[group].numpy(), step_code=self.codes[group]
            )
            for group, value in w.items()
        }
        return SubspaceCode(dict(self.choice), groups)


def train_short_code(
    subspace: Subspace, task: Task, choice: Mapping[str, Any], *, options: TrainingOptions | None = None
) -> ShortCodeRun:
    """Train w by Adam on the task's own loss, first as it is, then through its quantiser.

    The levels are fitted to w at the end of the first phase (uniform: the best step; learned: Lloyd) and
    held; gradients pass straight through the rounding (Bengio et al., arXiv:1308.3432). The learning
    rate warms up over 20 steps and falls along a cosine.

    Args:
        subspace: where w lives.
        task: its training examples alone are used.
        choice: a point of the certificate's grid (quantizer, levels).
        options: how long and how fast.

    Returns:
        The quantised code, the unrounded w, and the time of a step.

    Raises:
        ValueError: if the loss becomes NaN or infinite.
    """
    options = options or TrainingOptions()
    model, w = subspace.model, subspace.zeros()
    if not w:
        raise ValueError("adapter_numbers and head_numbers must not both be 0: there is nothing to train")
    rng = np.random.default_rng([options.seed, 6])
    lengths = [len(example.get("input_ids", ())) for example in task.train]
    _, blocks = transformer_blocks(model)
    first = len(blocks) - choice["layers"] if choice["layers"] else 0
    replay = Replay.if_exact(model, task.train, task.collate, first=first)
    optimizer = torch.optim.Adam(list(w.values()), lr=options.learning_rate)
    per_epoch = math.ceil(len(lengths) / options.batch_size)
    total, quantizer = per_epoch * (options.epochs + options.quantized_epochs), None
    started = time.perf_counter()
    full_precision: dict[str, np.ndarray] = {}
    bar = tqdm(total=total, desc=f"{choice['method']}, d = {sum(x.numel() for x in w.values())}", leave=False,
               disable=not options.progress)  # fmt: skip
    step = 0
    with bar:
        for epoch in range(options.epochs + options.quantized_epochs):
            if epoch == options.epochs:
                full_precision = {group: value.detach().numpy().copy() for group, value in w.items()}
                quantizer = _Quantizer(w, choice)
            for rows in _batches(lengths, options.batch_size, rng):
                rate = min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / total))
                optimizer.param_groups[0]["lr"] = options.learning_rate * rate
                values = subspace.parameters(quantizer(w) if quantizer else w)
                batch = task.collate([task.train[i] for i in rows])
                if replay:
                    with replay.active(rows):
                        loss = functional_call(model, values, (), batch).loss
                else:
                    loss = functional_call(model, values, (), batch).loss
                if not torch.isfinite(loss):
                    raise ValueError(f"the loss became {loss.item()} at step {step}: lower learning_rate")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                bar.update()
    full_precision = full_precision or {group: value.detach().numpy().copy() for group, value in w.items()}
    quantizer = quantizer or _Quantizer(w, choice)
    return ShortCodeRun(quantizer.code(w), full_precision, (time.perf_counter() - started) / total)
