"""Examples that share a text are no independent evidence: which belong together, and splits that keep them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from analysis.tasks.task import RawTask

__all__ = ["redrawn", "text_clusters"]


def text_clusters(rows: Sequence[Mapping[str, Any]]) -> tuple[int, ...] | None:
    """Label rows so that two have one label if a chain of shared texts links them.

    References of one meaning share their prompt, pairs may share a sentence, questions a passage. A text that all rows
    have, an instruction say, links nothing.

    Args:
        rows: with ``text`` and, where there is a second one, ``text_pair``.

    Returns:
        One label per row; None where all rows are apart, or have no text.

    >>> text_clusters([{"text": "a", "text_pair": "b"}, {"text": "c", "text_pair": "a"}, {"text": "d"}])
    (0, 0, 1)
    """
    numbers: dict[str, int] = {}
    links: list[tuple[int, int]] = []
    for name in ("text", "text_pair"):
        texts = [str(row[name]).strip() if name in row else "" for row in rows]
        if len(set(texts)) > 1:
            links += [(i, numbers.setdefault(text, len(numbers))) for i, text in enumerate(texts) if text]
    if not links:
        return None
    count = len(rows) + len(numbers)
    ends = np.array(links)
    graph = coo_array((np.ones(len(links)), (ends[:, 0], len(rows) + ends[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1][: len(rows)]
    if len(np.unique(labels)) == len(rows):
        return None
    return tuple(np.unique(labels, return_inverse=True)[1].tolist())


def redrawn(raw: RawTask, *, seed: int) -> RawTask:
    """Pool the splits of a data set and draw a held-out one of the same size by seed, whole clusters at a time.

    A published test set is one draw, which all seeds share: what they have in common no number of them averages out.

    Args:
        raw: with its published splits.
        seed: of the draw.

    Raises:
        ValueError: if the clusters are so large that either split would be empty.
    """
    rows = [*raw.train, *raw.heldout]
    labels = np.array(text_clusters(rows) or range(len(rows)))
    sizes = np.bincount(labels)
    wanted, chosen = len(raw.heldout), set()
    for cluster in np.random.default_rng([seed, 4]).permutation(len(sizes)).tolist():
        if sizes[cluster] <= wanted:
            chosen.add(cluster)
            wanted -= int(sizes[cluster])
    heldout = [row for row, label in zip(rows, labels.tolist(), strict=True) if label in chosen]
    train = [row for row, label in zip(rows, labels.tolist(), strict=True) if label not in chosen]
    if not heldout or not train:
        raise ValueError(f"split 'seed' leaves an empty split of {len(rows)} rows: {len(sizes)} clusters share texts")
    note = f"splits pooled: {len(heldout)} of {len(rows)} rows held out by seed, {len(sizes)} clusters kept whole"
    return dataclasses.replace(raw, train=train, heldout=heldout, notes=(*raw.notes, note))
