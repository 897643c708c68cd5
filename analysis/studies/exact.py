"""How loose each bound is where the truth is known: tables over sample size, rank, chain length and number of runs.

The closed forms are in ``theory.solvable.regression``, ``theory.solvable.chain`` and ``theory.solvable.finite``; here
they are swept, simulated, and laid beside the bounds. Informations are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from analysis.records import provenance, write_result
from theory.checks import check_integer
from theory.information import draw_masks, estimate
from theory.networks import ACTIVATIONS
from theory.solvable import (
    circulant_sketches,
    coin_model,
    coin_posterior,
    column_regression,
    gaussian_chain,
    gaussian_mean,
    sketched_regression,
)

__all__ = [
    "chain_curve",
    "coin_curve",
    "coin_runs",
    "constants_table",
    "estimation_curve",
    "mean_curve",
    "null_curve",
    "rank_curve",
    "write_exact",
]


def coin_curve(
    num_examples: Sequence[int], *, probability: float = 0.5, inverse_temperature: float = math.inf
) -> pd.DataFrame:
    """Tabulate every bound of the coin model against its exact gap: columns n, bound, value, gap, ratio."""
    rows = []
    for n in num_examples:
        truth = coin_model(num_examples=n, probability=probability, inverse_temperature=inverse_temperature)
        for name, value in truth.bounds().items():
            ratio = value / truth.gap if truth.gap > 0 else math.nan
            rows.append({"n": n, "bound": name, "value": value, "gap": truth.gap, "ratio": ratio})
    return pd.DataFrame(rows)


def mean_curve(
    num_examples: Sequence[int], *, dimension: int = 1, noise: float = 1.0, repeats: int = 0, seed: int = 0
) -> pd.DataFrame:
    """Tabulate Gaussian mean estimation, where weight_std^2 = noise^2 / n.

    Args:
        num_examples: values of n.
        dimension: d.
        noise: weight noise in units of the sample mean's standard deviation.
        repeats: Monte Carlo runs per n; none if 0.
        seed: of the Monte Carlo runs.

    Returns:
        Columns n, information, individual (per example), gap, sampled_gap, sampled_error, xu-raginsky,
        individual-sample, excess-individual-sample.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for n in num_examples:
        model = gaussian_mean(num_examples=n, dimension=dimension, weight_std=noise / math.sqrt(n))
        sampled, error = model.simulate(repeats=repeats, rng=rng).gap if repeats else (math.nan, math.nan)
        rows.append(
            {
                "n": n,
                "information": model.information(),
                "individual": float(model.individual_informations().mean()),
                "gap": model.gap(),
                "sampled_gap": sampled,
                "sampled_error": error,
                "xu-raginsky": model.xu_raginsky(),
                "individual-sample": model.individual_sample(),
                "excess-individual-sample": model.excess_individual_sample(),
            }
        )
    return pd.DataFrame(rows)


def _layer(
    num_examples: int, in_features: int, out_features: int, decay: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], np.random.Generator]:
    """Draw inputs whose column energies fall off as a power, and the update to be learned."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, in_features + 1) ** -decay
    return rng.normal(size=(num_examples, in_features)) * scale, rng.normal(size=(out_features, in_features)), rng


def rank_curve(
    ranks: Sequence[int],
    *,
    num_examples: int = 64,
    in_features: int = 32,
    out_features: int = 8,
    decay: float = 0.5,
    weight_std: float = 0.3,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare cLA (the first r columns), its worst columns and asymmetric LoRA (an orthonormal sketch) on one layer.

    Table 1 of arXiv:2606.13767 gives the three the same bound, and least squares gives them the same gap.

    Returns:
        Columns rank, method (cla, cla-last, asym), information, gap, test_risk, xu-raginsky, individual-sample,
        excess-individual-sample.
    """
    x, w, rng = _layer(num_examples, in_features, out_features, decay, seed)
    rows = []
    for rank in ranks:
        check_integer("rank", rank, maximum=in_features)
        sketch = np.linalg.qr(rng.normal(size=(in_features, rank)))[0].T
        models = {
            "cla": column_regression(x, w, np.arange(rank), weight_std=weight_std),
            "cla-last": column_regression(x, w, np.arange(in_features - rank, in_features), weight_std=weight_std),
            "asym": sketched_regression(x, w, sketch, weight_std=weight_std),
        }
        for name, model in models.items():
            rows.append(
                {
                    "rank": rank,
                    "method": name,
                    "information": model.information(),
                    "gap": model.gap(),
                    "test_risk": model.test_risk(),
                    "xu-raginsky": model.xu_raginsky(),
                    "individual-sample": model.individual_sample(),
                    "excess-individual-sample": model.excess_individual_sample(),
                }
            )
    return pd.DataFrame(rows)


def chain_curve(
    links: Sequence[int],
    *,
    rank: int = 4,
    num_examples: int = 64,
    in_features: int = 16,
    out_features: int = 8,
    weight_std: float = 0.3,
    seed: int = 0,
) -> pd.DataFrame:
    """Follow the information of a chain as it grows: c3LA (circulant columns) and RAC-LoRA (orthonormal sketches).

    Returns:
        Columns links, method (c3la, rac), information (of all links), link_sum (the chain rule's sum), merged
        (of the merged update), numbers (k r p trained), distinct (numbers of the merged update), gap, xu-raginsky
        (at the information of all links), individual-sample.
    """
    x, w, rng = _layer(num_examples, in_features, out_features, 0.0, seed)
    most = max(links)
    sketches = {
        "c3la": circulant_sketches(in_features=in_features, rank=rank, links=most),
        "rac": [np.linalg.qr(rng.normal(size=(in_features, rank)))[0].T for _ in range(most)],
    }
    rows = []
    for count in links:
        for name, frozen in sketches.items():
            chain = gaussian_chain(x, w, frozen[:count], weight_std=weight_std)
            rows.append(
                {
                    "links": count,
                    "method": name,
                    "information": chain.model.information(),
                    "link_sum": float(chain.link_informations().sum()),
                    "merged": chain.merged_information(),
                    "numbers": count * rank * out_features,
                    "distinct": int(np.linalg.matrix_rank(np.vstack(frozen[:count]))) * out_features,
                    "gap": chain.model.gap(),
                    "xu-raginsky": chain.model.xu_raginsky(),
                    "individual-sample": chain.model.individual_sample(),
                }
            )
    return pd.DataFrame(rows)


def coin_runs(
    runs: int, rows: int, *, rng: np.random.Generator, inverse_temperature: float = math.inf
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Train the coin model on random halves of fresh supersamples: losses (runs x rows x 2) and masks (runs x rows)."""
    coins = rng.random((runs, rows, 2)) < 0.5
    masks = draw_masks(runs, rows, rng=rng)
    ones = np.take_along_axis(coins, masks[..., None].astype(int), 2).sum((1, 2))
    learned = rng.random(runs) < coin_posterior(rows, inverse_temperature=inverse_temperature)[ones]
    return (coins != learned[:, None, None]).astype(np.float64), masks


def null_curve(runs: Sequence[int], *, rows: int = 200, seed: int = 0) -> pd.DataFrame:
    """Measure what ld-MI reads at zero information: ternary loss differences that know nothing of the bits.

    Returns:
        Columns runs, pooled, bound (on a gap that is zero).
    """
    rng = np.random.default_rng(seed)
    table = []
    for count in runs:
        difference = rng.integers(-1, 2, size=(count, rows))
        losses = np.stack([difference < 0, difference > 0], -1).astype(np.float64)
        masks = draw_masks(count, rows, rng=rng)
        for pooled in (False, True):
            result = estimate(losses, masks, quantity="ld-mi", pooled=pooled, rng=rng, resamples=20)
            table.append({"runs": count, "pooled": pooled, "bound": result.bound})
    return pd.DataFrame(table)


def estimation_curve(runs: Sequence[int], *, rows: int = 10, seed: int = 0) -> pd.DataFrame:
    """Estimate ld-MI of the coin model from more and more runs.

    Returns:
        Columns runs, estimate, low, high, null, exact (informations in nats), bound, exact_bound, gap, exact_gap.
    """
    rng = np.random.default_rng(seed)
    truth = coin_model(num_examples=rows)
    table = []
    for count in tqdm(runs, desc="masked runs", disable=sum(runs) < 5_000 or None):
        result = estimate(*coin_runs(count, rows, rng=rng), quantity="ld-mi", rng=rng)
        table.append(
            {
                "runs": count,
                "estimate": result.information,
                "low": result.low,
                "high": result.high,
                "null": result.null,
                "exact": truth.ld_mi,
                "bound": result.bound,
                "exact_bound": truth.bounds()["ld-mi"],
                "gap": result.gap,
                "exact_gap": truth.gap,
            }
        )
    return pd.DataFrame(table)


def constants_table() -> pd.DataFrame:
    """Tabulate the activations' exact constants: columns activation, lipschitz, growth, offset."""
    rows = [[act.name, act.lipschitz, act.growth, act.offset] for act in ACTIVATIONS.values()]
    return pd.DataFrame(rows, columns=["activation", "lipschitz", "growth", "offset"])


def write_exact(path: str | Path, *, repeats: int = 2_000, seed: int = 0) -> Path:
    """Compute every table and write them as one result file, ``report/results/exact.json``.

    Args:
        path: the file to write.
        repeats: Monte Carlo runs per point.
        seed: of everything random.

    Raises:
        ValueError: if the folder cannot be written to or ``repeats`` is below 2.
    """
    check_integer("repeats", repeats, minimum=2)
    sizes = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377]
    frames = {
        "coin": coin_curve(sizes),
        "coin_biased": coin_curve(sizes, probability=0.3),
        "coin_warm": coin_curve(sizes, inverse_temperature=0.1),
        "mean": mean_curve([2, 4, 8, 16, 32, 64, 128], repeats=repeats, seed=seed),
        "rank": rank_curve([1, 2, 4, 8, 16, 32], seed=seed),
        "chain": chain_curve(list(range(1, 13)), seed=seed),
        "null": null_curve([10, 30, 100, 300, 1000], seed=seed),
        "estimation": estimation_curve([10, 30, 100, 300, 1000, 3000], seed=seed),
        "constants": constants_table(),
    }
    values: dict[str, float] = {}
    last = frames["coin"][frames["coin"].n == sizes[-1]]
    for row in last.itertuples():
        values[f"exact/coin/{row.n}/{row.bound}"] = float(row.ratio)
    for row in frames["null"].itertuples():
        values[f"exact/null/{row.runs}/{'pooled' if row.pooled else 'separate'}"] = float(row.bound)
    chain = frames["chain"]
    values["exact/chain/largest-relative-error"] = float((chain.link_sum / chain.information - 1).abs().max())
    mean = frames["mean"]
    final = mean.iloc[-1]
    for name in ("xu-raginsky", "individual-sample", "excess-individual-sample"):
        values[f"exact/mean/{int(final.n)}/{name}"] = float(final[name] / final.gap)
    values["exact/mean/largest-z"] = float(((mean.sampled_gap - mean.gap) / mean.sampled_error).abs().max())
    for row in frames["constants"].itertuples():
        values[f"lipschitz/{row.activation}"] = float(row.lipschitz)
    return write_result(
        path,
        provenance=provenance(f"python -m analysis exact --repeats {repeats} --seed {seed}", [seed]),
        values=values,
        tables={
            name: {"columns": list(frame.columns), "rows": frame.to_numpy(dtype=object).tolist()}
            for name, frame in frames.items()
        },
    )
