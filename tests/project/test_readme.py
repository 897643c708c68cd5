"""The README's examples run as they stand."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_theory_example_prints_what_its_comment_says(capsys):
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    value, vacuous = capsys.readouterr().out.split()
    assert re.search(r"# ([\d.]+) (True|False)", BLOCKS[0]).groups() == (f"{float(value):.1f}", vacuous)


def test_the_adapters_example_trains_a_chain(tmp_path):
    config = BertConfig(
        vocab_size=30, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=2
    )
    train = [{"input_ids": torch.arange(1, 6), "labels": i % 2} for i in range(16)]
    args = TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True
    )
    names = {"model": BertForSequenceClassification(config), "train": train, "args": args, "Trainer": Trainer}
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    adapted = [record for record in names["records"] if record["kind"] == "columns"]
    assert [record["links"] for record in adapted] == [4, 4]
    assert all(record["norm_update"] > 0 and len(record["support"]) == 64 for record in adapted)


def test_the_analysis_example_measures_a_gap(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[2].replace("rank=4", "rank=4, epochs=1"), "README.md", "exec"), {})
    assert "signed" in capsys.readouterr().out


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)|`make (\w+)`", README, re.M))
def test_every_make_target_it_names_exists(target):
    assert shutil.which("make")
    assert re.search(rf"^{''.join(target)}:", (ROOT / "Makefile").read_text(), re.M)


def test_its_table_of_other_tools_is_the_committed_one():
    table = json.loads((ROOT / "report/results/peers.json").read_text())["tables"]["capabilities"]
    section = README.split("## Beside other public code")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert lines[0][1:] == table["columns"][1:]
    assert lines[1:] == table["rows"]
