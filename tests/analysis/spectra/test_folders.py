"""Adapters and checkpoints of every kind read from disk say what the live models say."""

import copy
import json
import warnings

import pytest
import torch
from peft import LoHaConfig, LoraConfig, PrefixTuningConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from analysis.spectra.files import WeightFiles
from analysis.spectra.folders import from_adapter
from analysis.spectra.singular import intruder_dimensions
from analysis.spectra.weights import from_checkpoints, from_model


def gpt2(size=8):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=12, n_positions=8, n_embd=size, n_layer=1, n_head=2)).eval()


def llama(**options):
    sizes = {"vocab_size": 12, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, **options)).eval()


def bert(kind=BertForSequenceClassification):
    torch.manual_seed(0)
    return kind(
        BertConfig(vocab_size=12, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )


class Plain(nn.Module):
    """A convolution and experts, without a config.json."""

    def __init__(self):
        super().__init__()
        self.conv, self.experts = nn.Conv2d(3, 8, 3), nn.Module()
        self.experts.weight = nn.Parameter(torch.randn(3, 8, 6))


def plain():
    torch.manual_seed(0)
    return Plain()


def saved(model, folder):
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(str(folder))
    else:
        folder.mkdir()
        save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def adapt(model, config, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(copy.deepcopy(model), config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape))
        adapted.save_pretrained(str(folder))
    return adapted


CASES = {
    "rslora": (llama, {"target_modules": ["q_proj", "v_proj"], "use_rslora": True}),
    "dora": (llama, {"target_modules": ["q_proj"], "use_dora": True}),
    "pissa": (llama, {"target_modules": ["q_proj"], "init_lora_weights": "pissa"}),
    "olora": (llama, {"target_modules": ["q_proj"], "init_lora_weights": "olora"}),
    "embedding": (llama, {"target_modules": ["embed_tokens"]}),
    "tied head": (lambda: llama(tie_word_embeddings=True), {"target_modules": ["lm_head"]}),
    "square Conv1D": (gpt2, {"target_modules": ["attn.c_proj"], "fan_in_fan_out": True}),
    "Conv1D, unsaid": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": False}),
    "conv2d": (plain, {"target_modules": ["conv"]}),
    "experts": (plain, {"target_parameters": ["experts.weight"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_from_disk_is_the_live_one(case, tmp_path):
    build, options = CASES[case]
    base = build()
    adapted = adapt(base, LoraConfig(r=2, **options), tmp_path / "adapter")
    if case == "Conv1D, unsaid":  # PEFT corrects it in memory; another writer may not have
        path = tmp_path / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fan_in_fan_out": False}))
    live = {layer.name: layer for layer in from_model(adapted, base.state_dict())}
    read = {layer.name: layer for layer in from_adapter(tmp_path / "adapter", saved(base, tmp_path / "base"))}
    assert live.keys() == read.keys()
    for name, layer in read.items():
        torch.testing.assert_close(layer.base, live[name].base, rtol=0, atol=0)
        torch.testing.assert_close(layer.update, live[name].update, rtol=1e-5, atol=1e-6)
        assert layer.update.abs().max() > 1e-3


def test_methods_that_are_no_lora_are_loaded_with_their_base(tmp_path):
    base = llama()
    adapted = adapt(base, LoHaConfig(r=2, target_modules=["q_proj"]), tmp_path / "adapter")
    (live,) = from_model(adapted)
    (read,) = from_adapter(tmp_path / "adapter", saved(base, tmp_path / "base"))
    torch.testing.assert_close(read.update, live.update)
    with pytest.raises(ValueError, match="LOHA needs all of its base"):
        list(from_adapter(tmp_path / "adapter", tmp_path / "base" / "model.safetensors"))


def test_what_has_no_dw_or_no_known_w0_is_refused_by_name(tmp_path):
    base = llama()
    folder = saved(base, tmp_path / "base")
    adapt(base, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2), tmp_path / "prefix")
    with pytest.raises(ValueError, match="PREFIX_TUNING changes activations"):
        list(from_adapter(tmp_path / "prefix", folder))
    adapt(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa_niter_2"), tmp_path / "niter")
    with pytest.raises(ValueError, match="started by 'pissa_niter_2'"):
        list(from_adapter(tmp_path / "niter", folder))


def test_a_planted_intruder_of_gpt2_is_counted_on_its_own_side_from_disk(tmp_path):
    """One new left singular vector of c_fc, (out, in) = (32, 8): stored transposed, it must not become a right one."""
    base, tuned = gpt2(), gpt2()
    weight = tuned.transformer.h[0].mlp.c_fc.weight  # (in, out)
    u, _, vh = torch.linalg.svd(weight.detach().T)
    outside = u[:, 20]  # of the 24 left directions that W0 does not span
    with torch.no_grad():
        weight += 10 * torch.outer(vh[0], outside)
    found = list(from_checkpoints(saved(base, tmp_path / "base"), saved(tuned, tmp_path / "tuned")))
    assert [layer.base.shape for layer in found] == [(32, 8)]
    for side, intruders in (("left", 1), ("right", 0)):
        assert (intruder_dimensions(found, side=side)["cosine"] < 0.5).sum() == intruders


def test_an_encoder_is_matched_with_its_classifier_through_the_prefix(tmp_path):
    encoder, classifier = bert(BertModel), bert()
    classifier.bert.load_state_dict(encoder.state_dict(), strict=False)
    with torch.no_grad():
        classifier.bert.encoder.layer[0].attention.self.query.weight += 0.1
    left_out: list[str] = []
    folders = saved(encoder, tmp_path / "base"), saved(classifier, tmp_path / "tuned")
    (layer,) = from_checkpoints(*folders, left_out=left_out)
    assert layer.name == "bert.encoder.layer.0.attention.self.query"
    torch.testing.assert_close(layer.update, torch.full((8, 8), 0.1))
    assert "classifier.weight: in the tuned weights alone" in left_out
    (back,) = from_checkpoints(*folders[::-1])
    torch.testing.assert_close(back.update, -layer.update)


def test_a_model_against_its_own_bfloat16_copy_is_not_called_changed(tmp_path):
    weight = {"a.weight": torch.randn(6, 4), "b.weight": torch.randn(4, 4)}
    copied = {name: value.bfloat16() for name, value in weight.items()}
    copied["b.weight"][0, 0] += 1
    save_file(weight, tmp_path / "a.safetensors")
    save_file(copied, tmp_path / "b.safetensors")
    left_out: list[str] = []
    for pair in (("a", "b"), ("b", "a")):
        (layer,) = from_checkpoints(*(tmp_path / f"{name}.safetensors" for name in pair), left_out=left_out)
        assert layer.name == "b"
    assert left_out == ["a.weight: equal once rounded to torch.bfloat16"] * 2


def test_files_are_resolved_as_transformers_does(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(2):
        torch.save({f"w{number}": torch.full((2, 2), float(number))}, folder / f"pytorch_model-{number}.bin")
    index = {f"w{number}": f"pytorch_model-{number}.bin" for number in range(2)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    assert WeightFiles(folder).names == ["w0", "w1"]
    assert WeightFiles(folder).shape("w1") == (2, 2)
    torch.testing.assert_close(WeightFiles(folder).read("w1"), torch.ones(2, 2))
    torch.save({"whole": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert WeightFiles(folder).names == ["whole"]
    for number in range(3):  # a third shard lies there that the index does not name
        save_file({"s": torch.full((1,), float(number))}, folder / f"model-{number}.safetensors")
    index = {"s": "model-1.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert WeightFiles(folder).names == ["s"]
    torch.testing.assert_close(WeightFiles(folder).read("s"), torch.ones(1))
    save_file({"single": torch.zeros(1)}, folder / "model.safetensors")
    assert WeightFiles(folder).names == ["single"]
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t": "model-1.safetensors"}}))
    with pytest.raises(ValueError, match=r"says that 't' is in 'model-1.safetensors'; it is not"):
        WeightFiles(folder)


def test_a_bin_that_would_run_code_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="is no file of weights alone"):
        WeightFiles(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    with pytest.raises(ValueError, match="must hold a state dict of tensors, got list"):
        WeightFiles(tmp_path / "list.bin")


def test_what_is_left_out_is_named(tmp_path):
    base = bert()
    config = LoraConfig(r=2, target_modules=["query"], task_type=TaskType.SEQ_CLS)
    adapted = adapt(base, config, tmp_path / "adapter")
    live: list[str] = []
    read: list[str] = []
    list(from_model(adapted, left_out=live))
    list(from_adapter(tmp_path / "adapter", saved(base, tmp_path / "base"), left_out=read))
    assert live == ["classifier: trained in full (modules_to_save)"]
    assert read == ["classifier.bias: trained beside the adapter", "classifier.weight: trained beside the adapter"]
