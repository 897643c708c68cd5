"""Measure a folder of finished runs: files of measures beside each ``record.json``, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from analysis.measures import code_length, geometry
from analysis.measures.checkpoints import choose_checkpoint
from analysis.measures.geometry import spectra_of_run
from analysis.records import atomic_write_json, config_key, read_json
from analysis.runs import LoadedRun, find_runs, load_run
from analysis.spectra import shared_bases

__all__ = ["KINDS", "measure_run", "measure_runs"]

KINDS = {"geometry": "measures.json", "best": "best.json", "code": "code.json"}
"""Kinds of measures, and the file of each beside a run's record."""

_BESIDE = ("_residual", "_error", "_step", "_low", "_high", "_edge", "_margin", "_doubtful")


def measure_run(
    folder: str | Path,
    *,
    data: str | None = None,
    model: str | None = None,
    examples: int | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    again: bool = False,
) -> dict[str, float] | None:
    """Measure one run, each kind of measure into a file of its own beside the record.

    ``geometry`` is taken at the last checkpoint; ``best`` are the intruders at the checkpoint of lowest held-out loss,
    the paper's choice (for geometry alone), where snapshots were kept; ``code`` is the length of the run's code, for
    which the training split is read once for each width of its quantiser.

    Args:
        folder: the run's folder.
        data: where the run's data is now; None takes where it was.
        model: where its base model is now; None takes where it was.
        examples: training examples of sharpness, and half as many of curvature; None takes the settings'.
        kinds: which of :data:`KINDS`.
        again: measure even if there are measures with the same settings.

    Returns:
        What was measured (residuals, errors, steps and what rounding leaves open are in the files alone), or None if
        nothing was to be measured.

    Raises:
        ValueError: if the run cannot be loaded (`analysis.runs.finetune.load_run`), a kind is unknown, or ``examples``
            is below 2.
    """
    _check(examples, kinds)
    sizes = {} if examples is None else {"examples": examples, "curvature_examples": examples // 2}
    shape = geometry.SETTINGS | sizes
    instruments: dict[str, tuple[Mapping[str, Any], Callable[[LoadedRun], dict[str, float]]]] = {
        "geometry": (shape, lambda run: geometry.geometry_of_run(run, cache=shared_bases(), settings=shape)),
        "best": (
            {name: shape[name] for name in ("version", "intruder_count", "intruder_epsilon")},
            lambda run: _best_intruders(run, data=data, model=model, settings=shape),
        ),
        "code": (code_length.SETTINGS, code_length.code_of_run),
    }
    run: LoadedRun | None = None
    everything: dict[str, float] = {}
    for kind in kinds:
        settings, instrument = instruments[kind]
        path = Path(folder) / KINDS[kind]
        key = config_key(settings)
        if not again and path.exists() and read_json(path).get("settings_key") == key:
            continue
        run = run or load_run(folder, data=data, model=model)
        if kind == "code" and run.task.kind in ("regression", "causal-lm"):
            continue  # a code's length is measured by the 0-1 loss, which these have not
        if kind == "best" and not run.checkpoints():
            continue
        found = instrument(run)
        errors = {label: found.pop(label) for label in list(found) if label.endswith(_BESIDE)}
        lists = {"settings": list(settings.items()), "uncertainties": list(errors.items())}
        atomic_write_json(path, {"settings_key": key, **lists, **found})
        everything |= found
    return everything or None


def _best_intruders(
    run: LoadedRun, *, data: str | None, model: str | None, settings: Mapping[str, Any]
) -> dict[str, float]:
    choice = choose_checkpoint(run.folder, data=data, model=model, last=run)
    found = spectra_of_run(choice.chosen["best"], cache=shared_bases(), settings=settings)
    kept = {name: found[name] for name in found if name.startswith(("intruders_authors", "intruders_paper"))}
    return kept | {"choice_margin": choice.margin, "choice_doubtful": float(choice.doubtful)}


def _check(examples: int | None, kinds: Sequence[str]) -> None:
    if examples is not None and examples < 2:
        raise ValueError(f"examples must be at least 2, got {examples}")
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"kinds must be some of {', '.join(KINDS)}, got {', '.join(kinds) or 'none'}")


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
    kinds: Sequence[str] = tuple(KINDS),
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
    options = {"data": data, "model": model, "examples": examples, "kinds": tuple(kinds), "again": again}
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
