"""The reference paper's own tables, and whether its bounds order its measured generalization error.

Source: tables 2 and 3 of arXiv:2606.13767, as printed (``report/results/published/README.md``).
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.statistics import (
    all_pairs,
    bootstrap_weights,
    dense_ranks,
    interval,
    kendall_tau,
    permutation_p_value,
)
from theory.defaults import NUM_LINKS
from theory.methods import METHODS

__all__ = ["bound_order", "generalization_error", "pair_tests", "performance", "published_agreement"]

_FOLDER = Path(__file__).resolve().parents[2] / "report" / "results" / "published"


def _read(name: str, folder: str | Path | None, labels: list[str]) -> pd.DataFrame:
    path = Path(folder or _FOLDER) / name
    if not path.is_file():
        raise ValueError(f"no published table at {str(path)!r}; give the folder that holds {name}")
    table = pd.read_csv(path).set_index(labels)
    table.columns = pd.Index([column.lower() for column in table.columns], name="method")
    unknown = [column for column in table.columns if column not in METHODS]
    if unknown:
        raise ValueError(f"{path.name} names unknown methods {', '.join(unknown)}; accepted: {', '.join(METHODS)}")
    return table.astype(np.float64)


def generalization_error(folder: str | Path | None = None) -> pd.DataFrame:
    """Table 3 of arXiv:2606.13767: measured G(W), one row per model and data set, one column per method key.

    Args:
        folder: where the table is; the repository's copy by default.

    Raises:
        ValueError: if the file is missing or names an unknown method.

    >>> float(generalization_error().loc[("ViT-Tiny", "OfficeHome"), "cla"])
    0.0198
    """
    return _read("table3_generalization_error.csv", folder, ["model", "dataset"])


def performance(folder: str | Path | None = None) -> pd.DataFrame:
    """Table 2 of arXiv:2606.13767: accuracy, Matthews' correlation or perplexity, as printed.

    Args:
        folder: where the table is; the repository's copy by default.

    Raises:
        ValueError: if the file is missing or names an unknown method.

    >>> float(performance().loc[("GPT2-Small", "E2E", "perplexity"), "fft"])
    2.98
    """
    return _read("table2_performance.csv", folder, ["model", "dataset", "metric"])


def bound_order(columns: list[str], *, links: int = NUM_LINKS) -> np.ndarray:
    """Numbers that Table 1's root term counts, on square layers: its order is the order of the bounds.

    For square layers of any width above 2 k r the order is the same: cLA = r-cLA = asym, then LoRA = LoRA+
    (2 r n), RAC = c3LA = r-c3LA (k r n, above LoRA from k = 3 on), CoLA (2 k r n), full fine-tuning (n^2).

    Args:
        columns: method keys.
        links: chain length k of the chained methods.

    Raises:
        ValueError: if ``links`` is below 1.

    >>> bound_order(["cla", "lora", "rac", "cola"], links=3).tolist()
    [1.0, 2.0, 3.0, 6.0]
    """
    if links < 1:
        raise ValueError(f"links must be at least 1, got {links}")
    width = 4 * links
    counts = [
        METHODS[key].numbers_trained(out_features=width, in_features=width, rank=1, links=links) for key in columns
    ]
    return np.array(counts, dtype=np.float64) / width


def _concordance(order: np.ndarray, errors: np.ndarray) -> tuple[int, int]:
    """Pairs ordered alike and pairs ordered by both, over all rows."""
    pairs = all_pairs(len(order))
    bound = np.sign(order[pairs.left] - order[pairs.right])
    ranks = dense_ranks(errors.T)
    measured = np.sign(ranks[pairs.left] - ranks[pairs.right])
    product = bound[:, None] * measured
    return int((product > 0).sum()), int((product != 0).sum())


def published_agreement(
    table: pd.DataFrame,
    *,
    links: int = NUM_LINKS,
    permutations: int = 9999,
    replicates: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Does the order of Table 1's bounds agree with the order of the measured G in the paper's table 3?

    Kendall's tau-b within each row (rows differ in model, data and loss, so only orders within a row mean
    anything), its mean over rows with a bootstrap interval over rows, and a null in which each row's errors
    are shuffled among the methods. The rows share models and data sets, so they are not independent; the
    interval takes them as if they were and is, if anything, too narrow.

    Args:
        table: one row per setting, one column per method key.
        links: chain length k assumed for the chained methods (the paper's vary from 6 to 30).
        permutations: shuffles of the null.
        replicates: bootstrap samples of the rows.
        confidence: of the interval.
        seed: of both.

    Returns:
        ``tau`` (a series over rows), ``mean_tau`` with ``low`` and ``high``, ``p`` (two-sided), ``null_high``
        (the |mean tau| that chance exceeds once in twenty), ``concordant`` of ``decidable`` pairs and their
        ratio ``concordance`` (1/2 is a coin).

    Raises:
        ValueError: if a cell is empty.
    """
    errors = table.to_numpy(dtype=np.float64)
    order = bound_order(list(table.columns), links=links)
    tau = np.array([kendall_tau(order, row)[0] for row in errors])
    weights = bootstrap_weights(np.arange(len(tau)), replicates=replicates, seed=seed)
    low, high = interval(weights @ tau / len(tau), confidence=confidence)
    rng = np.random.default_rng(seed)
    null = np.zeros(permutations)
    for row in errors:
        shuffled = rng.permuted(np.tile(row, (permutations, 1)), axis=1)
        null += kendall_tau(shuffled.T, order) / len(errors)
    concordant, decidable = _concordance(order, errors)
    return {
        "tau": pd.Series(tau, index=table.index, name="tau_b"),
        "mean_tau": float(tau.mean()),
        "low": float(low),
        "high": float(high),
        "p": permutation_p_value(tau.mean(), null).item(),
        "null_high": float(np.quantile(np.abs(null), 0.95)),
        "concordant": concordant,
        "decidable": decidable,
        "concordance": concordant / decidable,
    }


def pair_tests(table: pd.DataFrame, *, links: int = NUM_LINKS) -> pd.DataFrame:
    """For every two methods whose bounds differ, in how many rows the smaller bound has the smaller G.

    Args:
        table: one row per setting, one column per method key.
        links: chain length k assumed for the chained methods.

    Returns:
        Columns ``smaller_bound``, ``larger_bound``, ``agree``, ``rows`` (ties left out), ``p`` (two-sided sign
        test, uncorrected), most agreement first.
    """
    order = dict(zip(table.columns, bound_order(list(table.columns), links=links), strict=True))
    rows = []
    for pair in combinations(table.columns, 2):
        low, high = sorted(pair, key=lambda key: order[key])
        if order[low] == order[high]:
            continue
        agree, against = int((table[low] < table[high]).sum()), int((table[low] > table[high]).sum())
        p = binomtest(agree, agree + against).pvalue if agree + against else float("nan")
        rows.append((low, high, agree, agree + against, p))
    tests = pd.DataFrame(rows, columns=["smaller_bound", "larger_bound", "agree", "rows", "p"])
    return tests.sort_values("agree", ascending=False, kind="stable").reset_index(drop=True)
