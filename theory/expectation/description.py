"""How many bits describe an update: of what was really trained, or of what a method would train.

Each trained matrix is described in every way that its family states (``theory.methods.Family``), each of which lets a
reader who knows W0 rebuild dW; what is trained outside the adapter, as it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np

from theory.arguments import Count, Integer, Number, Positive, Whole, check_of, checked
from theory.checks import check_choice, check_integer, check_number, check_text, shown
from theory.defaults import BITS, RANK
from theory.descriptions import LINKS, Description
from theory.expectation.table1 import check_rank
from theory.layers import Layers, from_list
from theory.methods import COLUMNS, DENSE, FACTORS, Family, Method, families, get_method
from theory.records import UpdateRecord

__all__ = ["check_record", "description_bits", "descriptions_of", "plan"]


@checked
def descriptions_of(kind: str) -> tuple[Description, ...]:
    """Return the descriptions that hold for records of one kind.

    Raises:
        ValueError: if no method has a family of that name.
    """
    if kind == "head":
        return (LINKS,)
    known = families()
    return known[check_choice("kind", kind, (*known, "head"))].descriptions


@checked
def description_bits(record: UpdateRecord) -> dict[str, float]:
    """Return the length in bits of every valid description of one trained matrix.

    Args:
        record: of a trained matrix or of a plan.

    Returns:
        ``links`` always, then what else the family states and applies.

    Raises:
        TypeError, ValueError: if the record is none, see ``check_record``; the message names the key.

    >>> record = plan([(768, 768)], method="lora", rank=16)[0]
    >>> {name: round(value) for name, value in description_bits(record).items()}
    {'links': 393216, 'support': 9437184, 'gauge-fixed': 389229}
    """
    return described(check_record(record, 0, planned=True))


def described(record: UpdateRecord) -> dict[str, float]:
    """Return ``description_bits`` of a record that was checked."""
    lengths = {one.name: one.bits(record) for one in descriptions_of(record["kind"])}
    return {name: bits for name, bits in lengths.items() if bits is not None}


@checked
def plan(
    layers: Layers,
    *,
    method: str | Method,
    rank: Count = RANK,
    links: Count = 1,
    bits: Positive = BITS,
    head_numbers: Whole = 0,
    seed: Whole = 0,
) -> list[UpdateRecord]:
    """Return the records that a method would leave behind; norms are NaN, since nothing was trained.

    Columns: ``window`` the first r; ``random`` r distinct ones; ``circulant`` link j the r after those of link
    j - 1, modulo m; ``shuffled`` the blocks of r columns in random order (the last may be short), all before
    any again.

    Args:
        layers: shapes, or (out_features, in_features) pairs.
        method: a key of ``theory.methods``, or a ``Method``.
        rank: r, at most every layer's in_features.
        links: k; unchained methods have one link.
        bits: q, stored bits per number.
        head_numbers: numbers trained outside, one more record of kind ``"head"``.
        seed: of the random selectors.

    Raises:
        ValueError: if an argument is out of range.

    >>> record = plan([(4, 8)], method="c3la", rank=3, links=3)[0]
    >>> record["support"], record["numbers_trained"]
    ([0, 1, 2, 3, 4, 5, 6, 7], 36)
    """
    shapes = from_list(layers)
    chosen = method if isinstance(method, Method) else get_method(method)
    dense = chosen.trains == "weight"
    if not dense:
        check_rank(rank, shapes)
    count = links if chosen.chained else 1
    rng = np.random.default_rng(seed)
    numbers = {
        size: chosen.numbers_trained(out_features=size[0], in_features=size[1], rank=rank, links=count)
        for size in {(shape.out_features, shape.in_features) for shape in shapes}
    }
    records = [
        UpdateRecord(
            name=shape.name,
            kind=chosen.family.name,
            out_features=shape.out_features,
            in_features=shape.in_features,
            rank=None if dense else rank,
            links=count,
            numbers_trained=numbers[shape.out_features, shape.in_features],
            a_trained=chosen.trains == "both",
            support=_planned_support(chosen, shape.in_features, rank, count, rng),
            bits=cast(int, bits),
            side_information_bits=0.0,
            norm_update=math.nan,
            norm_base=math.nan,
            norm_merged=math.nan,
            seed=None if chosen.selector in ("none", "window", "circulant") else seed,
        )
        for shape in shapes
    ]
    return [*records, *_planned_head(head_numbers, bits)]


def check_record(record: Mapping[str, Any], position: int, *, planned: bool = False) -> UpdateRecord:
    """Return a record whose every key is present, in range and consistent with the others; norms must be finite.

    Args:
        record: one mapping as in ``theory.records.UpdateRecord``.
        position: its place, for the message.
        planned: whether it is of a plan, whose norms are NaN.

    Raises:
        TypeError: if it is no mapping, or a count is no integer.
        ValueError: if a key is missing, a number is NaN or out of range, or two keys contradict each other.
    """
    if not isinstance(record, Mapping):
        raise TypeError(
            f"records must hold mappings, got {shown(record)} of type {type(record).__name__} at {position}"
        )
    missing = sorted(UpdateRecord.__required_keys__ - set(record))
    if missing:
        raise ValueError(f"records[{position}] must hold every key of UpdateRecord, lacks {', '.join(missing)}")
    check_text(f"name of records[{position}]", record["name"])
    try:
        _check_fields(record, "", planned)
    except (TypeError, ValueError):  # once more, and with its place: a label for each of a thousand records costs time
        _check_fields(record, f" of records[{position}] ({shown(record['name'])})", planned)
    return cast(UpdateRecord, record)


def _check_fields(record: Mapping[str, Any], label: str, planned: bool) -> None:
    for key, check in _FIELDS.items():
        check(key + label, record[key])
    for key in ("rank", "seed"):
        if record[key] is not None:
            check_integer(key + label, record[key], minimum=int(key == "rank"))
    norms = [record[key] for key in _NORMS]
    if not (planned and all(type(norm) is float and norm != norm for norm in norms)):
        for key, norm in zip(_NORMS, norms, strict=True):
            check_number(key + label, norm)
    known = families()
    family = known.get(check_choice(f"kind{label}", record["kind"], (*known, "head")))
    if family is COLUMNS and record["support"] is None:
        raise ValueError(f"support{label} must list the columns of a record of kind 'columns', got None")
    if record["support"] is not None:
        _check_support(record["support"], record["in_features"], label)
        if family is None or family is DENSE:
            got = shown(record["support"])
            raise ValueError(f"support{label} must be None for kind {record['kind']!r}, got {got}")
    _check_numbers(cast(UpdateRecord, record), family, label)


_NORMS = ("norm_update", "norm_base", "norm_merged")
_FIELDS: dict[str, Callable[[str, Any], Any]] = {
    "out_features": Integer(1),
    "in_features": Integer(1),
    "links": Integer(1),
    "numbers_trained": Integer(0),
    "bits": Number(positive=True),
    "side_information_bits": Number(),
    "a_trained": cast(Callable[[str, Any], Any], check_of(bool)),
}


def _check_support(support: Any, columns: int, label: str) -> None:
    if isinstance(support, (str, bytes)) or not isinstance(support, (Sequence, np.ndarray)):
        raise TypeError(f"support{label} must be a list of columns, got {shown(support)}")
    if any(isinstance(column, bool) or not isinstance(column, (int, np.integer)) for column in support):
        raise TypeError(f"support{label} must hold integers, got {shown(support)}")
    if any(not 0 <= column < columns for column in support):
        raise ValueError(f"support{label} must hold columns between 0 and {columns - 1}, got {shown(support)}")
    if any(first >= second for first, second in pairwise(support)):
        raise ValueError(f"support{label} must hold distinct columns in ascending order, got {shown(support)}")


def _check_numbers(record: UpdateRecord, family: Family | None, label: str) -> None:
    """Refuse counts that the shape, the links and the support cannot have, and a change by what was not trained."""
    trained, rows, columns = record["numbers_trained"], record["out_features"], record["in_features"]
    if trained == 0 and record["norm_update"] > 0:
        raise ValueError(f"numbers_trained{label} is 0 although norm_update is {record['norm_update']}")
    if (family is None or family is DENSE) and trained > rows * columns * record["links"]:
        most = rows * columns * record["links"]
        raise ValueError(f"numbers_trained{label} must be at most {most}, its size times its links; got {trained}")
    if family is COLUMNS:
        whole = rows * len(record["support"] or ())
        if not whole <= trained <= whole * record["links"]:
            raise ValueError(
                f"support{label} must hold the columns in which {trained} numbers of {rows} rows were trained in "
                f"{record['links']} links, each column in full; got {shown(record['support'])}"
            )
    if family is FACTORS and record["a_trained"] and record["rank"] is not None:
        least = record["rank"] * columns * record["links"]
        if 0 < trained < least:
            raise ValueError(f"numbers_trained{label} must be at least {least}, those of A alone; got {trained}")


def _planned_support(
    method: Method, in_features: int, rank: int, links: int, rng: np.random.Generator
) -> list[int] | None:
    if not method.selects_columns:
        return None
    if method.selector == "random":
        return sorted(rng.choice(in_features, size=rank, replace=False).tolist())
    if method.selector == "shuffled":
        blocks = rng.permutation(math.ceil(in_features / rank))[:links].tolist()
        return sorted(c for block in blocks for c in range(block * rank, min((block + 1) * rank, in_features)))
    return list(range(min(links * rank, in_features)))


def _planned_head(numbers: int, bits: float) -> list[UpdateRecord]:
    if numbers == 0:
        return []
    head = UpdateRecord(
        name="head",
        kind="head",
        out_features=numbers,
        in_features=1,
        rank=None,
        links=1,
        numbers_trained=numbers,
        a_trained=False,
        support=None,
        bits=cast(int, bits),
        side_information_bits=0.0,
        norm_update=math.nan,
        norm_base=math.nan,
        norm_merged=math.nan,
        seed=None,
    )
    return [head]
