"""Plain records of what a training run really changed: the meeting point of adapters and bounds.

``adapters.describe`` writes them, ``theory.bounds.from_update`` reads them; JSON can hold them.
A bound must go by what was trained, never by the method's name (arXiv:2606.13767's public code
runs methods that differ from the ones it names).
"""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["UpdateRecord"]


class UpdateRecord(TypedDict):
    """One trained matrix. Norms are spectral norms (largest singular values), float64.

    Keys:
        name: dotted module name in the base model.
        kind: ``"dense"`` (the whole matrix), ``"factors"`` (sum of B A), ``"columns"`` (columns of W),
            ``"head"`` (a newly initialised or fully trained module outside the adapted layers, biases
            and norms included; counted as bits, ``out_features`` x ``in_features`` may be n x 1).
        out_features, in_features: shape of W (rows, columns).
        rank: rank of one link; None for dense and head.
        links: number of links trained, at least 1.
        numbers_trained: numbers trained over all links.
        a_trained: whether A was trained too.
        support: distinct columns of W that can be nonzero in dW, sorted; None when dense.
        bits: bits per stored number (for example 32 for float32).
        side_information_bits: bits of data-dependent choices (0 where the selector ignores the data).
        norm_update: |dW|_2.
        norm_base: |W0|_2.
        norm_merged: |W0 + dW|_2.
        seed: seed of the selector or of A; None where there is none.
    """

    name: str
    kind: Literal["dense", "factors", "columns", "head"]
    out_features: int
    in_features: int
    rank: int | None
    links: int
    numbers_trained: int
    a_trained: bool
    support: list[int] | None
    bits: int
    side_information_bits: float
    norm_update: float
    norm_base: float
    norm_merged: float
    seed: int | None
