"""Records on disk: JSON written whole or not at all, keyed by the hash of their configuration."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "RunFailure",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "cache_folder",
    "check_writable",
    "config_key",
    "read_json",
    "replacing",
]


class RunFailure(RuntimeError):
    """A run that started and failed; its record says where."""


def check_writable(folder: str | Path) -> Path:
    """Create a folder if needed and make sure that it can be written to.

    Raises:
        ValueError: if it cannot be created or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"folder {str(folder)!r} cannot be written to: {error.strerror}; give a writable one"
        ) from None
    return folder


@contextlib.contextmanager
def replacing(path: str | Path, *, keep: bool = False) -> Iterator[Path]:
    """Put a file or a folder in place whole or not at all: it is made beside its place, then renamed.

    Within the block nothing is at ``path`` but what was there before; if the block raises, that stays.

    Args:
        path: the place; folders above it are made if needed.
        keep: whether what another process put there in the meantime stays, and ours is dropped.

    Yields:
        Where to write, with the same suffix; nothing is there yet.

    Raises:
        ValueError: if the folder cannot be written to.
        FileNotFoundError: if the block wrote nothing.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as new:
    ...         _ = new.write_text("whole")
    ...     Path(folder, "a.txt").read_text(), len(os.listdir(folder))
    ('whole', 1)
    """
    path = Path(path)
    check_writable(path.parent)
    # A killed process leaves a hidden folder; its name and its content's are none that anything looks for.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp") as scratch:
        new = Path(scratch) / f"new{path.suffix}"
        yield new
        if new.is_file():
            with new.open("rb") as file:
                os.fsync(file.fileno())
        if keep and path.exists():
            return
        if path.is_dir():
            path.replace(Path(scratch) / "old")
        try:
            new.replace(path)
        except OSError:
            if not (keep and path.exists()):
                raise


def atomic_write_text(path: str | Path, text: str) -> Path:
    """Write a text file (UTF-8) whole or not at all; see `atomic_write_bytes`."""
    return atomic_write_bytes(path, text.encode())


def atomic_write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all; see `replacing`.

    Raises:
        ValueError: if the folder cannot be written to.
    """
    with replacing(path) as new:
        new.write_bytes(content)
    return Path(path)


def _plain(value: Any) -> Any:
    """Turn numpy scalars, arrays and paths into JSON's own types; NaN and infinities into their names."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (Sequence, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    raise TypeError(f"a record holds numbers, strings, lists and mappings, got {type(value).__name__}")


def atomic_write_json(path: str | Path, obj: object) -> Path:
    """Write strict JSON whole or not at all; NaN and infinities are kept by name ("nan", "inf", "-inf").

    Raises:
        TypeError: if ``obj`` holds something JSON has no word for.
        ValueError: if the folder cannot be written to.
    """
    return atomic_write_text(path, json.dumps(_plain(obj), indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        ValueError: if the file is missing, truncated, or holds no JSON object; the message names it.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no record at {str(path)!r}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"record {str(path)!r} is corrupt or truncated ({error}); delete it to run it again") from None
    if not isinstance(record, dict):
        raise ValueError(f"record {str(path)!r} holds a {type(record).__name__}, expected a JSON object")
    return record


def config_key(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that name a configuration, whatever the order of its keys.

    >>> config_key({"a": 1, "b": 2}) == config_key({"b": 2, "a": 1})
    True
    """
    text = json.dumps(_plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of cached base models: ``$BEYOND_LORA_CACHE`` or ``~/.cache/beyond-lora``."""
    return Path(os.environ.get("BEYOND_LORA_CACHE") or Path.home() / ".cache" / "beyond-lora")
