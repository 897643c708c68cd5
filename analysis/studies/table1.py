"""Table 1 of arXiv:2606.13767 in numbers: the paper's models and data sets, and what the theory was stressed with."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from analysis.records import read_json
from analysis.studies.published import generalization_error, performance
from analysis.tasks import DATASETS
from theory import bounds, layers
from theory.defaults import BITS, NUM_LINKS, RANK
from theory.layers import MODEL_NAMES, LayerShape
from theory.methods import METHODS
from theory.networks import errata, stress

__all__ = [
    "beyond_frame",
    "errata_frame",
    "methods_frame",
    "needed_frame",
    "paper_pairs",
    "result",
    "table1_frame",
    "trained_frame",
]

ROBERTA_HEAD = (768 * 768 + 768) + (2 * 768 + 2)
"""Numbers in RoBERTa-Base's classification head for two classes: a dense layer and the output."""

_PAPER_NAMES: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def paper_pairs() -> list[tuple[str, str, int]]:
    """Return (model key, data set, n) of every pair in tables 2 and 3 of arXiv:2606.13767, model by model.

    >>> paper_pairs()[0]
    ('vit-tiny', 'OfficeHome', 15588)
    """
    printed = [tuple(index[:2]) for index in [*performance().index, *generalization_error().index]]
    pairs = {(_PAPER_NAMES[model], data.replace("TREC50", "TREC-50")) for model, data in printed}
    order = {key: position for position, key in enumerate(_PAPER_NAMES.values())}
    sizes = {dataset.title: dataset.num_train for dataset in DATASETS.values()}
    names = list(sizes)
    ranked = sorted(pairs, key=lambda pair: (order[pair[0]], names.index(pair[1])))
    return [(model, data, sizes[data]) for model, data in ranked]


def table1_frame(*, rank: int = RANK, bits: float = BITS, links: int = NUM_LINKS, sigma: float = 0.5) -> pd.DataFrame:
    """Evaluate table 1's square root for every pair of the paper and every method.

    Args:
        rank: r.
        bits: q.
        links: k of the chained methods.
        sigma: sub-Gaussian parameter; 1/2 is a loss in [0, 1].

    Returns:
        Columns model, dataset, n, method, value, vacuous; one row per pair and method.
    """
    rows = [
        {"model": model, "dataset": data, "n": n, "method": key, "value": bound.value, "vacuous": bound.vacuous}
        for model, data, n in paper_pairs()
        for key in METHODS
        for bound in [
            bounds.table1(
                layers.for_model(model), method=key, num_examples=n, rank=rank, bits=bits, links=links, sigma=sigma
            )
        ]
    ]
    return pd.DataFrame(rows)


def methods_frame(shapes: Sequence[LayerShape], *, methods: Sequence[str], **options: Any) -> pd.DataFrame:
    """Evaluate every bound for several methods before anything is trained.

    Args:
        shapes: of the adapted matrices.
        methods: keys of methods.
        **options: of ``theory.bounds.evaluate``.

    Returns:
        The columns of ``theory.bounds.bounds_frame`` after the method's key.

    Raises:
        ValueError: as ``theory.bounds.evaluate``.
    """
    frames = []
    for key in methods:
        frame = bounds.bounds_frame(bounds.evaluate(shapes, method=key, **options))
        frame.insert(0, "method", key)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def needed_frame(
    *,
    methods: Sequence[str] = ("fft", "lora", "cla", "cola", "c3la"),
    rank: int = RANK,
    bits: float = BITS,
    links: int = NUM_LINKS,
) -> pd.DataFrame:
    """Say for every pair of the paper how many examples each method needs before its cheapest bound says something.

    Args:
        methods: keys of methods.
        rank: r.
        bits: q.
        links: k of the chained methods.

    Returns:
        Columns model, dataset, n, method, needed (the least n at which the gap's bound is at most the range of a loss
        in [0, 1]) and times (needed / n).
    """
    least = {
        (model, key): bounds.needed(
            "num_examples", layers=layers.for_model(model), method=key, rank=rank, bits=bits, links=links
        )
        for model in dict.fromkeys(model for model, _, _ in paper_pairs())
        for key in methods
    }
    rows = [
        {"model": model, "dataset": data, "n": n, "method": key, "needed": found, "times": found / n}
        for model, data, n in paper_pairs()
        for key in methods
        if (found := least[model, key]) is not None
    ]
    return pd.DataFrame(rows)


def trained_frame(path: str | Path, **options: Any) -> pd.DataFrame:
    """Evaluate every bound for what a run really trained.

    Args:
        path: the run's ``record.json``.
        **options: of ``theory.bounds.from_update``.

    Raises:
        ValueError: if the record is missing, corrupt or holds no updates, or as ``theory.bounds.from_update``.
    """
    record = read_json(path)
    if not isinstance(record.get("updates"), list):
        raise ValueError(f"record {str(path)!r} must hold a list under 'updates', as finished runs do")
    return bounds.from_update(record["updates"], **options)


def result(
    *,
    rank: int = RANK,
    bits: float = BITS,
    links: int = NUM_LINKS,
    networks: int = 10_000,
    steps: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure what ``report/results/bounds.json`` holds: values, tables and series.

    Args:
        rank: r of the grid.
        bits: q of the grid.
        links: k of the grid's chained methods.
        networks: random networks of the stress test.
        steps: proposals per climb of the directed search.
        seed: of the stress test and the searches.
    """
    frame = table1_frame(rank=rank, bits=bits, links=links)
    stressed = stress.stress(networks=networks, seed=seed)
    climbs = {
        (name, shifted): stress.tightest(activation=name, shifted=shifted, chains=32, steps=steps, seed=seed)
        for name, shifted in tqdm(list(product(stress.ACTIVATIONS, (False, True))), desc="search", delay=2)
    }
    counts, edges = np.histogram(stressed.ratios, bins=np.linspace(0, 1, 41))
    values = {
        "rank": rank,
        "bits": bits,
        "links": links,
        "pairs": len(paper_pairs()),
        "entries": len(frame),
        "vacuous-entries": int(frame["vacuous"].sum()),
        "smallest": float(frame["value"].min()),
        "largest": float(frame["value"].max()),
        "stress-networks": stressed.networks,
        "stress-violations": stressed.violations,
        "stress-largest-ratio": float(stressed.ratios.max()),
        "search-largest-ratio": max(climb.ratio for climb in climbs.values()),
    }
    for method in ("lora", "cla", "rac"):
        one = frame[(frame["model"] == "roberta-base") & (frame["dataset"] == "MRPC") & (frame["method"] == method)]
        values[f"roberta-base-mrpc/{method}"] = float(one["value"].iloc[0])
    tables = {
        "table1": _table1_table(frame),
        "beyond": _table(beyond_frame(rank=rank, bits=bits, links=links)),
        "errata": _table(errata_frame(seed=seed)),
        "search": {
            "columns": ["Activation", "shifted", "largest ratio"],
            "rows": [[name, "yes" if shifted else "no", climb.ratio] for (name, shifted), climb in climbs.items()],
        },
    }
    series = {
        "table1": frame.to_dict("list"),
        "ratios": {"edges": edges, "counts": counts},
        "courses": {name: climb.course for (name, shifted), climb in climbs.items() if not shifted},
    }
    return {"values": values, "tables": tables, "series": series}


def _table1_table(frame: pd.DataFrame) -> dict[str, Any]:
    """One column per distinct row of table 1; vacuous entries carry a star."""
    shown = {"fft": "FFT", "lora": "LoRA, LoRA+", "cla": "asym, cLA, PaCA", "cola": "CoLA", "rac": "RAC, c3LA"}
    cells = {(row.model, row.dataset, row.method): f"{row.value:.1f}{'*' * row.vacuous}" for row in frame.itertuples()}
    rows = [
        [MODEL_NAMES[model], data, n, *(cells[model, data, method] for method in shown)]
        for model, data, n in paper_pairs()
    ]
    return {"columns": ["Model", "Data set", "n", *shown.values()], "rows": rows}


def beyond_frame(*, rank: int = RANK, bits: float = BITS, links: int = NUM_LINKS) -> pd.DataFrame:
    """Evaluate the bounds beyond table 1 for RoBERTa-Base on MRPC, head counted, at two caps of the excess loss.

    Args:
        rank: r.
        bits: q.
        links: k of the chained methods.

    Returns:
        One row per method, one column per description; missing where a description does not apply.
    """
    names = ["table1-root", "direct", "support", "gauge-fixed", "cheapest"]
    shapes = layers.for_model("roberta-base")
    rows = []
    for key, method in METHODS.items():
        common: dict[str, Any] = {"method": key, "num_examples": DATASETS["mrpc"].num_train, "rank": rank}
        common |= {"bits": bits, "links": links, "head_numbers": ROBERTA_HEAD}
        found = {one.name: one.value for one in bounds.evaluate(shapes, **common)}
        row = {"Method": method.name, **{name: found.get(name) for name in names}}
        for cap in (0.1, 0.01):
            capped = {one.name: one.value for one in bounds.evaluate(shapes, **common, loss_change=cap)}
            row[f"excess, D = {cap}"] = capped["excess"]
        rows.append(row)
    return pd.DataFrame(rows)


def errata_frame(*, seed: int = 0) -> pd.DataFrame:
    """Find and minimise a counter-example for each erratum left in theorem 1 as typeset, and for all three.

    Args:
        seed: of the search.

    Returns:
        One row each: the network, its true deviation, Phi_dW / (2 L_loss) as typeset and mended.
    """
    rows = []
    for mended in ((), ("E2", "E3"), ("E1", "E3"), ("E1", "E2")):
        row: dict[str, Any] = {"Errata left": ", ".join(sorted(set(errata.ERRATA) - set(mended)))}
        network = errata.find_counterexample(mended=mended, seed=seed)
        if network is not None:
            row |= {"W0": str(network.base), "dW": str(network.update), "z": str(network.offsets), "x": network.point}
            row |= {
                "true": network.deviation(),
                "as typeset": float(errata.enumerated(network.exact(), mended=mended)[0]),
            }
            row |= {"mended": float(errata.enumerated(network.exact())[0])}
        rows.append(row)
    return pd.DataFrame(rows).astype(object)


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    plain = frame.astype(object).where(frame.notna(), None)
    return {"columns": list(frame.columns), "rows": plain.values.tolist()}
