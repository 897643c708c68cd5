"""The tasks that stand side by side in the report, and their rows in the paper's own tables.

A task appears as soon as its result file is there; nothing else names them one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.tasks import DATASETS
from theory.methods import METHODS

__all__ = [
    "LINKS",
    "PUBLISHED_MODEL",
    "RANK",
    "TASKS",
    "Task",
    "known_tasks",
    "means",
    "methods_table",
    "present_tasks",
]

PUBLISHED_MODEL = "DeBERTa v3 Base"
"""The smallest text model for which the paper prints both a score and G(W) on data sets that we ran."""

RANK = 16
"""The rank at which methods are compared; full fine-tuning has none."""

LINKS = 3
"""The length at which chains are compared."""

_NONE = "–"


@dataclass(frozen=True)
class Task:
    """One of our tasks.

    Attributes:
        key: the result file's name without its ending.
        title: what readers call it.
        score: the data set's name in the paper's table 2, if the paper has it.
        error: its name in the paper's table 3.
    """

    key: str
    title: str
    score: str | None = None
    error: str | None = None


TASKS = (
    Task("digits", "Digits"),
    Task("trec", "TREC-6"),
    Task("trec50", "TREC-50", score="TREC-50", error="TREC50"),
    Task("mrpc", "MRPC", score="MRPC", error="MRPC"),
)
"""Ours, in the order in which they are shown; other data sets of the registry come after them."""


def known_tasks() -> tuple[Task, ...]:
    """``TASKS`` in their order, then the other registered data sets."""
    ours = {task.key for task in TASKS}
    return (*TASKS, *(Task(name, dataset.title) for name, dataset in DATASETS.items() if name not in ours))


def present_tasks(results: dict[str, dict[str, Any]]) -> list[Task]:
    """The tasks whose result files are there."""
    return [task for task in known_tasks() if f"{task.key}/means" in results["tables"]]


def means(
    results: dict[str, dict[str, Any]], task: str, *, rank: int | None = None, links: int | None = LINKS
) -> pd.DataFrame:
    """Means over seeds of one task, with Student's interval.

    Args:
        results: as ``build.load_results`` returns them.
        task: the result file's name.
        rank: keep this rank, and full fine-tuning; all of them when left out.
        links: keep chains of this length; all of them when None.
    """
    table = results["tables"][f"{task}/means"]
    frame = pd.DataFrame(table["rows"], columns=table["columns"]).replace({"nan": float("nan")})
    chained = frame["method"].map(lambda key: METHODS[key].chained)
    if links is not None:
        frame = frame[~chained | (frame["links"] == links)]
    if rank is not None:
        frame = frame[frame["rank"].isna() | (frame["rank"] == rank)]
    return frame


def _printed(results: dict[str, dict[str, Any]], part: str) -> dict[str, dict[str, Any]]:
    table = results["tables"][f"published_agreement/{part}"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return {row["dataset"]: row for row in rows if row["model"] == PUBLISHED_MODEL}


def _interval(row: pd.Series, name: str, *, scale: float, digits: int) -> str:
    """A mean with its interval beneath it, ``93.5`` over ``[92.0, 95.0]``."""
    value, low, high = (scale * float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    shown = [f"{number:.{digits}f}".replace("-", "−") for number in (value, low, high)]
    shown = [text if text.strip("−0.") else text.removeprefix("−") for text in shown]
    return f"{shown[0]}\n[{shown[1]}, {shown[2]}]"


def methods_table(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every method on every task at rank sixteen, beside the rows that the paper printed.

    Args:
        results: as ``build.load_results`` returns them.

    Returns:
        A table of one row per method. Per task: accuracy in per cent and G(W) in nats, each with Student's 95 %
        interval over seeds. Then, as the paper printed them for another and larger model, its score and its G(W)
        on the same data sets; it printed neither seeds nor spread.
    """
    tasks = present_tasks(results)
    columns, rows = ["Method"], {key: [method.name] for key, method in METHODS.items()}
    for task in tasks:
        columns += [f"{task.title}\nacc. %", f"{task.title}\nG(W)"]
        frame = means(results, task.key, rank=RANK).set_index("method")
        for key, row in rows.items():
            known = key in frame.index
            row.append(_interval(frame.loc[key], "metric", scale=100, digits=1) if known else _NONE)
            row.append(_interval(frame.loc[key], "gap_cross_entropy", scale=1, digits=3) if known else _NONE)
    scores, errors = _printed(results, "performance"), _printed(results, "generalization_error")
    for task in tasks:
        for found, label in ((scores.get(task.score), "acc. %"), (errors.get(task.error), "G(W)")):
            if found is not None:
                columns.append(f"Paper, {task.title}\n{label}")
                for key, row in rows.items():
                    row.append(f"{found[key]:.4g}" if key in found else _NONE)
    return {"columns": columns, "rows": list(rows.values())}
