"""Runs of several places in one frame: folders of finished runs, and earlier comparisons for other tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.records import carried_notes, read_json
from analysis.studies.predictors import comparison_frame, join_measures, with_recorded

__all__ = ["Gathered", "gather_runs"]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Runs to compare.

    Attributes:
        frame: one row per run, from ``analysis.studies.predictors.comparison_frame``.
        notes: what a result must say of runs that were recorded elsewhere.
        told: one line per earlier comparison and per joined table: what was taken from it.
    """

    frame: pd.DataFrame
    notes: list[str]
    told: list[str]


def gather_runs(
    places: Sequence[str | Path], *, join: Sequence[str | Path] = (), family: str = "information"
) -> Gathered:
    """Collect runs from folders and, for other tasks, from earlier comparisons; join tables of measures.

    Args:
        places: folders of finished runs, or result files of a comparison (``*.json``).
        join: CSV tables of measures per configuration.
        family: of joined measures that are not registered.

    Raises:
        ValueError: if there is no place, or one holds no run.
    """
    if not places:
        raise ValueError("places must name at least one folder of runs or result file, got none")
    folders = [Path(place) for place in places if Path(place).suffix != ".json"]
    frame = comparison_frame(folders) if folders else None
    notes: list[str] = []
    told: list[str] = []
    for path in (Path(place) for place in places if Path(place).suffix == ".json"):
        known = set() if frame is None else set(frame["task"])
        frame = with_recorded(frame, path)
        taken = frame[~frame["task"].isin(known)]
        tasks = sorted(set(taken["task"]))
        told.append(f"{path.name}: {len(taken)} runs of {', '.join(tasks)} as recorded there")
        notes += carried_notes(read_json(path)["provenance"], tasks, how="recorded")
    assert frame is not None
    if frame.attrs.get("unstated"):
        told.append(f"left out, being no registered measure: {', '.join(frame.attrs['unstated'])}")
    for path in map(Path, join):
        frame = join_measures(frame, path, family=family)
        joined = frame.attrs["joined"]
        matched = int(frame[joined].notna().any(axis=1).sum())
        told.append(f"{path.name}: {', '.join(joined)} for {matched} of {len(frame)} runs")
    return Gathered(frame=frame, notes=notes, told=told)
