"""No head stays as it was drawn: what no checkpoint held is trained, or named."""

import warnings

import pytest
import torch
import transformers as t
from peft import get_peft_model
from torch import nn

from adapters import ColumnConfig, prepare
from adapters.targets import UntrainedWarning
from theory.heads import fresh_parameters, head_modules, trained_heads

WORDS = {"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20}
BART = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, **WORDS}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
T5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0, **WORDS}
GPT2 = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, **WORDS}

BASES = {
    "BertForMaskedLM": t.BertConfig(**BERT),
    "BartModel": t.BartConfig(**BART),
    "T5ForConditionalGeneration": t.T5Config(**T5),
    "DebertaV2Model": t.DebertaV2Config(**BERT),
    "GPT2LMHeadModel": t.GPT2Config(**GPT2),
}
# class to load, from which checkpoint, targets, what has to train in full beside the adapter
CASES = [
    ("BertForQuestionAnswering", "BertForMaskedLM", ["query"], {"qa_outputs"}),
    ("BertForSequenceClassification", "BertForMaskedLM", ["query"], {"classifier", "bert.pooler"}),
    ("BertForTokenClassification", "BertForMaskedLM", ["query"], {"classifier"}),
    ("BertForMaskedLM", "BertForMaskedLM", ["query"], set()),
    ("BartForSequenceClassification", "BartModel", ["q_proj"], {"classification_head"}),
    ("BartForQuestionAnswering", "BartModel", ["q_proj"], {"qa_outputs"}),
    ("T5ForSequenceClassification", "T5ForConditionalGeneration", ["q"], {"classification_head"}),
    ("T5ForQuestionAnswering", "T5ForConditionalGeneration", ["q"], {"qa_outputs"}),
    ("DebertaV2ForSequenceClassification", "DebertaV2Model", ["query_proj"], {"pooler", "classifier"}),
    ("GPT2DoubleHeadsModel", "GPT2LMHeadModel", ["c_attn"], {"multiple_choice_head"}),
    ("GPT2ForSequenceClassification", "GPT2LMHeadModel", ["c_attn"], {"score"}),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Return a function that loads a class from the checkpoint of another."""
    folders = {}

    def load(wanted, base):
        if base not in folders:
            folders[base] = tmp_path_factory.mktemp(base)
            getattr(t, base)(BASES[base]).save_pretrained(folders[base])
        return getattr(t, wanted).from_pretrained(folders[base])

    return load


@pytest.mark.parametrize(("wanted", "base", "targets", "heads"), CASES, ids=[case[0] for case in CASES])
def test_what_no_checkpoint_held_is_trained_beside_the_adapter(loaded, wanted, base, targets, heads):
    model = loaded(wanted, base)
    fresh = set(fresh_parameters(model))
    assert {name for name in fresh if not any(name.startswith(f"{head}.") for head in heads)} == set()
    assert set(trained_heads(model)) == heads
    adapted = prepare(model, "cla", rank=2, target_modules=targets).model
    trained = {n.removeprefix("base_model.model.") for n, p in adapted.named_parameters() if p.requires_grad}
    whole = {n.replace(".modules_to_save.default", "") for n in trained if ".modules_to_save." in n}
    assert fresh <= whole
    assert {head for head in heads if any(name.startswith(f"{head}.") for name in whole)} == heads
    assert all(any(name.startswith(f"{head}.") for head in heads) for name in whole)
    assert trained_heads(adapted) == tuple(f"base_model.model.{head}" for head in trained_heads(model))


@pytest.mark.parametrize("method", ["cla", "lora"])
def test_fresh_weights_that_stay_as_they_are_are_named(loaded, method):
    bert = ("BertForSequenceClassification", "BertForMaskedLM")
    with pytest.warns(UntrainedWarning, match=r"neither .*: bert.pooler.dense.bias, .*, classifier.bias, cl") as told:
        prepare(loaded(*bert), method, rank=2, modules_to_save=[])
    assert len(told) == 1
    with pytest.warns(UntrainedWarning, match=r"outside the base model: bert.pooler; name"):
        prepare(loaded(*bert), method, rank=2, modules_to_save=["classifier"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(loaded(*bert), "fft")


def test_a_head_left_out_beside_another_is_named_even_without_a_checkpoint():
    model = t.DebertaV2ForSequenceClassification(t.DebertaV2Config(**BERT))
    with pytest.warns(UntrainedWarning, match="outside the base model: pooler; name their modules in modules_to_save"):
        prepare(model, "cla", rank=2, modules_to_save=["classifier"])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_pefts_own_call_names_the_head_that_its_task_type_does_not_know(loaded):
    model = loaded("BartForSequenceClassification", "BartModel")
    with pytest.warns(UntrainedWarning, match="base model: classification_head; name"):
        get_peft_model(model, ColumnConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS"))


def test_a_part_that_is_new_as_a_whole_is_the_head_of_a_model_that_names_no_base():
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "answer": nn.Linear(2, 2), "mixed": nn.Linear(2, 2)})
    assert head_modules(model) == ()
    for p in (*model["body"].parameters(), model["mixed"].weight):
        p._is_hf_initialized = True
    assert head_modules(model) == ("answer",)
    assert set(fresh_parameters(model)) == {"answer.weight", "answer.bias", "mixed.bias"}
    with torch.device("meta"):
        assert fresh_parameters(t.BertModel(t.BertConfig(**BERT))) == ()
