"""Folders named by class and IDX files are ordinary local data; a test folder is never a domain or a class."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.tasks.image_files import read_idx, read_image_folders
from analysis.tasks.image_publishers import read_officehome
from analysis.tasks.load import load_model, load_task
from analysis.tasks.task import DataOptions

pytestmark = pytest.mark.usefixtures("model_cache")

IMAGES = DataOptions(kind="image-classification")


def draw(folder: Path, *names: str, mode: str = "RGB") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (9, 8, len(mode)) if len(mode) > 1 else (9, 8)
        pixels = np.random.default_rng([*name.encode()]).integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


def mnist(folder: Path, train: int = 6, test: int = 4) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("t10k", test)):
        images, labels = rng.integers(0, 255, (count, 28, 28)), np.arange(count) % 2
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_class_folders_are_a_task_with_or_without_a_split(tmp_path: Path):
    draw(tmp_path / "a", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(5)))
    task = load_task("custom", data=tmp_path / "a", model="tiny:vit-base", options=IMAGES)
    assert (len(task.train), len(task.heldout), task.label_names) == (8, 2, ("cat", "dog"))
    draw(
        tmp_path / "b",
        *(f"{part}/{name}/{part}{i}.png" for part in ("train", "test") for name in "xy" for i in range(2)),
    )
    task = load_task("custom", data=tmp_path / "b", model="tiny:vit-base", options=IMAGES)
    assert (len(task.train), len(task.heldout), task.label_names, task.report.overlap) == (4, 4, ("x", "y"), 0)
    logits = load_model(task)(**task.collate([task.train[i] for i in range(2)])).logits
    assert logits.shape == (2, 2)


def test_domains_are_pooled_and_said_and_a_test_folder_beside_them_is_held_out(tmp_path: Path):
    draw(tmp_path, *(f"{domain}/{name}/1.jpg" for domain in ("Art", "Real World") for name in ("Bed", "Fan")))
    splits = read_officehome(tmp_path)
    assert (len(splits["all"]), splits["notes"]) == (4, ("domains pooled: Art (2), Real World (2)", "split by seed"))
    draw(tmp_path, "test/Bed/9.jpg", "test/Fan/9.jpg")
    splits = read_officehome(tmp_path)
    assert (len(splits["train"]), len(splits["heldout"])) == (4, 2)
    assert splits["notes"][1] == "held out: test"


def test_an_image_at_another_depth_a_stranger_and_what_is_no_image_are_named(tmp_path: Path):
    draw(tmp_path / "deep", "a/1.png", "b/1.png", "b/more/2.png")
    draw(tmp_path / "mixed", "train/a/1.png", "Art/a/1.png")
    draw(tmp_path / "only", "test/a/1.png")
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "1.png").write_bytes(b"no image")
    (tmp_path / "none").mkdir()
    for name, message in {
        "deep": "lies otherwise than CLASS/",
        "mixed": "holds 'Art' beside 'train', which is no split",
        "only": "holds held-out images alone",
        "bad": r"1\.png' is no image that can be read",
        "none": "holds no image in CLASS/",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_image_folders(tmp_path / name)


def test_other_files_and_other_modes_are_said_and_more_than_8_bits_doubted(tmp_path: Path):
    draw(tmp_path, "a/1.png", "b/1.png")
    draw(tmp_path, "b/2.png", mode="RGBA")
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "Thumbs.db").write_text("")
    table = read_image_folders(tmp_path)["train"]
    assert table.remarks == (
        "1 files are no images and left out",
        "images turned into RGB: 1 of mode I;16, 1 of mode RGBA",
    )
    assert table.doubts == ("1 images of mode I;16 have more than 8 bits; what is above 255 is lost",)


def test_a_truncated_image_is_named_when_it_is_opened(tmp_path: Path):
    draw(tmp_path, "a/1.png", "b/1.png")
    path = tmp_path / "a" / "1.png"
    path.write_bytes(path.read_bytes()[:-60])
    rows = read_image_folders(tmp_path)["train"].rows
    with pytest.raises(ValueError, match=r"a/1\.png' is truncated or corrupt"):
        rows[0]["image"]()


def test_equal_images_are_found_in_either_format(tmp_path: Path):
    draw(tmp_path / "a", *(f"train/{name}/{i}.png" for name in "xy" for i in range(2)))
    (tmp_path / "a" / "test" / "x").mkdir(parents=True)
    (tmp_path / "a" / "test" / "x" / "again.png").write_bytes((tmp_path / "a" / "train" / "x" / "0.png").read_bytes())
    task = load_task("custom", data=tmp_path / "a", model="tiny:vit-base", options=IMAGES)
    assert (task.overlap, task.report.train.repeated) == (1, 0)


def test_idx_files_are_read_as_their_publisher_writes_them(tmp_path: Path):
    tables = read_idx(mnist(tmp_path / "m"))
    pixels = np.random.default_rng(0).integers(0, 255, (6, 28, 28))
    assert [row["label"] for row in tables["train"].rows] == ["0", "1", "0", "1", "0", "1"]
    assert (np.asarray(tables["train"].rows[5]["image"]()) == pixels[5]).all()
    task = load_task("custom", data=tmp_path / "m", model="tiny:vit-base", options=IMAGES)
    assert (len(task.train), len(task.heldout), task.num_labels) == (6, 4, 2)


def test_an_idx_file_that_is_none_or_lacks_values_is_named(tmp_path: Path):
    labels = mnist(tmp_path / "m") / "train-labels-idx1-ubyte"
    for content, message in (
        (idx(np.zeros(6))[:-1], "holds 5 values, but its shape is"),
        (b"PK\x03\x04 and more", "is no IDX file of unsigned bytes; it begins with 50 4b 03 04"),
        (idx(np.zeros(5)), r"of shape \(6, 28, 28\) and .* of shape \(5,\) are no images with a label each"),
    ):
        labels.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_idx(tmp_path / "m")
    labels.unlink()
    with pytest.raises(ValueError, match=r"lacks the labels of train-images-idx3-ubyte\.gz"):
        read_idx(tmp_path / "m")
