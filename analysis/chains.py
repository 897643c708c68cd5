"""Two statements of arXiv:2606.13767 about chains, tested on finished runs: sharper minima, more intruders.

Each chained method is compared with the method it chains, seed by seed, at the last checkpoint and at the one that
is best on the held-out examples (the paper's choice; used for geometry alone, never for measured generalization).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from analysis.store import read_json
from theory.methods import METHODS

if TYPE_CHECKING:
    from analysis.finetune import LoadedRun
    from analysis.weights_io import LayerUpdate

__all__ = [
    "EPSILONS",
    "CheckpointChoice",
    "choose_checkpoint",
    "chain_frames",
    "chain_runs",
    "digits_runs",
    "intruder_curves",
    "intruder_frame",
    "intruder_measures",
    "sharpness_frame",
]

EPSILONS = np.linspace(0.02, 1.0, 50)
"""Thresholds of the curves of intruders."""

Chosen = dict[str, "LoadedRun"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckpointChoice:
    """The checkpoint of lowest held-out loss, and how clear that choice is.

    Attributes:
        chosen: ``{"last": run, "best": run}``; the same object twice where the last is the best.
        margin: second lowest held-out loss minus the lowest, in nats (squared units for regression); inf if there was
            one candidate.
        doubtful: whether rounding in a forward pass of these very weights can reverse the two. Training anew rounds in
            every step and amplifies it: that is another run, which this does not speak of.
    """

    chosen: Chosen
    margin: float
    doubtful: bool


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


def chain_runs(folder: str | Path, *, rank: int | None = None, links: int = 3) -> list[Path]:
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
    for path in sorted(Path(folder).rglob("record.json")):
        record = read_json(path) if (path.parent / "adapter").is_dir() else {}
        if record.get("status") == "done":
            config = record["config"]
            method = METHODS[config["method"]]
            if not method.chained or config["links"] == links:
                found.append((config["task"], list(METHODS).index(method.key), config["seed"], config["rank"], path))
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
            twice = f"{before[4].parent.name} and {after[4].parent.name}"
            raise ValueError(f"runs {twice} are of one method and seed; keep one configuration in a folder")
    return [item[4].parent for item in kept]


def choose_checkpoint(
    path: str | Path, *, data: str | None = None, model: str | None = None, last: LoadedRun | None = None
) -> CheckpointChoice:
    """Compare a run's checkpoints by held-out loss, in float64, so that rounding cannot reverse close ones.

    The start, before any step, is no candidate. A loss that is not finite never wins over one that is.

    Args:
        path: the run's folder.
        data: where the run's data is now; None takes where it was.
        model: where its base model is now; None takes where it was.
        last: the run at its last checkpoint, where it is loaded already.

    Returns:
        The runs, the margin of the choice, and whether rounding leaves it open.
    """
    from analysis.finetune import load_run
    from analysis.rounding import lowest

    last = best = last or load_run(path, data=data, model=model)
    others = [int(snapshot.name.removeprefix("step-")) for snapshot in last.checkpoints()]
    # neither the start, nor what the run itself ended with
    others = [step for step in others if step not in (0, last.record["selection"]["step"])]
    if not others:
        return CheckpointChoice(chosen={"last": last, "best": last}, margin=math.inf, doubtful=False)
    losses = [_heldout_loss(last)]
    for step in others:
        run = load_run(path, data=data, model=model, checkpoint=f"step-{step:06d}")
        loss = _heldout_loss(run)
        if loss[0] < min((value for value, _ in losses if not math.isnan(value)), default=math.inf):
            best = run
        losses.append(loss)
    margin, doubtful = lowest(*zip(*losses, strict=True))
    return CheckpointChoice(chosen={"last": last, "best": best}, margin=margin, doubtful=doubtful)


def _heldout_loss(run: LoadedRun) -> tuple[float, float]:
    """Return a run's mean held-out loss, computed in float64, and how far rounding can move it."""
    from analysis.evaluation import evaluate
    from analysis.rounding import forward_error, mean_error

    wide = copy.deepcopy(run.model).to(torch.float64)
    outputs = evaluate(wide, run.task, run.task.heldout)
    off = forward_error(wide, outputs.largest_logit)
    error = mean_error(outputs.losses, off, squared=run.task.kind == "regression")
    return float(np.average(outputs.losses, weights=outputs.weights)), error


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
    from joblib import Parallel, delayed

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
    from analysis.geometry import adapted_weights, training_batch
    from analysis.sharpness import mean_rise, worst_rise
    from analysis.spaces import parameter_space

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
    from analysis.geometry import run_updates

    return intruder_measures(run_updates(run), epsilon=epsilon, count=count)


def intruder_measures(updates: Sequence[LayerUpdate], *, epsilon: float = 0.5, count: int = 10) -> dict[str, Any]:
    """Count intruders by both conventions, and say how many directions an update uses.

    Args:
        updates: of every adapted matrix, from `analysis.weights_io`.
        epsilon: threshold.
        count: leading vectors of the authors' convention.

    Returns:
        authors, paper (sums over matrices), each with _low and _high (what rounding leaves open), effective_rank and
        stable_rank of dW (means over matrices), authors_per_direction and paper_per_direction (the sums over the
        effective rank: a chain has more directions to put intruders in), and curve: the paper's count at each of
        `EPSILONS`, with curve_low and curve_high.
    """
    from analysis.intruders import shared_bases
    from analysis.spectra import (
        effective_rank,
        intruder_counts,
        intruder_dimensions,
        stable_rank,
        update_spectrum,
    )

    cache = shared_bases()
    authors = intruder_dimensions(updates, convention="authors", count=count, cache=cache)
    everything = intruder_dimensions(updates, convention="paper", cache=cache)
    values = [update_spectrum(layer) for layer in updates]
    at_epsilon = {
        name: intruder_counts(vectors, [epsilon]).iloc[0]
        for name, vectors in (("authors", authors), ("paper", everything))
    }
    counts = {name: int(row["intruders"]) for name, row in at_epsilon.items()}
    ends = {
        f"{name}_{end}": int(row[f"intruders_{end}"]) for name, row in at_epsilon.items() for end in ("low", "high")
    }
    curve = intruder_counts(everything, EPSILONS)
    rank = float(np.mean([effective_rank(item) for item in values]))
    return {
        **counts,
        **ends,
        **{f"{name}_per_direction": count / rank for name, count in counts.items()},
        "effective_rank": rank,
        "stable_rank": float(np.mean([stable_rank(item) for item in values])),
        "curve": curve["intruders"].tolist(),
        "curve_low": curve["intruders_low"].tolist(),
        "curve_high": curve["intruders_high"].tolist(),
    }


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
