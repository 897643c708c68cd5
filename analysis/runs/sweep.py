"""Grids of runs on joblib: one machine (loky), a Dask cluster or a Ray cluster; kill it and start it again.

Every cell is recorded atomically under the hash of its configuration the moment it is finished, and held by
a lock while it is computed, so that a sweep that was killed goes on where it stopped, and several sweeps
on one folder share the work. The workers of a killed sweep end with it, those of a cluster with their own masters.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import joblib
from joblib import Parallel, delayed
from tqdm import tqdm

from analysis.records import (
    CellFunction,
    atomic_write_json,
    cell_state,
    check_writable,
    config_key,
    read_json,
    run_once,
)

__all__ = ["BACKENDS", "SweepReport", "estimate_seconds", "sweep"]

BACKENDS = ("loky", "dask", "ray")
_MAX_DEATHS = 3
_POLL_SECONDS = 0.5
_ORPHAN_SECONDS = 1.0


@dataclass
class SweepReport:
    """What a sweep did.

    Attributes:
        total: cells asked for.
        skipped: recorded before this sweep began.
        done: computed and recorded by this sweep's workers.
        failed: keys of the cells recorded as failed.
        elsewhere: recorded by another sweep meanwhile.
        restarts: times the pool of workers was lost and made anew.
        seconds: wall-clock time.
    """

    total: int = 0
    skipped: int = 0
    done: int = 0
    failed: list[str] = field(default_factory=list)
    elsewhere: int = 0
    restarts: int = 0
    seconds: float = 0.0


@functools.lru_cache(maxsize=1)
def _end_with(parent: int) -> None:
    """End this worker soon after its parent: the cell at hand is open again, and its next computation resumes it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _job(
    cell: Mapping[str, Any],
    key: str,
    *,
    function: CellFunction,
    folder: str,
    parent: str,
    master: int | None,
    threads: int,
    retry: bool,
) -> tuple[str, str]:
    """Compute one cell in a worker; leave a mark first, so that the parent can tell whom a worker's death took."""
    if master is not None and master != os.getpid():
        _end_with(master)
    torch = sys.modules.get("torch")  # loaded with a cell's function that needs it; a light one need not wait for it
    if threads and torch is not None:
        torch.set_num_threads(threads)
    mark = Path(folder) / key / f".started-{parent}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as file:
        file.write("x")
    record = run_once(function, cell, folder=folder, key=key, retry_failed=retry)
    mark.unlink(missing_ok=True)
    return key, "elsewhere" if record is None else str(record["status"])


@dataclass(frozen=True)
class _Pool:
    """Which workers compute the cells, arguments as in :func:`sweep`; refuses what cannot work."""

    backend: str
    workers: int
    scheduler: str | None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown backend {self.backend!r}; accepted: {', '.join(BACKENDS)}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        needed = {"dask": "distributed", "ray": "ray"}.get(self.backend)
        if needed is not None and importlib.util.find_spec(needed) is None:
            raise ValueError(f"backend {self.backend!r} is not installed; pip install 'beyond-lora[{self.backend}]'")
        if self.backend == "dask" and self.scheduler is None:
            raise ValueError("backend 'dask' needs its scheduler's address, for example tcp://127.0.0.1:8786")
        if self.backend == "loky" and self.scheduler is not None:
            raise ValueError(f"backend 'loky' runs on this machine and takes no scheduler, got {self.scheduler!r}")

    @contextlib.contextmanager
    def opened(self) -> Iterator[dict[str, Any]]:
        """Set joblib up and yield the arguments of ``Parallel``."""
        if self.backend == "loky":
            with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
                yield {
                    "n_jobs": self.workers,
                    "batch_size": 1,
                    "pre_dispatch": "all",
                    "return_as": "generator_unordered",
                }
        elif self.backend == "dask":
            from distributed import Client

            with Client(self.scheduler, timeout="20s") as client, joblib.parallel_config(backend="dask", client=client):
                yield {"n_jobs": -1, "batch_size": 1, "pre_dispatch": "all"}
        else:
            import ray
            from ray.util.joblib import register_ray

            alone = self.scheduler is None
            local = {"num_cpus": self.workers, "include_dashboard": False} if alone else {}
            ray.init(address=self.scheduler, ignore_reinit_error=True, log_to_driver=False, **local)
            register_ray()
            with joblib.parallel_config(backend="ray"):
                yield {"n_jobs": self.workers if alone else -1, "batch_size": 1}


def sweep(
    cells: Sequence[Mapping[str, Any]],
    function: CellFunction,
    *,
    folder: str | Path,
    key: Callable[[Mapping[str, Any]], str] = config_key,
    backend: str = "loky",
    workers: int = 1,
    scheduler: str | None = None,
    threads: int = 1,
    retry_failed: bool = False,
    progress: bool = True,
) -> SweepReport:
    """Compute every cell that is not recorded yet, each exactly once.

    A worker that dies (killed, out of memory) takes no finished cell with it: the pool is made anew and
    the rest goes on; a cell during which workers die three times is recorded as failed. A cell that
    another sweep on the same folder is computing is waited for.

    Args:
        cells: configurations; equal keys are computed once.
        function: importable by the workers; called with a configuration and the cell's folder, returns the
            record's content.
        folder: where records go; shared by all machines of a cluster.
        key: names a cell by its configuration.
        backend: "loky" (processes here), "dask" or "ray".
        workers: processes, for "loky" and a local "ray"; one "loky" worker is this process itself.
        scheduler: address of the Dask scheduler or the Ray cluster.
        threads: torch's threads per worker; 0 leaves them alone.
        retry_failed: whether cells recorded as failed are computed again.
        progress: whether to show a bar: runs done and failed, time elapsed and left.

    Returns:
        What was done.

    Raises:
        ValueError: unknown or missing backend, no scheduler, a folder that cannot be written to.
    """
    pool = _Pool(backend, workers, scheduler)
    folder = check_writable(folder).resolve()
    started = time.monotonic()
    named = {key(cell): cell for cell in cells}
    report = SweepReport(total=len(named))
    closed = ("done",) if retry_failed else ("done", "failed")
    todo = [name for name in named if cell_state(folder / name) not in closed]
    report.skipped = len(named) - len(todo)
    parent = uuid.uuid4().hex[:12]
    master = os.getpid() if backend == "loky" else None
    job = partial(
        _job,
        function=function,
        folder=str(folder),
        parent=parent,
        master=master,
        threads=threads,
        retry=retry_failed,
    )
    deaths: dict[str, int] = {}
    bar = tqdm(total=len(named), initial=report.skipped, desc="sweep", unit="run", disable=not progress)
    with bar, _counting(bar, folder, todo):
        while todo:
            finished = _one_pass({name: named[name] for name in todo}, job, pool, report)
            todo = [name for name in todo if name not in finished]
            for name in list(todo):
                if cell_state(folder / name) in closed and not (folder / name / f".started-{parent}").exists():
                    report.elsewhere += 1
                    todo.remove(name)
                elif _died(folder / name, parent):
                    deaths[name] = deaths.get(name, 0) + 1
                    if deaths[name] >= _MAX_DEATHS:
                        _record_death(folder, name, named[name], report)
                        todo.remove(name)
            if todo and not finished:
                time.sleep(_POLL_SECONDS)
    report.failed = [name for name in named if cell_state(folder / name) == "failed"]
    report.seconds = time.monotonic() - started
    return report


def _one_pass(
    todo: Mapping[str, Mapping[str, Any]],
    job: Callable[[Mapping[str, Any], str], tuple[str, str]],
    pool: _Pool,
    report: SweepReport,
) -> set[str]:
    """Submit the open cells once; return those that are recorded now. A lost pool ends the pass early."""
    finished: set[str] = set()
    try:
        with pool.opened() as arguments:
            results = Parallel(**arguments)(delayed(job)(cell, name) for name, cell in todo.items())
            for name, status in results:
                if status == "elsewhere":
                    continue
                finished.add(name)
                report.done += 1
    except BrokenExecutor:
        report.restarts += 1
    except Exception as error:
        if type(error).__name__ not in ("KilledWorker", "WorkerCrashedError", "RayTaskError"):
            raise
        report.restarts += 1
    return finished


@contextlib.contextmanager
def _counting(bar: Any, folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Move the bar by the records that appear, whoever writes them: a cluster's results come back all at once."""
    before = {name: _written(folder / name) for name in names}  # a failed run that is retried has a record already
    over, failed = threading.Event(), 0

    def count() -> None:
        nonlocal failed
        closed = [name for name, stamp in before.items() if _written(folder / name) != stamp]
        for name in closed:
            del before[name]
        failed += sum(cell_state(folder / name) == "failed" for name in closed)
        bar.set_postfix(failed=failed, refresh=False)
        bar.update(len(closed))

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            count()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        count()


def _written(cell: Path) -> int | None:
    """Return when a cell's record was written; None without one."""
    try:
        return (cell / "record.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _died(cell: Path, parent: str) -> bool:
    """Whether one of this sweep's workers began the cell and is gone without a record."""
    mark = cell / f".started-{parent}"
    if not mark.exists() or cell_state(cell) == "done":
        return False
    mark.unlink(missing_ok=True)
    return True


def _record_death(folder: Path, name: str, cell: Mapping[str, Any], report: SweepReport) -> None:
    message = f"workers died {_MAX_DEATHS} times while computing this cell (killed, or out of memory)"
    record = {"schema": 1, "key": name, "status": "failed", "config": dict(cell)}
    atomic_write_json(folder / name / "record.json", {**record, "failure": {"type": "WorkerDeath", "message": message}})
    report.done += 1


def estimate_seconds(
    cells: Sequence[Mapping[str, Any]],
    *,
    folder: str | Path,
    key: Callable[[Mapping[str, Any]], str] = config_key,
    workers: int = 1,
) -> tuple[int, float | None]:
    """Estimate how long the open cells take, from the times in the records that are there.

    Args:
        cells: the sweep's configurations.
        folder: its records.
        key: as in :func:`sweep`.
        workers: processes.

    Returns:
        The number of open cells, and seconds on ``workers`` processes (None without a finished record).
    """
    keys = {key(cell) for cell in cells}
    folder = Path(folder)
    open_cells = [name for name in keys if cell_state(folder / name) == "open"]
    seconds = [
        read_json(folder / name / "record.json").get("timing", {}).get("total_seconds")
        for name in keys
        if cell_state(folder / name) == "done"
    ]
    known = [float(value) for value in seconds if value is not None]
    if not known:
        return len(open_cells), None
    return len(open_cells), sum(known) / len(known) * len(open_cells) / max(1, min(workers, os.cpu_count() or 1))
