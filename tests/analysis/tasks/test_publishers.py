"""Every preset reads its publisher's files as they are given away; see ``formats/README.md``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.tasks.load import load_model, load_task
from analysis.tasks.presets import DATASETS
from analysis.tasks.publishers import read_published
from analysis.tasks.task import DataOptions, RawTask

pytestmark = pytest.mark.usefixtures("model_cache")

FORMATS = Path(__file__).parent / "formats"
US = "Jo lives in the U.S. now."
ALIMENTUM = "In the city centre there is a venue name Alimentum, this is not a family-friendly venue."
ROWS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "mrpc": (4, 2, {"text": '"We will not sell, he told the paper.', "label": "0"}),
    "stsb": (4, 2, {"text": '"Bridge to close, mayor says', "label": "2.600"}),
    "trec": (6, 3, {"text": "What town has the oldest clock ?", "label": "LOC"}),
    "trec50": (6, 3, {"text": "What town has the oldest clock ?", "label": "LOC:city"}),
    "paws": (4, 2, {"text": '"" Night Ferry "" was filmed in Oslo in 1961 .', "label": "1"}),
    "cola": (4, 2, {"text": "The ship sank the crew saved and.", "label": "0"}),
    "rte": (3, 2, {"text_pair": "Berg bought the mill.", "label": "not_entailment"}),
    "folio": (6, 3, {"text": "No plants are fungi. Mushrooms are fungi.", "text_pair": "No plants are mushrooms."}),
    "logiqa": (3, 2, {"choices": ["Jo is a member.", "Members like Jo.", US, "No member voted."]}),
    "clutrr": (3, 2, {"text_pair": "('Eva', 'Ida')", "label": "granddaughter"}),
    "openbookqa": (3, 2, {"text": "A magnet attracts", "label": 0}),
    "e2e": (5, 4, {"target": ALIMENTUM}),
    "django": (10, 2, {}),
}  # fmt: skip


def read(name: str, folder: Path) -> RawTask:
    return read_published(DATASETS[name], data=str(folder), options=DataOptions(), seed=0)


def test_every_preset_of_texts_has_its_form_here():
    images = {name for name, preset in DATASETS.items() if preset.kind == "image-classification"}
    assert set(ROWS) == {name for name in DATASETS if name != "parity"} - images


@pytest.mark.parametrize("name", ROWS)
def test_a_publishers_files_are_read_row_by_row(name: str):
    train, heldout, second = ROWS[name]
    raw = read(name, FORMATS / name.replace("trec50", "trec"))
    assert (len(raw.train), len(raw.heldout)) == (train, heldout)
    assert {key: raw.train[1][key] for key in second} == second


@pytest.mark.parametrize("name", ROWS)
def test_a_publishers_files_become_a_task_that_a_model_takes(name: str):
    model = "tiny:gpt2-small" if DATASETS[name].kind == "causal-lm" else "tiny:bert"
    task = load_task(name, data=FORMATS / name.replace("trec50", "trec"), model=model)
    assert torch.isfinite(load_model(task)(**task.collate(list(task.train))).logits).all()
    assert task.metric_name == DATASETS[name].metric_name
    assert task.report.parts[0]["dropped"] == {}


def test_a_letter_of_latin_1_that_elsewhere_ends_a_line_ends_none():
    assert read("trec", FORMATS / "trec").train[4]["text"] == "What animal builds dams \x85 and where ?"


def test_the_pipes_of_django_stay_aligned_and_its_pairs_are_real():
    rows = [*(raw := read("django", FORMATS / "django")).train, *raw.heldout]
    assert {"text": "import module warnings.\n", "target": "import warnings"} in rows


def test_clutrr_of_the_hub_says_the_same_as_its_generator():
    hub, generator = read("clutrr", FORMATS / "clutrr-hub"), read("clutrr", FORMATS / "clutrr")
    assert [row["label"] for row in hub.train] == ["nephew", "niece"]
    assert hub.train[0] == generator.train[0]


def test_sentences_are_no_relation(tmp_path: Path):
    shutil.copytree(FORMATS / "clutrr", tmp_path / "c")
    path = tmp_path / "c" / "1.2_test.csv"
    path.write_text(path.read_text().replace(",nephew,", ",['Per is the nephew of Mia. '],"))
    with pytest.raises(ValueError, match=r"row 1 of '.*1\.2_test\.csv' has target \"\['Per is the nephew.*a relation"):
        read("clutrr", tmp_path / "c")


def test_labels_that_a_test_file_keeps_back_are_no_class(tmp_path: Path):
    shutil.copytree(FORMATS / "rte", tmp_path / "r")
    path = tmp_path / "r" / "val.jsonl"
    path.write_text(path.read_text().replace('"label": "entailment", ', ""))
    with pytest.raises(ValueError, match="the label is empty in heldout row 1"):
        read("rte", tmp_path / "r")
    options = DataOptions(missing="drop")
    raw = read_published(DATASETS["rte"], data=str(tmp_path / "r"), options=options, seed=0)
    assert (len(raw.heldout), raw.parts[1].dropped) == (1, {"the label is empty": [1]})
