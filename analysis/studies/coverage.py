"""Do the intervals cover? Simulated worlds whose truth is known, at every size that the report uses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from analysis.records import provenance, table_of, write_result
from analysis.runs import measured_gap
from analysis.statistics import across_seeds, bootstrap_means, interval

__all__ = ["cluster_coverage", "gap_coverage", "seed_coverage", "write_coverage"]

SIZES = (100, 500, 696, 1000)
"""Held-out examples: the smallest that the documentation shows, TREC's, the digits', MRPC's."""
SEEDS = (2, 3, 5)
LARGEST = math.log(50)
"""Where the digits' cross-entropy is clipped, in nats."""

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def _errors(share: float) -> Draw:
    return lambda rng, count: (rng.random(count) < share).astype(np.float64)


def _rare(share: float) -> Draw:
    """Small losses, and a share of confident mistakes."""

    def draw(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        large = rng.random(count) < share
        return np.where(large, rng.uniform(LARGEST / 2, LARGEST, count), np.minimum(rng.exponential(0.01, count), 1.0))

    return draw


def _skewed(mean: float, spread: float) -> Draw:
    return lambda rng, count: np.minimum(np.exp(rng.normal(mean, spread, count)), LARGEST)


WORLDS: dict[str, dict[str, Draw]] = {
    "zero_one": {f"error {share:g}": _errors(share) for share in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3)},
    "cross_entropy": {
        **{f"{share:g} confident mistakes": _rare(share) for share in (0.002, 0.01, 0.05, 0.2)},
        "log-normal, spread 2": _skewed(-4.0, 2.0),
        "log-normal, spread 3": _skewed(-7.0, 3.0),
        "exponential, mean 0.3": lambda rng, count: np.minimum(rng.exponential(0.3, count), LARGEST),
    },
}


def _truth(draw: Draw) -> float:
    """Return a world's expectation, by two million draws: its error is a fiftieth of an interval's width or less."""
    return float(draw(np.random.default_rng([7]), 2_000_000).mean())


def gap_coverage(*, trials: int, replicates: int, seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """Measure how often a run's interval holds the true gap, beside a percentile bootstrap's.

    Args:
        trials: simulated runs per world and size.
        replicates: draws behind each interval.
        seed: of everything random.
        progress: whether to show a bar.

    Returns:
        One row per loss, world and size: coverage and mean width of the interval, and of the bootstrap's.
    """
    cells = [(loss, world, size) for loss, worlds in WORLDS.items() for world in worlds for size in SIZES]
    rows = []
    for number, (loss, world, size) in enumerate(tqdm(cells, disable=not progress)):
        draw, rng = WORLDS[loss][world], np.random.default_rng([seed, number])
        truth, largest = _truth(draw), 1.0 if loss == "zero_one" else LARGEST
        found = np.empty((trials, 4))
        for trial in range(trials):
            heldout = draw(rng, size)
            gap = measured_gap([0.0], heldout, loss_range=largest, replicates=replicates, seed=trial)
            low, high = interval(bootstrap_means(heldout, replicates=replicates, seed=rng))
            found[trial] = (
                gap.signed_low <= truth <= gap.signed_high, gap.signed_high - gap.signed_low,
                low <= truth <= high, high - low,
            )  # fmt: skip
        names = ("coverage", "width", "bootstrap_coverage", "bootstrap_width")
        rows.append({"loss": loss, "world": world, "size": size, **dict(zip(names, found.mean(0), strict=True))})
    return pd.DataFrame(rows)


def cluster_coverage(*, trials: int, replicates: int, seed: int = 0) -> pd.DataFrame:
    """Measure coverage where held-out examples share a text, reckoned by cluster and as if they were independent.

    Args:
        trials: simulated runs per case.
        replicates: draws behind each interval.
        seed: of everything random.

    Returns:
        One row per number of clusters and largest cluster: coverage and width by cluster, coverage by example.
    """
    rows = []
    for clusters, most in ((50, 4), (50, 15), (200, 15), (630, 15)):
        rng, truth = np.random.default_rng([seed, clusters, most]), 0.25
        found = np.empty((trials, 3))
        for trial in range(trials):
            labels = np.repeat(np.arange(clusters), rng.integers(1, most + 1, clusters))
            # A cluster's level and an example's share of it: expectation 0.25 whatever the sizes.
            losses = rng.beta(0.5, 1.5, clusters)[labels] * rng.uniform(0.9, 1.1, len(labels))
            losses = np.minimum(losses, 1.0)
            ours, alone = (
                measured_gap([0.0], losses, loss_range=1.0, clusters=labels_or_none, replicates=replicates, seed=trial)
                for labels_or_none in (labels, None)
            )
            found[trial] = (
                ours.signed_low <= truth <= ours.signed_high, ours.signed_high - ours.signed_low,
                alone.signed_low <= truth <= alone.signed_high,
            )  # fmt: skip
        names = ("coverage", "width", "independent_coverage")
        rows.append({"clusters": clusters, "largest_cluster": most, **dict(zip(names, found.mean(0), strict=True))})
    return pd.DataFrame(rows)


def seed_coverage(*, trials: int, seed: int = 0) -> pd.DataFrame:
    """Measure how often the interval over seeds holds the mean, for normal, uniform and skewed scatter.

    Args:
        trials: simulated configurations per case.
        seed: of everything random.

    Returns:
        One row per scatter and number of seeds: coverage of Student's interval and of a percentile bootstrap's.
    """
    scatter: dict[str, tuple[float, Draw]] = {
        "normal": (0.0, lambda rng, count: rng.normal(size=count)),
        "uniform": (0.5, lambda rng, count: rng.random(count)),
        "gamma, shape 4": (4.0, lambda rng, count: rng.gamma(4.0, size=count)),
    }
    rows = []
    for number, (name, (truth, draw)) in enumerate(scatter.items()):
        for seeds in SEEDS:
            rng = np.random.default_rng([seed, number, seeds])
            values = draw(rng, trials * seeds).reshape(trials, seeds)
            runs = pd.DataFrame({"case": np.repeat(np.arange(trials), seeds), "value": values.ravel()})
            table = across_seeds(runs, columns=("value",), by=("case",))
            boot = [interval(bootstrap_means(row, replicates=400, seed=rng)) for row in values]
            covered = (table["value_low"] <= truth) & (truth <= table["value_high"])
            resampled = float(np.mean([low <= truth <= high for low, high in boot]))
            rows.append({"scatter": name, "seeds": seeds, "coverage": covered.mean(), "bootstrap_coverage": resampled})
    return pd.DataFrame(rows)


def write_coverage(path: str | Path, *, trials: int, replicates: int, seed: int = 0, progress: bool = True) -> Path:
    """Measure all three and write them.

    Args:
        path: ``report/results/coverage.json``.
        trials: simulations per case.
        replicates: draws behind each interval.
        seed: of everything random.
        progress: whether to show a bar.

    Raises:
        ValueError: if there are fewer than one hundred trials, which tell nothing.
    """
    if trials < 100:
        raise ValueError(f"trials must be at least 100, got {trials}")
    gaps = gap_coverage(trials=trials, replicates=replicates, seed=seed, progress=progress)
    clusters = cluster_coverage(trials=trials, replicates=replicates, seed=seed)
    seeds = seed_coverage(trials=trials, seed=seed)
    values = {
        "trials": trials,
        "replicates": replicates,
        **{f"least/{loss}": float(part["coverage"].min()) for loss, part in gaps.groupby("loss")},
        "least/clusters": float(clusters["coverage"].min()),
        "least/seeds": float(seeds["coverage"].min()),
    }
    command = f"python -m analysis coverage --trials {trials} --replicates {replicates} --seed {seed}"
    tables = {"gaps": table_of(gaps), "clusters": table_of(clusters), "seeds": table_of(seeds)}
    return write_result(path, provenance=provenance(command, [seed]), values=values, tables=tables)
