"""The two image data sets in their publishers' formats: OfficeHome's folders and CIFAR-10's binary batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis.tasks.image_files import read_image_folders
from analysis.tasks.kinds import HELDOUT

__all__ = ["read_cifar_binary", "read_officehome"]

Rows = list[dict[str, Any]]


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise ValueError(f"folder {str(folder)!r} holds no {name}; give the binary version of CIFAR-10")
    return folder / name


def read_officehome(folder: Path) -> dict[str, Any]:
    """Read domain/class/image, all domains pooled and split by seed; a folder ``test`` beside them is held out."""
    tables = read_image_folders(folder)
    heldout = next((name for name in HELDOUT if name in tables), None)
    notes = tables["train"].remarks
    if heldout is None:
        return {"all": tables["train"].rows, "notes": (*notes, "split by seed")}
    return {"train": tables["train"].rows, "heldout": tables[heldout].rows, "notes": (*notes, f"held out: {heldout}")}


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
