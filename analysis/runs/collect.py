"""Folders of runs -> their records -> one data frame, one Parquet file, one committed result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records import config_key, frame_of, read_json, replacing, table_of, write_result
from analysis.runs.config import content
from analysis.statistics import across_seeds
from theory.methods import METHODS

__all__ = [
    "FoundRun",
    "corrupt_records",
    "find_runs",
    "frame",
    "read_records",
    "record_paths",
    "renew_means",
    "runs_result",
    "seeds_of",
    "write_parquet",
]


@dataclass(frozen=True)
class FoundRun:
    """A run that was computed, as its folder tells.

    Attributes:
        folder: of the run.
        record: what its ``record.json`` holds.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether it finished; a run that failed is recorded too."""
        return self.record["status"] == "done"

    @property
    def has_weights(self) -> bool:
        """Whether its final weights were kept (``--save-adapter``)."""
        return (self.folder / "adapter").is_dir()


def record_paths(folder: str | Path) -> list[Path]:
    """Name the records under a folder, hidden ones left out, in the order of their paths; none without a folder."""
    found = sorted(Path(folder).rglob("record.json"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def corrupt_records(folder: str | Path) -> list[str]:
    """Say of every record under a folder that cannot be read, or lacks what a finished run's holds, what is wrong."""
    flaws = []
    for path in record_paths(folder):
        try:
            _check_whole(FoundRun(path.parent, read_json(path)))
        except ValueError as error:
            flaws.append(str(error))
    return flaws


_PARTS = ("config", "task", "metrics", "generalization", "timing", "parameters", "measures")


def _check_whole(run: FoundRun) -> None:
    parts = _PARTS if run.record.get("status") == "done" else ("config", "failure")
    missing = [name for name in parts if name not in run.record]
    if missing and run.record.get("status") in ("done", "failed"):
        path = str(run.folder / "record.json")
        raise ValueError(f"record {path!r} lacks {missing[0]!r}, which a run's holds; delete it to run it again")


def find_runs(folder: str | Path, *, failed: bool = False, skip_corrupt: bool = False) -> list[FoundRun]:
    """Find the runs that were computed under a folder.

    Args:
        folder: holds ``KEY/record.json``, at any depth, or is such a run's own folder.
        failed: whether runs that failed are returned too.
        skip_corrupt: whether records that cannot be read are left out.

    Returns:
        The runs, in the order of their paths.

    Raises:
        ValueError: if the folder is missing, a record is corrupt (the message names it), or there is no such run.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"no folder of runs at {str(folder)!r}")
    found = []
    for path in record_paths(folder):
        try:
            found.append(FoundRun(path.parent, read_json(path)))
        except ValueError:
            if not skip_corrupt:
                raise
    found = [run for run in found if run.record.get("status") in ("done", "failed")]
    kept = [run for run in found if failed or run.done]
    if not kept:
        raise ValueError(
            f"no finished run under {str(folder)!r} ({len(found)} failed); expected KEY/record.json with status 'done'"
        )
    return kept


def read_records(
    folder: str | Path,
    *,
    failed: bool = False,
    only: Mapping[str, Sequence[Any]] | None = None,
    skip_corrupt: bool = False,
) -> list[dict[str, Any]]:
    """Read the records of the runs under a folder, in the order of their paths.

    Args:
        folder: see :func:`find_runs`.
        failed: whether to return failed runs too.
        only: names of the configuration (method, rank, links, ...) and the values that are kept of each; a method that
            has no rank or no chain is kept whatever is asked of it.
        skip_corrupt: whether records that :func:`corrupt_records` names are left out.

    Raises:
        ValueError: as :func:`find_runs`, or if no run has what ``only`` asks for.
    """
    kept = []
    for run in find_runs(folder, failed=failed, skip_corrupt=skip_corrupt):
        try:
            _check_whole(run)
            kept.append(run.record)
        except ValueError:
            if not skip_corrupt:
                raise
    chosen = [record for record in kept if all(_kept(record["config"], *item) for item in (only or {}).items())]
    if not chosen:
        asked = ", ".join(f"{name} in {list(values)}" for name, values in (only or {}).items())
        raise ValueError(f"folder {str(folder)!r} holds no run with {asked}")
    return chosen


def _kept(config: Mapping[str, Any], name: str, values: Sequence[Any]) -> bool:
    method = METHODS[config["method"]]
    if (name == "rank" and method.trains == "weight") or (name == "links" and not method.chained):
        return True
    return config.get(name) in values


def _name(value: Any) -> Any:
    return value["name"] if isinstance(value, Mapping) else value


_NAMED = ("task", "method", "rank", "links", "seed", "learning_rate")
_CONFIGURATION = ("task", "model", "method", "rank", "links")


def seeds_of(runs: pd.DataFrame) -> list[str]:
    """Name the columns that make a configuration, so that only seeds are averaged.

    Where runs of one method, rank and length of chain were made in several ways (learning rate, epochs, data, ...), the
    columns that tell them apart are added; ``variant`` is a hash of all that has no column of its own. Failed runs tell
    nothing apart: their configuration was recorded as it was asked for, without what the settings would have filled in.
    """
    if "status" in runs and (runs["status"] == "done").any():
        runs = runs[runs["status"] == "done"]
    by = list(_CONFIGURATION)
    for name in ("data", "learning_rate", "epochs", "num_train", "variant"):
        differing = ("data", "variant") if name == "data" else (name,)  # data of another name alone is the same data
        groups = runs.groupby(by, dropna=False)
        if name in runs and all((groups[one].nunique(dropna=False) > 1).any() for one in differing if one in runs):
            by.append(name)
    return by


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    config = record["config"]
    row = {
        "key": record["key"],
        "status": record["status"],
        **{name: config.get(name) for name in ("task", "method", "rank", "links", "seed", "epochs", "learning_rate")},
        "model": config.get("model_name") or _name(config.get("model")),
        "data": _name(config.get("data")),
        "variant": config_key({name: value for name, value in content(config).items() if name not in _NAMED})[:8],
    }
    if record["status"] != "done":
        return {**row, "failure": record["failure"]["message"]}
    task, metrics = record["task"], record["metrics"]
    row |= {
        "num_train": task["num_train"],
        "metric_name": task["metric"],
        "metric": metrics[task["metric"]],
        "train_loss": metrics["train_loss"],
        "heldout_loss": metrics["heldout_loss"],
        "train_error": metrics["train_error"],
        "heldout_error": metrics["heldout_error"],
    }
    for name, gap in record["generalization"].items():
        for end, suffix in (
            ("value", ""),
            ("low", "_low"),
            ("high", "_high"),
            ("signed", "_signed"),
            ("range", "_range"),
            ("units", "_units"),
        ):
            row[f"gap_{name}{suffix}"] = gap.get(end)
    timing = record["timing"]
    for name in ("steps", "seconds_per_step", "total_seconds", "peak_memory_bytes", "saved_activation_bytes"):
        row[name] = timing[name]
    row["trainable"] = record["parameters"]["trainable"]
    return row | {f"measure_{name}": value for name, value in record["measures"].items()}


def frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per run: configuration, metrics, gaps, time, memory, and measures as ``measure_*``.

    NaN and infinities, which records keep by name, become numbers again.
    """
    table = pd.DataFrame([_row(record) for record in records])
    named = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    text = {"key", "status", "variant", "task", "data", "method", "model", "metric_name", "failure"}
    for column in table.columns:
        if column not in text:
            table[column] = pd.to_numeric(table[column].map(lambda value: named.get(value, value)))
    return table


def write_parquet(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a data frame as Parquet, whole or not at all."""
    with replacing(path) as new:
        table.to_parquet(new)
    return Path(path)


_RUN_COLUMNS = (
    "task", "model", "method", "rank", "links", "seed", "epochs", "num_train", "metric_name", "metric", "train_loss",
    "heldout_loss", "train_error", "heldout_error", "steps", "seconds_per_step", "total_seconds", "peak_memory_bytes",
    "saved_activation_bytes", "trainable",
)  # fmt: skip


def runs_result(
    records: Sequence[Mapping[str, Any]], path: str | Path, *, command: str, model_name: str | None = None
) -> Path:
    """Write the committed result of a sweep: table ``runs`` (one row each) and table ``means`` (over seeds).

    Its few values count runs, seeds, examples and epochs; every measured number is in the tables.

    Args:
        records: finished records.
        path: ``report/results/<topic>.json``.
        command: the command that made the runs; empty takes the first record's.
        model_name: how tables call the base model; by default as the records do.

    Raises:
        ValueError: if runs of one method, rank and length of chain differ in more than their seed.
    """
    done = [record for record in records if record["status"] == "done"]
    runs = frame(done)
    if model_name is not None:
        runs["model"] = model_name
    apart = set(seeds_of(runs)) - {*_CONFIGURATION, "data"}
    if apart:
        raise ValueError(f"runs of one method and rank differ in {', '.join(sorted(apart))}; collect them one by one")
    values = {
        "runs": len(runs),
        "failed": len(records) - len(done),
        "seeds": int(runs["seed"].nunique()),
        "num_train": int(runs["num_train"].max()),
        "epochs": float(runs["epochs"].max()),
    }
    origin = done[0]["provenance"]
    commits = sorted({record["provenance"]["commit"] for record in done})
    provenance = {
        **origin,
        "command": command or origin["command"],
        "seeds": sorted({int(record["config"]["seed"]) for record in done}),
        "commit": ", ".join(commits),
        "notes": sorted({note for record in done for note in record["task"]["notes"]}),
    }
    kept = [name for name in runs if name.startswith(("gap_", "measure_"))]
    kept += ["data"] if "data" in seeds_of(runs) else []
    tables = {"runs": table_of(runs, [*_RUN_COLUMNS, *kept]), "means": table_of(_means(runs))}
    return write_result(path, provenance=provenance, values=values, tables=tables)


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    gaps = [
        name for name in runs if name.startswith("gap_") and not name.endswith(("_low", "_high", "_range", "_units"))
    ]
    names = ("metric", *gaps, "seconds_per_step", "saved_activation_bytes", "peak_memory_bytes")
    by = [*_CONFIGURATION, *(["data"] if "data" in runs and "data" in seeds_of(runs) else [])]
    means = across_seeds(runs, columns=[name for name in names if name in runs], by=by)
    order = {key: place for place, key in enumerate(METHODS)}
    return means.sort_values(
        ["task", "rank", "method"], key=lambda part: part.map(order) if part.name == "method" else part
    )


def renew_means(path: str | Path) -> Path:
    """Average the runs of a committed result again, in its place.

    Intervals of single runs from before their held-out units were recorded are percentile bootstraps, which cover too
    little, and what would mend them (the losses of single examples) is not in the file: they are left out, and the
    provenance says so.

    Args:
        path: of a result of :func:`runs_result`.

    Raises:
        ValueError: if the file is missing or corrupt, or holds no table ``runs``.
    """
    result = read_json(path)
    if "runs" not in result.get("tables", {}):
        raise ValueError(f"{str(path)!r} holds no table 'runs'; give a folder of runs, or a result of collect")
    runs = frame_of(result["tables"]["runs"]).replace({"nan": math.nan, "inf": math.inf, "-inf": -math.inf})
    note = "means over seeds taken anew from the runs"
    if not any(name.endswith("_units") for name in runs):
        runs = runs[[name for name in runs if not (name.startswith("gap_") and name.endswith(("_low", "_high")))]]
        note += "; intervals of single runs, percentile bootstraps, left out"
    made = result["provenance"]
    return write_result(
        path,
        provenance={**made, "notes": sorted({*made.get("notes", ()), note})},
        values=result["values"],
        tables={**result["tables"], "runs": table_of(runs), "means": table_of(_means(runs))},
        series=result.get("series"),
    )
