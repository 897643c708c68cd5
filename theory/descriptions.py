"""Ways to describe the update of one matrix: how many bits, and why a reader who knows W0 can rebuild dW from them.

A family of methods states which of them hold for what it trains (``theory.methods.Family``); none is ever inferred from
a method's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from theory.arguments import Count, checked
from theory.assumptions import GAUGE_FIRST, MERGED_STORED, check_codes
from theory.checks import check_integer, check_text
from theory.counting import log2_binomial
from theory.records import UpdateRecord

__all__ = ["GAUGE_FIXED", "LINKS", "SUPPORT", "Description", "gauge_fixed_numbers"]


@checked
@dataclass(frozen=True, kw_only=True)
class Description:
    """One way to describe the update of one trained matrix.

    Attributes:
        name: under which the bound that counts it is tabulated.
        bits: length in bits for one checked record, side information included; None where it does not apply to it.
        why: why a reader who knows W0 can rebuild dW: the proof that the count is valid, in a sentence.
        assumptions: what must hold besides, as codes of ``theory.assumptions``; they go into the bound.

    Raises:
        TypeError, ValueError: if a field is missing its sense; the message names it.
    """

    name: str
    bits: Callable[[UpdateRecord], float | None]
    why: str
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_text("why", self.why)
        check_codes("assumptions", self.assumptions)


@checked
def gauge_fixed_numbers(*, out_features: Count, in_features: Count, rank: Count) -> int:
    """Count the free numbers of a matrix of rank at most r: r (m + n - r).

    B A = (B M)(M^-1 A) for every invertible M; with r pivot columns P of the product spanning its columns,
    product = product[:, P] X with X[:, P] = I, which leaves n r + r (m - r) numbers and the choice of P.

    Args:
        out_features: n.
        in_features: m.
        rank: r, at most min(m, n).

    Raises:
        ValueError: if rank is above min(m, n).

    >>> gauge_fixed_numbers(out_features=768, in_features=768, rank=16)
    24320
    """
    check_integer("rank", rank, maximum=min(out_features, in_features))
    return rank * (in_features + out_features - rank)


def _links_bits(record: UpdateRecord) -> float:
    return record["numbers_trained"] * record["bits"] + record["side_information_bits"]


def _support_bits(record: UpdateRecord) -> float | None:
    if record["numbers_trained"] == 0:
        return None
    columns = record["in_features"] if record["support"] is None else len(record["support"])
    return record["out_features"] * columns * record["bits"] + record["side_information_bits"]


def _gauge_fixed_bits(record: UpdateRecord) -> float | None:
    rows, columns = record["out_features"], record["in_features"]
    total_rank = record["links"] * (record["rank"] or 0)
    if not record["a_trained"] or record["numbers_trained"] == 0 or not 0 < total_rank <= min(rows, columns):
        return None
    beside = record["numbers_trained"] - total_rank * (rows + columns)
    numbers = total_rank * (rows + columns - total_rank) + max(beside, 0)
    return numbers * record["bits"] + log2_binomial(columns, total_rank) + record["side_information_bits"]


LINKS = Description(
    name="links",
    bits=_links_bits,
    why="every number of every link as it was trained, from which the training's own arithmetic gives the update",
)

SUPPORT = Description(
    name="support",
    bits=_support_bits,
    why="the merged update itself, all rows of the columns that can be nonzero",
    assumptions=(MERGED_STORED,),
)

GAUGE_FIXED = Description(
    name="gauge-fixed",
    bits=_gauge_fixed_bits,
    why="where A was trained too dW is a function of B A, of rank at most R = links x rank, and of what was trained "
    "beside it: R (m + n - R) numbers and R pivot columns of B A, and the numbers beside as they are",
    assumptions=(GAUGE_FIRST,),
)
