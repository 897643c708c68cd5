"""Sweeps lose no finished cell and repeat none, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.records import RunFailure, atomic_write_json, cell_state, config_key, read_json, run_once
from analysis.records.cells import claim
from analysis.runs.collect import frame
from analysis.runs.grids import grid
from analysis.runs.sweep import estimate_seconds, sweep

DRIVER = """
import os, sys, time
from pathlib import Path
from analysis.runs.sweep import sweep

def cell(values, folder):
    home = Path(values["home"])
    with (home / "log").open("a") as file:
        file.write(f"start {values['i']} {os.getpid()}\\n")
    limit = time.monotonic() + 600
    while not ((home / "all-may-go").exists() or (home / f"may-go-{values['i']}").exists()):
        assert time.monotonic() < limit, "nobody let this cell go: the test is gone"
        time.sleep(0.01)
    with (home / "log").open("a") as file:
        file.write(f"end {values['i']} {os.getpid()}\\n")
    return {"config": dict(values)}

home, count, backend, address = sys.argv[1:]
cells = [{"i": i, "home": home} for i in range(int(count))]
if __name__ == "__main__":
    report = sweep(cells, cell, folder=Path(home) / "runs", backend=backend, workers=2, scheduler=address or None,
                   threads=0, progress=False)
    print(report)
"""
"""A sweep of cells that wait, once begun, until the test lets them go: what is at work, and where, is never luck."""

CLUSTER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, protocol="tcp")
    print(cluster.scheduler_address, *[worker.pid for worker in cluster.workers.values()], flush=True)
    sys.stdin.read()
    cluster.close()
"""


@pytest.fixture
def driver(tmp_path: Path):
    """Start a sweep of fake cells in a process of its own; everything it started dies with the test."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    started: list[subprocess.Popen] = []

    def start(*, count: int, backend: str = "loky", address: str = "") -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(count), backend, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def events(folder: Path, kind: str) -> list[tuple[int, int]]:
    """Return (cell, process) of every start or end, in order."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(line.split()[1]), int(line.split()[2])) for line in lines if line.startswith(kind)]


def at_work(folder: Path) -> dict[int, int]:
    """Return cell -> the process that began it last, of the cells that are not recorded."""
    done = recorded(folder)
    return {cell: process for cell, process in events(folder, "start") if cell not in done}


def let_go(folder: Path, *cells: int) -> None:
    for name in [f"may-go-{cell}" for cell in cells] or ["all-may-go"]:
        (folder / name).touch()


def wait_for(condition, *processes: subprocess.Popen, seconds: float = 300.0) -> None:
    """Wait until the condition holds; the limit, for a machine however busy, only keeps a failure from hanging."""
    limit = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.poll() is None, f"the sweep ended too early: {process.stderr.read()}"
        assert time.monotonic() < limit, f"the sweep did not get there in {seconds:g} seconds"
        time.sleep(0.02)


def finish(process: subprocess.Popen, *, seconds: float = 300.0) -> str:
    """Wait for a sweep's end, which must be a good one, and return its output."""
    output, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return output


def recorded(folder: Path) -> set[int]:
    return {read_json(path)["config"]["i"] for path in (folder / "runs").glob("*/record.json")}


def assert_each_finished_once(folder: Path, count: int) -> None:
    ends = [cell for cell, _ in events(folder, "end")]
    assert sorted(ends) == list(range(count))
    records = [read_json(path) for path in (folder / "runs").glob("*/record.json")]
    assert sorted(record["config"]["i"] for record in records) == list(range(count))
    assert not list((folder / "runs").rglob("*.tmp"))


def test_grid_is_every_combination_in_order():
    cells = grid({"task": "digits"}, {"method": ["cla", "lora"], "seed": [0, 1, 2]})
    assert len(cells) == 6
    assert len({config_key(cell) for cell in cells}) == 6
    assert cells[1] == {"task": "digits", "method": "cla", "seed": 1}
    with pytest.raises(ValueError, match="axis 'rank'"):
        grid({}, {"rank": []})


def test_a_failing_cell_is_recorded_with_its_traceback_and_stops_no_other(tmp_path: Path):
    def cell(values, folder):
        if values["i"] == 1:
            raise ZeroDivisionError("one is a bad number")
        return {"config": dict(values)}

    report = sweep([{"i": i} for i in range(3)], cell, folder=tmp_path, workers=1, threads=0, progress=False)
    assert (report.total, report.done, len(report.failed)) == (3, 3, 1)
    record = read_json(tmp_path / report.failed[0] / "record.json")
    assert record["failure"]["type"] == "ZeroDivisionError"
    assert "one is a bad number" in record["failure"]["traceback"]
    assert frame([{**record, "config": {"seed": 0}}])["failure"].tolist() == ["one is a bad number"]


def test_a_second_sweep_computes_nothing_and_a_retry_only_what_failed(tmp_path: Path):
    calls = tmp_path / "calls"

    def cell(values, folder):
        with calls.open("a") as file:
            file.write(f"{values['i']}\n")
        if values["i"] == 0 and len(calls.read_text().split()) <= 2:
            raise RuntimeError("not yet")
        return {"config": dict(values)}

    cells = [{"i": i} for i in range(2)]
    first = sweep(cells, cell, folder=tmp_path / "runs", threads=0, progress=False)
    again = sweep(cells, cell, folder=tmp_path / "runs", threads=0, progress=False)
    assert (first.done, len(first.failed), again.skipped, again.done) == (2, 1, 2, 0)
    retried = sweep(cells, cell, folder=tmp_path / "runs", threads=0, progress=False, retry_failed=True)
    assert (retried.done, retried.failed) == (1, [])
    assert sorted(calls.read_text().split()) == ["0", "0", "1"]


def test_the_bar_counts_failed_runs_and_a_retried_one_once(tmp_path: Path, capsys):
    def cell(values, folder):
        if values["i"] < values["bad"]:
            raise RuntimeError("bad")
        return {"config": dict(values)}

    def key(values):
        return str(values["i"])

    sweep([{"i": i, "bad": 2} for i in range(3)], cell, folder=tmp_path, key=key, threads=0)
    assert "3/3" in (shown := capsys.readouterr().err)
    assert "failed=2" in shown
    sweep([{"i": i, "bad": 1} for i in range(3)], cell, folder=tmp_path, key=key, threads=0, retry_failed=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "3/3" in last
    assert "failed=1" in last


def test_killed_workers_cost_no_finished_cell(tmp_path: Path, driver):
    process = driver(count=6)
    known: set[int] = set()

    def fresh() -> set[int]:
        """Workers that the last kill did not know of: the pool was made anew, and is at work."""
        return set(at_work(tmp_path).values()) - known

    # Let go too early, a worker of the broken pool could end its cell and be ended before its record.
    for done in ({0}, {0, 1}):
        wait_for(lambda: len(fresh()) == 2, process)
        let_go(tmp_path, *done)
        wait_for(lambda d=done: recorded(tmp_path) == d and len(fresh()) == 2, process)
        victim, *_ = fresh()
        known = {worker for _, worker in events(tmp_path, "start")}
        os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(fresh()) == 2, process)
    let_go(tmp_path)
    output = finish(process)
    assert_each_finished_once(tmp_path, 6)
    assert "restarts=2" in output


def test_a_killed_parent_loses_no_finished_cell_and_its_successor_repeats_none(tmp_path: Path, driver):
    first = driver(count=5)
    let_go(tmp_path, 0, 1, 2)
    wait_for(lambda: recorded(tmp_path) == {0, 1, 2} and set(at_work(tmp_path)) == {3, 4}, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    let_go(tmp_path)
    output = finish(driver(count=5))
    assert "skipped=3, done=2" in output
    assert_each_finished_once(tmp_path, 5)


def is_alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_workers_of_a_parent_killed_alone_end_and_its_successor_computes_what_was_open(tmp_path: Path, driver):
    first = driver(count=4)
    let_go(tmp_path, 0)
    wait_for(lambda: recorded(tmp_path) == {0} and len(at_work(tmp_path)) == 2, first)
    workers = set(at_work(tmp_path).values())
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: not any(is_alive(worker) for worker in workers))
    let_go(tmp_path)
    output = finish(driver(count=4))
    assert "skipped=1, done=3" in output
    assert_each_finished_once(tmp_path, 4)


def test_two_parents_share_one_folder(tmp_path: Path, driver):
    both = [driver(count=8) for _ in range(2)]
    wait_for(lambda: len(set(at_work(tmp_path).values())) == 4, *both)
    let_go(tmp_path)
    for process in both:
        finish(process)
    assert_each_finished_once(tmp_path, 8)


def test_a_cell_that_kills_its_worker_is_recorded_and_the_others_go_on(tmp_path: Path):
    def cell(values, folder):
        if values["i"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"config": dict(values)}

    report = sweep([{"i": i} for i in range(3)], cell, folder=tmp_path, workers=2, threads=0, progress=False)
    assert report.restarts == 3
    states = [read_json(path)["status"] for path in tmp_path.glob("*/record.json")]
    assert sorted(states) == ["done", "done", "failed"]
    assert read_json(tmp_path / report.failed[0] / "record.json")["failure"]["type"] == "WorkerDeath"


@pytest.mark.full
def test_forty_runs_killed_five_times_are_each_recorded_once(tmp_path: Path):
    """Real runs under the real command; every record that a kill left behind has to be the same file at the end."""
    small = "--epochs 1 --workers 2 --num-train 40 --num-heldout 40 --quiet"
    grid = f"sweep --methods cla lora --ranks 1,2,4,8 --seeds 5 {small}".split()
    command = [sys.executable, "-m", "analysis", *grid, "--folder", str(tmp_path / "runs")]

    def found() -> dict[str, tuple[int, int]]:
        stats = {path.parent.name: path.stat() for path in (tmp_path / "runs").glob("*/record.json")}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}

    kept: dict[str, tuple[int, int]] = {}
    for kill in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda n=6 * (kill + 1): len(found()) >= n, seconds=900)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = found()
        assert kept.items() <= now.items()
        kept = now
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"40 runs: {len(kept)} were there, {40 - len(kept)} computed, 0 computed elsewhere, 0 failed" in done.stdout
    assert kept.items() <= found().items()
    assert len(found()) == 40


@pytest.mark.full
def test_real_runs_of_data_by_path_are_swept_by_two_dask_workers_in_another_folder(tmp_path: Path, trec_folder: Path):
    pytest.importorskip("distributed")
    (tmp_path / "elsewhere").mkdir()
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    cluster = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=tmp_path / "elsewhere", env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    try:
        address, *workers = cluster.stdout.readline().split()
        grid = "sweep --tasks trec --data trec --model tiny:bert --methods cla lora --ranks 1 --seeds 2 --epochs 1"
        place = ["--folder", "runs", "--backend", "dask", "--scheduler", address]
        command = [sys.executable, "-m", "analysis", *grid.split(), *place]
        done = subprocess.run(
            command, cwd=trec_folder.parent, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "4 computed" in done.stdout
        assert "failed=0" in done.stderr
        assert len(set(workers)) == 2
    finally:
        cluster.communicate(input="", timeout=300)


@pytest.mark.slow
def test_dask_goes_on_when_a_worker_dies(tmp_path: Path, driver):
    pytest.importorskip("distributed")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    cluster = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address, *pids = cluster.stdout.readline().split()
        workers = set(map(int, pids))
        process = driver(count=8, backend="dask", address=address)

        def all_at_work(done: int) -> bool:
            return len(recorded(tmp_path)) == done and set(at_work(tmp_path).values()) == workers

        wait_for(lambda: all_at_work(0), process)
        let_go(tmp_path, *at_work(tmp_path))
        wait_for(lambda: all_at_work(2), process)
        os.kill(int(pids[0]), signal.SIGKILL)
        let_go(tmp_path)
        finish(process)
        assert_each_finished_once(tmp_path, 8)
    finally:
        cluster.communicate(input="", timeout=300)


def test_ray_finishes_each_cell_once_and_goes_on_after_it_was_killed(tmp_path: Path, driver):
    pytest.importorskip("ray")
    process = driver(count=6, backend="ray")
    let_go(tmp_path, 0, 1)
    wait_for(lambda: recorded(tmp_path) == {0, 1} and len(at_work(tmp_path)) == 2, process)
    process.kill()
    process.communicate(timeout=300)
    successor = driver(count=6, backend="ray")
    let_go(tmp_path)
    finish(successor)
    assert_each_finished_once(tmp_path, 6)


def test_a_claim_excludes_others_and_dies_with_its_holder(tmp_path: Path):
    with claim(tmp_path / "cell") as mine:
        assert mine
        with claim(tmp_path / "cell") as second:
            assert not second
        assert run_once(lambda v, f: {}, {}, folder=tmp_path, key="cell") is None
    with claim(tmp_path / "cell") as again:
        assert again


def test_a_corrupt_record_is_an_open_cell(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_text('{"status": "done", "me')
    assert cell_state(tmp_path / "a") == "open"
    record = run_once(lambda v, f: {"config": dict(v)}, {"i": 1}, folder=tmp_path, key="a")
    assert record["status"] == "done"
    assert json.loads((tmp_path / "a" / "record.json").read_text())["config"] == {"i": 1}


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailure, match="No space left on device"):
        run_once(lambda v, f: {"config": {}}, {}, folder=tmp_path, key="a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".lock"]


def test_the_estimate_is_the_mean_time_of_finished_cells_over_the_workers(tmp_path: Path):
    cells = [{"i": i} for i in range(5)]
    assert estimate_seconds(cells, folder=tmp_path) == (5, None)
    for cell, seconds in zip(cells, (2.0, 4.0), strict=False):
        atomic_write_json(
            tmp_path / config_key(cell) / "record.json", {"status": "done", "timing": {"total_seconds": seconds}}
        )
    assert estimate_seconds(cells, folder=tmp_path) == (3, 9.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "slurm"}, "unknown backend 'slurm'; accepted: loky, dask, ray"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"backend": "dask"}, "needs its scheduler's address"),
        ({"scheduler": "tcp://x:1"}, "takes no scheduler"),
    ],
)
def test_bad_arguments_are_named_before_any_work(tmp_path: Path, arguments, message):
    with pytest.raises(ValueError, match=message):
        sweep([{"i": 0}], lambda v, f: {}, folder=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written to"):
        sweep([{"i": 0}], lambda v, f: {}, folder=tmp_path / "file", progress=False)
