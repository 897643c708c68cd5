"""What a perturbation bound carries through a network, and what it knows of each linear map.

The step for one linear map is the heart of Theorem 1 of arXiv:2606.13767; ``theory.networks.transformer`` adds the
others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Count, Extended, Matrix, NonNegative, NonNegatives, Reals, checked
from theory.array_checks import check_matrix
from theory.checks import check_integer

__all__ = ["Projection", "Signal"]

Norms = float | NDArray[np.float64]


@checked
@dataclass(frozen=True, kw_only=True)
class Signal:
    """Suprema over inputs and tokens of one hidden state: |h - h'|, |h| and |h'| (no unit)."""

    difference: Extended
    base: Extended
    updated: Extended

    def __post_init__(self) -> None:
        for name in ("difference", "base", "updated"):
            if math.isnan(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a number of at least 0, got {getattr(self, name)}")

    def __add__(self, other: Signal) -> Signal:
        """Add two branches: the triangle inequality, three times."""
        return Signal(
            difference=self.difference + other.difference,
            base=self.base + other.base,
            updated=self.updated + other.updated,
        )


@checked
@dataclass(frozen=True, kw_only=True)
class Projection:
    """Spectral norms of one linear map before and after the update; arrays hold one entry per head.

    Attributes:
        base: |W0|_2.
        update: |dW|_2.
        merged: |W0 + dW|_2; base + update, which is never smaller, if left out.
        bias: |b|_2, not trained.
        row_norm: largest Euclidean norm of a row of W0 or W0 + dW, for gated products; never above the spectral norm.
    """

    base: NonNegatives
    update: NonNegatives = 0.0
    merged: NonNegatives | None = None
    bias: NonNegatives = 0.0
    row_norm: NonNegative | None = None

    def __post_init__(self) -> None:
        for name in ("base", "update", "merged", "bias", "row_norm"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) & (np.asarray(value) >= 0)).all():
                raise ValueError(f"{name} must be finite and not negative, got {value}")

    @classmethod
    @checked
    def of(
        cls, base: Matrix, update: Matrix | None = None, *, bias: Reals | None = None, heads: Count = 1
    ) -> Projection:
        """Measure a projection, out_features x in_features; with ``heads`` its rows are cut into as many blocks.

        Raises:
            ValueError: if shapes do not fit or an entry is not finite.

        >>> Projection.of([[3.0, 0.0], [0.0, 4.0]], heads=2).base.tolist()
        [3.0, 4.0]
        """
        weight = check_matrix("base", base, shape=(None, None))
        change = np.zeros_like(weight) if update is None else check_matrix("update", update, shape=weight.shape)
        offset = np.zeros(len(weight)) if bias is None else check_matrix("bias", bias, shape=(len(weight),))
        if len(weight) % check_integer("heads", heads):
            raise ValueError(f"heads must divide the {len(weight)} rows of base, got {heads}")

        def spectral(array: NDArray[np.float64]) -> Norms:
            blocks = array.reshape(heads, -1, array.shape[1])
            norms = np.linalg.svd(blocks, compute_uv=False)[:, 0].astype(np.float64)
            return norms if heads > 1 else float(norms[0])

        biases = np.linalg.norm(offset.reshape(heads, -1), axis=1)
        rows = max(float(np.linalg.norm(w, axis=1).max()) for w in (weight, weight + change))
        return cls(
            base=spectral(weight),
            update=spectral(change),
            merged=spectral(weight + change),
            bias=biases if heads > 1 else float(biases[0]),
            row_norm=rows,
        )

    @checked
    def per_head(self, heads: Count) -> tuple[NDArray[np.float64], ...]:
        """Return base, update, merged and bias with one entry per head; groups of heads share an entry (GQA)."""
        merged = np.asarray(self.base) + self.update if self.merged is None else self.merged
        columns = []
        for value in (self.base, self.update, merged, self.bias):
            entries = np.atleast_1d(np.asarray(value, dtype=np.float64))
            if heads % len(entries):
                raise ValueError(f"a projection must hold 1 norm or one per group of {heads} heads, got {len(entries)}")
            columns.append(np.repeat(entries, heads // len(entries)))
        return tuple(columns)

    @checked
    def apply(self, signal: Signal) -> Signal:
        r"""Bound W h: as W0 h - (W0+dW) h' = W0 (h - h') - dW h' = (W0+dW)(h - h') - dW h, the smaller of the two."""
        if np.size(self.base) > 1:
            raise ValueError(f"a projection outside attention holds one norm, got {np.size(self.base)}")
        (base,), (update,), (merged,), (bias,) = self.per_head(1)
        difference = min(
            base * signal.difference + update * signal.updated, merged * signal.difference + update * signal.base
        )
        return Signal(
            difference=float(difference),
            base=float(base * signal.base + bias),
            updated=float(merged * signal.updated + bias),
        )
