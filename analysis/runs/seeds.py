"""One configuration over several seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import RunFailure, claim, replacing
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
        again: whether a run that is recorded is made again, in a hidden folder ``.again``; the old one stays until the
            new one is finished, and for good if that fails.
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
        made = Path(folder) / ".again" if again and place.exists() else Path(folder)
        record, failure = None, None
        try:
            record = run(
                config,
                folder=made,
                progress=progress and is_first_process(),
                report_to=report_to,
                announce=announce,
            )
        except RunFailure as error:
            failure = error
        if record is not None and made != Path(folder) and is_first_process():
            _take_the_place(made / config.key(), place)
        yield SeedRun(seed=seed, folder=place, record=record, failure=failure, known=known)


def _take_the_place(new: Path, old: Path) -> None:
    """Put a finished run where an earlier one is; a process that is computing the earlier one keeps it."""
    with claim(old) as mine:
        if not mine:
            raise ValueError(f"run {old.name} is being computed by another process; the new one is in {str(new)!r}")
        with replacing(old) as place:
            new.replace(place)
    with contextlib.suppress(OSError):  # other seeds' new runs may be there yet
        new.parent.rmdir()
