import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments

from adapters import (
    ColumnConfig,
    current_link,
    delta_weights,
    describe,
    export_to_lora,
    last_checkpoint,
    merge_and_continue,
    prepare,
)
from adapters.chain import link_boundaries, reset_moments
from theory.methods import METHODS

CHAINS = [key for key, method in METHODS.items() if method.chained]
chains = pytest.mark.parametrize("method", CHAINS)


class Images(torch.utils.data.Dataset):
    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(24, 3, 8, 8, generator=g), torch.randint(3, (24,), generator=g)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"pixel_values": self.x[i], "labels": self.y[i]}


def fit(prepared, folder, *, steps=9, resume=None, metrics=None, **arguments):
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True,
        **{"logging_steps": 1, "save_strategy": "no", **arguments},
    )  # fmt: skip
    trainer = Trainer(
        model=prepared.model, args=arguments, train_dataset=Images(), eval_dataset=Images(),
        optimizers=(prepared.create_optimizer(), None), callbacks=prepared.callbacks, compute_metrics=metrics,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def step(prepared, optimizer, batch):
    loss = prepared.model(**batch).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_every_link_gets_its_share_of_steps(sizes):
    max_steps, links = sizes
    ends = [0, *link_boundaries(max_steps=max_steps, links=links), max_steps]
    lengths = [b - a for a, b in pairwise(ends)]
    assert len(lengths) == links
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 1
    assert max_steps % links or set(lengths) == {max_steps // links}


@pytest.mark.parametrize(("max_steps", "links"), [(3, 4), (0, 1), (5, 0)])
def test_a_chain_longer_than_its_steps_is_refused(max_steps, links):
    with pytest.raises(ValueError, match=f"links={links} needs at least one optimizer step per link"):
        link_boundaries(max_steps=max_steps, links=links)


@chains
def test_moving_on_keeps_the_function_and_the_base_and_starts_at_zero(build, inputs, method):
    prepared = prepare(build("vit"), method, rank=3, links=3, learning_rate=0.05)
    optimizer, batch = prepared.create_optimizer(), inputs("vit")
    for _ in range(3):
        step(prepared, optimizer, batch)
    before, base = prepared.model(**batch).logits, build("vit")(**batch).logits
    delta = delta_weights(prepared.model)
    assert merge_and_continue(prepared.model, optimizer=optimizer) == current_link(prepared.model) == 1
    # The same products are summed in another order: fp32.
    torch.testing.assert_close(prepared.model(**batch).logits, before, rtol=1e-6, atol=1e-6)
    for name, after in delta_weights(prepared.model).items():
        torch.testing.assert_close(after, delta[name], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(before, base, atol=1e-3)
    for name, p in prepared.model.named_parameters():
        if p.requires_grad and ("_B." in name):
            assert not p.any()
        if name.endswith("base_layer.weight"):
            assert torch.equal(
                p, build("vit").get_parameter(name.removeprefix("base_model.model.").replace(".base_layer", ""))
            )


@chains
def test_moments_are_reset_for_the_new_link_only(build, inputs, method):
    prepared = prepare(build("vit"), method, rank=3, links=3)
    optimizer, batch = prepared.create_optimizer(), inputs("vit")
    for _ in range(3):
        step(prepared, optimizer, batch)
    names = {n: p for n, p in prepared.model.named_parameters() if p.requires_grad}
    head = {n: {k: v.clone() for k, v in optimizer.state[p].items()} for n, p in names.items() if "classifier" in n}
    assert head
    merge_and_continue(prepared.model, optimizer=optimizer)
    for name, p in names.items():
        state = optimizer.state[p]
        if name in head:
            assert all(torch.equal(state[key], value) for key, value in head[name].items())
            assert state["step"] == 3
        else:
            assert not any(value.any() for value in state.values())


def test_a_reset_parameter_moves_as_under_a_fresh_optimizer():
    for make in (lambda p: torch.optim.AdamW(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)):
        used, fresh = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
        optimizer = make([used])
        for _ in range(3):
            used.grad = torch.arange(4.0)
            optimizer.step()
        reset_moments(optimizer, [used])
        other = make([fresh])
        with torch.no_grad():
            used.fill_(1.0)
        for _ in range(3):
            used.grad = fresh.grad = torch.tensor([1.0, -2.0, 3.0, 0.0])
            optimizer.step()
            other.step()
        assert torch.equal(used, fresh)


@chains
def test_a_chain_cannot_move_past_its_last_link(build, method):
    prepared = prepare(build("vit"), method, rank=3, links=2)
    merge_and_continue(prepared.model)
    before = {k: v.clone() for k, v in prepared.model.state_dict().items()}
    with pytest.raises(ValueError, match="the chain has links=2 and is at link 1, its last"):
        merge_and_continue(prepared.model)
    assert all(torch.equal(v, before[k]) for k, v in prepared.model.state_dict().items())
    with pytest.raises(ValueError, match="links=1 and is at link 0"):
        merge_and_continue(prepare(build("vit"), "cla", rank=3).model)


@chains
def test_a_merged_chain_does_not_move(build, method):
    model = prepare(build("vit"), method, rank=3, links=2).model
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"is merged into 'vit.layers.0.attention.q_proj'; unmerge"):
        merge_and_continue(model)
    model.unmerge_adapter()
    assert merge_and_continue(model) == 1


@chains
def test_the_trainer_moves_the_chain_at_its_boundaries(build, tmp_path, method):
    prepared = prepare(build("vit"), method, rank=3, links=4, learning_rate=1e-2)
    fit(prepared, tmp_path, steps=10, save_strategy="steps", save_steps=1)
    marks = {int(p.parent.name.split("-")[1]): json.loads(p.read_text()) for p in tmp_path.glob("*/chain.json")}
    assert [marks[step]["link"] for step in range(1, 11)] == [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert marks[10]["boundaries"] == [3, 5, 8]
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert current_link(prepared.model) == prepared.model.peft_config["default"].link == 3


@pytest.mark.parametrize(("schedule", "peaks"), [("run", 1), ("link", 3)])
def test_the_schedule_runs_over_the_run_or_restarts_with_every_link(build, tmp_path, schedule, peaks):
    prepared = prepare(build("vit"), "c3la", rank=3, links=3, learning_rate=1e-2, schedule=schedule)
    trainer = fit(prepared, tmp_path, steps=12, warmup_steps=1)
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert sum(rate == pytest.approx(1e-2) for rate in rates) == peaks
    if schedule == "link":
        assert rates[4:8] == pytest.approx(rates[:4])
        assert rates[8:] == pytest.approx(rates[:4])


def test_a_restarting_schedule_survives_resumption(build, tmp_path):
    def make():
        return prepare(build("vit"), "c3la", rank=3, links=3, learning_rate=1e-2, schedule="link")

    saving = {"save_strategy": "steps", "save_steps": 1, "warmup_steps": 1}
    whole = make()
    fit(whole, tmp_path / "a", steps=6, **saving)
    for at in (2, 3):
        resumed = make()
        fit(resumed, tmp_path / "b", steps=6, resume=str(tmp_path / f"a/checkpoint-{at}"), **saving)
        assert all(torch.equal(v, resumed.model.state_dict()[k]) for k, v in whole.model.state_dict().items())


@chains
def test_the_best_checkpoints_link_comes_back_with_its_weights(build, inputs, tmp_path, method):
    """The third of six evaluations is made the best one: the chain was at its second link there."""
    prepared = prepare(build("vit"), method, rank=3, links=3, learning_rate=0.05)
    scores = iter([5.0, 4.0, 1.0, 2.0, 3.0, 6.0])
    trainer = fit(
        prepared, tmp_path, steps=6, save_strategy="steps", eval_strategy="steps", save_steps=1, eval_steps=1,
        load_best_model_at_end=True, metric_for_best_model="score", greater_is_better=False,
        metrics=lambda _: {"score": next(scores)},
    )  # fmt: skip
    best = int(trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert best == 3
    link = json.loads((tmp_path / f"checkpoint-{best}" / "chain.json").read_text())["link"]
    assert link == 1
    assert current_link(prepared.model) == prepared.model.peft_config["default"].link == link
    again = PeftModel.from_pretrained(build("vit"), trainer.state.best_model_checkpoint).eval()
    batch = inputs("vit")
    torch.testing.assert_close(again(**batch).logits, prepared.model.eval()(**batch).logits, rtol=1e-5, atol=1e-6)


@chains
def test_a_checkpoint_inside_the_chain_loads_as_the_cumulative_adapter(build, inputs, tmp_path, method):
    prepared = prepare(build("vit"), method, rank=3, links=3, learning_rate=1e-2)
    fit(prepared, tmp_path, steps=5, save_strategy="steps", save_steps=5)
    again = PeftModel.from_pretrained(build("vit"), tmp_path / "checkpoint-5").eval()
    batch = inputs("vit")
    # One product over all links against one per link, fp32: the issue asks for 1e-6.
    torch.testing.assert_close(again(**batch).logits, prepared.model.eval()(**batch).logits, rtol=0, atol=1e-6)


def test_resuming_with_other_links_or_steps_says_what_does_not_fit(build, tmp_path):
    fit(prepare(build("vit"), "c3la", rank=3, links=3), tmp_path, steps=6, save_strategy="steps", save_steps=3)
    with pytest.raises(ValueError, match="the model is at link 1, but step 3 of max_steps=30 with links=3 belongs to"):
        fit(prepare(build("vit"), "c3la", rank=3, links=3), tmp_path, steps=30, resume=str(tmp_path / "checkpoint-3"))


def test_a_trainer_with_fewer_steps_than_links_is_refused(build, tmp_path):
    with pytest.raises(ValueError, match="links=5 needs at least one optimizer step per link, got max_steps=4"):
        fit(prepare(build("vit"), "rac", rank=3, links=5), tmp_path, steps=4)


def test_a_folder_without_complete_checkpoints_has_no_last_one(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    assert last_checkpoint(tmp_path) is None


def plain_trainer(model, folder, *, steps=8, callbacks=(), **arguments):
    """A Trainer as anybody writes it, who knows nothing of chains."""
    arguments = {"save_strategy": "no", **arguments}
    words = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True,
        learning_rate=0.05, logging_steps=100, **arguments,
    )  # fmt: skip
    return Trainer(model=model, args=words, train_dataset=Images(), callbacks=list(callbacks))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_plain_trainer_moves_a_chain_made_by_pefts_own_call(build, tmp_path):
    model = get_peft_model(build("vit"), ColumnConfig(method="c3la", r=3, links=4))
    trainer = plain_trainer(model, tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    assert current_link(model) == model.peft_config["default"].link == 3
    marks = {int(p.parent.name.split("-")[1]): json.loads(p.read_text()) for p in tmp_path.glob("*/chain.json")}
    assert {step: mark["link"] for step, mark in marks.items()} == {2: 1, 4: 2, 6: 3, 8: 3}
    support = set(range(12))  # four links of three columns
    assert all(
        set(delta.abs().sum(0).nonzero().flatten().tolist()) == support for delta in delta_weights(model).values()
    )
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["link"] == 3


@chains
def test_a_trainer_without_our_callback_trains_what_one_with_it_trains(build, tmp_path, method):
    states = []
    for handed in (True, False):
        prepared = prepare(build("vit"), method, rank=3, links=3, schedule="link", seed=1)
        trainer = plain_trainer(prepared.model, tmp_path, callbacks=prepared.callbacks if handed else (), seed=1)
        trainer.train()
        assert current_link(prepared.model) == 2
        states.append(prepared.model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_plain_trainer_resumes_a_chain(build, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1}
    whole = prepare(build("vit"), "c3la", rank=3, links=3).model
    plain_trainer(whole, tmp_path, steps=6, **saving).train()
    for at in (2, 3):
        resumed = prepare(build("vit"), "c3la", rank=3, links=3).model
        plain_trainer(resumed, tmp_path / "b", steps=6).train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
        assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


def test_models_without_chains_and_finished_chains_train_on_as_they_are(build, tmp_path, caplog):
    plain_trainer(prepare(build("vit"), "cla", rank=3).model, tmp_path, steps=2).train()
    plain_trainer(build("vit"), tmp_path, steps=2).train()
    done = prepare(build("vit"), "c3la", rank=3, links=3).model
    merge_and_continue(done)
    caplog.clear()
    plain_trainer(done, tmp_path, steps=2).train()
    assert current_link(done) == 1
    assert "the chain 'default' stays on link 2 of 3" in caplog.text
    with pytest.raises(ValueError, match="links=5 needs at least one optimizer step per link, got max_steps=4"):
        plain_trainer(prepare(build("vit"), "c3la", rank=3, links=5).model, tmp_path, steps=4).train()


@chains
def test_saving_describing_and_exporting_say_how_many_links_were_trained(build, tmp_path, caplog, method):
    model = prepare(build("vit"), method, rank=3, links=3).model
    for doing, act in (
        ("saving", lambda: model.save_pretrained(tmp_path / "saved")),
        ("describing", lambda: describe(model)),
        ("exporting", lambda: export_to_lora(model, tmp_path / "lora")),
    ):
        caplog.clear()
        act()
        assert f"{doing} a chain of 3 links of which 1 was trained" in caplog.text
    for links in (2, 3):
        merge_and_continue(model)
        caplog.clear()
        records = [record for record in describe(model) if record["kind"] != "head"]
        assert {record["links"] for record in records} == {links}
        assert ("of which 2 were trained" in caplog.text) == (links == 2)
