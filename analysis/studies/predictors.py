"""Runs on disk -> one data frame of measured G and every candidate predictor -> who predicts what.

Each run is a folder with ``record.json`` (``analysis.runs.finetune``) and, where they were taken, further files of
measurements beside it (``measures.json``: sharpness, curvature, spectra; and any other ``*.json`` that holds
registered measures by name). Bounds are evaluated here, from the update that the record says was really trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.measures import FAMILIES, families
from analysis.records import frame_of, read_json
from analysis.runs import find_runs
from theory.bounds import update_bounds
from theory.checks import check_choice
from theory.methods import METHODS
from theory.networks import Network

__all__ = [
    "DESIGN",
    "LOSSES",
    "bound_columns",
    "candidates",
    "comparison_frame",
    "join_measures",
    "norm_columns",
    "read_runs",
    "recorded_frame",
    "with_recorded",
]

DESIGN = ("task", "method", "rank", "links", "seed")
LOSSES = ("cross_entropy", "zero_one", "squared_error")
_NOT_MEASURED = ("schema", "provenance", "config", "key", "status", "seed", "timing", "seconds", "settings")


def read_runs(folders: Iterable[str | Path]) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """Find every finished run under some folders.

    Args:
        folders: each as in `analysis.runs.find_runs`.

    Returns:
        The finished runs, (folder, record), in the order of their keys, each key once; and the keys of the runs
        that failed, which are left out.

    Raises:
        ValueError: if a folder is missing, a record is corrupt, or no run is finished.
    """
    finished: dict[str, tuple[Path, dict[str, Any]]] = {}
    failed: set[str] = set()
    places = [Path(folder) for folder in folders]
    for folder in places:
        for run in find_runs(folder, failed=True):
            key = str(run.record.get("key", run.folder.name))
            if run.done:
                finished[key] = (run.folder, run.record)
            else:
                failed.add(key)
    if not finished:
        raise ValueError(f"no finished run under {', '.join(map(str, places))} ({len(failed)} failed)")
    return [finished[key] for key in sorted(finished)], sorted(failed - finished.keys())


def _numbers(obj: Any, prefix: str) -> dict[str, float]:
    """Flatten nested mappings to their numbers; lists, strings and bookkeeping are left out."""
    if isinstance(obj, Mapping):
        found: dict[str, float] = {}
        for key, value in obj.items():
            if key not in _NOT_MEASURED:
                found |= _numbers(value, f"{prefix}/{key}")
        return found
    if isinstance(obj, str) and obj in ("nan", "inf", "-inf"):
        return {prefix: float(obj)}
    return {prefix: float(obj)} if isinstance(obj, (int, float)) and not isinstance(obj, bool) else {}


def bound_columns(updates: Sequence[Mapping[str, Any]], *, num_examples: int, loss_range: float) -> dict[str, float]:
    """Evaluate every bound on a run's actual update, as logarithms (their order is the bounds' order).

    ``bound/<name>`` are those of ``theory.bounds.update_bounds``. ``unit-network/<name>`` are the rows that need
    Theorem 1's feed-forward network, evaluated as if the adapted matrices were one with unit constants, zero
    offsets and inputs of norm one: a diagnostic that keeps the norms' roles, no bound for a transformer.

    Args:
        updates: ``theory.records.UpdateRecord`` of each trained matrix.
        num_examples: n.
        loss_range: width of the loss' range; sigma is half of it.
    """
    setting: dict[str, Any] = {"num_examples": num_examples, "sigma": loss_range / 2, "loss_range": loss_range}
    columns = {f"bound/{one.name}": float(one.log_value) for one in update_bounds(updates, **setting)}
    adapted = [update for update in updates if update["kind"] != "head"]
    if adapted:
        network = Network(base_norms=[update["norm_base"] for update in adapted])
        known = {name.removeprefix("bound/") for name in columns}
        columns |= {
            f"unit-network/{one.name}": float(one.log_value)
            for one in update_bounds(adapted, network=network, **setting)
            if one.name not in known
        }
    return columns


def norm_columns(updates: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Norms of the update over the adapted matrices.

    ``norm/update_sum`` and ``norm/update_max``: |dW|_2; ``norm/relative_sum``: |dW|_2 / |W0|_2;
    ``norm/log_growth``: sum of ln((|W0| + |dW|) / |W0|), the exponent of Theorem 1's product;
    ``norm/log_merged``: sum of ln |W0 + dW|_2.
    """
    adapted = [update for update in updates if update["kind"] != "head"]
    update, base, merged = (np.array([row[key] for row in adapted], dtype=np.float64) for key in _NORMS)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "norm/update_sum": float(update.sum()),
            "norm/update_max": float(update.max(initial=0.0)),
            "norm/relative_sum": float((update / base).sum()),
            "norm/log_growth": float(np.log1p(update / base).sum()),
            "norm/log_merged": float(np.log(merged).sum()),
        }


_NORMS = ("norm_update", "norm_base", "norm_merged")


class _Row(NamedTuple):
    """One run: its row, the stated family of each candidate, and numbers beside it that are no registered measure."""

    values: dict[str, Any]
    families: dict[str, str]
    unstated: Set[str]


def _row(folder: Path, record: Mapping[str, Any]) -> _Row:
    config, updates = record["config"], record["updates"]
    adapted = [update for update in updates if update["kind"] != "head"]
    full_rank = max((min(update["out_features"], update["in_features"]) for update in adapted), default=0)
    dense = any(update["kind"] == "dense" for update in adapted)
    row: dict[str, Any] = {
        "key": record.get("key", folder.name),
        "task": config["task"],
        "method": config["method"],
        "rank": full_rank if dense or config.get("rank") is None else config["rank"],
        "links": max((update["links"] for update in adapted), default=1),
        "seed": config["seed"],
        "train_loss": float(record["metrics"]["train_loss"]),
    }
    for loss in LOSSES:
        if loss in record["generalization"]:
            row[f"gap/{loss}"] = float(record["generalization"][loss]["value"])
    losses = [loss for loss in LOSSES if loss in record["generalization"]]
    low, high = _range(record["generalization"][losses[0]]["range"])
    bounds = bound_columns(updates, num_examples=int(record["task"]["num_train"]), loss_range=high - low)
    found = norm_columns(updates) | {"size/trainable": float(record["parameters"]["trainable"])}
    found |= _numbers(record.get("measures", {}), "run")
    for path in sorted(folder.glob("*.json")):
        if path.name != "record.json":
            found |= _numbers(read_json(path), path.stem)
    stated = dict.fromkeys(bounds, "bound") | families(found)
    row |= {name: value for name, value in (bounds | found).items() if name in stated}
    return _Row(row, stated, found.keys() - stated.keys())


def _range(value: Any) -> tuple[float, float]:
    """A loss' range, written as its width or as (low, high)."""
    return (0.0, float(value)) if isinstance(value, (int, float)) else (float(value[0]), float(value[1]))


def comparison_frame(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Collect every finished run: its design, its measured G(W) and every candidate predictor.

    Args:
        folders: see :func:`read_runs`.

    Returns:
        One row per run, indexed by key: the design columns ``DESIGN`` (``rank`` of a dense update is the full
        rank), ``train_loss``, the measured errors ``gap/cross_entropy`` and ``gap/zero_one``, and one column per
        candidate, named ``place/measure``; NaN where a run lacks it. ``.attrs["families"]`` holds the stated family
        of each candidate, ``.attrs["failed"]`` the keys of failed runs, ``.attrs["unstated"]`` the numbers beside the
        records that are no registered measure and were left out.

    Raises:
        ValueError: if a folder or a record cannot be used, or two runs share task, method, rank, links and seed; the
            message names them.
    """
    runs, failed = read_runs(folders)
    rows = []
    for folder, record in runs:
        try:
            rows.append(_row(folder, record))
        except KeyError as missing:
            raise ValueError(f"record {str(folder / 'record.json')!r} has no {missing}") from None
    frame = pd.DataFrame([row.values for row in rows]).set_index("key")
    for _, group in frame.groupby(list(DESIGN)):
        if len(group) > 1:
            shared = ", ".join(f"{name} {group.iloc[0][name]}" for name in DESIGN)
            raise ValueError(
                f"runs {group.index[0]} and {group.index[1]} share {shared}: made in two ways (learning rate, "
                "epochs, data or model); compare them apart"
            )
    frame.attrs["failed"] = failed
    frame.attrs["families"] = {name: family for row in rows for name, family in row.families.items()}
    frame.attrs["unstated"] = sorted({name for row in rows for name in row.unstated})
    return frame


def recorded_frame(path: str | Path) -> pd.DataFrame:
    """Read the runs of an earlier comparison back from its result file, for weights that are no longer at hand.

    Args:
        path: what ``compare --results`` wrote.

    Returns:
        As :func:`comparison_frame`, with that comparison's candidates and the families that it stated; a file of
        version 0.1 states none, so that only measures of the registry are candidates.

    Raises:
        ValueError: if the file is missing, corrupt, or holds no table of runs.
    """
    tables = read_json(path).get("tables", {})
    table = tables.get("runs")
    if table is None or not set(DESIGN) | {"key", "train_loss"} <= set(table["columns"]):
        raise ValueError(f"{str(path)!r} holds no table of runs; give a result file that compare wrote")
    frame = frame_of(table).set_index("key").replace({"nan": math.nan, "inf": math.inf, "-inf": -math.inf})
    measured = [name for name in frame.columns if name not in ("task", "method")]
    frame[measured] = frame[measured].apply(pd.to_numeric)
    frame.attrs |= {"failed": [], "unstated": []}
    stated = tables.get("families")
    written = {} if stated is None else dict(stated["rows"])
    frame.attrs["families"] = families(measured) | {name: written[name] for name in measured if name in written}
    return frame


def with_recorded(frame: pd.DataFrame | None, path: str | Path) -> pd.DataFrame:
    """Add the runs of an earlier comparison for the tasks that the frame has none of.

    Args:
        frame: from :func:`comparison_frame`, or None.
        path: as in :func:`recorded_frame`.

    Raises:
        ValueError: as in :func:`recorded_frame`, and if every task of the file is in the frame.
    """
    recorded = recorded_frame(path)
    if frame is None:
        return recorded
    others = recorded[~recorded["task"].isin(frame["task"])].dropna(axis="columns", how="all")
    if others.empty:
        raise ValueError(f"every task of {str(path)!r} ({', '.join(sorted(set(recorded['task'])))}) was given as runs")
    both = pd.concat([frame, others]).sort_index()
    both.attrs = frame.attrs | {"families": recorded.attrs["families"] | frame.attrs["families"]}
    return both


def join_measures(frame: pd.DataFrame, path: str | Path, *, family: str = "information") -> pd.DataFrame:
    """Add measures that belong to a configuration rather than a run: ld-MI and CMI estimates, code lengths.

    Args:
        frame: from :func:`comparison_frame`.
        path: a CSV file with one or more of the design columns (task, method, rank, links, seed) and any number of
            numeric columns, which become ``<file's stem>/<column>``. The rank of full fine-tuning, which has none,
            is not compared.
        family: what its measures are, where the registry does not know them.

    Returns:
        The frame with the new columns; NaN where the file has no row for a run's configuration.

    Raises:
        ValueError: if the file is missing, shares no design column, holds no other column, or two rows for one
            configuration, or the family is unknown.
    """
    check_choice("family", family, FAMILIES)
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no table of measures at {str(path)!r}")
    table = pd.read_csv(path)
    shared = [column for column in DESIGN if column in table.columns]
    measures = [column for column in table.columns if column not in DESIGN]
    if not shared or not measures:
        raise ValueError(f"{path.name} must hold a design column ({', '.join(DESIGN)}) and a measure beside it")
    if table.duplicated(subset=shared).any():
        raise ValueError(f"{path.name} has two rows for one combination of {', '.join(shared)}")
    table = table.rename(columns={column: f"{path.stem}/{column}" for column in measures})
    left = frame.reset_index()
    if {"method", "rank"} <= set(shared):
        shared = [column if column != "rank" else "_rank" for column in shared]
        left, table = (part.assign(_rank=part["rank"].where(~_dense(part["method"]), 0)) for part in (left, table))
        table = table.drop(columns="rank")
    known = [column for column in table.columns if column in left.columns and column not in shared]
    joined = left.drop(columns=known).merge(table, on=shared, how="left").set_index("key")
    joined = joined.drop(columns="_rank", errors="ignore")
    for column in known:  # an earlier comparison's, of runs that this table says nothing about
        joined[column] = joined[column].fillna(frame[column])
    new = [f"{path.stem}/{column}" for column in measures]
    stated = dict.fromkeys(new, family) | families(new) | frame.attrs["families"]
    joined.attrs = frame.attrs | {"families": stated, "joined": new}
    return joined


def _dense(methods: pd.Series) -> pd.Series:
    return methods.isin([key for key, method in METHODS.items() if method.trains == "weight"])


def candidates(frame: pd.DataFrame, *, min_runs: int = 3) -> list[str]:
    """Names of the columns that may predict: those whose family is stated, in the frame's order.

    Args:
        frame: from :func:`comparison_frame`.
        min_runs: columns known for fewer runs, or the same in all, are left out.
    """
    stated = frame.attrs["families"]
    names = [name for name in frame.columns if name in stated]
    return [name for name in names if frame[name].notna().sum() >= min_runs and _varies(frame[name])]


def _varies(column: pd.Series) -> bool:
    values = column.dropna().to_numpy(dtype=np.float64)
    return bool(len(values)) and not math.isclose(values.min(), values.max(), rel_tol=1e-9)
