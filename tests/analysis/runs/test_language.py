"""Language models: what they write, which blocks adapt, several examples in one sequence, and what a run will take."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

from analysis.runs import RunConfig, run
from analysis.runs.finetune import ConfigurationError, prepare_run
from analysis.runs.forecast import forecast
from analysis.runs.generation import generate
from analysis.runs.packing import check_packing, collate_packed, pack, packed_task
from analysis.tasks import DataOptions, Task, evaluate, load_model, load_task
from analysis.tasks import evaluation as tasks_evaluation
from theory.records import UpdateRecord

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")

FORMATS = Path(__file__).parents[1] / "tasks" / "formats"
DECODERS = ("tiny:gpt2-small", "tiny:llama3-8b")


@pytest.fixture(params=DECODERS)
def django(request) -> Task:
    return load_task("django", data=FORMATS / "django", model=request.param)


def configuration(**changes) -> RunConfig:
    values = {"task": "django", "data": str(FORMATS / "django"), "model": "tiny:llama3-8b", "method": "lora", "rank": 2}
    return RunConfig(**{**values, "batch_size": 2, "epochs": 1, **changes})


def test_packed_examples_are_all_there_once_and_within_their_length(django: Task):
    blocks = pack(django.train, length=250)
    assert len(blocks) < len(django.train)
    assert all(sum(len(example["input_ids"]) for example in block) <= 250 for block in blocks)
    packed = sorted(example["input_ids"] for block in blocks for example in block)
    assert packed == sorted(example["input_ids"] for example in django.train)


def test_a_packed_sequence_has_the_loss_of_its_examples_one_by_one(django: Task):
    model = load_model(django)
    blocks = pack(django.train, length=250)
    check_packing(model, blocks)
    with torch.no_grad():
        together = model(**collate_packed(blocks)).loss.item()
        alone = evaluate(model, django, django.train)
    mean = float((alone.losses * alone.weights).sum() / alone.weights.sum())
    assert together == pytest.approx(mean, rel=1e-5)  # float32 sums of some hundred terms


def test_a_model_that_lets_packed_examples_see_each_other_is_refused(django: Task):
    class Leaky(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, **batch):
            return self.model(**batch | {"attention_mask": torch.ones_like(batch["input_ids"])})

    with pytest.raises(ValueError, match="packing: in this model an example sees the one before it"):
        check_packing(Leaky(load_model(django)), pack(django.train, length=250))


def adapted(updates: list[UpdateRecord]) -> set[str]:
    return {update["name"] for update in updates if update["kind"] != "head"}


def test_a_run_packs_adapts_some_blocks_says_what_it_takes_and_is_the_same_unasked(tmp_path: Path):
    config = configuration(packing=True, layers=(1,), options=DataOptions(max_length=250))
    told: list[str] = []
    record = run(config, folder=tmp_path / "a", announce=told.append)
    assert adapted(record["updates"]) == {"model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"}
    assert record["task"]["num_train"] == 10
    task = load_task("django", data=config.data, model=config.model, options=config.options)
    sequences = len(pack(task.train, length=250))
    assert record["timing"]["steps"] == -(-sequences // 2) < 5
    assert len(told) == 1
    assert told[0].startswith(f"{record['timing']['steps']} steps, about ")
    assert record["data"]["parts"][0]["read"] == 12
    again = run(config, folder=tmp_path / "b")
    assert (again["key"], again["metrics"], again["history"]) == (record["key"], record["metrics"], record["history"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (0, 7)}, r"layers must name blocks from 0 to 1 of 'model\.layers', got \[7\]"),
        ({"layers": ()}, "layers must name blocks from 0 to 1"),
        ({"target_modules": ("layers.0.self_attn.q_proj",), "layers": (1,)}, "block 1 .* in which nothing is adapted"),
    ],
)
def test_blocks_that_are_not_there_are_refused_before_training(changes, message: str, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=message):
        run(configuration(**changes), folder=tmp_path)
    assert not list(tmp_path.glob("*/record.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "digits", "data": None, "model": None, "packing": True}, "packing is for causal-lm tasks"),
        ({"task": "trec", "generate": 3}, "generate is for causal-lm tasks; task 'trec' is none"),
        ({"generate": -1}, "generate must be a whole number of at least 0"),
        ({"method": "fft", "layers": (0,)}, "trains every weight; leave layers out"),
    ],
)
def test_options_of_language_models_are_refused_elsewhere(changes, message: str):
    with pytest.raises(ValueError, match=message):
        configuration(**changes)


def test_younger_options_at_their_defaults_leave_the_keys_of_earlier_records_as_they_were():
    trec = RunConfig(task="trec", model="tiny:bert", method="cla", options=DataOptions(num_train=40))
    assert trec.key() == "68fffd8fca0c9e70"  # from before there were any
    same = DataOptions(num_train=40, separator=None, quoting=None, missing="refuse", stratify=False, strict=True)
    assert dataclasses.replace(trec, layers=None, packing=False, generate=0, options=same).key() == trec.key()
    other = dataclasses.replace(trec, options=dataclasses.replace(same, stratify=True))
    assert len({trec.key(), other.key(), dataclasses.replace(trec, layers=(0,)).key()}) == 3


def test_what_a_model_writes_is_scored_against_every_target_of_its_prompt():
    pytest.importorskip("sacrebleu")
    task = load_task("e2e", data=FORMATS / "e2e", model="tiny:gpt2-small")
    prompts, end = {}, 2
    for example in task.heldout:
        start = example["labels"].index(next(label for label in example["labels"] if label != -100))
        prompts.setdefault(tuple(example["input_ids"][:start]), example["input_ids"][start:])

    class Parrot(torch.nn.Module):
        """Writes the first target of the first prompt, and of any other nothing."""

        def generate(self, input_ids, attention_mask, max_new_tokens, pad_token_id, **kwargs):
            rows = []
            for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
                prompt = tuple(token for token, kept in zip(ids, mask, strict=True) if kept)
                target = prompts[prompt] if prompt == next(iter(prompts)) else [end]
                rows.append([*ids, *target, *[pad_token_id] * (max_new_tokens - len(target))])
            return torch.tensor(rows)

    model = Parrot()
    model.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    written = generate(model, task, count=9)
    assert (written["prompts"], written["exact_match"], len(written["samples"][0]["targets"])) == (2, 0.5, 2)
    assert 0 < written["bleu"] < 100
    assert generate(model, task, count=1)["bleu"] == pytest.approx(100)
    assert written["samples"][0]["written"] == "A coffee shop in the city centre area called Blue Spice."


def test_a_run_records_what_its_model_writes(tmp_path: Path):
    pytest.importorskip("sacrebleu")
    record = run(configuration(generate=2, options=DataOptions(max_length=64)), folder=tmp_path)
    assert record["generation"]["prompts"] == len(record["generation"]["samples"]) == 2
    assert "BLEU" in record["generation"]["signature"] or "nrefs" in record["generation"]["signature"]


def test_without_its_library_generation_is_refused_before_any_work(tmp_path: Path, monkeypatch):
    from analysis.runs import generation

    monkeypatch.setattr(generation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="generate needs sacrebleu"):
        run(configuration(generate=2), folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_forecast_counts_bytes_and_leaves_the_model_as_it_was(django: Task):
    config = configuration(model=django.model).resolve()
    prepared, _ = prepare_run(config, django)
    before = {name: value.clone() for name, value in prepared.model.state_dict().items()}
    state = torch.get_rng_state()
    told = forecast(prepared.model, django, evaluated=12, steps=5, batch_size=2)
    assert all(torch.equal(value, before[name]) for name, value in prepared.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in prepared.model.parameters())
    trained = sum(p.numel() for p in prepared.model.parameters() if p.requires_grad)
    assert (told.steps, told.trained) == (5, 3 * 4 * trained)
    assert told.activations > 0
    short = dataclasses.replace(told, available=1)
    assert short.line().endswith("GiB free: warning: that is not enough")
    assert dataclasses.replace(told, available=None).line().endswith(")")
    packed = packed_task(django, length=250)
    assert forecast(prepared.model, packed, evaluated=12, steps=5, batch_size=2).steps == 5


def test_a_language_model_is_evaluated_in_batches_that_fit(django: Task, monkeypatch):
    model = load_model(django)
    whole = evaluate(model, django, django.train)
    shapes = []
    monkeypatch.setattr(tasks_evaluation, "_LOGITS", 300 * django.num_labels)
    collate = functools.partial(django.collate)

    def watched(examples):
        batch = collate(examples)
        shapes.append(batch["input_ids"].numel())
        return batch

    parts = evaluate(model, dataclasses.replace(django, collate=watched), django.train)
    assert max(shapes) <= 300
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)  # float32, padded otherwise
