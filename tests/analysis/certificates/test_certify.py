"""A certificate end to end on the bundled digits: made, checked, and rejected when anything is altered."""

import base64
import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from analysis.certificates.certify import certify, separate_heldout
from analysis.certificates.fingerprints import data_fingerprint, model_fingerprint
from analysis.certificates.replay import Replay, transformer_blocks
from analysis.certificates.short_code import TrainingOptions, adapted_modules, reached_subspace, train_short_code
from analysis.certificates.subspace import Subspace
from analysis.certificates.table import certificate_rows, certificate_table
from analysis.certificates.verify import verify
from analysis.commands.main import main
from analysis.tasks import DataOptions, load_model, load_task
from theory.certificates import STANDARD_GRID, decode_subspace, occam_bound
from theory.heads import trained_heads
from theory.kl import binary_kl

CHOICE = {
    "method": "cla",
    "targets": "attention",
    "rank": 4,
    "layers": 2,
    "seed": 0,
    "adapter_numbers": 32,
    "head_numbers": 32,
    "quantizer": "uniform",
    "levels": 3,
}
FAST = TrainingOptions(epochs=1, quantized_epochs=1, learning_rate=0.1, progress=False)


@pytest.fixture(scope="module")
def task():
    return load_task("digits", options=DataOptions(num_train=160, num_heldout=100))


@pytest.fixture(scope="module")
def certificate(task):
    return certify(task, [CHOICE, {**CHOICE, "method": "lora", "quantizer": "learned"}], options=FAST)


def _failed(record, task):
    return [check.name for check in verify(record, task) if not check.passed]


def test_the_bound_is_kl_inverted_from_the_real_length_of_the_code(certificate):
    word = base64.b64decode(certificate["code"]["base64"])
    n = certificate["data"]["num_examples"]
    assert certificate["code"]["bits"] == 8 * len(word)
    assert sum(certificate["code"]["bits_by_part"].values()) == pytest.approx(8 * len(word), abs=1e-9)
    budget = (8 * len(word) * math.log(2) + math.log(20)) / n
    # kl inversion is exact to 1e-12 in p, where kl has a slope below 1e3.
    assert float(binary_kl(certificate["empirical"]["error"], certificate["bound"])) == pytest.approx(budget, abs=1e-8)
    assert certificate["empirical"]["error"] < certificate["bound"] <= 1


def test_the_search_keeps_the_least_bound_and_lists_what_it_tried(certificate):
    assert len(certificate["tried"]) == 2
    assert certificate["bound"] == min(point["bound"] for point in certificate["tried"])
    assert certificate["choice"] in [point["choice"] for point in certificate["tried"]]


def test_what_is_certified_is_the_decoded_model(certificate, task):
    from analysis.tasks import evaluate

    code = decode_subspace(base64.b64decode(certificate["code"]["base64"]), grid=STANDARD_GRID)
    assert code.choice == certificate["choice"]
    base = load_model(task, seed=code.choice["seed"])
    subspace = reached_subspace(base, code.choice, heads=trained_heads(base))
    subspace.write({group: part.values for group, part in code.groups.items()})
    assert int(evaluate(subspace.model, task, task.train).errors.sum()) == certificate["empirical"]["errors"]


def test_an_honest_certificate_is_accepted_also_after_a_trip_through_json(certificate, task):
    record = json.loads(json.dumps(certificate))
    checks = verify(record, task)
    assert all(check.passed for check in checks)
    assert {"code", "data", "base model", "empirical error", "bound", "held-out error"} <= {c.name for c in checks}


def test_every_flipped_bit_of_the_code_is_rejected(certificate, task):
    word = base64.b64decode(certificate["code"]["base64"])
    for position in range(8 * len(word)):
        altered = bytearray(word)
        altered[position // 8] ^= 1 << (position % 8)
        record = copy.deepcopy(certificate)
        record["code"]["base64"] = base64.b64encode(altered).decode()
        assert _failed(record, task) == ["code"]


def test_a_truncated_code_is_rejected(certificate, task):
    record = copy.deepcopy(certificate)
    record["code"]["base64"] = base64.b64encode(base64.b64decode(record["code"]["base64"])[:-1]).decode()
    assert _failed(record, task) == ["code"]


@pytest.mark.parametrize(
    ("path", "change", "failed"),
    [
        (("bound",), lambda x: x - 1e-6, "bound"),
        (("bounds", "cross_entropy", "bound"), lambda x: x - 1e-3, "cross-entropy bound"),
        (("empirical", "errors"), lambda x: x - 1, "empirical error"),
        (("heldout", "errors"), lambda x: x - 1, "held-out error"),
        (("full_precision", "bound"), lambda x: x / 2, "full-precision bound"),
        (("data", "num_examples"), lambda x: x + 1, "data"),
        (("grid", "sha256"), lambda x: x[::-1], "grid"),
        (("base", "start_sha256"), lambda x: x[::-1], "start"),
        (("code", "bits"), lambda x: x - 8, "code"),
    ],
)
def test_an_altered_statement_is_rejected(certificate, task, path, change, failed):
    record = copy.deepcopy(certificate)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    assert _failed(record, task) == [failed]


def test_another_delta_needs_another_bound(certificate, task):
    assert _failed({**certificate, "delta": certificate["delta"] / 10}, task) == ["bound"]


def test_a_code_for_another_base_model_or_other_data_is_rejected(certificate, task, monkeypatch):
    other = dataclasses.replace(task, train=task.train[:-1])
    assert _failed(certificate, other) == ["data"]
    real = load_model

    def nudged(*args, **kwargs):
        model = real(*args, **kwargs)
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] += 1e-3
        return model

    monkeypatch.setattr("analysis.certificates.shared.load_model", nudged)
    assert _failed(certificate, task) == ["base model"]


def test_overlapping_splits_are_an_error_or_dropped_on_request(task):
    leaking = dataclasses.replace(task, heldout=[*task.heldout, *task.train[:3]])
    with pytest.raises(ValueError, match="3 held-out inputs also occur"):
        certify(leaking, [CHOICE], options=FAST)
    assert len(separate_heldout(leaking, overlap="drop-train").train) == len(task.train) - 3
    assert len(separate_heldout(leaking, overlap="drop-heldout").heldout) == len(task.heldout)
    assert separate_heldout(task) is task
    with pytest.raises(ValueError, match="overlap must be one of"):
        separate_heldout(leaking, overlap="ignore")
    relabelled = dataclasses.replace(task, heldout=[*task.heldout, {**task.train[0], "labels": 0}])
    with pytest.raises(ValueError, match="1 held-out inputs"):
        separate_heldout(relabelled)


def test_a_certificate_made_after_dropping_examples_verifies_on_the_publishers_splits(task):
    leaking = dataclasses.replace(task, heldout=[*task.heldout, *task.train[:3]])
    record = certify(leaking, [CHOICE], options=FAST, overlap="drop-train", slack=2)
    assert (record["data"]["dropped_train"], record["data"]["dropped_heldout"]) == (3, 0)
    assert record["data"]["num_examples"] == len(task.train) - 3
    assert all(check.passed for check in verify(record, leaking))
    paid = record["empirical"]["errors"] + 2
    again = occam_bound(paid / 157, bits=record["code"]["bits"], num_examples=157, delta=0.05)
    assert record["bound"] == pytest.approx(again.value, abs=1e-12)


def test_bad_input_is_refused_before_any_training(task, certificate):
    for delta in (0.0, 1.0):
        with pytest.raises(ValueError, match="delta must lie strictly between 0 and 1"):
            certify(task, [CHOICE], delta=delta)
    with pytest.raises(ValueError, match="rank must be one of"):
        certify(task, [{**CHOICE, "rank": 3}])
    with pytest.raises(ValueError, match="choices must name at least one"):
        certify(task, [])
    with pytest.raises(ValueError, match="classification"):
        certify(dataclasses.replace(task, kind="regression"), [CHOICE])
    with pytest.raises(ValueError, match="at least 2"):
        certify(dataclasses.replace(task, train=task.train[:1]), [CHOICE])
    with pytest.raises(ValueError, match="lacks 'code'"):
        verify({key: value for key, value in certificate.items() if key != "code"}, task)
    with pytest.raises(ValueError, match="learning_rate above 0"):
        TrainingOptions(learning_rate=0.0)
    with pytest.raises(ValueError, match="at most the model's 4 blocks"):
        adapted_modules(load_model(task), targets="attention", layers=6)


def test_a_loss_that_is_not_finite_stops_the_run(task):
    model = load_model(task)
    subspace = reached_subspace(model, CHOICE, heads=["classifier"])
    broken = [{**example, "pixel_values": example["pixel_values"] * torch.nan} for example in task.train]
    with pytest.raises(ValueError, match="the loss became nan at step 0"):
        train_short_code(subspace, dataclasses.replace(task, train=broken), CHOICE, options=FAST)


def test_subspace_keeps_lengths_and_depends_on_its_seed_alone():
    layer = nn.Linear(30, 20).double()
    numbers = {"adapter": 50, "head": 0}
    subspace, again, other = (Subspace(layer, numbers=numbers, seed=seed) for seed in (1, 1, 2))
    start = torch.cat([p.detach().reshape(-1) for p in layer.parameters()])
    columns = torch.stack(
        [
            torch.cat([x.reshape(-1) for x in subspace.parameters({"adapter": row}).values()]) - start
            for row in torch.eye(50, dtype=torch.float64)
        ]
    )
    # Orthonormal columns in float64.
    torch.testing.assert_close(columns @ columns.T, torch.eye(50, dtype=torch.float64), atol=1e-12, rtol=0)
    w = {"adapter": torch.randn(50, generator=torch.Generator().manual_seed(0))}
    same = zip(subspace.parameters(w).values(), again.parameters(w).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert not torch.equal(subspace.parameters(w)["weight"], other.parameters(w)["weight"])
    with pytest.raises(ValueError, match="at most the 620"):
        Subspace(layer, numbers={"adapter": 621}, seed=0)


def test_replaying_frozen_blocks_gives_the_losses_and_gradients_of_the_whole_model(task):
    subspace = reached_subspace(load_model(task), CHOICE, heads=["classifier"])
    first = len(transformer_blocks(subspace.model)[1]) - CHOICE["layers"]
    replay = Replay.if_exact(subspace.model, task.train, task.collate, first=first)
    assert replay is not None
    rows, results = [5, 3, 40], []
    for context in (replay.active(rows), None):
        w = {group: torch.full((32,), 0.1, requires_grad=True) for group in ("adapter", "head")}
        batch = task.collate([task.train[i] for i in rows])
        if context:
            with context:
                loss = functional_call(subspace.model, subspace.parameters(w), (), batch).loss
        else:
            loss = functional_call(subspace.model, subspace.parameters(w), (), batch).loss
        loss.backward()
        results.append((loss.detach(), w["adapter"].grad, w["head"].grad))
    for replayed, whole in zip(*results, strict=True):
        # Float32, and batches of another size when the inputs were recorded.
        torch.testing.assert_close(replayed, whole, atol=1e-5, rtol=1e-4)
    assert Replay.if_exact(subspace.model, task.train, task.collate, first=0) is None


def test_fingerprints_ignore_order_and_see_every_number(task):
    assert data_fingerprint(task.train) == data_fingerprint(task.train[::-1])
    assert data_fingerprint(task.train) != data_fingerprint([{**task.train[0], "labels": 9}, *task.train[1:]])
    layer = nn.Linear(3, 2)
    before = model_fingerprint(layer)
    with torch.no_grad():
        layer.bias[1] = float(np.nextafter(np.float32(layer.bias[1].item()), np.float32(9)))
    assert model_fingerprint(layer) != before


def test_the_table_names_what_was_paid_for(certificate):
    text = certificate_table(certificate)
    assert len(certificate_rows(certificate)) == len(text.splitlines())
    for word in ("rank 4", "levels 3", "delta", "rounding to bytes", "CERTIFIED", "held-out"):
        assert word in text


def test_the_command_line_certifies_verifies_and_rejects(tmp_path, capsys):
    data = ["--num-train", "100", "--num-heldout", "60"]
    file = str(tmp_path / "certificate.json")
    fast = ["--layers", "1", "--epochs", "0", "--quantized-epochs", "1", "--quiet", "--output", file]
    assert main(["certify", *data, *fast, "--method", "asym", "--adapter-numbers", "16", "--head-numbers", "16"]) == 0
    assert "CERTIFIED 0-1 error" in capsys.readouterr().out
    assert main(["verify", file, *data]) == 0
    assert "ACCEPTED" in capsys.readouterr().out
    record = json.loads((tmp_path / "certificate.json").read_text())
    word = bytearray(base64.b64decode(record["code"]["base64"]))
    word[3] ^= 4
    record["code"]["base64"] = base64.b64encode(word).decode()
    (tmp_path / "flipped.json").write_text(json.dumps(record))
    assert main(["verify", str(tmp_path / "flipped.json"), *data]) == 1
    assert "REJECTED" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "missing.json"), *data]) == 2
    assert main(["certify", *data, *fast, "--delta", "1"]) == 2
    assert "delta must lie strictly between 0 and 1" in capsys.readouterr().err
