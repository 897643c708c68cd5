"""What a trained language model writes after held-out prompts, beside what it should have written."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import lazy_loader
import torch

from analysis.tasks import Task

__all__ = ["check_bleu", "generate"]

sacrebleu = lazy_loader.load("sacrebleu")  # an extra: loaded, or missed, when it is used

_SHOWN = 5
_BATCH = 16


def check_bleu() -> None:
    """Refuse to go on without sacrebleu.

    Raises:
        ValueError: if it is not installed.
    """
    if importlib.util.find_spec("sacrebleu") is None:
        raise ValueError("generate needs sacrebleu for BLEU, which is not installed; pip install sacrebleu")


def _prompts(task: Task, count: int) -> dict[tuple[int, ...], list[list[int]]]:
    """Return the first held-out prompts and, of each, every target that it has in the held-out examples."""
    found: dict[tuple[int, ...], list[list[int]]] = {}
    for example in task.heldout:
        start = next((i for i, label in enumerate(example["labels"]) if label != -100), None)
        if start is not None:
            found.setdefault(tuple(example["input_ids"][:start]), []).append(example["input_ids"][start:])
    return dict(list(found.items())[:count])


def _continued(model: Any, prompts: Sequence[Sequence[int]], *, pad_id: int, limit: int) -> list[list[int]]:
    """Continue prompts greedily, padded on the left, to the end of text or the limit."""
    longest, device = max(map(len, prompts)), next(model.parameters()).device
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    written = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=limit, pad_token_id=pad_id
    )
    return written[:, longest:].tolist()


def generate(model: torch.nn.Module, task: Task, *, count: int) -> dict[str, Any]:
    """Let a model continue held-out prompts greedily, and compare with all their targets.

    Args:
        model: a language model with ``generate``; its mode is left as it was.
        task: of kind ``"causal-lm"``; its held-out examples are the prompts, in order, equal ones once. Prompts and
            targets are those that the model is shown, so cut where those are.
        count: number of prompts; fewer where there are fewer.

    Returns:
        ``exact_match``: the share of prompts continued by one of their targets, spaces at the ends aside; ``bleu``:
        sacrebleu's corpus BLEU in [0, 100] against all targets; ``signature``: how it was computed; ``prompts``,
        ``max_new_tokens`` and the first ``samples``.

    Raises:
        ValueError: if sacrebleu is not installed.
    """
    check_bleu()
    found = _prompts(task, count)
    limit = max(len(target) for targets in found.values() for target in targets)
    training, prompts, written = model.training, list(found), []
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(prompts), _BATCH):
                batch = prompts[start : start + _BATCH]
                written += _continued(model, batch, pad_id=task.pad_id, limit=limit)
    finally:
        model.train(training)
    texts = [task.decode(ids).strip() for ids in written]
    targets = [[task.decode(target).strip() for target in found[prompt]] for prompt in prompts]
    most = max(map(len, targets))
    bleu = sacrebleu.BLEU()
    score = bleu.corpus_score(texts, [[(*own, *[None] * most)[i] for own in targets] for i in range(most)])
    return {
        "exact_match": sum(text in own for text, own in zip(texts, targets, strict=True)) / len(texts),
        "bleu": float(score.score),
        "signature": str(bleu.get_signature()),
        "prompts": len(prompts),
        "max_new_tokens": limit,
        "samples": [
            {"prompt": task.decode(prompt), "written": text, "targets": own}
            for prompt, text, own in list(zip(prompts, texts, targets, strict=True))[:_SHOWN]
        ],
    }
