"""Images as ordinary local data: folders named by class, and IDX files such as MNIST's and Fashion-MNIST's own."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis.tasks.files import Table, read_bytes
from analysis.tasks.kinds import HELDOUT

__all__ = ["identify", "read_idx", "read_image_folders", "read_images"]

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_IDX = re.compile(r"(?:(.*)[-.])?(images|labels)[-.]idx\d-ubyte(?:\.gz)?")
_COLUMNS = ("image", "label")
_PLAIN_MODES = ("RGB", "L")
_EIGHT_BITS = (*_PLAIN_MODES, "1", "P", "LA", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def read_images(folder: Path) -> dict[str, Table]:
    """Read a folder of IDX files or of folders named by class.

    Returns:
        A table with columns ``image`` (called to open one) and ``label`` for each split that the folder has: "train"
        and a held-out one, or "train" alone.

    Raises:
        ValueError: see `read_idx` and `read_image_folders`.
    """
    return read_idx(folder) if any(map(_idx_name, folder.iterdir())) else read_image_folders(folder)


def _rows(images: Sequence[Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]


def read_image_folders(folder: Path) -> dict[str, Table]:
    """Read images from folders named by their class, in ``train`` and ``test`` (or another held-out name) or not.

    A layer of folders between the split and the class is one of domains, as OfficeHome has it: they are pooled, and
    said. A folder ``test`` beside domains or classes is held out, never one of them.

    Raises:
        ValueError: if there is no image, one lies too deep or not deep enough, a file is no image, or a folder beside
            ``train`` is no split.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = [path for path in paths if path.suffix.lower() in _SUFFIXES]
    if not images:
        raise ValueError(
            f"folder {str(folder)!r} holds no image in CLASS/, train/CLASS/ or DOMAIN/CLASS/; accepted: "
            f"{', '.join(_SUFFIXES)}"
        )
    tops = {path.relative_to(folder).parts[0].lower(): path.relative_to(folder).parts[0] for path in images}
    strangers = [name for key, name in tops.items() if key not in ("train", *HELDOUT)]
    if "train" in tops and strangers:
        raise ValueError(f"folder {str(folder)!r} holds {strangers[0]!r} beside 'train', which is no split")
    splits: dict[str, list[Path]] = {}
    for path in images:
        top = path.relative_to(folder).parts[0].lower()
        splits.setdefault(top if top in HELDOUT else "train", []).append(path)
    if "train" not in splits:
        raise ValueError(f"folder {str(folder)!r} holds held-out images alone ({', '.join(splits)})")
    other = len(paths) - len(images)
    found = {}
    for split, members in splits.items():
        named = tops.get(split)
        root = folder if named is None else folder / named
        remarks = [f"{other} files are no images and left out"] if other and split == "train" else []
        found[split] = _read_split(split, root, members, remarks)
    return found


def _read_split(split: str, root: Path, paths: Sequence[Path], remarks: list[str]) -> Table:
    depths = {len(path.relative_to(root).parts): path for path in paths}
    if len(depths) > 1 or not set(depths) <= {2, 3}:
        odd = depths[max(depths)] if max(depths) > 3 else depths[min(depths)]
        raise ValueError(
            f"image {str(odd)!r} lies otherwise than CLASS/ or DOMAIN/CLASS/ as others of {str(root)!r} do"
        )
    if 3 in depths:
        domains = Counter(path.relative_to(root).parts[0] for path in paths)
        remarks.append(f"domains pooled: {', '.join(f'{name} ({count})' for name, count in domains.items())}")
    modes = Counter(_mode(path) for path in paths)
    turned = ", ".join(f"{count} of mode {mode}" for mode, count in modes.items() if mode not in _PLAIN_MODES)
    if turned:
        remarks.append(f"images turned into RGB: {turned}")
    wide = [mode for mode in modes if mode not in _EIGHT_BITS]
    doubts = [f"{modes[mode]} images of mode {mode} have more than 8 bits; what is above 255 is lost" for mode in wide]
    rows = _rows([functools.partial(_open, path) for path in paths], [path.parent.name for path in paths])
    return Table(where=split, columns=_COLUMNS, rows=rows, remarks=tuple(remarks), doubts=tuple(doubts))


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return str(image.mode)
    except OSError as error:
        raise ValueError(f"file {str(path)!r} is no image that can be read ({error}); mend or move it") from None


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ValueError(f"image {str(path)!r} is truncated or corrupt ({error})") from None


def identify(splits: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Name images so that equal ones have equal names: files by their bytes, others by their pixels.

    Only files of one size are read.

    Args:
        splits: images, or what opens one when it is called.
    """
    sizes = Counter(path.stat().st_size for images in splits for path in map(_path, images) if path is not None)

    def name(image: Any) -> str:
        path = _path(image)
        if path is None:
            image = image() if callable(image) else image
            return hashlib.sha256(f"{image.size} {image.mode} ".encode() + image.tobytes()).hexdigest()
        size = path.stat().st_size
        return f"{size} {hashlib.sha256(path.read_bytes()).hexdigest() if sizes[size] > 1 else ''}"

    return [[name(image) for image in images] for images in splits]


def _path(image: Any) -> Path | None:
    return image.args[0] if isinstance(image, functools.partial) and image.func is _open else None


def _idx_name(path: Path) -> re.Match[str] | None:
    return _IDX.fullmatch(path.name.lower())


def read_idx(folder: Path) -> dict[str, Table]:
    """Read MNIST's format: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and ``t10k-...``, or ``.gz``.

    Source: http://yann.lecun.com/exdb/mnist, "FILE FORMATS FOR THE MNIST DATABASE".

    Raises:
        ValueError: if a file of a pair is missing, truncated or no IDX file of bytes, or counts differ.
    """
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _idx_name(path)
        if match:
            name = match[1] or "train"
            split = "train" if name.endswith("train") else "test"
            pair = files.setdefault(split, {})
            if match[2] in pair:
                raise ValueError(f"folder {str(folder)!r} holds both {pair[match[2]].name} and {path.name}; leave one")
            pair[match[2]] = path
    found = {}
    for split, pair in files.items():
        lacking = {"images", "labels"} - set(pair)
        if lacking:
            raise ValueError(f"folder {str(folder)!r} lacks the {lacking.pop()} of {next(iter(pair.values())).name}")
        images, labels = _idx(pair["images"]), _idx(pair["labels"])
        if labels.ndim != 1 or images.ndim not in (3, 4) or len(images) != len(labels):
            raise ValueError(
                f"{pair['images'].name} of shape {images.shape} and {pair['labels'].name} of shape {labels.shape} are "
                f"no images with a label each"
            )
        opened = [functools.partial(Image.fromarray, image) for image in images]
        rows = _rows(opened, [str(label) for label in labels.tolist()])
        found[split] = Table(where=pair["images"].name, columns=_COLUMNS, rows=rows)
    if "train" not in found:
        raise ValueError(f"folder {str(folder)!r} holds no train-images-idx3-ubyte")
    return found


def _idx(path: Path) -> np.ndarray:
    """Read an array of unsigned bytes: two zeros, 8 for the type, the number of axes, their lengths, the values."""
    raw = read_bytes(path)
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"file {str(path)!r} is no IDX file of unsigned bytes; it begins with {raw[:4].hex(' ')}")
    shape = tuple(np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4).tolist())
    start = 4 + 4 * raw[3]
    if len(raw) - start != math.prod(shape):
        raise ValueError(f"file {str(path)!r} holds {len(raw) - start} values, but its shape is {shape}")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
