"""Skip the blocks below the first trained one: their output never changes, so it is computed once.

Used for training only, where it is checked against the whole model first; certified losses always come
from the whole model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Replay", "transformer_blocks"]

_MAX_BYTES = 2 << 30


def transformer_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of a model's transformer blocks: its longest ``nn.ModuleList``.

    Raises:
        ValueError: if the model has no such list.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"model {type(model).__name__} has no list of blocks (nn.ModuleList)")
    return max(lists, key=lambda pair: len(pair[1]))


class Replay:
    """Inputs of one block for every example, given back in place of running the blocks below it.

    Args:
        model: a model in eval mode whose blocks below ``first`` are frozen.
        examples: encoded examples.
        collate: list of examples -> batch.
        first: index of the first trained block.
        batch_size: examples per forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Sequence[dict[str, Any]],
        collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
        *,
        first: int,
        batch_size: int = 128,
    ) -> None:
        _, blocks = transformer_blocks(model)
        self._below, self._block = list(blocks)[:first], blocks[first]
        self._inputs: list[Tensor] = [torch.empty(0)] * len(examples)
        self._rows: Sequence[int] = ()
        caught: list[Tensor] = []
        handle = self._block.register_forward_pre_hook(lambda _module, args: caught.append(args[0]))
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].get("input_ids", ())))
        try:
            with torch.no_grad():
                for start in range(0, len(order), batch_size):
                    rows = order[start : start + batch_size]
                    model(**collate([examples[i] for i in rows]))
                    for i, hidden in zip(rows, caught.pop(), strict=True):
                        self._inputs[i] = hidden[: len(examples[i].get("input_ids", hidden))].clone()
        finally:
            handle.remove()

    @classmethod
    def if_exact(
        cls,
        model: nn.Module,
        examples: Sequence[dict[str, Any]],
        collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
        *,
        first: int,
    ) -> Replay | None:
        """Return a replay, or None where there is nothing to skip, no room, or the model does not allow it."""
        longest = max(len(example.get("input_ids", ())) or 256 for example in examples)
        width = getattr(getattr(model, "config", None), "hidden_size", 1024)
        if first == 0 or len(examples) * longest * width * 4 > _MAX_BYTES:
            return None
        probe = list(examples[:8])
        batch = collate(probe)
        try:
            trial = cls(model, probe, collate, first=first)
            with torch.no_grad(), trial.active(range(len(probe))):
                replayed = model(**batch).logits
        except (TypeError, AttributeError, IndexError, RuntimeError):
            return None
        with torch.no_grad():
            whole = model(**batch).logits
        # Padding differs by rounding only; anything larger means that the blocks pass on more than one tensor.
        if replayed.shape != whole.shape or not torch.allclose(replayed, whole, rtol=1e-3, atol=1e-4):
            return None
        return cls(model, examples, collate, first=first)

    @contextlib.contextmanager
    def active(self, rows: Sequence[int]) -> Iterator[None]:
        """Within, the model takes the examples ``rows`` (in the batch's order) from above the frozen blocks."""

        def feed(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = nn.utils.rnn.pad_sequence([self._inputs[i] for i in rows], batch_first=True)
            return (hidden, *args[1:])

        handle = self._block.register_forward_pre_hook(feed)
        for block in self._below:
            block.forward = lambda hidden, *_args, **_kwargs: hidden
        try:
            yield
        finally:
            handle.remove()
            for block in self._below:
                del block.forward
