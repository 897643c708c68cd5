"""A pretrained language model through the whole of an adapter's life: ``pytest --pretrained FOLDER`` names one.

Made for SmolLM2-135M, saved by ``save_pretrained``; any small causal model with its tokenizer will do.
"""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from adapters import current_link, load_adapter, prepare, save_adapter

TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all."


@pytest.fixture(scope="module")
def pretrained(request):
    folder = request.config.getoption("pretrained")
    if folder is None:
        pytest.skip("needs --pretrained FOLDER, a small causal language model")
    return folder


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("method", ["cla", "c3la", "lora"])
def test_trained_saved_reloaded_exported_merged_and_generating(pretrained, tmp_path, method):
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    ready = prepare(base(pretrained), method, rank=8, links=2 if method == "c3la" else 1, learning_rate=3e-3)
    with torch.no_grad():
        before = ready.model(ids, labels=ids).loss.item()
    rows = [{"input_ids": ids[0], "labels": ids[0]}] * 4
    arguments = TrainingArguments(
        tmp_path / "run", max_steps=4, per_device_train_batch_size=1, report_to=[], save_strategy="no",
        lr_scheduler_type="constant", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    optimizers = (ready.create_optimizer(), None)
    Trainer(ready.model, arguments, train_dataset=rows, callbacks=ready.callbacks, optimizers=optimizers).train()
    model = ready.model.eval()
    if method == "c3la":
        assert current_link(model) == 1

    def answers(other):
        with torch.no_grad():
            words = other.generate(input_ids=ids[:, :8], max_new_tokens=6, do_sample=False, pad_token_id=0)
            return other(ids, labels=ids), words

    want, words = answers(model)
    assert want.loss < before - 0.1
    folder = save_adapter(model, tmp_path / "saved", lora_twin=True)
    again, same = answers(load_adapter(base(pretrained), folder).eval())
    assert torch.equal(again.logits, want.logits)
    twin = PeftModel.from_pretrained(base(pretrained), folder / "lora").eval()
    assert type(twin.peft_config["default"]) is LoraConfig
    plain, twins = answers(twin)
    merged, written = answers(model.merge_and_unload())
    for found in (plain, merged):  # fp32, summed in another order through thirty layers
        torch.testing.assert_close(found.logits, want.logits, rtol=1e-3, atol=1e-3)
    for found in (same, twins, written):
        assert torch.equal(found, words)
