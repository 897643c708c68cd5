"""Planes and straight lines of the loss around finished runs, titled by method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.geometry import Evaluation, Landscape, SpaceName, interpolate, parameter_space, plane
from analysis.measures import adapted_weights, checkpoint_states, training_batch
from analysis.records import read_json
from analysis.runs import LoadedRun, load_run
from theory.methods import METHODS

__all__ = ["first_seeds", "interpolations", "measured_planes", "planes", "run_plane"]


def first_seeds(paths: Iterable[str | Path]) -> list[Path]:
    """Keep the first of each method's runs."""
    kept: dict[str, Path] = {}
    for path in paths:
        kept.setdefault(read_json(Path(path) / "record.json")["config"]["method"], Path(path))
    return list(kept.values())


def run_plane(run: LoadedRun, *, space: SpaceName = "merged", examples: int = 50, **options: Any) -> Landscape:
    """Measure one plane around a run, titled by its method.

    Args:
        run: a finished run.
        space: as in `analysis.geometry.landscape.plane`.
        examples: training examples of the fixed batch.
        **options: passed on to `analysis.geometry.landscape.plane`; ``directions="pca"`` finds the run's checkpoints.

    Raises:
        ValueError: as in `analysis.geometry.landscape.plane`, and if ``directions="pca"`` and the run kept no
            checkpoints.
    """
    return plane(
        run.model,
        training_batch(run, examples=examples),
        space=space,
        names=None if space == "full" else adapted_weights(run.model, run.record),
        checkpoints=checkpoint_states(run, space=space) if options.get("directions") == "pca" else None,
        title=run.title,
        **options,
    )


def measured_planes(
    paths: Iterable[str | Path | LoadedRun],
    *,
    steps: int | tuple[int, int] = 15,
    evaluation: Evaluation | None = None,
    data: str | None = None,
    model: str | None = None,
    **options: Any,
) -> Iterator[tuple[dict[str, Any], Landscape]]:
    """Measure one plane per run on the same seed's directions; each is handed on, after the run's record, once there.

    Args:
        paths: runs' folders, their records, or runs and models that are loaded.
        steps: points per axis, or along x and y.
        evaluation: how the losses are evaluated; by default as `plane` does, without a bar of each plane's points.
        data: where the runs' data is now; None is where it was.
        model: where the base model is now.
        **options: as in :func:`run_plane`.

    Raises:
        ValueError: as in :func:`run_plane`; the message names the run.
    """
    how = Evaluation(progress=False) if evaluation is None else evaluation
    for path in tqdm(paths, desc="planes", leave=False, delay=2):
        try:
            run = path if isinstance(path, LoadedRun) else load_run(path, data=data, model=model)
            surface = run_plane(run, steps=steps, evaluation=how, **options)
        except ValueError as error:
            where = path.folder if isinstance(path, LoadedRun) else path
            raise ValueError(f"run {str(where)!r}: {error}") from None
        yield run.record, surface


def planes(paths: Iterable[str | Path], **options: Any) -> list[Landscape]:
    """Return the planes of :func:`measured_planes`, which takes the same arguments."""
    return [surface for _, surface in measured_planes(paths, **options)]


def interpolations(methods: Sequence[str], paths: Iterable[str | Path], *, examples: int = 60) -> list[Landscape]:
    """Measure the loss between the first two seeds of each method, on the straight line in merged space.

    Each seed trained its own head on its own split; the first seed's head and batch are used all along the line,
    so the far end need not be low.

    Args:
        methods: which of the runs' methods.
        paths: runs' folders.
        examples: training examples of the fixed batch.

    Raises:
        ValueError: if a method has fewer than two runs.
    """
    runs = [load_run(path) for path in paths]
    found = []
    for method in methods:
        pair = [run for run in runs if run.record["config"]["method"] == method][:2]
        if len(pair) < 2:
            raise ValueError(f"interpolation needs two runs of {method!r}, got {len(pair)}")
        ends = [parameter_space(r.model, "merged", names=adapted_weights(r.model, r.record)).center for r in pair]
        batch, title = training_batch(pair[0], examples=examples), METHODS[method].name
        options: dict[str, Any] = {
            "space": "merged",
            "steps": 21,
            "title": title,
            "evaluation": Evaluation(progress=False),
        }
        found.append(interpolate(pair[0].model, batch, start=ends[0], end=ends[1], **options))
    return found
