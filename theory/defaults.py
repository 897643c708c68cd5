"""What is taken where nothing is asked for, said once: the hyper-parameters of arXiv:2606.13767."""

from __future__ import annotations

__all__ = ["BITS", "METHOD", "NUM_LINKS", "RANK", "usual_alpha"]

METHOD = "lora"
RANK = 16

NUM_LINKS = 3
"""Length of a chain."""

BITS = 16
"""Bits that each stored number takes where nothing is stored yet."""


def usual_alpha(rank: int) -> float:
    """Return the alpha of a rank: twice the rank, so that updates are scaled by two at every rank.

    >>> usual_alpha(RANK)
    32.0
    """
    return 2.0 * rank
