"""Timings one can compare: cases interleaved, medians and spread, ratios to a named peer, provenance kept."""

from __future__ import annotations

import statistics
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.records import provenance, write_result

__all__ = ["compare", "conclude", "table", "targets", "write"]

_COLUMNS = ("benchmark", "case", "seconds", "quartile_low", "quartile_high", "repeats", "speedup")


def compare(
    cases: Mapping[str, Callable[[], Any]],
    *,
    baseline: str,
    repeats: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.process_time,
    after: Callable[[], Any] | None = None,
    progress: str | None = None,
) -> dict[str, dict[str, float]]:
    """Time several ways of doing one thing, in turn, and compare their medians.

    The cases run one after the other within each repeat, so that a busy machine slows all of
    them alike, and the order is reversed in every second repeat. The default clock counts the
    process's own CPU seconds, which other processes disturb least; give ``time.perf_counter``
    for wall time (the only sensible choice when a case waits on a device or on other processes;
    a case on a GPU must also synchronise before it returns, or through ``after``).

    Args:
        cases: name -> function without arguments. Results are thrown away.
        baseline: name of the case that the others are divided by.
        repeats: timed calls of each case, at least 1.
        warmup: untimed calls of each case.
        clock: function returning seconds.
        after: called inside the timing after each case (for example a device synchronisation).
        progress: label of a tqdm bar; no bar when None.

    Returns:
        name -> {"seconds": median, "quartile_low", "quartile_high", "minimum", "repeats", "speedup":
        the median over repeats of baseline / case within one repeat}.

    Raises:
        ValueError: if there are no cases, ``baseline`` is none of them, or a count is too small.

    >>> from functools import partial
    >>> spent: list[float] = []
    >>> cases = {"slow": partial(spent.append, 6.0), "fast": partial(spent.append, 2.0)}
    >>> out = compare(cases, baseline="slow", clock=lambda: sum(spent))
    >>> out["fast"]["seconds"], out["fast"]["speedup"]
    (2.0, 3.0)
    """
    if not cases:
        raise ValueError("cases is empty; give at least one name -> function")
    if baseline not in cases:
        raise ValueError(f"baseline {baseline!r} is none of the cases; accepted: {', '.join(cases)}")
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be at least 1 and warmup at least 0, got {repeats} and {warmup}")
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tqdm(total=(warmup + repeats) * len(names), desc=progress, disable=progress is None, leave=False) as bar:
        for turn in range(-warmup, repeats):
            for name in names if turn % 2 == 0 else reversed(names):
                start = clock()
                cases[name]()
                if after is not None:
                    after()
                if turn >= 0:
                    seconds[name].append(clock() - start)
                bar.update()
    tick = 1e-9
    return {
        name: {
            "seconds": statistics.median(taken),
            "quartile_low": _quantile(taken, 0.25),
            "quartile_high": _quantile(taken, 0.75),
            "minimum": min(taken),
            "repeats": float(repeats),
            "speedup": statistics.median(
                max(b, tick) / max(t, tick) for b, t in zip(seconds[baseline], taken, strict=True)
            ),
        }
        for name, taken in seconds.items()
    }


def _quantile(sample: Sequence[float], level: float) -> float:
    ordered = sorted(sample)
    place = level * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Turn benchmark -> ``compare``'s result into one table of a result file.

    >>> table({"sum": compare({"a": lambda: None}, baseline="a", repeats=2)})["columns"][:3]
    ['benchmark', 'case', 'seconds']
    """
    rows = [
        [benchmark, case, *(row[column] for column in _COLUMNS[2:])]
        for benchmark, cases in results.items()
        for case, row in cases.items()
    ]
    return {"columns": list(_COLUMNS), "rows": rows}


def write(
    path: str | Path,
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    command: str,
    seeds: Sequence[int] = (),
    values: Mapping[str, Any] | None = None,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write a benchmark's result file: the table of timings, one speedup per case by key, provenance.

    Args:
        path: ``report/results/bench_<topic>.json``.
        results: benchmark -> ``compare``'s result.
        command: the command that makes it again.
        seeds: every seed used.
        values: further numbers by key (errors, targets), kept beside the speedups.
        tables: further tables by name.
    """
    speedups = {
        f"{benchmark}/{case}": row["speedup"] for benchmark, rows in results.items() for case, row in rows.items()
    }
    return write_result(
        path,
        provenance=provenance(command, seeds),
        values={**speedups, **(values or {})},
        tables={**({"timings": table(results)} if results else {}), **(tables or {})},
    )


def targets(topic: str) -> dict[str, float]:
    """Return what a topic aims at, by description, from ``targets.toml``.

    >>> targets("curvature")
    {'hessian-vector product, ours over curvlinops': 1.5}
    """
    entries = tomllib.loads(Path(__file__).with_name("targets.toml").read_text(encoding="utf-8"))
    found: dict[str, float] = entries[topic]
    return found


def conclude(
    topic: str,
    timings: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    values: Mapping[str, Any],
    results: str | Path | None,
    seeds: Sequence[int] = (0,),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """End a topic's run: put its targets beside what was measured, write if asked, and return everything.

    Args:
        topic: its name on the command line.
        timings: benchmark -> ``compare``'s result.
        values: further numbers by key.
        results: where to write; None writes nothing.
        seeds: every seed used.
        tables: further tables by name.

    Returns:
        ``{"timings", "values", "tables"}``.
    """
    values = {**values, **{f"target/{what}": bound for what, bound in targets(topic).items()}}
    if results is not None:
        command = f"python -m analysis bench {topic}"
        write(results, timings, command=command, seeds=seeds, values=values, tables=tables)
    return {"timings": timings, "values": values, "tables": {"timings": table(timings), **(tables or {})}}
