"""What is a head: read off the model, not off one list of names."""

import pytest

from theory.heads import head_modules, is_inside, trained_heads

torch = pytest.importorskip("torch")
t = pytest.importorskip("transformers")

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20}
DISTIL = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12, "vocab_size": 20}
XLNET = {"d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 12, "vocab_size": 20}


def built(kind, config, sizes=SIZES):
    with torch.device("meta"):
        return getattr(t, kind)(getattr(t, config)(**sizes))


@pytest.mark.parametrize(
    ("kind", "config", "sizes", "heads", "trained"),
    [
        ("BertForSequenceClassification", "BertConfig", SIZES, ("classifier",), True),
        ("BertForMaskedLM", "BertConfig", SIZES, ("cls",), False),
        ("BertModel", "BertConfig", SIZES, (), True),
        ("DistilBertForSequenceClassification", "DistilBertConfig", DISTIL, ("pre_classifier", "classifier"), True),
        ("DebertaV2ForSequenceClassification", "DebertaV2Config", SIZES, ("pooler", "classifier"), True),
        ("RobertaForMultipleChoice", "RobertaConfig", SIZES, ("classifier",), True),
        ("XLNetForSequenceClassification", "XLNetConfig", XLNET, ("sequence_summary", "logits_proj"), True),
        ("LlamaForSequenceClassification", "LlamaConfig", SIZES, ("score",), True),
        ("LlamaForCausalLM", "LlamaConfig", SIZES, ("lm_head",), False),
    ],
)
def test_the_head_is_what_stands_beside_the_base(kind, config, sizes, heads, trained):
    model = built(kind, config, sizes)
    assert head_modules(model) == heads
    assert trained_heads(model) == (heads if trained else ())


def test_a_pooler_inside_the_base_is_a_head_only_where_it_is_new():
    model = built("BertForSequenceClassification", "BertConfig")
    assert head_modules(model) == ("classifier",)
    model.missing_keys = ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.weight"]
    assert head_modules(model) == ("classifier", "bert.pooler")


def test_models_that_name_no_base_are_told_by_the_usual_names():
    model = torch.nn.ModuleDict({"score": torch.nn.Linear(2, 2), "scored": torch.nn.Linear(2, 2)})
    assert head_modules(model) == ("score",)
    assert head_modules(torch.nn.Linear(2, 2)) == ()
    with pytest.raises(TypeError, match=r"module must be a torch module with named_modules\(\), got int"):
        trained_heads(3)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_model_wrapped_by_peft_is_looked_through():
    peft = pytest.importorskip("peft")
    model = built("BertForSequenceClassification", "BertConfig")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=1, target_modules=["query"], modules_to_save=["classifier"]))
    assert head_modules(adapted) == ("base_model.model.classifier",)
    names = [name for name, p in adapted.named_parameters() if p.requires_grad and "lora" not in name]
    assert len(names) == 2
    assert all(is_inside(name, head_modules(adapted)) for name in names)
