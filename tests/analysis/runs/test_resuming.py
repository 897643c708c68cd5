"""A run that was killed and started again is the run that was never stopped: the same record, the same weights."""

from __future__ import annotations

import dataclasses
import itertools
import random
from pathlib import Path

import pytest
import resumption

from analysis.records import read_json
from analysis.runs.config import RunConfig
from analysis.runs.finetune import run
from analysis.runs.resuming import ByLength, last_complete
from analysis.tasks import DataOptions

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")

CASES = [
    ({"step": 4}, {"checkpoint": 2, "call": 300}),
    ({"checkpoint": 1, "call": 60}, {"step": 3}),
    ({"step": 2}, {"step": 5}),
    ({"checkpoint": 1, "call": 5000}, {"checkpoint": 1, "call": 5}),
    ({"step": 6}, {"checkpoint": 1, "call": 2000}),
]
"""Where runs of the covering array die, the first and the second time."""


def killed(config: RunConfig, folder: Path, *kills: dict[str, int]) -> int:
    """Run, die at each of the places, run to the end; return how often it did die."""
    deaths = 0
    for kill in kills:
        try:
            resumption.attempt(config, folder, kill, end=resumption.raise_killed)
        except resumption.Killed:
            deaths += 1
    run(config, folder=folder)
    return deaths


def test_the_best_step_of_all_epochs_is_chosen_although_the_run_died_where_one_ended(tmp_path: Path):
    options = DataOptions(num_train=60, num_heldout=100)
    config = RunConfig(method="fft", epochs=8, batch_size=10, learning_rate=0.03, lr_scheduler="constant",
                       select="best", selection_share=0.5, checkpoint_every=3, options=options)  # fmt: skip
    whole = run(config, folder=tmp_path / "whole")
    assert killed(config, tmp_path / "cut", {"step": 19}) == 1
    cut = read_json(tmp_path / "cut" / config.key() / "record.json")
    assert cut["timing"]["resumed_from"] == "checkpoint-18"
    assert cut["selection"] == whole["selection"]
    assert (cut["selection"]["candidates"], cut["timing"]["steps"], len(cut["history"])) == (8, 24, 8)
    assert whole["selection"]["step"] <= 18, "the case is about a step that the resumed process never saw"
    assert resumption.differences(config, tmp_path / "whole", tmp_path / "cut") == []


@pytest.mark.parametrize("number", range(len(CASES)))
def test_killed_equals_uninterrupted(number: int, tmp_path: Path):
    resumption.write_data(tmp_path / "data")
    row = next(itertools.islice(resumption.covering_array(resumption.AXES), number, None))
    config = resumption.config_of({**row, "save_adapter": True}, tmp_path / "data")
    run(config, folder=tmp_path / "whole")
    assert killed(config, tmp_path / "cut", *CASES[number])
    assert resumption.differences(config, tmp_path / "whole", tmp_path / "cut") == []


def test_packed_sequences_and_chosen_blocks_are_resumed_too(tmp_path: Path):
    """Options of language models alone, which no other kind of data can meet in the covering array."""
    resumption.write_data(tmp_path / "data")
    config = RunConfig(task="custom", data=str(tmp_path / "data" / "completions.jsonl"), model="tiny:gpt2-small",
                       method="c3la", rank=1, links=2, epochs=3, batch_size=2, layers=(0,), packing=True, select="best",
                       selection_share=0.3, checkpoint_every=2, save_adapter=True,
                       options=DataOptions(kind="causal-lm", text="text", label="label", num_train=40, num_heldout=8,
                                           max_length=64, split="seed"))  # fmt: skip
    run(config, folder=tmp_path / "whole")
    assert killed(config, tmp_path / "cut", {"step": 4}) == 1
    assert resumption.differences(config, tmp_path / "whole", tmp_path / "cut") == []


def test_no_option_of_a_run_is_left_out_unsaid():
    fields = {item.name for part in (RunConfig, DataOptions) for item in dataclasses.fields(part)}
    assert resumption.AXES.keys() <= fields
    assert fields - resumption.AXES.keys() == resumption.ELSEWHERE


@pytest.mark.full
@pytest.mark.parametrize("number", range(80))
def test_killed_equals_uninterrupted_for_every_pair_of_options(number: int, tmp_path: Path):
    rows = list(resumption.covering_array(resumption.AXES))
    assert len(rows) <= 80
    if number >= len(rows):
        return
    draw = random.Random(number)
    resumption.write_data(tmp_path / "data")
    config = resumption.config_of(rows[number], tmp_path / "data")
    run(config, folder=tmp_path / "whole")
    killed(config, tmp_path / "cut", *(resumption.draw_kill(draw) for _ in range(3)))
    assert resumption.differences(config, tmp_path / "whole", tmp_path / "cut") == []


def test_every_pair_of_values_meets_in_the_covering_array():
    axes = {"a": (0, 1, 2), "b": ("x", "y"), "c": (None, 1.5), "d": (False, True)}
    rows = list(resumption.covering_array(axes))
    met = {frozenset(pair) for row in rows for pair in itertools.combinations(row.items(), 2)}
    wanted = {
        frozenset(((one, x), (two, y)))
        for one, two in itertools.combinations(axes, 2)
        for x, y in itertools.product(axes[one], axes[two])
    }
    assert met >= wanted
    assert len(rows) < 3 * 2 * 2 * 2


def test_a_difference_is_found_wherever_it_is(tmp_path: Path):
    config = RunConfig(method="cla", rank=2, epochs=1, options=DataOptions(num_train=64, num_heldout=50))
    for folder in ("whole", "cut"):
        run(config, folder=tmp_path / folder)
    path = tmp_path / "cut" / config.key() / "record.json"
    path.write_text(path.read_text().replace('"steps": 2', '"steps": 1'))
    (difference,) = resumption.differences(config, tmp_path / "whole", tmp_path / "cut")
    assert difference == "/timing/steps: 2 became 1"


def test_an_epochs_order_is_the_same_whatever_was_drawn_before_and_differs_from_the_next_ones():
    sampler = ByLength(lengths=[5, 3, 9, 1, 7, 2, 8, 4] * 4, batch_size=4, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_only_a_checkpoint_that_every_process_has_finished_is_resumed_from(tmp_path: Path):
    for step, marks in ((3, (0, 1)), (6, (0, 1)), (12, (1,))):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for process in marks:
            (tmp_path / f"checkpoint-{step}" / f"complete-{process}-of-2").touch()
    assert last_complete(tmp_path, processes=2) == str(tmp_path / "checkpoint-6")
    assert not (tmp_path / "checkpoint-12").exists(), "a mark of a dead process would speak for its successor"
    assert last_complete(tmp_path, processes=1) is None
    assert last_complete(tmp_path / "nowhere") is None
