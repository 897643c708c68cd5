"""The statements about chains on several tasks at once: measured, tested, and written beside what was measured before.

Two questions, one result file each: ``landscape.json`` (are chains sharper?) and ``spectra.json`` (have they more
intruders?). A file keeps what it holds of tasks that are not measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.geometry import Evaluation
from analysis.records import carried_notes, frame_of, provenance, read_json, table_of, write_result
from analysis.statistics import claim_values, paired_claim
from analysis.studies.chains import SPECTRA, chain_frames, chain_runs, intruder_curves
from analysis.studies.planes import first_seeds, planes
from theory.defaults import NUM_LINKS

__all__ = ["ChainPart", "chain_parts", "chain_planes", "chain_tasks", "write_chains"]

_MEASURES = {
    "landscape": ("worst_merged", "mean_merged", "worst_adapter", "mean_adapter"),
    "spectra": SPECTRA,
}


@dataclass(frozen=True, kw_only=True)
class ChainPart:
    """One task's answer to one question.

    Attributes:
        name: ``"landscape"`` or ``"spectra"``.
        task: such as ``"trec"``.
        frame: one row per run and checkpoint.
        claim: one row per pair of methods, checkpoint and measure (``analysis.statistics.paired_claim``).
    """

    name: str
    task: str
    frame: pd.DataFrame
    claim: pd.DataFrame

    def values(self) -> dict[str, Any]:
        """Return the numbers that the report names, by ``<task>/<name>``."""
        last = self.frame[self.frame["checkpoint"] == "last"]
        best = self.frame[self.frame["checkpoint"] == "best"]
        return {
            f"{self.task}/runs": len(last),
            f"{self.task}/seeds": last["seed"].nunique(),
            f"{self.task}/best_is_last": int((best["weights"] == "adapter").sum()),
            **claim_values(self.claim, task=self.task),
            f"{self.task}/best_doubtful": int(last["choice_doubtful"].sum()),
        }

    def curves(self) -> dict[str, Any]:
        """Return intruders against epsilon, mean and range over seeds, by checkpoint and method."""
        return {
            f"{self.task}/curves/{checkpoint}": {
                method: curve.to_dict("list")
                for method, curve in intruder_curves(self.frame, checkpoint=checkpoint).items()
            }
            for checkpoint in ("last", "best")
        }


def chain_tasks(
    folders: Sequence[str | Path], *, ranks: Sequence[int] | None = None, links: int = NUM_LINKS
) -> dict[str, list[Path]]:
    """Choose the runs of each task, as ``chain_runs`` does.

    Args:
        folders: runs that kept their weights, one task a folder.
        ranks: the rank to take of each folder; None where each holds one.
        links: length of the chains.

    Returns:
        Task -> folders of its runs.

    Raises:
        ValueError: if ranks and folders differ in number, two folders hold the same task, or as ``chain_runs``.
    """
    if ranks is not None and len(ranks) != len(folders):
        raise ValueError(f"--ranks needs one rank for each of the {len(folders)} folders, got {len(ranks)}")
    tasks: dict[str, list[Path]] = {}
    chosen: Sequence[int | None] = [None] * len(folders) if ranks is None else ranks
    for folder, rank in zip(folders, chosen, strict=True):
        paths = chain_runs(folder, rank=rank, links=links)
        task = read_json(paths[0] / "record.json")["config"]["task"]
        if task in tasks:
            raise ValueError(f"two folders hold runs of {task!r}; give each task one folder")
        tasks[task] = paths
    return tasks


def chain_parts(
    tasks: Mapping[str, Sequence[str | Path]], *, examples: int = 100, n_jobs: int = 1
) -> Iterator[ChainPart]:
    """Measure and test task by task; each answer is handed on as soon as it is there.

    Args:
        tasks: from ``chain_tasks``.
        examples: training examples of the fixed batch.
        n_jobs: processes that share the runs.
    """
    for task, paths in tasks.items():
        frames = chain_frames(paths, examples=examples, n_jobs=n_jobs)
        for (name, measures), frame in zip(_MEASURES.items(), frames, strict=True):
            yield ChainPart(name=name, task=task, frame=frame, claim=paired_claim(frame, measures))


def chain_planes(
    tasks: Mapping[str, Sequence[str | Path]], *, steps: int = 15, examples: int = 100, n_jobs: int = 1
) -> dict[str, Any]:
    """Measure one plane of every method: its first seed's, at the last checkpoint, in merged space.

    Args:
        tasks: from ``chain_tasks``.
        steps: points per axis, odd.
        examples: training examples of the fixed batch.
        n_jobs: processes that share the points.

    Returns:
        ``<task>/planes`` -> planes as a result file holds them.
    """
    how = Evaluation(n_jobs=n_jobs, progress=False)
    return {
        f"{task}/planes": [
            surface.to_dict() for surface in planes(first_seeds(paths), steps=steps, examples=examples, evaluation=how)
        ]
        for task, paths in tasks.items()
    }


def write_chains(
    parts: Sequence[ChainPart], *, planes: Mapping[str, Any], folder: str | Path, command: str
) -> dict[Path, list[str]]:
    """Write ``landscape.json`` and ``spectra.json``, beside what they hold of other tasks.

    Args:
        parts: from ``chain_parts``.
        planes: from ``chain_planes``.
        folder: where the two files are.
        command: the command that makes them again.

    Returns:
        Path -> the other tasks that stay in it.
    """
    written = {}
    for name in _MEASURES:
        own = [part for part in parts if part.name == name]
        series = planes if name == "landscape" else {key: value for part in own for key, value in part.curves().items()}
        path = Path(folder) / f"{name}.json"
        written[path] = _write(path, own, series=dict(series), command=command)
    return written


def _write(path: Path, parts: Sequence[ChainPart], *, series: dict[str, Any], command: str) -> list[str]:
    values = {key: value for part in parts for key, value in part.values().items()}
    curves = ["curve", "curve_low", "curve_high"]
    runs = pd.concat([part.frame.drop(columns=curves, errors="ignore").assign(task=part.task) for part in parts])
    claims = pd.concat([part.claim.assign(task=part.task) for part in parts])
    frames, notes, others = {"claim": claims, "runs": runs}, {}, []
    if path.exists():
        kept = read_json(path)
        before = {key: frame_of(kept["tables"][key]) for key in frames}
        others = sorted(set(before["runs"]["task"]) - set(runs["task"]))
        if others:
            frames = {key: pd.concat([new, _of(before[key], others)]) for key, new in frames.items()}
            values |= {key: value for key, value in kept["values"].items() if key.split("/")[0] in others}
            series |= {key: value for key, value in kept["series"].items() if key.split("/")[0] in others}
            notes = {"notes": carried_notes(kept["provenance"], others, how="measured")}
    tables = {
        key: table_of(whole[["task", *(column for column in whole.columns if column != "task")]])
        for key, whole in frames.items()
    }
    record = provenance(command, sorted({int(seed) for seed in frames["runs"]["seed"]})) | notes
    write_result(path, provenance=record, values=values, tables=tables, series=series)
    return others


def _of(frame: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    return frame[frame["task"].isin(tasks)]
