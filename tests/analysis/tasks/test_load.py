"""Publishers' files load as they are; what cannot be a task is refused in one clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.runs import RunConfig
from analysis.runs.settings import SETTINGS, get_settings
from analysis.tasks.load import load_model, load_task, task_names
from analysis.tasks.presets import DATASETS, MODELS, TINY_MODELS
from analysis.tasks.task import DataOptions, carve
from theory.heads import trained_heads
from theory.methods import METHODS

pytestmark = pytest.mark.usefixtures("model_cache")


def text_of(task, example) -> str:
    from analysis.tasks.models import load_tokenizer

    return load_tokenizer(task.model).decode(example["input_ids"], skip_special_tokens=False)


def test_digits_split_is_fixed_by_seed_disjoint_and_complete():
    task, other = load_task("digits", seed=3), load_task("digits", seed=4)
    assert (len(task.train), len(task.heldout), task.num_labels) == (200, 696, 5)
    pixels = [example["pixel_values"].numpy().tobytes() for example in [*task.train, *task.heldout]]
    again = load_task("digits", seed=3)
    assert pixels == [e["pixel_values"].numpy().tobytes() for e in [*again.train, *again.heldout]]
    assert pixels != [e["pixel_values"].numpy().tobytes() for e in [*other.train, *other.heldout]]
    assert sorted(pixels) == sorted(e["pixel_values"].numpy().tobytes() for e in [*other.train, *other.heldout])
    assert task.max_loss == math.log(50)


def test_trec_loads_latin_1_with_coarse_and_fine_labels(trec_folder: Path):
    coarse = load_task("trec", data=trec_folder, model="tiny:bert")
    fine = load_task("trec50", data=trec_folder, model="tiny:bert")
    assert (len(coarse.train), len(coarse.heldout)) == (24, 12)
    assert coarse.label_names == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    assert fine.label_names == ("DESC:def", "HUM:ind", "LOC:city", "NUM:dist")
    assert "café" in text_of(coarse, coarse.train[0])
    assert coarse.train[0]["labels"] == 5
    assert coarse.overlap == 12


def test_folio_joins_premises_and_maps_unknown_to_uncertain(tmp_path: Path):
    rows = [
        {"premises": ["All cats sleep.", "Tom is a cat."], "conclusion": "Tom sleeps.", "label": "True"},
        {"premises": "All cats sleep.", "conclusion": "Tom is a dog.", "label": "Unknown"},
    ]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task("folio", data=tmp_path, model="tiny:roberta-base")
    assert [example["labels"] for example in task.train] == [1, 2]
    assert "All cats sleep. Tom is a cat." in text_of(task, task.train[0])


def test_e2e_reads_quotes_and_newlines_and_counts_the_target_alone(tmp_path: Path):
    body = 'mr,ref\n"name[The Mill], area[centre]","The ""Mill"" is, as\nyou see, central."\n"name[X]","X is X."\n'
    (tmp_path / "devset.csv").write_text(body)
    (tmp_path / "testset_w_refs.csv").write_text(body)
    task = load_task("e2e", data=tmp_path, model="tiny:gpt2-small")
    example = task.train[0]
    target = [token for token, label in zip(example["input_ids"], example["labels"], strict=True) if label != -100]
    from analysis.tasks.models import load_tokenizer

    assert load_tokenizer(task.model).decode(target) == 'The "Mill" is, as\nyou see, central.</s>'
    assert task.notes == ("trained on devset.csv: the folder holds no trainset.csv",)
    assert task.max_loss == math.log(10 * task.num_labels)


def test_django_pairs_lines_and_refuses_misaligned_files(tmp_path: Path):
    (tmp_path / "all.anno").write_text("".join(f"  set x to {i}.\n" for i in range(40)))
    (tmp_path / "all.code").write_text("".join(f" x = {i}\n" for i in range(40)))
    task = load_task("django", data=tmp_path, model="tiny:gpt2-small")
    assert (len(task.train), len(task.heldout)) == (32, 8)
    (tmp_path / "all.code").write_text("x = 1\n")
    with pytest.raises(ValueError, match="must be aligned"):
        load_task("django", data=tmp_path, model="tiny:gpt2-small", seed=1)


OPENBOOK = {
    "question": {
        "stem": "Ice melts when",
        "choices": [{"text": t, "label": c} for t, c in zip("wxyz", "ABCD", strict=True)],
    },
    "answerKey": "C",
}


def test_cifar_binary_and_officehome_folders_load_as_images(tmp_path: Path):
    from PIL import Image

    rng = np.random.default_rng(0)
    cifar, office = tmp_path / "cifar", tmp_path / "office"
    cifar.mkdir()
    (cifar / "batches.meta.txt").write_text("cat\ndog\n")
    records = rng.integers(0, 255, (4, 3073), dtype=np.uint8)
    records[:, 0] = [0, 1, 0, 1]
    records.tofile(cifar / "data_batch_1.bin")
    records[:2].tofile(cifar / "test_batch.bin")
    for i in range(10):
        path = office / "Art" / ("Bed" if i % 2 else "Fan") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)
    for name, folder, count in (("cifar10", cifar, 4), ("officehome", office, 8)):
        task = load_task(name, data=folder, model="tiny:vit-base")
        assert len(task.train) == count
        assert load_model(task)(**task.collate([task.train[i] for i in range(2)])).logits.shape == (2, 2)
    (cifar / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="truncated"):
        load_task("cifar10", data=cifar, model="tiny:vit-base", seed=1)


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_custom_tables_load_by_column_names(suffix: str, separator: str, tmp_path: Path, write):
    rows = [("first", "second", "label"), ("N/A", "a", "yes"), ("b", "NA", "no"), ("c", "d", "yes")]
    text = "".join(separator.join(row) + "\n" for row in rows)
    for split in ("train", "test"):
        write(tmp_path / f"{split}.{suffix}", text)
    options = DataOptions(kind="text-classification", text="first", text_pair="second", label="label")
    task = load_task("custom", data=tmp_path, model="tiny:bert", options=options)
    assert task.label_names == ("no", "yes")
    assert "N/A" in text_of(task, task.train[0])


def test_custom_single_file_is_split_by_seed(tmp_path: Path, write):
    rows = "".join(json.dumps({"q": f"question {i}", "y": i / 10}) + "\n" for i in range(20))
    path = write(tmp_path / "all.jsonl", rows)
    options = DataOptions(kind="regression", text="q", label="y", label_range=(0.0, 2.0))
    task = load_task("custom", data=path, model="tiny:bert", options=options, seed=5)
    assert (len(task.train), len(task.heldout), task.max_loss) == (16, 4, 4.0)
    assert task.overlap == 0
    assert task.loss_name == "squared_error"


def test_multiple_choice_uses_its_head_or_letters_the_choices(tmp_path: Path, write):
    for name in ("train.jsonl", "test.jsonl"):
        write(tmp_path / name, "\n".join(json.dumps({**OPENBOOK, "answerKey": key}) for key in "CA"))
    encoder = load_task("openbookqa", data=tmp_path, model="tiny:bert")
    decoder = load_task("openbookqa", data=tmp_path, model="tiny:llama3-8b")
    assert encoder.collate(list(encoder.train))["input_ids"].shape[:2] == (2, 4)
    assert decoder.kind == "text-classification"
    assert "(C) y" in text_of(decoder, decoder.train[0])


@pytest.mark.parametrize("name", TINY_MODELS)
def test_every_architecture_of_the_paper_has_a_tiny_stand_in_that_every_method_can_adapt(name: str, trec_folder: Path):
    import adapters

    if name.startswith("vit"):
        pytest.skip("images: see the CIFAR test")
    task = load_task("trec", data=trec_folder, model=f"tiny:{name}")
    model = load_model(task)
    prepared = adapters.prepare(model, "cla", rank=2)
    loss = prepared.model(**task.collate(list(task.train[:2]))).loss
    loss.backward()
    trained = {n for n, p in prepared.model.named_parameters() if p.requires_grad and p.grad is not None}
    assert any("modules_to_save" in n for n in trained)
    assert any("modules_to_save" not in n for n in trained)


def test_pooled_heads_are_trained_where_they_are_new_and_kept_where_they_are_not(trec_folder: Path):
    deberta = load_task("trec", data=trec_folder, model="tiny:deberta-v3-base")
    bert = load_task("trec", data=trec_folder, model="tiny:bert")
    assert trained_heads(load_model(deberta)) == ("pooler", "classifier")
    assert trained_heads(load_model(bert)) == ("classifier",)


def test_presets_name_the_papers_fourteen_data_sets_and_ten_models():
    assert len(set(DATASETS) - {"trec"}) == 14
    assert len(MODELS) == 10
    assert {preset.settings for preset in MODELS.values()} <= set(SETTINGS)
    assert set(MODELS) <= set(TINY_MODELS)
    assert METHODS["lora+"].lr_ratio == get_settings("roberta").lr_ratio == 16


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ({}, "digits"),
        ({"task": "trec", "model": "here"}, "text"),
        ({"task": "mrpc", "model": "here"}, "pairs"),
        ({"task": "mrpc", "model": "roberta-base"}, "roberta"),
        ({"task": "custom", "model": "here", "options": DataOptions(text="a", text_pair="b")}, "pairs"),
        ({"task": "custom", "model": "here", "options": DataOptions(text="a")}, "text"),
    ],
)
def test_settings_follow_the_model_and_the_number_of_texts(values: dict, settings: str):
    assert RunConfig(**values).resolve().settings == settings


def test_carving_touches_the_training_split_alone():
    task = load_task("digits")
    smaller, selection = carve(task, share=0.1, seed=0)
    assert (len(smaller.train), len(selection)) == (180, 20)
    assert smaller.heldout is task.heldout
    ids = {id(example) for example in smaller.train}
    assert ids.isdisjoint({id(example) for example in selection})


CUSTOM = {"kind": "text-classification", "text": "text", "label": "label"}
BAD_TABLES = {
    "missing column": ("body,label\na,x\nb,y\n", {}, "no column 'text' for text; it has body, label"),
    "empty split": ("text,label\n", {}, "has no rows"),
    "one class": ("text,label\na,x\nb,x\nc,x\nd,x\ne,x\n", {}, "one class only"),
    "empty texts": ("text,label\n,x\n,y\n,x\n,y\n,x\n", {}, "text of every train example is empty"),
    "labels": ("text,label\na,1\nb,two\nc,3\nd,1\ne,1\n", {"kind": "regression"}, "is no finite number"),
    "encoding": ("text,label\na,x\nb,y\n", {"encoding": "utf-99"}, "unknown encoding 'utf-99'"),
    "no kind": ("text,label\na,x\nb,y\n", {"kind": None}, "kind is needed"),
    "no choices": ("text,label\na,0\nb,1\n", {"kind": "multiple-choice"}, "at least 2 columns"),
    "too many": ("text,label\na,x\nb,y\nc,x\nd,y\ne,x\n", {"num_train": 50}, "num_train must be at most 4"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_is_no_task_is_refused_in_one_line(case: str, tmp_path: Path, write):
    text, changes, message = BAD_TABLES[case]
    path = write(tmp_path / "data.csv", text)
    with pytest.raises(ValueError, match=message) as caught:
        load_task("custom", data=path, model="tiny:bert", options=DataOptions(**{**CUSTOM, **changes}))
    assert "\n" not in str(caught.value)


def test_a_label_that_is_no_class_of_a_preset_is_refused_by_name(trec_folder: Path):
    (trec_folder / "TREC_10.label").write_text("ODD:one Is this new ?\n")
    with pytest.raises(ValueError, match=r"label 'ODD' of heldout example 0 is no class .* accepted: ABBR"):
        load_task("trec", data=trec_folder, model="tiny:bert")


def test_what_is_not_there_is_named(tmp_path: Path, trec_folder: Path, monkeypatch):
    from analysis.tasks import hub, models
    from analysis.tasks import tables as local_data

    assert isinstance(hub.hub_reachable(), bool)
    monkeypatch.setattr(models, "hub_reachable", lambda: False)
    monkeypatch.setattr(local_data, "hub_reachable", lambda: False)
    options = DataOptions(**CUSTOM)
    with pytest.raises(ValueError, match="unknown task 'mnist'"):
        load_task("mnist")
    with pytest.raises(ValueError, match="needs a base model"):
        load_task("trec", data=trec_folder)
    with pytest.raises(ValueError, match=r"holds none of train_5500\.label"):
        load_task("trec", data=tmp_path, model="tiny:bert")
    with pytest.raises(ValueError, match="must be a folder"):
        load_task("trec", data=tmp_path / "nowhere", model="tiny:bert")
    with pytest.raises(ValueError, match="no data at"):
        load_task("custom", data=tmp_path / "nowhere.csv", model="tiny:bert", options=options)
    with pytest.raises(ValueError, match="cannot be fetched from the hub"):
        load_task("mrpc", model="tiny:bert")
    with pytest.raises(ValueError, match="cannot be fetched from the hub"):
        load_task("trec", data=trec_folder, model="someone/some-model")
    with pytest.raises(ValueError, match="no model folder at"):
        load_task("trec", data=trec_folder, model=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_task("trec", data=trec_folder, model=str(trec_folder))
    with pytest.raises(ValueError, match="unknown tiny model"):
        load_task("trec", data=trec_folder, model="tiny:rnn")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ranking"}, "unknown kind"),
        ({"num_train": 0}, "num_train must be at least 2"),
        ({"heldout_share": 1.0}, "heldout_share must lie in"),
        ({"max_length": 1}, "max_length"),
        ({"label_range": (1.0, 1.0)}, "label_range"),
    ],
)
def test_options_are_checked_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        DataOptions(**changes)


def test_task_names_are_all_there():
    assert task_names()[:2] == ("digits", "custom")
    assert "django" in task_names()
