"""Supersample runs give the loss arrays of the CMI family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.runs.masks import collect_masks, draw, mask_cell, mask_cells, mask_key, read_masks, write_masks
from analysis.runs.sweep import sweep
from theory.information import cmi

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")

VALUES = {"task": "digits", "method": "cla", "rank": 4, "epochs": 6, "num_train": 80}


def test_masks_of_one_supersample_share_its_rows_and_are_fair():
    draws = [draw(40, rows=20, mask=mask, supersample=0, seed=1) for mask in range(400)]
    assert all(np.array_equal(pairs, draws[0][0]) for pairs, _ in draws)
    assert sorted(draws[0][0].ravel().tolist()) == list(range(40))
    bits = np.array([bits for _, bits in draws])
    # 8,000 fair bits: the standard error of the mean is 0.0056; four of them. Columns: 400 bits each, 0.025.
    assert bits.mean() == pytest.approx(0.5, abs=0.023)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.1
    other, _ = draw(40, rows=20, mask=0, supersample=1, seed=1)
    assert not np.array_equal(other, draws[0][0])


def test_masked_runs_fit_what_they_trained_on_and_feed_the_estimators(tmp_path: Path):
    cells = mask_cells(VALUES, rows=20, masks=4)
    report = sweep(cells, mask_cell, folder=tmp_path, key=mask_key, progress=False)
    assert (report.done, report.failed) == (4, [])
    arrays = collect_masks(cells, folder=tmp_path)
    assert arrays["zero_one"].shape == arrays["loss"].shape == (4, 20, 2)
    assert arrays["loss"].min() >= 0
    assert arrays["loss"].max() <= 1
    trained = np.take_along_axis(arrays["loss"], arrays["masks"][..., None].astype(int), 2)
    other = np.take_along_axis(arrays["loss"], 1 - arrays["masks"][..., None].astype(int), 2)
    assert trained.mean() < other.mean()
    assert np.array_equal(arrays["labels"][0], arrays["labels"][1])
    assert np.array_equal(arrays["zero_one"] == 1, arrays["predictions"] != arrays["labels"])
    found = cmi.estimate(arrays["zero_one"], arrays["masks"], rng=np.random.default_rng(0))
    assert found.gap == pytest.approx(arrays["zero_one"].mean() * 2 - 2 * found.train_risk, abs=1e-9)
    again = read_masks(write_masks(arrays, tmp_path / "losses.safetensors"))
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_cells_have_names_of_their_own():
    cells = mask_cells(VALUES, rows=20, masks=3, supersamples=2)
    assert len({mask_key(cell) for cell in cells}) == 6


@pytest.mark.parametrize("rows", [1, 21])
def test_rows_must_fit_the_pool(rows: int):
    with pytest.raises(ValueError, match=r"rows must lie in 2\.\.20"):
        draw(40, rows=rows, mask=0, supersample=0, seed=0)


def test_bad_counts_and_files_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="masks must be at least 1"):
        mask_cells(VALUES, rows=5, masks=0)
    with pytest.raises(ValueError, match="no record"):
        collect_masks(mask_cells(VALUES, rows=5, masks=1), folder=tmp_path)
    with pytest.raises(ValueError, match="no loss arrays"):
        read_masks(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match="corrupt"):
        read_masks(tmp_path / "bad")
