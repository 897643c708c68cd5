"""An exact arithmetic coder: prefix-free byte strings whose length is the information they carry.

A message is a sequence of symbols, each with a probability that the decoder knows too. The encoder
narrows [0, 1) to an interval whose width is the product of the probabilities, in exact integers, and
writes the shortest byte string s of k bytes for which [s, s + 256^-k) lies inside (Rissanen, IBM J. 20,
1976). Different messages have disjoint intervals, hence no code word is the beginning of another: the
code is prefix-free, with no length header, and costs less than two bytes above the information.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Count, Integers, Real, Whole, checked
from theory.checks import check_integer
from theory.counting import log_rising, upwards

__all__ = ["CodeError", "CodeReader", "CodeWriter", "adaptive_bits"]


Symbols = Annotated[Sequence[int] | NDArray[np.integer], Integers(empty=True)]
Frequencies = Annotated[Sequence[int] | NDArray[np.integer], Integers()]


class CodeError(ValueError):
    """A byte string that is no code word: truncated, altered, or written for another decoder."""


@checked
def adaptive_bits(counts: Frequencies) -> float:
    r"""Return what :meth:`CodeWriter.adaptive` takes for symbols of these counts, in bits, in whatever order.

    The product of its probabilities is :math:`\prod_a \frac{\Gamma(c_a + 1/2)}{\Gamma(1/2)} \cdot
    \frac{\Gamma(L/2)}{\Gamma(n + L/2)}` (Krichevsky & Trofimov 1981): millions of symbols need only their counts.

    Args:
        counts: how often each of the L symbols of the alphabet occurs, zeros included.

    Raises:
        ValueError: if there is no symbol or a count is negative.

    >>> writer = CodeWriter()
    >>> writer.adaptive([0, 0, 1, 2, 0], 3, part="symbols")
    >>> abs(writer.bits_by_part()["symbols"] - adaptive_bits([3, 1, 1])) < 1e-9
    True
    """
    table = np.asarray(counts)
    if table.ndim != 1:
        raise ValueError(f"counts must be a row of numbers, got shape {table.shape}")
    return float(upwards(log_rising(table) / math.log(2)))


class CodeWriter:
    """Write symbols into one arithmetic code word, and keep count of what each part costs.

    >>> writer = CodeWriter()
    >>> writer.uniform(3, 6, part="choice")
    >>> writer.adaptive([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 2, part="symbols")
    >>> code = writer.finish()
    >>> reader = CodeReader(code)
    >>> reader.uniform(6), reader.adaptive(12, 2).tolist()
    (3, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    >>> reader.finish()
    """

    def __init__(self) -> None:
        self._low, self._width, self._total = 0, 1, 1
        self._nats: defaultdict[str, float] = defaultdict(float)

    def _narrow(self, start: int, frequency: int, total: int, part: str) -> None:
        self._low = self._low * total + self._width * start
        self._width *= frequency
        self._total *= total
        self._nats[part] += math.log(total) - math.log(frequency)

    @checked
    def uniform(self, value: Whole, size: Count, *, part: str) -> None:
        """Write one of ``size`` equally likely values, log2(size) bits.

        Raises:
            ValueError: if ``value`` is not in [0, size).
        """
        check_integer("value", value, minimum=0, maximum=size - 1)
        self._narrow(int(value), 1, size, part)

    @checked
    def adaptive(self, symbols: Symbols, size: Count, *, part: str) -> None:
        r"""Write symbols of an alphabet of ``size`` whose frequencies the decoder learns as it reads.

        Symbol a gets probability (2 c_a + 1) / (2 i + size) after i symbols with c_a times a (Krichevsky &
        Trofimov 1981): at most (size - 1)/2 log2 of the count, plus a constant, above the empirical entropy.

        Raises:
            ValueError: if a symbol is not in [0, size).
        """
        frequencies = [1] * size
        total = size
        for symbol in map(int, symbols):
            check_integer("symbol", symbol, minimum=0, maximum=size - 1)
            self._narrow(sum(frequencies[:symbol]), frequencies[symbol], total, part)
            frequencies[symbol] += 2
            total += 2

    @checked
    def half(self, value: Real, *, part: str) -> None:
        """Write a 16-bit float, 16 bits.

        Raises:
            ValueError: if the value is not a finite number that 16 bits hold exactly.
        """
        if not np.isfinite(value) or float(np.float16(value)) != float(value):
            raise ValueError(f"value must be a finite 16-bit float, got {value}")
        self.uniform(struct.unpack("<H", struct.pack("<e", float(value)))[0], 1 << 16, part=part)

    @checked
    def subset(self, members: Symbols, size: Count, *, part: str) -> None:
        """Write a subset of {0, ..., size-1} whose cardinality the decoder knows, log2 C(size, cardinality) bits.

        Its index in the combinatorial number system: the sum of C(c_i, i) over the members c_1 < c_2 < ...

        Raises:
            ValueError: if the members are not distinct or not in range.
        """
        ordered = sorted(int(member) for member in members)
        if len(set(ordered)) != len(ordered) or (ordered and not 0 <= ordered[0] <= ordered[-1] < size):
            raise ValueError(f"members must be distinct and in [0, {size}), got {ordered}")
        index = sum(math.comb(member, i) for i, member in enumerate(ordered, start=1))
        self.uniform(index, math.comb(size, len(ordered)), part=part)

    def finish(self) -> bytes:
        """Return the code word: the shortest byte string whose whole interval lies inside the message's."""
        length = max((self._total.bit_length() - self._width.bit_length() - 1) // 8, 0)
        while True:
            scale = 1 << (8 * length)
            value = -(-self._low * scale // self._total)
            if (value + 1) * self._total <= (self._low + self._width) * scale:
                return value.to_bytes(length, "big")
            length += 1

    def bits_by_part(self) -> dict[str, float]:
        """Return the bits of each part and, as ``"rounding to bytes"``, what is left up to the real length."""
        parts = {part: nats / math.log(2) for part, nats in self._nats.items()}
        return {**parts, "rounding to bytes": 8 * len(self.finish()) - sum(parts.values())}


class CodeReader:
    """Read what :class:`CodeWriter` wrote, in the same order; every read names the same sizes.

    :meth:`finish` must be called last: it rejects any byte string that is not exactly the code word of
    the message read.
    """

    def __init__(self, code: bytes) -> None:
        if not isinstance(code, (bytes, bytearray)):
            raise TypeError(f"code must be bytes, got {type(code).__name__}")
        self._code = bytes(code)
        self._value, self._scale = int.from_bytes(self._code, "big"), 1 << (8 * len(self._code))
        self._writer = CodeWriter()

    def _target(self, total: int) -> int:
        return self._value * total // self._scale

    def _take(self, start: int, frequency: int, total: int) -> None:
        self._value = self._value * total - start * self._scale
        self._scale *= frequency
        self._writer._narrow(start, frequency, total, "")

    @checked
    def uniform(self, size: Count) -> int:
        """Read one of ``size`` equally likely values."""
        value = self._target(size)
        self._take(value, 1, size)
        return value

    @checked
    def adaptive(self, count: Whole, size: Count) -> NDArray[np.int64]:
        """Read ``count`` symbols of an alphabet of ``size``."""
        frequencies, total = [1] * size, size
        symbols = np.empty(count, dtype=np.int64)
        for i in range(count):
            target, start, symbol = self._target(total), 0, 0
            while start + frequencies[symbol] <= target:
                start += frequencies[symbol]
                symbol += 1
            self._take(start, frequencies[symbol], total)
            symbols[i] = symbol
            frequencies[symbol] += 2
            total += 2
        return symbols

    def half(self) -> float:
        """Read a 16-bit float.

        Raises:
            CodeError: if it is NaN or infinite, which is never written.
        """
        value = float(struct.unpack("<e", struct.pack("<H", self.uniform(1 << 16)))[0])
        if not math.isfinite(value):
            raise CodeError(f"the code holds a level of {value}: it was altered")
        return value

    @checked
    def subset(self, cardinality: Whole, size: Count) -> list[int]:
        """Read a subset of {0, ..., size-1}, sorted."""
        index = self.uniform(math.comb(size, cardinality))
        members, candidate = [], size - 1
        for i in range(cardinality, 0, -1):
            while math.comb(candidate, i) > index:
                candidate -= 1
            members.append(candidate)
            index -= math.comb(candidate, i)
            candidate -= 1
        return members[::-1]

    def finish(self) -> None:
        """Check that nothing is missing, left over or altered.

        Raises:
            CodeError: if the bytes are not the code word of the message read.
        """
        if self._writer.finish() != self._code:
            raise CodeError(
                f"a string of {len(self._code)} bytes is no code word: truncated, altered, or for another decoder"
            )
