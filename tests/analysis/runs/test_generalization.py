"""Measured G(W): the interval covers, the sign is kept, seeds are averaged honestly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.records import atomic_write_json, frame_of, read_json, table_of
from analysis.runs.collect import (
    corrupt_records,
    find_runs,
    frame,
    read_records,
    renew_means,
    runs_result,
    seeds_of,
    write_parquet,
)
from analysis.runs.generalization import measured_gap
from analysis.statistics import bootstrap_means


def test_the_interval_covers_the_true_gap_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered, experiments = 0, 400
    for seed in range(experiments):
        heldout = np.minimum(rng.exponential(0.6, size=200), 2.0)
        # E min(X, 2) of an exponential with mean 0.6 is 0.6 (1 - exp(-2 / 0.6)).
        truth = 0.6 * (1 - np.exp(-2.0 / 0.6)) - 0.3
        gap = measured_gap(np.full(50, 0.3), heldout, loss_range=2.0, seed=seed, replicates=300)
        covered += gap.signed_low <= truth <= gap.signed_high
    # Nominal 0.95; three standard errors of 400 experiments are 0.033.
    assert 0.917 < covered / experiments < 0.985


def test_the_interval_narrows_as_one_over_root_m():
    rng = np.random.default_rng(1)
    widths = []
    for count in (100, 1600):
        gap = measured_gap([0.5], rng.random(count), loss_range=1.0)
        widths.append(gap.signed_high - gap.signed_low)
    # 16 times the examples: a quarter of the width, a little more for the unseen value's share of 1/101, within the
    # sampling error of two quantiles of 4,000 draws.
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.2)


def test_no_held_out_error_leaves_an_interval_with_a_width():
    gap = measured_gap(np.zeros(10), np.zeros(100), loss_range=1.0)
    # Clopper and Pearson: 1 - (0.025) ** (1/100).
    assert (gap.low, gap.high) == (0.0, pytest.approx(1 - 0.025**0.01))
    assert gap.units == 100


def test_held_out_examples_of_one_cluster_count_once():
    rng = np.random.default_rng(4)
    errors = np.repeat(rng.integers(0, 2, 40), 5).astype(float)
    alone = measured_gap([0.0], errors, loss_range=1.0)
    shared = measured_gap([0.0], errors, loss_range=1.0, clusters=np.repeat(np.arange(40), 5))
    once = measured_gap([0.0], errors[::5], loss_range=1.0)
    assert (alone.units, shared.units, once.units) == (200, 40, 40)
    assert shared.value == alone.value
    # Five copies of one draw say what one says: the same interval, up to two quantiles of 4,000 draws.
    assert [shared.signed_low, shared.signed_high] == pytest.approx([once.signed_low, once.signed_high], abs=0.015)


def test_a_hand_worked_gap():
    gap = measured_gap([0.1, 0.3], [0.0, 1.0, 0.5, 0.5], loss_range=1.0)
    assert (gap.train, gap.heldout) == (0.2, 0.5)
    assert gap.value == gap.signed == pytest.approx(0.3)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_value_is_the_absolute_sign_and_lies_in_its_interval(train, heldout):
    gap = measured_gap(train, heldout, loss_range=1.0, replicates=100)
    assert gap.value == abs(gap.signed)
    assert 0 <= gap.low <= gap.high <= 1
    assert gap.low - 1e-9 <= gap.value <= gap.high + 1e-9


def test_swapping_the_splits_flips_the_sign():
    rng = np.random.default_rng(2)
    a, b = rng.random(30), rng.random(30)
    assert measured_gap(a, b, loss_range=1.0).signed == pytest.approx(-measured_gap(b, a, loss_range=1.0).signed)


def test_an_undetermined_sign_gives_an_interval_that_begins_at_zero():
    gap = measured_gap([0.5], [0.4, 0.6] * 20, loss_range=1.0)
    assert gap.signed_low < 0 < gap.signed_high
    assert gap.low == 0.0


def test_bootstrap_means_have_the_standard_error_of_the_mean():
    values = np.random.default_rng(3).normal(size=400)
    means = bootstrap_means(values, replicates=4000)
    # The standard deviation of 4,000 draws is known to 1.1 %; four times that.
    assert means.std() == pytest.approx(values.std() / 20, rel=0.045)


def test_nan_losses_stay_nan():
    assert np.isnan(measured_gap([0.1, np.nan], [0.2], loss_range=1.0).value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [0.1], {}), "train_losses must be a non-empty vector"),
        (([0.1], [], {}), "heldout_losses must be a non-empty vector"),
        (([0.1], [1.5], {}), r"heldout_losses must lie in \[0, 1\], got 1.5; clip the loss first"),
        (([-0.1], [0.5], {}), "train_losses must lie in"),
        (([0.1], [0.5], {"confidence": 1.0}), "confidence must lie in"),
        (([0.1], [0.5], {"loss_range": np.inf}), "loss_range must be positive and finite"),
    ],
)
def test_bad_losses_are_named(arguments, message):
    train, heldout, options = arguments
    with pytest.raises(ValueError, match=message):
        measured_gap(train, heldout, **{"loss_range": 1.0, **options})


def record(seed: int, *, accuracy: float, method: str = "cla") -> dict:
    gap = {"value": 0.2, "low": 0.1, "high": 0.3, "signed": 0.2, "range": 1.0, "units": 50}
    return {
        "key": f"{method}{seed}",
        "status": "done",
        "config": {"task": "digits", "method": method, "rank": None if method == "fft" else 2, "links": 1, "seed": seed,
                   "epochs": 2.0, "learning_rate": 0.01, "model": None, "model_name": "digits-vit"},
        "task": {"num_train": 10, "metric": "accuracy", "notes": ["a note"]},
        "metrics": {"accuracy": accuracy, "train_loss": 0.1, "heldout_loss": "inf", "train_error": 0.0,
                    "heldout_error": 1 - accuracy},
        "generalization": {"zero_one": gap, "cross_entropy": gap},
        "timing": {"steps": 4, "seconds_per_step": 0.1, "total_seconds": 1.0, "peak_memory_bytes": 5,
                   "saved_activation_bytes": 7},
        "parameters": {"trainable": 3, "total": 9},
        "measures": {"margin_mean": "nan"},
        "provenance": {"command": "c", "commit": "abc", "seeds": [seed]},
    }  # fmt: skip


def test_records_become_one_row_each_and_keep_infinities():
    table = frame([record(0, accuracy=0.5), record(1, accuracy=0.7, method="fft")])
    assert table["metric"].tolist() == [0.5, 0.7]
    assert np.isinf(table["heldout_loss"]).all()
    assert table["measure_margin_mean"].isna().all()
    assert table["rank"].isna().tolist() == [False, True]


def test_collected_results_hold_every_run_and_every_mean(tmp_path):
    records = [record(seed, accuracy=0.5 + seed / 10, method=m) for m in ("cla", "fft") for seed in range(3)]
    for item in records:
        atomic_write_json(tmp_path / "runs" / item["key"] / "record.json", item)
    loaded = read_records(tmp_path / "runs")
    result = read_json(runs_result(loaded, tmp_path / "result.json", command="make it"))
    assert len(result["tables"]["runs"]["rows"]) == 6
    assert result["values"] == {"runs": 6, "failed": 0, "seeds": 3, "num_train": 10, "epochs": 2.0}
    means = pd.DataFrame(result["tables"]["means"]["rows"], columns=result["tables"]["means"]["columns"])
    assert means.set_index("method")["metric"].to_dict() == pytest.approx({"cla": 0.6, "fft": 0.6})
    assert result["provenance"]["seeds"] == [0, 1, 2]
    path = write_parquet(frame(loaded), tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(path), frame(loaded))
    assert table_of(pd.DataFrame({"a": [1.0, np.nan]})) == {"columns": ["a"], "rows": [[1.0], [None]]}


def test_the_means_of_a_committed_result_are_taken_anew_and_bootstraps_of_single_runs_left_out(tmp_path):
    path = runs_result([record(seed, accuracy=0.5 + seed / 10) for seed in range(3)], tmp_path / "r.json", command="c")
    old = read_json(path)
    wrong = [["nan" if isinstance(cell, float) else cell for cell in row] for row in old["tables"]["means"]["rows"]]
    atomic_write_json(path, {**old, "tables": {**old["tables"], "means": {**old["tables"]["means"], "rows": wrong}}})
    renewed = read_json(renew_means(path))
    assert renewed["tables"]["means"] == old["tables"]["means"]
    assert renewed["tables"]["runs"] == old["tables"]["runs"]
    units = [name.endswith("_units") for name in old["tables"]["runs"]["columns"]]
    earlier = table_of(frame_of(old["tables"]["runs"]).loc[:, [not unit for unit in units]])
    atomic_write_json(path, {**old, "tables": {**old["tables"], "runs": earlier}})
    renewed = read_json(renew_means(path))
    assert not [name for name in renewed["tables"]["runs"]["columns"] if name.endswith(("_low", "_high"))]
    assert "left out" in renewed["provenance"]["notes"][-1]
    atomic_write_json(path, {**old, "tables": {}})
    with pytest.raises(ValueError, match="holds no table 'runs'"):
        renew_means(path)


def test_a_corrupt_record_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no finished run under .* \(0 failed\)"):
        read_records(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_text('{"status"')
    with pytest.raises(ValueError, match=r"record\.json.* is corrupt or truncated"):
        read_records(tmp_path)


def test_one_corrupt_record_is_named_and_left_out_when_asked(tmp_path):
    for seed in range(2):
        atomic_write_json(tmp_path / str(seed) / "record.json", record(seed, accuracy=0.5))
    whole = record(2, accuracy=0.5)
    del whole["metrics"]
    atomic_write_json(tmp_path / "half" / "record.json", whole)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "record.json").write_text('{"status"')
    half, torn = corrupt_records(tmp_path)
    assert "half/record.json' lacks 'metrics'" in half
    assert "torn/record.json' is corrupt or truncated" in torn
    with pytest.raises(ValueError, match=r"record\.json.* is corrupt"):
        read_records(tmp_path)
    (tmp_path / "torn" / "record.json").unlink()
    with pytest.raises(ValueError, match="lacks 'metrics'"):
        read_records(tmp_path)
    assert len(read_records(tmp_path, skip_corrupt=True)) == 2


def test_custom_data_sets_keep_a_name_and_a_column_of_their_own(tmp_path):
    records = []
    for name in ("news.csv", "mail.csv"):
        for seed in range(2):
            item = record(seed, accuracy=0.5 if name == "news.csv" else 0.9)
            item["key"], item["config"]["task"] = f"{name}{seed}", "custom"
            item["config"]["data"] = {"name": name, "fingerprint": name}
            records.append(item)
    table = frame(records)
    assert table["data"].tolist() == ["news.csv", "news.csv", "mail.csv", "mail.csv"]
    assert "data" in seeds_of(table)
    means = frame_of(read_json(runs_result(records, tmp_path / "r.json", command="c"))["tables"]["means"])
    assert means.set_index("data")["metric"].to_dict() == pytest.approx({"news.csv": 0.5, "mail.csv": 0.9})


def test_runs_are_found_at_any_depth_and_failed_ones_when_asked_for(tmp_path):
    records = {"b/two": "done", "a": "failed", "b/one": "done", "c": "running"}
    for name, status in records.items():
        atomic_write_json(tmp_path / name / "record.json", {"status": status, "key": name})
    (tmp_path / "b" / "two" / "adapter").mkdir()
    found = find_runs(tmp_path)
    assert [run.folder for run in found] == [tmp_path / "b" / "one", tmp_path / "b" / "two"]
    assert [run.has_weights for run in found] == [False, True]
    assert [run.done for run in find_runs(tmp_path, failed=True)] == [False, True, True]
    assert find_runs(tmp_path / "b" / "one") == found[:1]
    with pytest.raises(ValueError, match=r"no finished run under .* \(1 failed\)"):
        find_runs(tmp_path / "a")
    with pytest.raises(ValueError, match="no folder of runs at"):
        find_runs(tmp_path / "d")
