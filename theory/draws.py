r"""Random numbers that are the same bits on every processor: what a seed means must not depend on who draws.

``torch.randn`` rounds its logarithms and cosines differently under AVX2 and without it (387 of 1,000 normals differ, by
up to 1.3e-6), and so does the uniform start of ``torch.nn.Linear``. A certificate names the adapter's and the head's
start by their seeds, so they are drawn here: raw 64-bit integers of NumPy's PCG64, a stream that is fixed for all
versions, then the inverse of the normal distribution in float64, rounded once to float32.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from theory.arguments import NonNegative, Whole, checked

__all__ = ["draw_normal"]


@checked
def draw_normal(*shape: Whole, key: str, std: NonNegative = 1.0) -> NDArray[np.float32]:
    r"""Draw independent normals from a key, :math:`x = \text{std}\,\Phi^{-1}((k + 1/2)\,2^{-52})`, k uniform.

    The integers are exact, and so are their midpoints at 52 bits (at 53 the last one would round to 1, a draw of
    infinity). Two libraries of mathematics may disagree in the last bits of a float64 inverse, about :math:`2^{-52}` of
    its size; that reaches the float32 result only where a rounding boundary, of which there is one every
    :math:`2^{-23}`, lies in between: fewer than one number in a hundred million.

    Args:
        *shape: of the result.
        key: names the draw; another key is another, independent draw.
        std: standard deviation.

    Raises:
        ValueError: if a size is negative or ``std`` is negative or not finite.

    >>> draw_normal(3, key="example").tolist()
    [0.39393338561058044, -0.8175742030143738, 0.2183721661567688]
    """
    stream = np.random.PCG64(int.from_bytes(hashlib.sha256(key.encode()).digest(), "little"))
    middle = (np.asarray(stream.random_raw(math.prod(shape))) >> np.uint64(12)).astype(np.float64) + 0.5
    return (std * ndtri(middle * 2.0**-52)).astype(np.float32).reshape(shape)
