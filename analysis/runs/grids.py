"""Grids of configurations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.runs.config import RunConfig
from theory.methods import get_method, method_keys

__all__ = ["grid", "method_cells"]


def grid(base: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the axes' values over a base configuration, the last axis fastest.

    >>> grid({"task": "digits"}, {"rank": [1, 2], "seed": [0]})
    [{'task': 'digits', 'rank': 1, 'seed': 0}, {'task': 'digits', 'rank': 2, 'seed': 0}]
    """
    for name, values in axes.items():
        if len(values) == 0:
            raise ValueError(f"axis {name!r} of the grid is empty")
    return [{**base, **dict(zip(axes, values, strict=True))} for values in itertools.product(*axes.values())]


def method_cells(
    base: Mapping[str, Any], *, methods: Sequence[str], ranks: Sequence[int], links: Sequence[int] | None
) -> list[dict[str, Any]]:
    """Return a configuration per method, rank and chain length over a base configuration.

    An axis that a method does not have (rank of full fine-tuning, links of an unchained one) is left out, and so is
    an option that it does not take.

    Raises:
        ValueError: for an unknown method or a value outside its range.
    """
    cells = []
    for key in list(method_keys()) if list(methods) == ["all"] else methods:
        method = get_method(key)
        own = dict(base)
        if method.trains != "both":
            own.pop("lr_ratio", None)
        if method.trains == "weight":
            own.pop("learning_rate", None)
        lengths = list(links) if links and method.chained else [None]
        cells += grid(
            own, {"method": [key], "rank": ranks[:1] if method.trains == "weight" else ranks, "links": lengths}
        )
    for cell in cells:
        RunConfig.from_mapping(cell)
    return cells
