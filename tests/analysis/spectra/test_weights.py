"""Weights from live models, adapter folders and checkpoint files say the same, one matrix at a time."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adapters.lora import FACTORS
from analysis.spectra.files import WeightFiles
from analysis.spectra.folders import from_adapter
from analysis.spectra.weights import LayerUpdate, from_checkpoints, from_model

METHODS = ["lora", "lora+", "asym", "cola", "rac", "cla", "r-cla", "c3la", "r-c3la", "paca"]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 6))


def trained(method):
    from adapters import merge_and_continue, prepare
    from theory.methods import METHODS as KNOWN

    chained = KNOWN[method].chained
    prepared = prepare(
        network(), method, rank=2, target_modules=["0", "2"], links=2 if chained else 1, modules_to_save=[]
    )
    for turn in range(2 if chained else 1):
        if turn:
            merge_and_continue(prepared.model)
        for parameter in prepared.model.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.3)
    return prepared.model


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_adapter_on_weight_files_is_the_live_model(method, tmp_path):
    model = trained(method)
    model.save_pretrained(str(tmp_path / "adapter"))
    save_file({f"base.{name}": value for name, value in network().state_dict().items()}, tmp_path / "base.safetensors")
    live = {layer.name: layer for layer in from_model(model)}
    read = {layer.name: layer for layer in from_adapter(tmp_path / "adapter", tmp_path / "base.safetensors")}
    assert live.keys() == read.keys() == {"0", "2"}
    for name, layer in read.items():
        torch.testing.assert_close(layer.base, live[name].base)
        torch.testing.assert_close(layer.update, live[name].update)
        assert live[name].update.abs().max() > 0


def test_checkpoints_give_the_difference_of_every_changed_matrix(tmp_path):
    before, after = network(0), network(0)
    with torch.no_grad():
        after[2].weight += 0.1
    save_file(before.state_dict(), tmp_path / "before.safetensors")
    save_file(after.state_dict(), tmp_path / "after.safetensors")
    (layer,) = from_checkpoints(tmp_path / "before.safetensors", tmp_path / "after.safetensors")
    assert layer.name == "2"
    torch.testing.assert_close(layer.update, torch.full((6, 8), 0.1))
    (live,) = from_model(after, before.state_dict())
    torch.testing.assert_close(live.update, layer.update)


def test_sharded_folders_are_read_one_matrix_at_a_time(tmp_path, monkeypatch):
    """Memory holds one matrix of each side: a matrix is read only when the one before has been handed out."""
    for name, shift in (("base", 0.0), ("tuned", 0.1)):
        (tmp_path / name).mkdir()
        for shard in range(3):
            save_file(
                {f"layer{shard}.weight": torch.eye(4) + shift, f"layer{shard}.bias": torch.ones(4)},
                tmp_path / name / f"model-0000{shard}-of-00003.safetensors",
            )
    reads = []
    original = WeightFiles.read
    monkeypatch.setattr(WeightFiles, "read", lambda self, name: reads.append(name) or original(self, name))
    layers = from_checkpoints(tmp_path / "base", tmp_path / "tuned")
    assert reads == []
    next(layers)
    assert reads == ["layer0.weight"] * 2
    assert len(list(layers)) == 2
    assert [layer.name for layer in from_checkpoints(tmp_path / "base", tmp_path / "tuned", include="layer1")] == [
        "layer1"
    ]


def test_small_updates_survive_a_bfloat16_base():
    """Summed in bfloat16 an update of 1e-3 of an entry of 1 vanishes; summed in float32 it does not."""
    base = torch.ones(4, 4, dtype=torch.bfloat16)
    layer = LayerUpdate(name="a", base=base, left=torch.full((4, 1), 1e-3), right=torch.ones(1, 4))
    torch.testing.assert_close(layer.tuned, torch.full((4, 4), 1.001))
    assert (base + layer.update.bfloat16() == base).all()


def test_transposed_layers_are_given_as_out_by_in():
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(5, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight += 1.0
    (layer,) = from_model(model, before)
    assert layer.base.shape == (5, 3)
    torch.testing.assert_close(layer.tuned, model[0].weight.T)


def test_a_mismatched_base_and_adapter_are_refused(tmp_path):
    trained("lora").save_pretrained(str(tmp_path / "adapter"))
    save_file({"0.weight": torch.ones(8, 5), "2.weight": torch.ones(6, 8)}, tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match=r"lora_A.* does not fit the base's \(8, 5\)"):
        list(from_adapter(tmp_path / "adapter", tmp_path / "narrow.safetensors"))
    save_file({"other.weight": torch.ones(8, 8)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no weight for layer '0'"):
        list(from_adapter(tmp_path / "adapter", tmp_path / "other.safetensors"))
    save_file(
        {"0.weight": torch.ones(8, 8, dtype=torch.int8), "2.weight": torch.ones(6, 8)}, tmp_path / "int.safetensors"
    )
    with pytest.raises(TypeError, match="int8, not floating point"):
        list(from_adapter(tmp_path / "adapter", tmp_path / "int.safetensors"))


def test_a_saved_adapter_whose_layers_do_not_add_to_the_base_has_its_merged_difference(tmp_path, monkeypatch):
    trained("lora").save_pretrained(str(tmp_path / "adapter"))
    save_file(network().state_dict(), tmp_path / "base.safetensors")
    factored = list(from_adapter(tmp_path / "adapter", tmp_path / "base.safetensors"))
    monkeypatch.setattr(FACTORS, "additive", False)
    merged = list(from_adapter(tmp_path / "adapter", tmp_path / "base.safetensors"))
    assert all(layer.left is None for layer in merged)
    for one, other in zip(factored, merged, strict=True):
        torch.testing.assert_close(one.update, other.update)


def test_missing_truncated_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no safetensors weights"):
        WeightFiles(tmp_path / "nowhere")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(ValueError, match="damaged or truncated"):
        WeightFiles(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="holds no adapter_config"):
        list(from_adapter(tmp_path, tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    save_file({"classifier.weight": torch.ones(2, 2)}, tmp_path / "empty" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="holds no low-rank factors"):
        list(from_adapter(tmp_path / "empty", tmp_path))


def test_checkpoints_of_other_shapes_or_names_are_refused(tmp_path):
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    save_file({"a.weight": torch.ones(2, 3)}, tmp_path / "b.safetensors")
    save_file({"c.weight": torch.ones(2, 3)}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="shape"):
        list(from_checkpoints(tmp_path / "a.safetensors", tmp_path / "b.safetensors"))
    with pytest.raises(ValueError, match="share no matrix"):
        list(from_checkpoints(tmp_path / "a.safetensors", tmp_path / "c.safetensors"))
    with pytest.raises(ValueError, match="needs base_state"):
        list(from_model(network()))
    with pytest.raises(ValueError, match="do not match"):
        list(from_model(network(), {"other": torch.ones(1)}))
