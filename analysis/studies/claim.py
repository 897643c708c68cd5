"""The paper's last claim, decided: do its bounds track measured generalization better than its rivals do?

arXiv:2606.13767 says that its bounds follow measured generalization more consistently than loss landscapes and
intruder dimensions do. The bound, the rule that names the rivals and the test were written here before any run was
looked at: the bound is Table 1's root term on the run's actual update, the rivals are every landscape, curvature and
intruder measure at hand. The test was a paired bootstrap of the difference in Kendall's tau-b over configurations; it
was too sure, since configurations share their seeds, and is now `analysis.statistics.crossed_tau`, with Holm's
correction before a rival wins. Measures and runs that were added later enter by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.statistics import (
    Comparison,
    agreement_table,
    detectable_difference,
    family_differences,
    family_verdict,
    same,
    verdict_rates,
)
from analysis.studies.predictors import DESIGN, LOSSES, candidates
from analysis.studies.published import pair_tests, published_agreement

__all__ = ["CHAMPION", "RIVAL_FAMILIES", "compare_task", "judge_claim", "published_result", "result", "rival_columns"]

CHAMPION = "bound/table1-root"
RIVAL_FAMILIES = ("sharpness", "curvature", "intruders")
_DIGITS = 6
_MIN_CONFIGURATIONS = 4


def rival_columns(columns: Sequence[str], *, families: Mapping[str, str]) -> list[str]:
    """The loss-landscape, curvature and intruder measures among some columns, by the family that each states.

    Args:
        columns: names of measures.
        families: the stated family of each, as in ``.attrs["families"]`` of a comparison's frame.

    Raises:
        ValueError: if a column states no family; whether it is a rival is never guessed from its name.

    >>> rival_columns(["bound/direct", "sam/gap"], families={"bound/direct": "bound", "sam/gap": "sharpness"})
    ['sam/gap']
    """
    unstated = [name for name in columns if name not in families]
    if unstated:
        raise ValueError(f"families must state the family of every measure, lacks {', '.join(unstated)}")
    return [name for name in columns if families[name] in RIVAL_FAMILIES]


def judge_claim(
    frame: pd.DataFrame, *, comparison: Comparison, champion: str = CHAMPION, worlds: int = 0
) -> dict[str, Any]:
    """Decide the claim on one task's runs.

    Args:
        frame: from ``analysis.studies.predictors.comparison_frame``, one task.
        comparison: the target, the level and the margin.
        champion: the measure whose superiority is claimed.
        worlds: simulated per planted difference, for the verdicts' null rates and power; 0 leaves them out.

    Returns:
        ``verdict``: ``"supported"`` (the bound beats every rival), ``"contradicted"`` (some rival beats it and it
        beats none), ``"mixed"`` (both happen), ``"equivalent"`` or ``"undecided"``, as
        ``analysis.statistics.family_verdict`` judges, ``"one seed"`` where seeds cannot be drawn, or ``"no rivals"``;
        ``sentence``: the same in words with the counts; ``differences``: the table behind it; ``rates``: from
        ``analysis.statistics.verdict_rates`` over the runs that know the champion and every rival, or None.
    """
    nothing: dict[str, Any] = {"differences": None, "rates": None}
    rivals = rival_columns(candidates(frame), families=frame.attrs["families"])
    if champion not in candidates(frame) or not rivals:
        return {"verdict": "no rivals", "sentence": "No landscape or intruder measure was taken."} | nothing
    if frame["seed"].nunique() < 2:
        return {"verdict": "one seed", "sentence": "One seed alone says nothing about others."} | nothing
    differences = family_differences(frame, champion=champion, rivals=rivals, comparison=comparison)
    sides = ("champion", "rival", "equivalent", "undecided")
    counts = {name: int((differences["verdict"] == name).sum()) for name in sides}
    level = 1 - comparison.confidence
    verdict = family_verdict(
        differences["p_champion"], differences["p_rival"], p_equivalent=differences.get("p_equivalent"), level=level
    )
    rates = _rates(frame, [champion, *rivals], comparison=comparison, worlds=worlds) if worlds else None
    sentence = (
        f"The order of {champion} follows the measured {comparison.target} better than {counts['champion']} of "
        f"{len(rivals)} landscape, curvature and intruder measures, worse than {counts['rival']}, and cannot be told "
        f"apart from {len(rivals) - counts['champion'] - counts['rival']} ({level:.0%} over the family, {len(frame)} "
        f"runs): the claim is {verdict}."
    )
    return {"verdict": verdict, "sentence": sentence, "differences": differences, "rates": rates}


def _rates(frame: pd.DataFrame, names: Sequence[str], *, comparison: Comparison, worlds: int) -> pd.DataFrame:
    known = frame.dropna(subset=[*names, comparison.target])
    return verdict_rates(
        known[list(names)],
        known[comparison.target],
        configuration=known.groupby(list(comparison.cluster or comparison.axes), dropna=False).ngroup(),
        seed=known["seed"],
        worlds=worlds,
        draws=comparison.seed,
        level=1 - comparison.confidence,
        margin=comparison.margin,
    )


def compare_task(
    frame: pd.DataFrame,
    *,
    loss: str,
    permutations: int = 999,
    worlds: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Agreement table and verdict for one task and one loss.

    Axes are those of method, rank and links that vary in the runs; the seed is held fixed within a pair and
    clusters are configurations. The chain's length belongs to the method (only chains have one), so it is not
    held fixed where the method moves, and it is an axis only where one method was run at several lengths. The
    partial versions take out training loss and, where it varies, rank.

    Raises:
        ValueError: if ``loss`` was not measured, or nothing varies.
    """
    target = f"gap/{loss}"
    if target not in frame.columns or frame[target].isna().all():
        raise ValueError(f"no run measured {target}; accepted: {', '.join(LOSSES)}")
    frame = frame.dropna(subset=[target])
    axes = tuple(axis for axis in ("method", "rank") if frame[axis].nunique() > 1)
    configurations = len(frame[["method", "rank", "links"]].drop_duplicates())
    if axes and configurations < _MIN_CONFIGURATIONS:
        raise ValueError(f"only {configurations} configurations; at least {_MIN_CONFIGURATIONS} are needed")
    if frame.groupby("method")["links"].nunique().max() > 1:
        axes = (*axes, "links")
    if not axes:
        raise ValueError("method, rank and links are the same in all runs; there is nothing to compare")
    comparison = Comparison(
        target=target,
        axes=axes,
        nested=(("links", "method"),),
        cluster=("method", "rank", "links"),
        controls=("train_loss", *(["rank"] if "rank" in axes else [])),
        permutations=permutations,
        cmi_replicates=min(100, permutations),
        seed=seed,
    )
    table = agreement_table(frame, measures=candidates(frame), comparison=comparison, progress=progress)
    return table, judge_claim(frame, comparison=comparison, worlds=worlds)


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """A data frame as a result file's table, floats to six significant digits."""
    plain = frame.reset_index()
    rows = [
        [float(f"{cell:.{_DIGITS}g}") if isinstance(cell, float) else cell for cell in row]
        for row in plain.astype(object).itertuples(index=False, name=None)
    ]
    return {"columns": list(map(str, plain.columns)), "rows": rows}


def result(
    frame: pd.DataFrame, *, permutations: int, seed: int, worlds: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Everything that the comparison has to say, as the values and tables of a result file.

    Args:
        frame: from ``analysis.studies.predictors.comparison_frame``; its tasks are compared one by one, since a gap in
            one loss on one data set says nothing about a gap in another.
        permutations: shuffles of the null.
        seed: of both, and of the worlds.
        worlds: as in :func:`judge_claim`.
        progress: show progress bars.

    Returns:
        ``values`` and ``tables`` for ``analysis.records.write_result``: the runs, each measure's stated family,
        one agreement table and one table of differences per task and loss, the verdicts and their sentences; a task
        with too few or too equal runs is left out, its reason under ``<task>/<loss>/left_out``. How near what is
        decided lies to tipping: ``verdict_edge`` (the least distance of a corrected p-value to its level),
        ``best_margin`` (tau-b of the best measure minus the second's) and ``significant_edge`` (the q nearest to its
        level). With worlds, the table ``rates/<task>/<loss>``, ``null_decided`` (how often a verdict other than
        undecided comes up where nobody is ahead) and ``detectable`` (the difference of tau-b seen with a power of 0.8;
        left out where no planted one is).

    Raises:
        ValueError: if no task can be compared.
    """
    shown = [*DESIGN, "train_loss", *(c for c in frame.columns if c.startswith("gap/")), *candidates(frame, min_runs=1)]
    stated = [[name, family] for name, family in frame.attrs["families"].items() if name in shown]
    tables = {
        "runs": _table(frame[list(dict.fromkeys(shown))]),
        "families": {"columns": ["measure", "family"], "rows": stated},
    }
    values: dict[str, Any] = {"runs": len(frame), "failed": len(frame.attrs.get("failed", []))}
    for task, runs in frame.groupby("task", sort=True):
        values[f"{task}/runs"] = len(runs)
        values[f"{task}/configurations"] = len(runs[["method", "rank", "links"]].drop_duplicates())
        for loss in (loss for loss in LOSSES if f"gap/{loss}" in runs and runs[f"gap/{loss}"].notna().any()):
            where = f"{task}/{loss}"
            try:
                table, claim = compare_task(
                    runs,
                    loss=loss,
                    permutations=permutations,
                    worlds=worlds,
                    seed=seed,
                    progress=progress,
                )
            except ValueError as reason:
                values[f"{where}/left_out"] = str(reason)
                continue
            tables[f"agreement/{where}"] = _table(table)
            values |= {f"{where}/verdict": claim["verdict"], f"{where}/sentence": claim["sentence"]}
            if claim["differences"] is not None:
                tables[f"differences/{where}"] = _table(claim["differences"])
                values[f"{where}/verdict_edge"] = float(claim["differences"]["edge"].min())
            if claim["rates"] is not None:
                tables[f"rates/{where}"] = _table(claim["rates"].set_index("strength"))
                values[f"{where}/null_decided"] = 1 - float(claim["rates"]["undecided"].iloc[0])
                if (least := detectable_difference(claim["rates"])) < math.inf:
                    values[f"{where}/detectable"] = least
            # A measure known for some of the runs only was ranked on another population.
            leading = table[table["runs"] == table["runs"].max()]["tau_b"]
            values[f"{where}/best"] = leading.index[0]
            values[f"{where}/best_margin"] = float(leading.iloc[0] - leading.iloc[1]) if len(leading) > 1 else math.inf
            values[f"{where}/significant"] = int(((table["q"] <= 0.05) | same(table["q"], 0.05)).sum())
            values[f"{where}/significant_edge"] = float((table["q"] - 0.05).abs().min())
            values[f"{where}/candidates"] = len(table)
    if len(tables) == 2:
        reasons = {value for key, value in values.items() if key.endswith("/left_out")}
        raise ValueError(f"no task has runs that can be compared: {'; '.join(sorted(reasons))}")
    return {"values": values, "tables": tables}


def published_result(
    table: pd.DataFrame, scores: pd.DataFrame, *, permutations: int = 9999, seed: int = 0
) -> dict[str, Any]:
    """The paper's own table 3 against the order of its bounds, as the values and tables of a result file.

    Both of the paper's tables are kept as printed, so that a reader of the result sees what was compared.

    Args:
        table: ``analysis.studies.published.generalization_error()``.
        scores: ``analysis.studies.published.performance()``.
        permutations: shuffles of the null.
        seed: of the resampling.
    """
    values: dict[str, Any] = {}
    rows = []
    for links in (1, 2, 3):
        for label, part in (("all", table), ("no-fft", table.drop(columns="fft"))):
            found = published_agreement(part, links=links, permutations=permutations, seed=seed)
            tau = found.pop("tau")
            values |= {f"links-{links}/{label}/{name}": value for name, value in found.items()}
            rows += [[links, label, *names, value] for names, value in tau.items()]
    tests = pair_tests(table)
    first = tests.set_index(["smaller_bound", "larger_bound"]).loc[("cla", "lora")]
    values |= {
        "cla-below-lora/agree": int(first["agree"]),
        "cla-below-lora/rows": int(first["rows"]),
        "cla-below-lora/p": float(first["p"]),
        "pair-tests/smallest-p": float(tests["p"].min()),
        "pair-tests/count": len(tests),
    }
    return {
        "values": values,
        "tables": {
            "tau": {"columns": ["links", "methods", "model", "dataset", "tau_b"], "rows": rows},
            "pairs": _table(tests.set_index(["smaller_bound", "larger_bound"])),
            "performance": _table(scores),
            "generalization_error": _table(table),
        },
    }
