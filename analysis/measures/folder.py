"""Measure a folder of finished runs: files of measures beside each ``record.json``, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from analysis.measures.measure import Instrument
from analysis.measures.registry import MEASURES, instruments
from analysis.records import atomic_write_json, config_key, read_json
from analysis.runs import LoadedRun, find_runs, load_run
from theory.registry import resolve

__all__ = ["measure_run", "measure_runs"]


def measure_run(
    folder: str | Path,
    *,
    data: str | None = None,
    model: str | None = None,
    examples: int | None = None,
    kinds: Sequence[str] | None = None,
    again: bool = False,
) -> dict[str, float] | None:
    """Measure one run, each instrument into a file of its own beside the record.

    ``geometry`` is taken at the last checkpoint; ``best`` are the intruders at the checkpoint of lowest held-out loss,
    the paper's choice (for geometry alone), where snapshots were kept; ``code`` is the length of the run's code, for
    which the training split is read once for each width of its quantiser.

    Args:
        folder: the run's folder.
        data: where the run's data is now; None takes where it was.
        model: where its base model is now; None takes where it was.
        examples: training examples of sharpness, and half as many of curvature; None takes the settings'.
        kinds: names of instruments (`analysis.measures.instruments`); None takes all.
        again: measure even if there are measures with the same settings.

    Returns:
        What was measured (residuals, errors, steps and what rounding leaves open are in the files alone), or None if
        nothing was to be measured.

    Raises:
        ValueError: if the run cannot be loaded (`analysis.runs.finetune.load_run`), a kind is unknown, or ``examples``
            is below 2.
    """
    chosen = _check(examples, kinds)
    sizes = {} if examples is None else {"examples": examples, "curvature_examples": examples // 2}
    run: LoadedRun | None = None
    everything: dict[str, float] = {}
    for instrument in chosen:
        settings = {name: sizes.get(name, value) for name, value in instrument.settings.items()}
        path = Path(folder) / instrument.file
        key = config_key(settings)
        if not again and path.exists() and read_json(path).get("settings_key") == key:
            continue
        run = run or load_run(folder, data=data, model=model)
        taken = resolve(instrument.take)(run, settings)  # type: ignore[operator]
        if taken is None:
            continue
        found = {label: value for label, value in taken.items() if f"{instrument.place}/{label}" in MEASURES}
        beside = {label: value for label, value in taken.items() if label not in found}
        lists = {"settings": list(settings.items()), "uncertainties": list(beside.items())}
        atomic_write_json(path, {"settings_key": key, **lists, **found})
        everything |= found
    return everything or None


def _check(examples: int | None, kinds: Sequence[str] | None) -> list[Instrument]:
    if examples is not None and examples < 2:
        raise ValueError(f"examples must be at least 2, got {examples}")
    known = instruments()
    kinds = tuple(known) if kinds is None else kinds
    if not kinds or set(kinds) - set(known):
        raise ValueError(f"kinds must be some of {', '.join(known)}, got {', '.join(kinds) or 'none'}")
    return [known[kind] for kind in kinds]


def _attempt(folder: Path, options: Mapping[str, Any]) -> tuple[str, str]:
    torch.set_num_threads(1)
    try:
        found = measure_run(folder, **options)
    except ValueError as error:
        return "failed", f"{folder.name}: {error}"
    return ("skipped", "") if found is None else ("measured", "")


def measure_runs(
    folder: str | Path,
    *,
    jobs: int = 1,
    data: str | None = None,
    model: str | None = None,
    examples: int | None = None,
    kinds: Sequence[str] | None = None,
    again: bool = False,
) -> dict[str, int]:
    """Measure every finished run under a folder that kept its weights.

    Args:
        folder: holds ``KEY/record.json``, at any depth.
        jobs: processes; None takes the active ``joblib.parallel_config`` (a Dask or Ray cluster).
        data: as in `measure_run`.
        model: as in `measure_run`.
        examples: as in `measure_run`.
        kinds: as in `measure_run`.
        again: as in `measure_run`.

    Returns:
        ``{"measured", "skipped", "without weights", "failed"}``: counts of runs. Each failure is printed in one line.

    Raises:
        ValueError: if there is no finished run, ``jobs`` is 0, a kind is unknown, or ``examples`` is below 2.
    """
    _check(examples, kinds)
    if jobs == 0:
        raise ValueError("jobs must be at least 1, or -1 for every core, got 0")
    done = find_runs(folder)
    ready = [run.folder for run in done if run.has_weights]
    summary = {"measured": 0, "skipped": 0, "without weights": len(done) - len(ready), "failed": 0}
    options = {
        "data": data,
        "model": model,
        "examples": examples,
        "kinds": kinds,
        "again": again,
    }
    outcomes = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(_attempt)(path, options) for path in ready
    )
    with tqdm(total=len(ready), desc="measure", unit="run") as bar:
        for outcome, line in outcomes:
            summary[outcome] += 1
            if line:
                bar.write(line)
            bar.update()
    return summary
