"""A saved adapter says what it is; the plain LoRA beside it; names under which no adapter can be kept."""

import json

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from adapters import ColumnConfig, load_adapter, merge_and_continue, prepare, save_adapter


def shaken(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def chain(build):
    model = prepare(build("vit"), "c3la", rank=3, links=4).model
    merge_and_continue(shaken(model))
    return shaken(model)


def test_the_folder_of_a_saved_adapter_says_what_it_is_and_how_to_load_it(build, tmp_path):
    model = chain(build)
    model.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    kind = json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"]
    assert text.startswith("---\n"), "PEFT's metadata stays on top"
    assert "c3LA (arXiv:2606.13767) trains columns of weight matrices: 3 a link, link 2 of 4." in text
    for part in (f"KeyError: '{kind}'", "import adapters", "export_to_lora", "PeftModel.from_pretrained"):
        assert part in text
    merge_and_continue(model)
    (tmp_path / "README.md").write_text(text + "\nMine.\n")
    model.save_pretrained(tmp_path)
    again = (tmp_path / "README.md").read_text()
    assert again.count("## How to load this adapter") == 1
    assert "link 3 of 4" in again
    assert "\nMine." in again


def test_what_the_file_says_of_pefts_error_is_true(build, tmp_path, monkeypatch):
    chain(build).save_pretrained(tmp_path)
    # as where this package was not imported
    monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType("BEYOND_COLUMN"))
    with pytest.raises(KeyError) as caught:
        PeftConfig.from_pretrained(tmp_path)
    assert f"KeyError: {caught.value}" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("name", ["default", "mine"])
def test_the_lora_twin_is_the_same_function(build, inputs, tmp_path, name):
    model = shaken(get_peft_model(build("llama"), ColumnConfig(method="r-cla", r=3), adapter_name=name))
    folder = save_adapter(model, tmp_path, adapter=name, lora_twin=True)
    assert folder == (tmp_path if name == "default" else tmp_path / name)
    assert "## How to load this adapter" in (folder / "README.md").read_text()
    batch, want = inputs("llama"), model(**inputs("llama")).logits
    assert torch.equal(load_adapter(build("llama"), folder).eval()(**batch).logits, want)
    twin = PeftModel.from_pretrained(build("llama"), folder / "lora").eval()
    assert type(twin.peft_config["default"]) is LoraConfig
    torch.testing.assert_close(twin(**batch).logits, want, rtol=0, atol=1e-6)  # fp32, summed in another order


def test_without_being_asked_no_twin_is_written(build, tmp_path):
    save_adapter(chain(build), tmp_path)
    assert not (tmp_path / "lora").exists()


def test_what_cannot_be_saved_is_refused_and_nothing_is_written(build, tmp_path):
    with pytest.raises(TypeError, match="model must be a PeftModel, got ViTForImageClassification"):
        save_adapter(build("vit"), tmp_path)
    model = chain(build)
    with pytest.raises(ValueError, match=r"adapter must be one of the model's \(default\), got 'other'"):
        save_adapter(model, tmp_path, adapter="other")
    model.merge_adapter()
    with pytest.raises(ValueError, match="unmerge first"):
        save_adapter(model, tmp_path, lora_twin=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Adapter name '' should not be contained:UserWarning")
@pytest.mark.parametrize("name", ["values", "my.adapter", "", "type", "forward", "weight", "classifier"])
def test_a_name_that_no_adapter_can_have_is_refused_before_the_model_is_touched(build, tmp_path, name):
    model = build("vit")
    before = [(n, type(m)) for n, m in model.named_modules()]
    config = ColumnConfig(r=2, modules_to_save=["classifier"])
    with pytest.raises(ValueError, match=f"adapter_name must not be empty, .* got '{name}'"):
        get_peft_model(model, config, adapter_name=name)
    plain = {"target_modules": ["q_proj"], "modules_to_save": ["classifier"]}
    get_peft_model(build("vit"), LoraConfig(r=2, **plain)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"got '{name}'"):
        load_adapter(model, tmp_path, adapter=name)
    assert [(n, type(m)) for n, m in model.named_modules()] == before
    second = get_peft_model(model, config)
    with pytest.raises(ValueError, match=f"got '{name}'"):
        second.add_adapter(name, ColumnConfig(r=2, modules_to_save=["classifier"]))
    assert list(second.peft_config) == ["default"]


@pytest.mark.parametrize("name", ["model", "0", "B", "a b", "é", "sum", "beyond_column_B", "q_proj"])
def test_names_that_only_look_odd_are_kept(build, inputs, tmp_path, name):
    config = ColumnConfig(method="c3la", r=2, links=2, modules_to_save=["classifier"])
    model = shaken(get_peft_model(build("vit"), config, adapter_name=name))
    model.save_pretrained(tmp_path)
    again = load_adapter(build("vit"), tmp_path / name, adapter=name).eval()
    assert isinstance(PeftConfig.from_pretrained(tmp_path / name), ColumnConfig)
    assert torch.equal(again(**inputs("vit")).logits, model(**inputs("vit")).logits)
