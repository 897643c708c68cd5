"""Grids of configurations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.runs.config import RunConfig
from theory.methods import get_method, method_keys

__all__ = ["grid", "method_cells", "run_key", "seed_cells"]


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
            own.pop("layers", None)
        lengths = list(links) if links and method.chained else [None]
        cells += grid(
            own, {"method": [key], "rank": ranks[:1] if method.trains == "weight" else ranks, "links": lengths}
        )
    for cell in cells:
        RunConfig.from_mapping(cell)
    return cells


def seed_cells(
    base: Mapping[str, Any],
    *,
    tasks: Sequence[str],
    seeds: Sequence[int],
    methods: Sequence[str],
    ranks: Sequence[int],
    links: Sequence[int] | None,
) -> list[dict[str, Any]]:
    """Return a configuration per task, seed, method, rank and chain length; what belongs to the method is fastest.

    Args:
        base: values of a :class:`RunConfig` that all share; those of the axes are left out of it.
        tasks: names of tasks.
        seeds: seeds of the runs, at least one.
        methods: keys of methods, or ``["all"]``.
        ranks: of the methods that have one.
        links: lengths of chains; None takes the settings'.

    Raises:
        ValueError: for an empty axis, an unknown method or a value outside its range.
    """
    shared = {key: value for key, value in base.items() if key not in ("task", "seed", "method", "rank", "links")}
    return [
        cell
        for seed_cell in grid(shared, {"task": tasks, "seed": seeds})
        for cell in method_cells(seed_cell, methods=methods, ranks=ranks, links=links)
    ]


def run_key(values: Mapping[str, Any]) -> str:
    """Name a run by its configuration, as its folder is named."""
    return RunConfig.from_mapping(values).key()
