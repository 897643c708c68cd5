"""Two statements of arXiv:2606.13767 about chains, tested on finished runs: sharper minima, more intruders.

Each chained method is compared with the method it chains, seed by seed, at the last checkpoint and at the one that
is best on the held-out examples (the paper's choice; used for geometry alone, never for measured generalization).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from analysis.geometry import mean_rise, parameter_space, worst_rise
from analysis.measures import (
    EPSILONS,
    adapted_weights,
    choose_checkpoint,
    intruder_measures,
    run_updates,
    training_batch,
)
from analysis.records import frame_of, read_json
from analysis.runs import LoadedRun, RunConfig, find_runs, run
from theory.defaults import NUM_LINKS
from theory.methods import METHODS

__all__ = [
    "SPECTRA",
    "chain_frames",
    "chain_runs",
    "committed_claim",
    "digits_runs",
    "intruder_curves",
    "intruder_frame",
    "sharpness_frame",
]


SPECTRA = ("authors", "paper", "authors_per_direction", "paper_per_direction", "effective_rank", "stable_rank")
"""What chains and the methods that they chain are compared by."""


def digits_runs(
    methods: Sequence[str],
    *,
    seeds: int,
    epochs: float,
    folder: str | Path,
    rank: int = 4,
    links: int = NUM_LINKS,
    checkpoints: int = 4,
) -> list[Path]:
    """Fine-tune methods on the bundled digits, or find the runs that are there.

    Args:
        methods: keys of ``theory.methods.METHODS``.
        seeds: seeds 0 to seeds - 1.
        epochs: passes over the 200 training images.
        folder: where runs are kept.
        rank: of one link.
        links: of chained methods.
        checkpoints: snapshots kept of each run.

    Returns:
        The runs' folders, method by method.

    Raises:
        RunFailure: if a run fails.
        ValueError: for an unknown method or sizes outside their range.
    """
    paths = []
    for method, seed in tqdm(list(itertools.product(methods, range(seeds))), desc="runs", leave=False, delay=2):
        config = RunConfig(
            method=method,
            rank=rank,
            links=links if METHODS[method].chained else 1,
            seed=seed,
            epochs=epochs,
            save_adapter=True,
            save_checkpoints=checkpoints,
        )
        record = run(config, folder=folder)
        paths.append(Path(folder) / record["key"])
    return paths


def chain_runs(folder: str | Path, *, rank: int | None = None, links: int = NUM_LINKS) -> list[Path]:
    """Choose the runs of one task that can be compared: one rank, one length of chains, one run a method and seed.

    Args:
        folder: finished runs that kept their weights; others are passed over.
        rank: of one link; None where the folder holds one rank only. Full fine-tuning has none and always counts.
        links: of chained methods.

    Returns:
        The runs' folders, in the order of the registry and of the seeds.

    Raises:
        ValueError: if there is none, or what is left holds several tasks, several ranks, or a method's seed twice.
    """
    found = []
    for known in find_runs(folder):
        config = known.record["config"]
        method = METHODS[config["method"]]
        if known.has_weights and (not method.chained or config["links"] == links):
            place = list(METHODS).index(method.key)
            found.append((config["task"], place, config["seed"], config["rank"], known.folder))
    if not found:
        raise ValueError(f"no run with weights (--save-adapter) and {links} links under {str(folder)!r}")
    ranks = sorted({item[3] for item in found if item[3] is not None})
    if rank is None and len(ranks) > 1:
        raise ValueError(f"{str(folder)!r} holds ranks {', '.join(map(str, ranks))}; choose one")
    if rank is not None and rank not in ranks:
        raise ValueError(f"{str(folder)!r} holds no run of rank {rank}; it has {', '.join(map(str, ranks)) or 'none'}")
    kept = sorted(item for item in found if item[3] in (None, rank if rank is not None else ranks[0]))
    if len({item[0] for item in kept}) > 1:
        raise ValueError(f"{str(folder)!r} holds several tasks ({', '.join(sorted({i[0] for i in kept}))}); give one")
    for before, after in itertools.pairwise(kept):
        if before[:3] == after[:3]:
            twice = f"{before[4].name} and {after[4].name}"
            raise ValueError(f"runs {twice} are of one method and seed; keep one configuration in a folder")
    return [item[4] for item in kept]


def sharpness_frame(
    paths: Iterable[str | Path], *, examples: int = 100, relative_radius: float = 0.05, samples: int = 6
) -> pd.DataFrame:
    """Measure sharpness of runs in both spaces, at the last and the best checkpoint.

    Args:
        paths: runs' folders.
        examples: training examples of the fixed batch.
        relative_radius: radius over the norm of the space's centre (`analysis.geometry.sharpness`).
        samples: antithetic pairs of the mean rise.

    Returns:
        One row per run and checkpoint: method, seed, checkpoint, weights (where they were read), choice_margin and
        choice_doubtful (of the best checkpoint, see `CheckpointChoice`), worst_adapter, mean_adapter, worst_merged,
        mean_merged (rises of the training loss, nats), loss. NaN where the space's centre is zero (a chain's link that
        has just begun), so that a radius relative to it has no meaning.
    """
    measure = partial(_sharpness, examples=examples, relative_radius=relative_radius, samples=samples)
    return _frames(paths, [measure], n_jobs=1)[0]


def intruder_frame(paths: Iterable[str | Path], *, epsilon: float = 0.5, count: int = 10) -> pd.DataFrame:
    """Count intruders of runs by both conventions, at the last and the best checkpoint.

    Args:
        paths: runs' folders.
        epsilon: threshold.
        count: leading vectors of the authors' convention.

    Returns:
        One row per run and checkpoint: method, seed, checkpoint, weights (where they were read), choice_margin and
        choice_doubtful (see `CheckpointChoice`), and what `intruder_measures` finds.
    """
    return _frames(paths, [partial(_intruders, epsilon=epsilon, count=count)], n_jobs=1)[0]


def chain_frames(
    paths: Iterable[str | Path], *, examples: int = 100, n_jobs: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `sharpness_frame` and `intruder_frame` of the same runs, each run's checkpoints loaded once.

    Args:
        paths: runs' folders.
        examples: training examples of the fixed batch.
        n_jobs: processes that share the runs.
    """
    sharpness = partial(_sharpness, examples=examples, relative_radius=0.05, samples=6)
    found = _frames(paths, [sharpness, partial(_intruders, epsilon=0.5, count=10)], n_jobs=n_jobs)
    return found[0], found[1]


def _frames(
    paths: Iterable[str | Path], measures: Sequence[Callable[[LoadedRun], dict[str, Any]]], *, n_jobs: int
) -> list[pd.DataFrame]:
    paths = list(paths)
    work = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(_measured)(path, measures) for path in paths)
    rows = list(tqdm(work, desc="runs", total=len(paths), leave=False, delay=2))
    return [pd.DataFrame([row for run in rows for row in run[place]]) for place in range(len(measures))]


def _measured(
    path: str | Path, measures: Sequence[Callable[[LoadedRun], dict[str, Any]]]
) -> list[list[dict[str, Any]]]:
    choice = choose_checkpoint(path)
    certainty = {"choice_margin": choice.margin, "choice_doubtful": choice.doubtful}
    found: list[list[dict[str, Any]]] = []
    for measure in measures:
        known = {id(run): measure(run) for run in choice.chosen.values()}
        found.append(
            [
                {**_about(run), "checkpoint": label, **certainty, **known[id(run)]}
                for label, run in choice.chosen.items()
            ]
        )
    return found


def _about(run: LoadedRun) -> dict[str, Any]:
    return {**{key: run.record["config"][key] for key in ("method", "seed")}, "weights": run.weights.name}


def _sharpness(run: LoadedRun, *, examples: int, relative_radius: float, samples: int) -> dict[str, Any]:
    batch, names = training_batch(run, examples=examples), adapted_weights(run.model, run.record)
    found: dict[str, Any] = {}
    for space in ("adapter", "merged"):
        options: dict[str, Any] = {"space": space, "names": names, "relative_radius": relative_radius}
        if parameter_space(run.model, options["space"], names=names).norm == 0:  # a link that just began
            found |= {f"worst_{space}": math.nan, f"mean_{space}": math.nan}
            continue
        worst = worst_rise(run.model, batch, ascent_steps=6, **options)
        mean = mean_rise(run.model, batch, samples=samples, **options)
        found |= {f"worst_{space}": worst.value, f"mean_{space}": mean.value, "loss": worst.center_loss}
    return found


def _intruders(run: LoadedRun, *, epsilon: float, count: int) -> dict[str, Any]:
    return intruder_measures(run_updates(run), epsilon=epsilon, count=count)


def intruder_curves(counts: pd.DataFrame, *, checkpoint: str = "last") -> dict[str, pd.DataFrame]:
    """Average the intruders against epsilon over seeds.

    Args:
        counts: from `intruder_frame`.
        checkpoint: ``"last"`` or ``"best"``.

    Returns:
        Method -> frame with columns epsilon, intruders (mean), low, high (least and most over seeds), rounded_low,
        rounded_high (the means that rounding leaves open).
    """
    found = {}
    for method, part in counts[counts["checkpoint"] == checkpoint].groupby("method", sort=False):
        curves = np.array(part["curve"].tolist())
        columns = {"intruders": curves.mean(axis=0), "low": curves.min(axis=0), "high": curves.max(axis=0)}
        for end in ("low", "high"):
            columns[f"rounded_{end}"] = np.array(part[f"curve_{end}"].tolist()).mean(axis=0)
        found[str(method)] = pd.DataFrame({"epsilon": EPSILONS, **columns})
    return found


def committed_claim(path: str | Path, *, task: str) -> pd.DataFrame:
    """Return one task's rows of the ``claim`` table of a committed result file.

    Args:
        path: written by ``python -m analysis chains``.
        task: such as ``"trec"``.

    Raises:
        ValueError: if the file is missing or corrupt, or has no row of the task.
    """
    claim = frame_of(read_json(path)["tables"]["claim"])
    rows = claim[claim["task"] == task]
    if rows.empty:
        raise ValueError(f"{Path(path).name} has no task {task!r}; it has {', '.join(claim['task'].unique())}")
    return rows.drop(columns="task").reset_index(drop=True)
