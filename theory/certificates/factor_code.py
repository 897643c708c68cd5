"""The code of a whole adapter, factor by factor: what full-size cLA, asymmetric LoRA and LoRA cost in bytes.

Where the decoder knows A (a column selector, or a seed), only B is written. Where A was trained, the
gauge is fixed first (:func:`theory.certificates.quantize.fix_gauge`): pivots, the coefficients of the other columns,
and B. Shapes come from the base model and are not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.arguments import Count, Several, checked
from theory.certificates.coding import CodeError, CodeReader, CodeWriter
from theory.certificates.quantize import STEP_CODES, Quantizer, fit_levels, fix_gauge, nearest, uniform_levels

__all__ = ["FactorShape", "decode_factors", "encode_factors"]

_LENGTH_BYTES = 4


class FactorShape(NamedTuple):
    """What the decoder knows of one adapted matrix.

    Attributes:
        out_features: rows of W.
        in_features: columns of W.
        rank: r.
        a_trained: whether A was trained and must be read.
    """

    out_features: Count
    in_features: Count
    rank: Count
    a_trained: bool


@checked
def encode_factors(
    factors: Sequence[tuple[ArrayLike, ArrayLike | None]], *, num_levels: Several = 16, quantizer: Quantizer = "uniform"
) -> tuple[bytes, dict[str, float]]:
    """Quantise and write the factors of every layer.

    Each layer is one code word of the exact coder behind its length in four bytes (counted), since one
    word over all layers would take time quadratic in the adapter's size.

    Args:
        factors: (B, A) per layer, B of shape (out, r) with the scale folded in; A of shape (r, in), or None
            where the decoder knows it.
        num_levels: L, the same for every factor; known to the decoder, so pay log2 of the grid for choosing it.
        quantizer: ``"uniform"`` (six bits a factor for the step) or ``"learned"`` (16 bits a level).

    Returns:
        The bytes, and the bits by part, which add up to eight times their number.

    Raises:
        ValueError: if shapes do not fit, a trained A has not full rank, or a number is not finite.

    >>> code, parts = encode_factors([([[1.0], [-1.0]], None)], num_levels=2)
    >>> decode_factors(code, [FactorShape(2, 3, 1, False)], num_levels=2)[0][0].ravel().tolist()
    [1.0, -1.0]
    """
    words, parts = [], Counter[str]()
    for left, right in factors:
        writer, pieces = CodeWriter(), {"B": np.asarray(left, dtype=np.float64)}
        if right is not None:
            gauge = fix_gauge(left, right)
            columns = gauge.right.shape[1]
            writer.subset(gauge.pivots.tolist(), columns, part="pivots")
            pieces = {"B": gauge.left, "A": np.delete(gauge.right, gauge.pivots, axis=1)}
        for part, values in pieces.items():
            if values.size:
                _write(writer, values, num_levels, quantizer, part)
        words.append(writer.finish())
        parts.update(writer.bits_by_part())
        parts["lengths"] += 8 * _LENGTH_BYTES
    return b"".join(len(word).to_bytes(_LENGTH_BYTES, "big") + word for word in words), dict(parts)


@checked
def decode_factors(
    code: bytes, shapes: Sequence[FactorShape], *, num_levels: Several = 16, quantizer: Quantizer = "uniform"
) -> list[tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
    """Read the factors back, bit for bit.

    Returns:
        (B, A) per layer, in the fixed gauge; A is None where it was not written.

    Raises:
        CodeError: if the bytes are truncated, altered, or written for other shapes.
    """
    result: list[tuple[NDArray[np.float64], NDArray[np.float64] | None]] = []
    position = 0
    for shape in shapes:
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(code[position:start], "big")
        if start > len(code) or position > len(code):
            raise CodeError(f"the code ends after {len(code)} bytes, in layer {len(result)} of {len(shapes)}")
        reader = CodeReader(code[start:position])
        if not shape.a_trained:
            left = _read(reader, (shape.out_features, shape.rank), num_levels, quantizer)
            right = None
        else:
            pivots = reader.subset(shape.rank, shape.in_features)
            left = _read(reader, (shape.out_features, shape.rank), num_levels, quantizer)
            right = np.zeros((shape.rank, shape.in_features))
            others = np.setdiff1d(np.arange(shape.in_features), pivots)
            if others.size:
                right[:, others] = _read(reader, (shape.rank, others.size), num_levels, quantizer)
            right[:, pivots] = np.eye(shape.rank)
        reader.finish()
        result.append((left, right))
    if position != len(code):
        raise CodeError(f"{len(code) - position} bytes are left over after the last layer")
    return result


def _write(writer: CodeWriter, values: NDArray[np.float64], num_levels: int, quantizer: Quantizer, part: str) -> None:
    levels, step_code = fit_levels(values, num_levels, quantizer=quantizer)
    if step_code is not None:
        writer.uniform(step_code, STEP_CODES, part="levels")
    else:
        for level in levels:
            writer.half(float(level), part="levels")
    writer.adaptive(nearest(values, levels).ravel(), num_levels, part=part)


def _read(reader: CodeReader, shape: tuple[int, int], num_levels: int, quantizer: Quantizer) -> NDArray[np.float64]:
    if quantizer == "uniform":
        levels = uniform_levels(num_levels, step_code=reader.uniform(STEP_CODES))
    else:
        levels = np.array([reader.half() for _ in range(num_levels)])
    return levels[reader.adaptive(shape[0] * shape[1], num_levels)].reshape(shape)
