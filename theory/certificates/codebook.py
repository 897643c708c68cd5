"""The code of a certified adapter: which choices, which levels, which symbols, in one prefix-free byte string.

The prior of the certificate is 2^-length of this code. It is fixed by the grid alone, which must not
depend on the data; everything that a decoder needs beyond the pretrained W0 is in the code and counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Reals, checked
from theory.certificates.coding import CodeReader, CodeWriter
from theory.certificates.occam import choice_bits
from theory.certificates.quantize import STEP_CODES, StepCode, nearest, uniform_levels

__all__ = ["GROUPS", "STANDARD_GRID", "Grid", "GroupCode", "SubspaceCode", "decode_subspace", "encode_subspace"]

GROUPS = ("adapter", "head")


@checked
@dataclass(frozen=True)
class Grid:
    """Every choice that the training may make on the data and the decoder must know.

    Attributes:
        options: name of the choice -> its alternatives, all equally likely under the prior.
    """

    options: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        """Refuse a grid the code below could not read back."""
        needed = {"quantizer", "levels", *(f"{group}_numbers" for group in GROUPS)}
        if not needed <= set(self.options):
            raise ValueError(f"grid must offer {', '.join(sorted(needed - set(self.options)))}")
        for name, alternatives in self.options.items():
            if not alternatives or len(set(alternatives)) != len(alternatives):
                raise ValueError(f"grid choice {name!r} must have distinct alternatives, got {alternatives}")

    @property
    def bits(self) -> float:
        """What one point of the grid costs: the sum of log2 of the numbers of alternatives."""
        return choice_bits(len(alternatives) for alternatives in self.options.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the grid, which tells certificates for different priors apart."""
        text = json.dumps([[name, list(alternatives)] for name, alternatives in self.options.items()])
        return hashlib.sha256(text.encode()).hexdigest()

    @checked
    def check(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return a choice in the grid's order.

        Raises:
            ValueError: if a name is missing or unknown, or a value is not among the alternatives.
        """
        if set(choice) != set(self.options):
            raise ValueError(f"choice must name exactly {', '.join(self.options)}; got {', '.join(choice)}")
        for name, alternatives in self.options.items():
            if choice[name] not in alternatives:
                raise ValueError(f"{name} must be one of {', '.join(map(str, alternatives))}; got {choice[name]!r}")
        return {name: choice[name] for name in self.options}


_NUMBERS = (0, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

# The alternatives are part of the code, whatever methods are registered: another list is another code.
STANDARD_GRID = Grid(
    {
        "method": ("lora", "lora+", "asym", "cla", "r-cla"),
        "targets": ("attention", "all-linear"),
        "rank": (1, 2, 4, 8, 16, 32),
        "layers": (0, 1, 2, 3, 4, 6),
        "seed": (0, 1, 2, 3),
        "adapter_numbers": _NUMBERS,
        "head_numbers": _NUMBERS,
        "quantizer": ("uniform", "learned"),
        "levels": (2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 17),
    }
)


@checked
@dataclass(frozen=True, eq=False)
class GroupCode:
    """Quantised numbers of one group.

    Attributes:
        levels: ascending, shape (L,).
        symbols: index of each number's level, shape (d,).
        step_code: the six bits that name uniform levels; None for learned ones.
    """

    levels: NDArray[np.float64]
    symbols: NDArray[np.int64]
    step_code: StepCode | None = None

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers that the decoder sees."""
        return self.levels[self.symbols]

    @classmethod
    @checked
    def quantize(cls, values: Reals, *, levels: Reals, step_code: StepCode | None = None) -> GroupCode:
        """Take the nearest level of each value."""
        table = np.asarray(levels, dtype=np.float64)
        return cls(table, nearest(values, table), step_code)


@checked
@dataclass(frozen=True, eq=False)
class SubspaceCode:
    """A decoded adapter: the choice made on the grid and the numbers of each group."""

    choice: dict[str, Any]
    groups: dict[str, GroupCode]


@checked
def encode_subspace(code: SubspaceCode, *, grid: Grid) -> tuple[bytes, dict[str, float]]:
    """Write an adapter as one code word.

    Choices cost log2 of their alternatives; uniform levels six bits a group, learned ones 16 bits a
    level; symbols go through the adaptive arithmetic coder of :mod:`theory.certificates.coding`.

    Args:
        code: what to write; the number of symbols and levels must be what the choice says.
        grid: the grid, known to the decoder.

    Returns:
        The code word and its bits by part; the parts add up to eight times its length.

    Raises:
        ValueError: if the choice is not on the grid or the numbers do not fit it.
    """
    choice = grid.check(code.choice)
    writer = CodeWriter()
    for name, alternatives in grid.options.items():
        writer.uniform(alternatives.index(choice[name]), len(alternatives), part="choices")
    for group in GROUPS:
        count = choice[f"{group}_numbers"]
        if not count:
            continue
        part = code.groups[group]
        if part.symbols.shape != (count,) or part.levels.shape != (choice["levels"],):
            raise ValueError(
                f"{group} must hold {count} numbers on {choice['levels']} levels, got "
                f"{part.symbols.size} on {part.levels.size}"
            )
        if choice["quantizer"] == "uniform":
            if part.step_code is None or not np.array_equal(_levels(choice, part.step_code), part.levels):
                raise ValueError(f"levels of {group} must be those of a step code")
            writer.uniform(part.step_code, STEP_CODES, part="levels")
        else:
            for level in part.levels:
                writer.half(float(level), part="levels")
        writer.adaptive(part.symbols, choice["levels"], part=f"{group} numbers")
    return writer.finish(), writer.bits_by_part()


@checked
def decode_subspace(code: bytes, *, grid: Grid) -> SubspaceCode:
    """Read a code word back, bit for bit.

    Raises:
        CodeError: if the bytes are not a code word of this grid: truncated, altered or too long.
    """
    reader = CodeReader(code)
    choice = {name: alternatives[reader.uniform(len(alternatives))] for name, alternatives in grid.options.items()}
    groups: dict[str, GroupCode] = {}
    for group in GROUPS:
        count = choice[f"{group}_numbers"]
        if not count:
            continue
        if choice["quantizer"] == "uniform":
            step_code: int | None = reader.uniform(STEP_CODES)
            levels = _levels(choice, int(step_code or 0))
        else:
            step_code, levels = None, np.array([reader.half() for _ in range(choice["levels"])])
        groups[group] = GroupCode(levels, reader.adaptive(count, choice["levels"]), step_code)
    reader.finish()
    return SubspaceCode(choice, groups)


def _levels(choice: Mapping[str, Any], step_code: int) -> NDArray[np.float64]:
    return uniform_levels(choice["levels"], step_code=step_code)
