"""One cell of a grid: computed once, by one process, recorded whole or not at all.

A cell's folder holds ``record.json`` when it is finished and a lock file while it is being computed. The
lock is the kernel's (``flock``): it goes when its holder goes, however it dies, so there are no stale
claims. The folder must lie on a file system with ``flock`` (local ones, NFS 4, Lustre with ``-o flock``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from analysis.records.store import RunFailure, atomic_write_json, check_writable, read_json

__all__ = ["CellState", "cell_state", "claim", "run_once"]

CellState = Literal["done", "failed", "open"]
CellFunction = Callable[[Mapping[str, Any], Path], dict[str, Any]]


def cell_state(folder: str | Path) -> CellState:
    """Say whether a cell is recorded as done or failed, or still open; a corrupt record is an open cell."""
    path = Path(folder) / "record.json"
    if not path.exists():
        return "open"
    try:
        status = read_json(path).get("status")
    except ValueError:
        return "open"
    return status if status in ("done", "failed") else "open"


@contextlib.contextmanager
def claim(folder: str | Path) -> Iterator[bool]:
    """Hold a cell for this process, or yield False when another one holds it.

    Raises:
        ValueError: if the folder cannot be written to, or its file system has no locks.
    """
    folder = check_writable(folder)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise ValueError(
                f"folder {str(folder)!r} lies on a file system without flock ({error.strerror}); choose another"
            ) from None
        yield True
    finally:
        os.close(handle)


def run_once(
    function: CellFunction,
    config: Mapping[str, Any],
    *,
    folder: str | Path,
    key: str,
    retry_failed: bool = False,
    refuse: type[Exception] | tuple[()] = (),
) -> dict[str, Any] | None:
    """Compute a cell unless it is recorded already, and record it.

    Args:
        function: called with the configuration and the cell's folder; returns the record's content. What it
            raises is recorded with its traceback as a failed cell, except KeyboardInterrupt and a full disk.
        config: the cell's configuration.
        folder: where the cells' folders are.
        key: the cell's name.
        retry_failed: whether a cell recorded as failed is computed again.
        refuse: an exception that is passed on and not recorded.

    Returns:
        The record, or None when another process is computing the cell.

    Raises:
        RunFailure: if the record cannot be written (the disk is full).
    """
    cell = Path(folder) / key
    done = ("done",) if retry_failed else ("done", "failed")
    if cell_state(cell) in done:
        return read_json(cell / "record.json")
    with claim(cell) as mine:
        if not mine:
            return None
        if cell_state(cell) in done:
            return read_json(cell / "record.json")
        try:
            record = {"schema": 1, "key": key, "status": "done", **function(config, cell)}
        except refuse:
            raise
        except Exception as error:
            if _disk_full(error):
                raise RunFailure(f"run {key}: no space left under {str(folder)!r}; free some and start again") from None
            record = {
                "schema": 1,
                "key": key,
                "status": "failed",
                "config": dict(config),
                "failure": {
                    "type": type(error).__name__,
                    "message": str(error),
                    "traceback": traceback.format_exc(),
                    **getattr(error, "details", {}),
                },
            }
        try:
            atomic_write_json(cell / "record.json", record)
        except OSError as error:
            raise RunFailure(
                f"run {key}: its record cannot be written ({error.strerror}); nothing is recorded"
            ) from None
        return read_json(cell / "record.json")


def _disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
