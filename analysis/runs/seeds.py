"""One configuration over several seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import RunFailure
from analysis.runs.config import RunConfig
from analysis.runs.finetune import is_first_process, run
from analysis.tasks import DataReport, load_task

__all__ = ["SeedRun", "data_report", "run_seeds"]


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """What became of one seed.

    Attributes:
        seed: which.
        folder: of the run.
        record: its record; None if it failed.
        failure: what failed; None if it did not.
        known: whether it was recorded before.
    """

    seed: int
    folder: Path
    record: dict[str, Any] | None
    failure: RunFailure | None
    known: bool


def data_report(values: Mapping[str, Any], *, seed: int) -> DataReport:
    """Read, draw and encode the data of a configuration as one of its runs will, and report what became of it.

    Raises:
        ValueError: as :func:`analysis.tasks.load_task`; where the options are strict, for each warning of the report.
    """
    config = RunConfig.from_mapping({**values, "seed": seed}).resolve()
    task = load_task(config.task, data=config.data, model=config.model, seed=config.seed, options=config.options)
    return task.report


def run_seeds(
    values: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    folder: str | Path,
    again: bool = False,
    progress: bool = False,
    report_to: str = "none",
    announce: Callable[[str], None] | None = None,
) -> Iterator[SeedRun]:
    """Train one configuration seed by seed; a seed that fails does not stop the others.

    Args:
        values: of a :class:`RunConfig`, but its seed.
        seeds: which.
        folder: where runs are kept.
        again: whether a run that is recorded is made again.
        progress: whether the first process shows the Trainer's progress bar.
        report_to: "none", "tensorboard" or "wandb".
        announce: told before each training what it will take, as one line.

    Raises:
        ValueError: as :func:`analysis.runs.finetune.run`.
    """
    for seed in seeds:
        config = RunConfig.from_mapping({**values, "seed": seed})
        place = Path(folder) / config.key()
        known = (place / "record.json").exists() and not again
        if again and is_first_process():
            shutil.rmtree(place, ignore_errors=True)
        record, failure = None, None
        try:
            record = run(
                config,
                folder=folder,
                progress=progress and is_first_process(),
                report_to=report_to,
                announce=announce,
            )
        except RunFailure as error:
            failure = error
        yield SeedRun(seed=seed, folder=place, record=record, failure=failure, known=known)
