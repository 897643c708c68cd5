"""The two image data sets in their publishers' formats: OfficeHome's folders and CIFAR-10's binary batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["read_cifar_binary", "read_image_folders"]

Rows = list[dict[str, Any]]


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise ValueError(f"folder {str(folder)!r} holds no {name}; give the binary version of CIFAR-10")
    return folder / name


def read_image_folders(folder: Path) -> dict[str, Any]:
    """Read domain/class/image (OfficeHome), all domains pooled, split by seed."""

    def opener(path: Path) -> Callable[[], Any]:
        return lambda: Image.open(path)

    files = sorted(path for path in folder.glob("*/*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ValueError(f"folder {str(folder)!r} holds no domain/class/image.jpg")
    rows = [{"image": opener(path), "label": path.parent.name} for path in files]
    return {"all": rows, "notes": ("all domains pooled, split by seed",)}


def read_cifar_binary(folder: Path) -> dict[str, Any]:
    """Read the binary version: records of one label byte and 3,072 pixel bytes."""
    names = _file(folder, "batches.meta.txt").read_text().split()

    def rows(paths: list[Path]) -> Rows:
        found = []
        for path in paths:
            raw = np.fromfile(path, dtype=np.uint8)
            if raw.size == 0 or raw.size % 3073:
                raise ValueError(f"file {str(path)!r} is truncated: {raw.size} bytes are no multiple of 3073")
            for record in raw.reshape(-1, 3073):
                pixels = np.ascontiguousarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0))
                found.append({"image": Image.fromarray(pixels), "label": names[int(record[0])]})
        return found

    batches = sorted(folder.glob("data_batch_*.bin"))
    if not batches:
        raise ValueError(f"folder {str(folder)!r} holds no data_batch_*.bin; give the binary version of CIFAR-10")
    return {"train": rows(batches), "heldout": rows([_file(folder, "test_batch.bin")])}
