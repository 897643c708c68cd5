"""Where a number comes from: command, seeds, versions, device, commit."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["carried_notes", "provenance", "shown_path"]

_PACKAGES = ("torch", "transformers", "peft", "numpy", "scipy", "scikit-learn", "accelerate")


def _commit() -> str:
    root = Path(__file__).resolve().parents[2]
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"CPU: {name}, {torch.get_num_threads()} threads"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def shown_path(path: str | Path) -> str:
    """Return a path as it may stand in a record: never this machine's own folders.

    >>> shown_path("runs/digits"), shown_path("/home/someone/runs/digits")
    ('runs/digits', 'digits')
    """
    path = Path(path)
    return path.name if path.is_absolute() else path.as_posix()


def carried_notes(made: Mapping[str, Any], tasks: Sequence[str], *, how: str) -> list[str]:
    """Say since when a result file, written anew, carries what it holds of some tasks; one note a task.

    Args:
        made: provenance of the file that they are taken from; what it says of a task already stays.
        tasks: their names.
        how: "measured" or "recorded".

    >>> made = {"date": "2026-01-02", "commit": "abc", "device": "CPU", "notes": ["mrpc: as measured on 2025-01-02"]}
    >>> carried_notes(made, ["mrpc", "trec"], how="recorded")
    ['mrpc: as measured on 2025-01-02', 'trec: as recorded on 2026-01-02, commit abc, CPU']
    """
    said = {note.partition(": as ")[0]: note for note in made.get("notes", ())}
    new = f"as {how} on {made['date']}, commit {made['commit']}, {made['device']}"
    return [said.get(task, f"{task}: {new}") for task in tasks]


def provenance(command: str, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Say how a result was made, as a plain record.

    Args:
        command: the command that makes it again, from the repository's root.
        seeds: every seed used.
    """
    return {
        "command": command,
        "seeds": list(seeds),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": _device(),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
