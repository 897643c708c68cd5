"""Two statements of arXiv:2606.13767 about chains, tested on finished runs: sharper minima, more intruders.

Each chained method is compared with the method it chains, seed by seed, at the last checkpoint and at the one that
is best on the held-out examples (the paper's choice; used for geometry alone, never for measured generalization).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from theory.methods import METHODS

if TYPE_CHECKING:
    from analysis.finetune import LoadedRun

__all__ = [
    "digits_runs",
    "final_and_best",
    "intruder_curves",
    "intruder_frame",
    "sharpness_frame",
]


def digits_runs(
    methods: Sequence[str],
    *,
    seeds: int,
    epochs: float,
    folder: str | Path,
    rank: int = 4,
    links: int = 3,
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
    from analysis.finetune import RunConfig, run

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


def final_and_best(path: str | Path) -> dict[str, LoadedRun]:
    """Load a run at its last checkpoint and at the one of lowest held-out loss.

    The start, before any step, is no candidate.

    Returns:
        ``{"last": run, "best": run}``; the same object twice if the last is the best or no snapshots were kept.
    """
    from analysis.finetune import load_run

    last = load_run(path)
    trained = [snapshot.name for snapshot in last.checkpoints() if int(snapshot.name.removeprefix("step-")) > 0]
    candidates = [last, *(load_run(path, checkpoint=name) for name in trained)]
    losses = [_heldout_loss(candidate) for candidate in candidates]
    return {"last": last, "best": candidates[int(np.nanargmin(losses))]}


def _heldout_loss(run: LoadedRun) -> float:
    from analysis.objective import Objective

    return Objective(run.model, dict(run.task.collate(list(run.task.heldout))))()


def sharpness_frame(
    paths: Iterable[str | Path], *, examples: int = 100, relative_radius: float = 0.05, samples: int = 6
) -> pd.DataFrame:
    """Measure sharpness of runs in both spaces, at the last and the best checkpoint.

    Args:
        paths: runs' folders.
        examples: training examples of the fixed batch.
        relative_radius: radius over the norm of the space's centre (`analysis.sharpness`).
        samples: antithetic pairs of the mean rise.

    Returns:
        One row per run and checkpoint: method, seed, checkpoint, worst_adapter, mean_adapter, worst_merged,
        mean_merged (rises of the training loss, nats), loss. NaN where the space's centre is zero (a chain's link
        that has just begun), so that a radius relative to it has no meaning.
    """
    from analysis.geometry import adapted_weights, training_batch
    from analysis.sharpness import mean_rise, worst_rise
    from analysis.spaces import parameter_space

    rows = []
    for path in tqdm(list(paths), desc="sharpness", unit="run", leave=False, delay=2):
        known: dict[int, dict[str, float]] = {}
        for checkpoint, run in final_and_best(path).items():
            if id(run) not in known:
                batch, names = training_batch(run, examples=examples), adapted_weights(run.model, run.record)
                found: dict[str, float] = {}
                for space in ("adapter", "merged"):
                    options: dict[str, Any] = {"space": space, "names": names, "relative_radius": relative_radius}
                    if parameter_space(run.model, options["space"], names=names).norm == 0:  # a link that just began
                        found |= {f"worst_{space}": math.nan, f"mean_{space}": math.nan}
                        continue
                    worst = worst_rise(run.model, batch, ascent_steps=6, **options)
                    mean = mean_rise(run.model, batch, samples=samples, **options)
                    found |= {f"worst_{space}": worst.value, f"mean_{space}": mean.value, "loss": worst.center_loss}
                known[id(run)] = found
            rows.append({**_about(run), "checkpoint": checkpoint, **known[id(run)]})
    return pd.DataFrame(rows)


def _about(run: LoadedRun) -> dict[str, Any]:
    return {key: run.record["config"][key] for key in ("method", "seed")}


def intruder_frame(paths: Iterable[str | Path], *, epsilon: float = 0.5, count: int = 10) -> pd.DataFrame:
    """Count intruders of runs by both conventions, at the last and the best checkpoint.

    Args:
        paths: runs' folders.
        epsilon: threshold.
        count: leading vectors of the authors' convention.

    Returns:
        One row per run and checkpoint: method, seed, checkpoint, authors, paper (sums over matrices),
        effective_rank and stable_rank of dW (means over matrices).
    """
    from analysis.geometry import run_updates
    from analysis.intruders import BasisCache
    from analysis.spectra import (  # fmt: skip
        effective_rank,
        intruder_dimensions,
        intruder_total,
        product_singular_values,
        singular_values,
        stable_rank,
    )

    cache, rows = BasisCache(in_memory=256), []
    for path in tqdm(list(paths), desc="intruders", unit="run", leave=False, delay=2):
        for checkpoint, run in final_and_best(path).items():
            updates = run_updates(run)
            authors = intruder_dimensions(updates, convention="authors", count=count, cache=cache)
            everything = intruder_dimensions(updates, convention="paper", cache=cache)
            values = [
                singular_values(layer.update)
                if layer.left is None or layer.right is None
                else product_singular_values(layer.left, layer.right)
                for layer in updates
            ]
            rows.append(
                {
                    **_about(run),
                    "checkpoint": checkpoint,
                    "authors": intruder_total(authors, epsilon=epsilon),
                    "paper": intruder_total(everything, epsilon=epsilon),
                    "effective_rank": float(np.mean([effective_rank(item) for item in values])),
                    "stable_rank": float(np.mean([stable_rank(item) for item in values])),
                }
            )
    return pd.DataFrame(rows)


def intruder_curves(
    paths: Iterable[str | Path], epsilons: np.ndarray, *, convention: Any = "paper"
) -> dict[str, pd.DataFrame]:
    """Count intruders against epsilon at the last checkpoint, averaged over seeds with their range.

    Returns:
        Method -> frame with columns epsilon, intruders (mean), low, high (least and most over seeds).
    """
    from analysis.finetune import load_run
    from analysis.geometry import run_updates
    from analysis.intruders import BasisCache
    from analysis.spectra import intruder_counts, intruder_dimensions

    cache = BasisCache(in_memory=256)
    found: dict[str, list[np.ndarray]] = {}
    for path in tqdm(list(paths), desc="intruders", unit="run", leave=False, delay=2):
        run = load_run(path)
        vectors = intruder_dimensions(run_updates(run), convention=convention, cache=cache)
        found.setdefault(run.record["config"]["method"], []).append(
            intruder_counts(vectors, epsilons)["intruders"].to_numpy()
        )
    return {
        method: pd.DataFrame(
            {
                "epsilon": epsilons,
                "intruders": np.mean(counts, axis=0),
                "low": np.min(counts, axis=0),
                "high": np.max(counts, axis=0),
            }
        )
        for method, counts in found.items()
    }
