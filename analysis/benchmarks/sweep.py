"""How much faster is a sweep on two workers? loky and Dask, on real digits runs, against one process."""

from __future__ import annotations

import contextlib
import functools
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from analysis.benchmarks import harness
from analysis.runs import RunConfig, method_cells, run_cell, sweep

__all__ = ["run"]

_CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, dashboard_address=None, protocol="tcp")
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
    cluster.close()
"""


@contextlib.contextmanager
def _dask(workers: int) -> Iterator[str]:
    """Start a Dask cluster in a process of its own and yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, str(workers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise ValueError("the Dask cluster did not start; is 'distributed' installed?")
        yield address
    finally:
        process.communicate(input="", timeout=60)


def _key(cell: Mapping[str, Any]) -> str:
    return RunConfig.from_mapping(cell).key()


def _sweep(cells: list[dict[str, Any]], folders: Iterator[Path], **where: Any) -> None:
    """Run the grid into a new folder; a benchmark must not find its runs finished."""
    report = sweep(cells, run_cell, folder=next(folders), key=_key, progress=False, **where)
    if report.failed or report.done != len(cells):
        raise ValueError(f"{report.done} of {len(cells)} runs were done, {len(report.failed)} failed")


def run(*, results: str | Path | None = None, quick: bool = False, repeats: int | None = None) -> dict[str, Any]:
    """Time one grid of digits runs on one process, two loky workers, and one and two Dask workers.

    The clock is wall time, since the work is done in other processes. The workers of loky and Dask are warm: they
    have computed a grid before, so that imports are not counted (a quick trial counts them).

    Args:
        results: where to write; None writes nothing.
        quick: two short runs on few images, workers not warm.
        repeats: timed repeats; None is 3.

    Returns:
        ``{"timings": benchmark -> case -> row, "values": ..., "tables": ...}``.
    """
    count, epochs = (2, 1.0) if quick else (8, 12.0)
    few = {"num_train": 40, "num_heldout": 60} if quick else {}
    seeds = range(count // 2)
    cells = [
        cell
        for seed in seeds
        for cell in method_cells(
            {"seed": seed, "epochs": epochs, **few}, methods=["cla", "lora"], ranks=[4], links=None
        )
    ]
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folders = (root / str(number) for number in itertools.count())
        timed = functools.partial(_sweep, cells, folders)
        cases: dict[str, Callable[[], Any]] = {
            "one process": functools.partial(timed, backend="loky", workers=1),
            "loky, two workers": functools.partial(timed, backend="loky", workers=2),
        }
        if find_spec("distributed"):
            for workers, name in ((1, "Dask, one worker"), (2, "Dask, two workers")):
                address = stack.enter_context(_dask(workers))
                cases[name] = functools.partial(timed, backend="dask", scheduler=address)
        label = f"sweep of {count} digits runs"
        timings = {
            label: harness.compare(
                cases,
                baseline="one process",
                repeats=repeats or 3,
                warmup=0 if quick else 1,
                clock=time.perf_counter,
                progress=label,
            )
        }
    values: dict[str, Any] = {}
    one, two = (timings[label].get(f"Dask, {name} worker{end}") for name, end in (("one", ""), ("two", "s")))
    if one and two:
        values["Dask, two workers over one"] = one["seconds"] / two["seconds"]
    return harness.conclude("sweep", timings, values=values, results=results, seeds=list(seeds))
