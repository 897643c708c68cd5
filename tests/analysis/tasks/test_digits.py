"""The digits base model travels with the package; what seeds draw on top of it is the same bits everywhere."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adapters.linked import draw_factor
from analysis.commands.main import main
from analysis.records import atomic_write_json, config_key, read_json
from analysis.runs import RunConfig, load_run, run
from analysis.tasks import digits, load_model, load_task
from analysis.tasks.models import load_pretrained

pytestmark = pytest.mark.usefixtures("model_cache")


def test_the_digits_base_is_the_committed_one_and_only_the_head_follows_the_seed(model_cache: Path):
    task = load_task("digits")
    first, second, same = load_model(task, seed=0), load_model(task, seed=1), load_model(task, seed=0)
    committed = digits.base_weights()
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        if not name.startswith("classifier"):
            assert torch.equal(value, second.state_dict()[name])
            assert torch.equal(value, committed[name])
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert not first.classifier.bias.any()
    assert first.classifier.weight.std().item() == pytest.approx(0.02, rel=0.2)  # 320 numbers: four standard errors
    assert not list(model_cache.glob("digits-vit-*"))
    assert not first.training


def test_the_committed_base_has_learned_its_own_classes():
    """Features of digits 0-4 are told apart by a line through them, for three quarters of the images by its fifth."""
    from sklearn.linear_model import LogisticRegression

    images, targets = digits._images()
    pool = np.flatnonzero(targets < 5)
    accuracy = {}
    for name, model in (
        ("trained", load_model(load_task("digits"))),
        ("fresh", torch.manual_seed(0) and digits._build(5)),
    ):
        with torch.no_grad():
            features = model.eval().vit(pixel_values=torch.from_numpy(images[pool])).last_hidden_state[:, 0].numpy()
        probe = LogisticRegression(max_iter=2000).fit(features[:100], targets[pool][:100])
        accuracy[name] = probe.score(features[100:], targets[pool][100:])
    assert accuracy["trained"] > 0.97 > accuracy["fresh"]


def test_another_configuration_is_pretrained_once_and_cached(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("BEYOND_LORA_CACHE", str(tmp_path))
    monkeypatch.setitem(digits.PRETRAINING, "epochs", 1)
    first = digits.base_weights()
    (path,) = tmp_path.glob("digits-vit-*.safetensors")
    monkeypatch.setattr(digits, "pretrain", lambda: pytest.fail("trained twice"))
    digits._read.cache_clear()
    assert all(torch.equal(value, first[name]) for name, value in digits.base_weights().items())
    assert digits.base_fingerprint() == f"trained-here-{config_key(digits.PRETRAINING)}"
    path.write_bytes(b"not safetensors")
    digits._read.cache_clear()
    with pytest.raises(ValueError, match="is corrupt"):
        load_model(load_task("digits"))


def test_weights_under_other_names_are_refused_instead_of_drawn(monkeypatch):
    """Older releases of transformers name a ViT's layers otherwise: loaded all the same, W0 would be random."""
    renamed = {name.replace("vit.layers", "vit.encoder.layer"): value for name, value in digits.base_weights().items()}
    monkeypatch.setattr(digits, "base_weights", lambda: renamed)
    with pytest.raises(ValueError, match="names a ViT's weights otherwise"):
        load_model(load_task("digits"))


def test_pretrain_says_how_far_the_committed_base_is(tmp_path: Path, monkeypatch, capsys):
    moved = {name: value.clone() for name, value in digits.base_weights().items()}
    name = "vit.layers.0.attention.q_proj.weight"
    moved[name][0, 0] += 0.25
    monkeypatch.setattr(digits, "pretrain", lambda: moved)
    assert main(["pretrain", "--out", str(tmp_path / "new" / "base.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "largest difference 0.25" in said
    assert "other bits" in said
    norm = math.sqrt(sum(value.double().square().sum().item() for value in digits.base_weights().values()))
    assert digits.base_distance(moved, digits.base_weights()).relative == pytest.approx(0.25 / norm, rel=1e-6)
    assert torch.equal(load_file(tmp_path / "new" / "base.safetensors")[name], moved[name])
    with pytest.raises(ValueError, match="one architecture"):
        digits.base_distance(moved, {name: moved[name]})


@pytest.mark.committed
def test_heads_and_factors_drawn_by_a_seed_are_the_committed_bits(model_cache: Path):
    """What a certificate names by a seed: the head of the digits model, of a text model, and LoRA's A."""
    digest = hashlib.sha256()
    digest.update(load_model(load_task("digits"), seed=3).classifier.weight.detach().numpy().tobytes())
    bert = load_pretrained("tiny:bert", kind="text-classification", num_labels=4, seed=3)
    digest.update(b"".join(w.detach().numpy().tobytes() for _, w in sorted(bert.named_parameters())))
    digest.update(draw_factor(torch.empty(32, 64), seed=3, name="vit.layers.0.attention.q_proj").numpy().tobytes())
    assert digest.hexdigest() == "0bc7f1b8f9c875adce6d19c400fa2d4b8678c66e9d113525bfe28bb07c004f8c"


def test_a_run_names_its_base_and_is_refused_with_another(tmp_path: Path, one_thread, monkeypatch):
    config = RunConfig(method="cla", rank=2, epochs=0.1, save_adapter=True)
    record = run(config, folder=tmp_path)
    stated = record["config"]["model"]
    assert stated == {"name": "digits-vit", "fingerprint": digits.base_fingerprint()}
    place = tmp_path / record["key"]
    load_run(place)
    for other in ({"name": "digits-vit", "fingerprint": "0" * 12}, None):
        atomic_write_json(place / "record.json", {**record, "config": {**record["config"], "model": other}})
        with pytest.raises(ValueError, match=r"trained on another base model .* train it again"):
            load_run(place)
    atomic_write_json(place / "record.json", record)
    assert read_json(place / "record.json") == record
    monkeypatch.setitem(digits.PRETRAINING, "epochs", 1)
    assert config.key() != record["key"], "another base is another run"
