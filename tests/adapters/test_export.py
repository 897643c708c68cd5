import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file

from adapters import export_to_lora, merge_and_continue, prepare

CASES = {
    "llama-cla": ("llama", "cla", 1),
    "llama-c3la-wrapped": ("llama", "c3la", 7),
    "gpt2-r-c3la": ("gpt2", "r-c3la", 3),
    "vit-paca": ("vit", "paca", 1),
    "roberta-c3la": ("roberta", "c3la", 2),
    "deberta-v2-r-cla": ("deberta-v2", "r-cla", 1),
    "bert-rac": ("bert", "rac", 3),
    "vit-cola": ("vit", "cola", 2),
    "gpt2-lora": ("gpt2", "lora", 1),
}


def trained(build, inputs, family, method, links):
    p = prepare(build(family), method, rank=3, links=links, learning_rate=1e-2, seed=3)
    optimizer = p.create_optimizer()
    for link in range(links):
        for _ in range(2):
            p.model(**inputs(family)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if link + 1 < links:
            merge_and_continue(p.model, optimizer=optimizer)
    return p.model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, build, inputs):
    root = tmp_path_factory.mktemp("exported")
    wanted = {}
    for name, (family, method, links) in CASES.items():
        model = trained(build, inputs, family, method, links)
        build(family).save_pretrained(root / name / "base")
        export_to_lora(model, root / name / "lora")
        batch = {k: v for k, v in inputs(family).items() if k != "labels"}
        save_file(batch, root / name / "inputs.safetensors")
        with torch.no_grad():
            wanted[name] = model(**batch).logits
    worker = Path(__file__).with_name("worker_export.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, worker, root], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, wanted


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_vanilla_peft_gives_the_same_logits_without_this_package(exported, case):
    root, wanted = exported
    got = load_file(root / case / "vanilla.safetensors")
    # Exact in the factors; the products are summed in another order, in fp32.
    torch.testing.assert_close(got["logits"], wanted[case], rtol=0, atol=1e-6)
    torch.testing.assert_close(got["merged"], wanted[case], rtol=0, atol=1e-6)


def test_a_wrapped_chain_exports_each_column_once(build, inputs, tmp_path):
    """Seven links of three columns on 16: two wrap around, so the rank is 16, not 19 or 21."""
    model = trained(build, inputs, "llama", "c3la", 7)
    config = PeftConfig.from_pretrained(export_to_lora(model, tmp_path))
    assert (config.r, config.lora_alpha, config.rank_pattern) == (16, 16, {})


def test_layers_of_different_rank_go_to_the_rank_pattern(build, inputs, tmp_path):
    from peft import get_peft_model

    from adapters import ColumnConfig

    config = ColumnConfig(r=4, rank_pattern={"q_proj": 2}, init_weights=False)
    model = get_peft_model(build("llama"), config).eval()
    export_to_lora(model, tmp_path)
    again = PeftModel.from_pretrained(build("llama"), tmp_path).eval()
    batch = inputs("llama")
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)
    assert set(PeftConfig.from_pretrained(tmp_path).rank_pattern.values()) == {2}


def test_exporting_nothing_is_refused(build, tmp_path):
    with pytest.raises(ValueError, match="no layer with an adapter named 'default'"):
        export_to_lora(build("vit"), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no layer with an adapter named 'other'"):
        export_to_lora(prepare(build("vit"), "cla", rank=2).model, tmp_path, adapter="other")


def test_a_merged_model_is_refused(build, tmp_path):
    model = prepare(build("vit"), "cla", rank=2).model
    model.merge_adapter()
    with pytest.raises(ValueError, match="unmerge first"):
        export_to_lora(model, tmp_path)
