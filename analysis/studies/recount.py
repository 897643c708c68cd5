"""Intruders of committed updates, counted again into the committed result where the runs themselves are gone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.measures import intruder_measures
from analysis.records import carried_notes, frame_of, provenance, read_json, table_of, write_result
from analysis.statistics import claim_values, paired_claim
from analysis.studies.chains import SPECTRA
from analysis.studies.export import exported_updates

__all__ = ["ranges_overlap", "recount"]


def recount(path: str | Path, adapters: str | Path, *, task: str) -> pd.DataFrame:
    """Replace a result's counts by those of committed updates, and the claim about chains that rests on them.

    Only the rows of the updates' seed change; counts of other seeds stay as they were counted, without a range where
    they had none, and so do the curves, which are means over seeds. ``TASK/recounted`` says so in the result.

    Args:
        path: ``spectra.json``, written by ``python -m analysis chains``; rewritten.
        adapters: folder written by ``python -m analysis export``.
        task: the task of the updates.

    Returns:
        The rows that changed, counts before (``_before``) and after.

    Raises:
        ValueError: if a file is missing or corrupt, or the result has no row of an update.
    """
    old = read_json(path)
    runs = frame_of(old["tables"]["runs"])
    index = frame_of(read_json(Path(adapters) / "adapters.json")["tables"]["adapters"])
    seeds = {(row.method, row.checkpoint): row.seed for row in index.itertuples()}
    changed = []
    for (method, checkpoint), updates in exported_updates(adapters).items():
        place = (
            (runs["task"] == task)
            & (runs["method"] == method)
            & (runs["checkpoint"] == checkpoint)
            & (runs["seed"] == seeds[method, checkpoint])
        )
        if place.sum() != 1:
            raise ValueError(f"{Path(path).name} has {place.sum()} rows of {task}, {method}, {checkpoint}, expected 1")
        found = {name: value for name, value in intruder_measures(updates).items() if not name.startswith("curve")}
        row = runs[place].iloc[0]
        changed.append(
            {"method": method, "checkpoint": checkpoint}
            | {f"{name}_before": row[name] for name in ("authors", "paper")}
            | {name: found[name] for name in ("authors", "paper")}
        )
        for name, value in found.items():
            runs.loc[place, name] = value
    claim = paired_claim(runs[runs["task"] == task], SPECTRA)
    claims = frame_of(old["tables"]["claim"])
    claims = pd.concat([part if name != task else claim.assign(task=task) for name, part in claims.groupby("task")])
    note = f"seed {', '.join(map(str, sorted(set(seeds.values()))))} counted again from the committed updates"
    made = old["provenance"]
    command = f"{made['command']}; python -m analysis recount ADAPTERS --task {task} --results FOLDER"
    write_result(
        path,
        provenance=provenance(command, made["seeds"])
        | {"notes": carried_notes(made, sorted(set(runs["task"])), how="measured")},
        values=old["values"] | {f"{task}/recounted": note} | claim_values(claim, task=task),
        tables={"claim": table_of(claims[["task", *claim.columns]]), "runs": table_of(runs)},
        series=old["series"],
    )
    return pd.DataFrame(changed)


def ranges_overlap(first: Mapping[str, Any] | pd.Series, second: Mapping[str, Any] | pd.Series, name: str) -> bool:
    """Say whether two counts agree: whether what rounding leaves open of one meets that of the other.

    Args:
        first: a mapping or row with ``name`` and, where they are known, ``name_low`` and ``name_high``.
        second: the same; without ends, a count is itself alone.
        name: such as ``"paper"``.

    >>> ranges_overlap({"paper": 7, "paper_low": 6, "paper_high": 8}, {"paper": 8}, "paper")
    True
    """
    ends = []
    for row in (first, second):
        low, high = (row.get(f"{name}_{end}", row[name]) for end in ("low", "high"))
        ends.append((row[name], row[name]) if pd.isna(low) or pd.isna(high) else (low, high))
    return bool(ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1])
