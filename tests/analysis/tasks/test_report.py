"""What is missing is no class, what is dropped is counted, and what may spoil a result is said before a run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from analysis.tasks.encode import encode_task
from analysis.tasks.load import load_task
from analysis.tasks.report import DataReport
from analysis.tasks.screen import screen
from analysis.tasks.tables import read_table
from analysis.tasks.task import DataOptions, RawTask, Task, carve, choose

pytestmark = pytest.mark.usefixtures("model_cache")

COLUMNS = {"kind": "text-classification", "text": "text", "label": "label"}


def custom(data: Path, **options) -> Task:
    return load_task("custom", data=data, model="tiny:bert", options=DataOptions(**{**COLUMNS, **options}))


@pytest.mark.parametrize("label", [-1, "-1", "-", "", " ", None, float("nan"), np.float32("nan"), "NaN"])
def test_a_missing_label_is_refused_or_dropped_and_never_a_class(label):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": label}, {"text": "c", "label": "y"}]
    with pytest.raises(ValueError, match=r"the label is .* in train row 2; fill it in"):
        screen(rows, kind="text-classification", missing="refuse", where="train")
    kept = screen(rows, kind="text-classification", missing="drop", where="train")
    assert [row["text"] for row in kept.rows] == ["a", "c"]
    assert (kept.read, list(kept.dropped.values())) == (3, [[2]])


def test_minus_one_and_a_dash_are_classes_where_that_is_declared_and_numbers_of_a_regression():
    rows = [{"text": "a", "label": "-1"}, {"text": "b", "label": "1"}]
    assert screen(rows, kind="text-classification", missing="keep", where="t").rows == rows
    assert screen(rows, kind="regression", missing="refuse", where="t").rows == rows
    with pytest.raises(ValueError, match="label is empty"):
        screen([{"text": "a", "label": ""}], kind="text-classification", missing="keep", where="t")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"text": None}, "the text is null"),
        ({"text_pair": None}, "the text_pair is null"),
        ({"choices": ["a", None]}, "a choice is null"),
        ({"target": None}, "the target is null"),
        ({"target": " "}, "the target is empty"),
    ],
)
def test_a_null_is_no_text(row, fault: str):
    kind = "causal-lm" if "target" in row else "multiple-choice" if "choices" in row else "text-classification"
    with pytest.raises(ValueError, match=f"{fault} in train row 1"):
        screen([{"text": "a", "label": 0, **row}], kind=kind, missing="refuse", where="train")


@pytest.mark.parametrize("label", [["a", "b"], ["a"], {"a": 1}, np.array([0, 1])])
def test_several_labels_of_a_row_are_refused(label):
    with pytest.raises(ValueError, match=r"label of train row 1 holds several values .*multi-label"):
        screen([{"text": "a", "label": label}], kind="text-classification", missing="drop", where="train")


def test_names_of_classes_are_kept_and_minus_one_is_not_the_last_of_them(tmp_path: Path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": ["a", "b", "c", "d", "e"], "label": [1, 0, -1, 1, 0]}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.save_to_disk(str(tmp_path / "saved"))
    table.to_parquet(str(tmp_path / "a.parquet"))
    for path in (tmp_path / "saved", tmp_path / "a.parquet"):
        with pytest.raises(ValueError, match="the label is '-1' in"):
            custom(path)
        task = custom(path, missing="drop", heldout_share=0.5)
        assert task.label_names == ("no", "yes")
        assert task.report.parts[0]["dropped"] == {"the label is '-1'": 1}


def test_the_report_counts_what_repeats_what_is_empty_cut_and_new(tmp_path: Path, write):
    train = ["a,x", "a,x", "a,y", ",x", f"{'long ' * 40},y", "b,y"]
    write(tmp_path / "train.csv", "text,label\n" + "\n".join(train))
    write(tmp_path / "test.csv", "text,label\nb,y\nc,z\n")
    write(tmp_path / "dev.csv", "text,label\nd,x\n")
    task = custom(tmp_path, max_length=32)
    report = task.report
    assert (report.train.classes, report.heldout.classes) == ({"x": 3, "y": 3, "z": 0}, {"x": 0, "y": 1, "z": 1})
    assert (report.train.repeated, report.train.ambiguous, report.train.empty, report.train.cut) == (
        1,
        1,
        {"text": 1},
        1,
    )
    assert (report.overlap, report.only_heldout, report.train.cut, report.train.longest) == (1, ("z",), 1, 32)
    assert report.remarks == ("train.csv: not read: dev.csv",)
    assert report.shown == ("'<s>a</s>' -> x", "'<s>b</s>' -> y")
    assert len(report.warnings) == 6
    assert "warning: classes seen only in held-out data: z" in report.lines()
    assert json.loads(json.dumps(report.as_record()))["overlap"] == 1
    with pytest.raises(ValueError, match=r"strict: 1 of 6 \(16.7%\) training .* empty text \(and 5 more\)"):
        custom(tmp_path, max_length=32, strict=True)


def test_a_clean_data_set_passes_strictly(tmp_path: Path):
    text = "text,label\n" + "".join(f"word {i},{i % 2}\n" for i in range(20))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    report = custom(tmp_path / "a.csv.gz", strict=True).report
    assert (report.warnings, report.train.examples, report.heldout.examples) == ((), 16, 4)


def test_a_target_that_is_cut_is_counted_and_the_loss_begins_where_it_is_shown_to(tmp_path: Path, write):
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"ask {i} ,{'yes ' * i}!\n" for i in range(10)))
    options = DataOptions(kind="causal-lm", text="text", label="label", max_length=24)
    report = load_task("custom", data=path, model="tiny:gpt2-small", options=options).report
    assert report.train.cut + report.heldout.cut == sum(len(f"ask {i} " + "yes " * i + "!") + 1 > 24 for i in range(10))
    assert report.shown[0] == "'ask 0 ' -> '!</s>'"


def rows_of(classes: dict[str, int]) -> list[dict[str, str]]:
    return [{"text": f"{name} {i}", "label": name} for name, count in classes.items() for i in range(count)]


def encoded(rows: list, **options) -> Task:
    raw = RawTask(kind="text-classification", train=rows, heldout=rows[:4], metric_name="accuracy")
    return encode_task(raw, name="t", model="tiny:bert", seed=0, options=DataOptions(**options))


def counts(report: DataReport) -> dict[str, int]:
    return report.train.classes


def test_stratified_draws_keep_the_classes_shares(tmp_path: Path, write):
    rows = rows_of({"a": 60, "b": 30, "c": 10})
    assert counts(encoded(rows, num_train=20, stratify=True).report) == {"a": 12, "b": 6, "c": 2}
    assert counts(encoded(rows, num_train=5, stratify=True).report) == {"a": 2, "b": 2, "c": 1}
    task = encoded(rows, stratify=True)
    smaller, selection = carve(task, share=0.1, seed=0)
    assert sorted(example["labels"] for example in selection) == [0] * 6 + [1] * 3 + [2]
    assert len(smaller.train) == 90
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    raw = read_table(str(path), options=DataOptions(**COLUMNS, stratify=True), seed=3)
    assert [sum(row["label"] == name for row in raw.heldout) for name in "abc"] == [12, 6, 2]


def test_a_stratified_draw_is_as_large_as_asked_and_within_one_of_every_share():
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = rng.integers(0, 6, size=int(rng.integers(8, 60))).tolist()
        count = int(rng.integers(1, len(labels)))
        chosen = choose(len(labels), count, labels=labels, rng=rng)
        assert len(set(chosen)) == count
        for label in set(labels):
            share = count * labels.count(label) / len(labels)
            assert abs(sum(labels[i] == label for i in chosen) - share) < 1


def test_shares_of_no_classes_are_refused():
    with pytest.raises(ValueError, match="stratify needs classes"):
        DataOptions(kind="regression", stratify=True)
    folder = Path(__file__).parent / "formats" / "stsb"
    with pytest.raises(ValueError, match="stratify needs classes; task 'stsb'"):
        load_task("stsb", data=folder, model="tiny:bert", options=DataOptions(stratify=True))
