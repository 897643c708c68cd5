r"""Which columns of W a link trains: window, random, circulant chain, shuffled chain.

A round visits every column once. For the window rules (``"circulant"``, ``"shuffled"``) a round is the
partition of the :math:`n` columns into :math:`\lceil n/r\rceil` consecutive windows of :math:`r`; the last
window is the remainder, shorter than :math:`r` when :math:`r` does not divide :math:`n`. Link :math:`k` trains
block :math:`k \bmod \lceil n/r\rceil` of round :math:`\lfloor k / \lceil n/r\rceil\rfloor`, so a chain longer
than a round wraps around, and no column is dropped or visited twice before all were visited.

arXiv:2606.13767, section 2, defines the windows modulo :math:`n`; a window that straddles the end would revisit
its first columns before the round is complete, so the remainder is a block of its own here.

Random choices follow ``seed`` and the module's name alone, through the raw stream of NumPy's PCG64, which is
fixed for all versions: an adapter reloads the same columns everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["RULES", "blocks_per_round", "link_columns", "visited_columns"]

RULES = ("window", "random", "circulant", "shuffled")


def blocks_per_round(*, in_features: int, rank: int) -> int:
    """Return the number of links after which every column was visited once.

    Args:
        in_features: columns of W.
        rank: columns per link.

    Raises:
        ValueError: if ``rank`` is below 1 or above ``in_features``.

    >>> blocks_per_round(in_features=10, rank=4)
    3
    """
    if not 1 <= rank <= in_features:
        raise ValueError(f"rank must lie between 1 and in_features={in_features}, got {rank}")
    return -(-in_features // rank)


def link_columns(
    rule: str,
    *,
    in_features: int,
    rank: int,
    link: int = 0,
    seed: int = 0,
    name: str = "",
    columns: Sequence[Sequence[int]] | None = None,
) -> tuple[int, ...]:
    """Return the columns that one link trains, in the order of the columns of B.

    Args:
        rule: ``"window"`` (always the first ``rank``), ``"random"`` (``rank`` distinct columns, sorted),
            ``"circulant"`` (consecutive windows), ``"shuffled"`` (the same windows in random order without
            replacement, a new order each round).
        in_features: columns of W.
        rank: columns per link; the remainder block of a round is shorter.
        link: number of the link, from 0.
        seed: seed of the random rules.
        name: module name, mixed into the seed so that layers differ.
        columns: explicit columns, one sequence per link; replaces the rule.

    Raises:
        ValueError: if an argument lies outside its range, or explicit columns repeat or overlap.

    >>> link_columns("circulant", in_features=10, rank=4, link=2)
    (8, 9)
    >>> link_columns("circulant", in_features=10, rank=4, link=3)
    (0, 1, 2, 3)
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if link < 0:
        raise ValueError(f"link must not be negative, got {link}")
    blocks = blocks_per_round(in_features=in_features, rank=rank)
    if columns is not None:
        return _given(columns, in_features=in_features, rank=rank, link=link)
    if rule == "window":
        return tuple(range(rank))
    if rule == "random":
        return tuple(sorted(_permutation(in_features, seed, name, 0)[:rank]))
    round_, block = divmod(link, blocks)
    if rule == "shuffled":
        block = _permutation(blocks, seed, name, round_)[block]
    return tuple(range(block * rank, min((block + 1) * rank, in_features)))


def visited_columns(rule: str, *, links: int, **arguments) -> tuple[int, ...]:
    """Return the distinct columns visited by the first ``links`` links, in the order of their first visit.

    Args:
        rule: as in `link_columns`.
        links: number of links, at least 0.
        **arguments: the other arguments of `link_columns`, without ``link``.

    >>> visited_columns("circulant", links=4, in_features=5, rank=2)
    (0, 1, 2, 3, 4)
    """
    seen = dict.fromkeys(column for link in range(links) for column in link_columns(rule, link=link, **arguments))
    return tuple(seen)


def _permutation(size: int, seed: int, name: str, round_: int) -> list[int]:
    digest = hashlib.sha256(f"{seed}/{name}/{round_}".encode()).digest()
    raw = np.random.PCG64(int.from_bytes(digest, "little")).random_raw(size)
    return np.argsort(raw, kind="stable").tolist()


def _given(columns: Sequence[Sequence[int]], *, in_features: int, rank: int, link: int) -> tuple[int, ...]:
    if link >= len(columns):
        raise ValueError(f"columns names {len(columns)} links, but link {link} was asked for")
    chosen = [column for one in columns for column in one]
    outside = [column for column in chosen if not 0 <= column < in_features]
    if outside:
        raise ValueError(f"columns must lie between 0 and in_features-1={in_features - 1}, got {outside[0]}")
    repeated = sorted({column for column in chosen if chosen.count(column) > 1})
    if repeated:
        raise ValueError(f"columns must be distinct over all links, got {repeated[0]} more than once")
    if not 1 <= len(columns[link]) <= rank:
        raise ValueError(f"columns of link {link} must number between 1 and rank={rank}, got {len(columns[link])}")
    return tuple(int(column) for column in columns[link])
