"""The paper's fourteen data sets and ten models, as data.

Source: tables 2 and 3 of arXiv:2606.13767 (thirteen data sets; RTE, the fourteenth, occurs in its public code).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.tasks.kinds import Kind

__all__ = ["DATASETS", "MODELS", "DatasetPreset", "ModelPreset"]


@dataclass(frozen=True, kw_only=True)
class DatasetPreset:
    """One data set.

    Attributes:
        name: the name on the command line.
        kind: kind of task.
        reader: which reader of ``analysis.tasks.publishers`` knows its publisher's format.
        metric_name: the paper's metric.
        hub: hub id, and configuration if any.
        columns: hub column of each role: text, text_pair, label, target, choices, image.
        splits: hub splits of training and held-out examples; two equal names: split by seed.
        label_names: classes in the order of the hub's integers, where it has them.
        label_range: range of a regression's label.
    """

    name: str
    kind: Kind
    reader: str
    metric_name: str
    hub: tuple[str, str | None]
    columns: Mapping[str, str]
    splits: tuple[str, str]
    label_names: tuple[str, ...] | None = None
    label_range: tuple[float, float] | None = None


_TREC_COARSE = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
_PAIR = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}
_TEXT: Kind = "text-classification"
_CHOICE: Kind = "multiple-choice"
_IMAGE: Kind = "image-classification"
_LM: Kind = "causal-lm"

DATASETS: dict[str, DatasetPreset] = {
    preset.name: preset
    for preset in (
        DatasetPreset(
            name="officehome",
            kind=_IMAGE,
            reader="image_folders",
            metric_name="accuracy",
            hub=("flwrlabs/office-home", None),
            columns={"image": "image", "label": "label"},
            splits=("train", "train"),
        ),
        DatasetPreset(
            name="cifar10",
            kind=_IMAGE,
            reader="cifar_binary",
            metric_name="accuracy",
            hub=("uoft-cs/cifar10", None),
            columns={"image": "img", "label": "label"},
            splits=("train", "test"),
        ),
        DatasetPreset(
            name="mrpc",
            kind=_TEXT,
            reader="mrpc",
            metric_name="accuracy",
            hub=("nyu-mll/glue", "mrpc"),
            columns=_PAIR,
            splits=("train", "test"),
            label_names=("0", "1"),
        ),
        DatasetPreset(
            name="stsb",
            kind="regression",
            reader="stsb",
            metric_name="pearson",
            hub=("nyu-mll/glue", "stsb"),
            columns=_PAIR,
            splits=("train", "validation"),
            label_range=(0.0, 5.0),
        ),
        DatasetPreset(
            name="trec",
            kind=_TEXT,
            reader="trec_coarse",
            metric_name="accuracy",
            hub=("CogComp/trec", None),
            columns={"text": "text", "label": "coarse_label"},
            splits=("train", "test"),
            label_names=_TREC_COARSE,
        ),
        DatasetPreset(
            name="trec50",
            kind=_TEXT,
            reader="trec_fine",
            metric_name="accuracy",
            hub=("CogComp/trec", None),
            columns={"text": "text", "label": "fine_label"},
            splits=("train", "test"),
        ),
        DatasetPreset(
            name="paws",
            kind=_TEXT,
            reader="paws",
            metric_name="accuracy",
            hub=("google-research-datasets/paws", "labeled_final"),
            columns=_PAIR,
            splits=("train", "test"),
            label_names=("0", "1"),
        ),
        DatasetPreset(
            name="cola",
            kind=_TEXT,
            reader="cola",
            metric_name="matthews",
            hub=("nyu-mll/glue", "cola"),
            columns={"text": "sentence", "label": "label"},
            splits=("train", "validation"),
            label_names=("0", "1"),
        ),
        DatasetPreset(
            name="rte",
            kind=_TEXT,
            reader="rte",
            metric_name="accuracy",
            hub=("nyu-mll/glue", "rte"),
            columns=_PAIR,
            splits=("train", "validation"),
            label_names=("entailment", "not_entailment"),
        ),
        DatasetPreset(
            name="folio",
            kind=_TEXT,
            reader="folio",
            metric_name="accuracy",
            hub=("yale-nlp/FOLIO", None),
            columns={"text": "premises", "text_pair": "conclusion", "label": "label"},
            splits=("train", "validation"),
            label_names=("False", "True", "Uncertain"),
        ),
        DatasetPreset(
            name="logiqa",
            kind=_CHOICE,
            reader="logiqa",
            metric_name="accuracy",
            hub=("lucasmccabe/logiqa", None),
            columns={"text": "context", "text_pair": "query", "choices": "options", "label": "correct_option"},
            splits=("train", "test"),
        ),
        DatasetPreset(
            name="clutrr",
            kind=_TEXT,
            reader="clutrr",
            metric_name="accuracy",
            hub=("CLUTRR/v1", "gen_train234_test2to10"),
            columns={"text": "clean_story", "text_pair": "query", "label": "target_text"},
            splits=("train", "test"),
        ),
        DatasetPreset(
            name="openbookqa",
            kind=_CHOICE,
            reader="openbookqa",
            metric_name="accuracy",
            hub=("allenai/openbookqa", "main"),
            columns={"text": "question_stem", "choices": "choices", "label": "answerKey"},
            splits=("train", "test"),
        ),
        DatasetPreset(
            name="e2e",
            kind=_LM,
            reader="e2e",
            metric_name="perplexity",
            hub=("tuetschek/e2e_nlg", None),
            columns={"text": "meaning_representation", "target": "human_reference"},
            splits=("train", "test"),
        ),
        DatasetPreset(
            name="django",
            kind=_LM,
            reader="django",
            metric_name="perplexity",
            hub=("AhmedSSoliman/DJANGO", None),
            columns={"text": "nl", "target": "code"},
            splits=("train", "test"),
        ),
    )
}
"""The fourteen, TREC counted once: ``trec`` has its 6 coarse classes, ``trec50`` its 50 fine ones."""


@dataclass(frozen=True, kw_only=True)
class ModelPreset:
    """One of the paper's ten base models: its hub id and the settings that belong to its family."""

    name: str
    hub: str
    settings: str


MODELS: dict[str, ModelPreset] = {
    preset.name: preset
    for preset in (
        ModelPreset(name="vit-tiny", hub="facebook/deit-tiny-patch16-224", settings="vit"),
        ModelPreset(name="vit-base", hub="google/vit-base-patch16-224", settings="vit"),
        ModelPreset(name="deberta-v2-xxlarge", hub="microsoft/deberta-v2-xxlarge", settings="deberta"),
        ModelPreset(name="deberta-v3-base", hub="microsoft/deberta-v3-base", settings="deberta"),
        ModelPreset(name="roberta-base", hub="FacebookAI/roberta-base", settings="roberta"),
        ModelPreset(name="roberta-large", hub="FacebookAI/roberta-large", settings="roberta"),
        ModelPreset(name="tinyllama-1.1b", hub="TinyLlama/TinyLlama-1.1B-Chat-v1.0", settings="tinyllama"),
        ModelPreset(name="llama3-8b", hub="meta-llama/Meta-Llama-3-8B", settings="llama3"),
        ModelPreset(name="deepseek-coder-1.3b", hub="deepseek-ai/deepseek-coder-1.3b-base", settings="deepseek"),
        ModelPreset(name="gpt2-small", hub="openai-community/gpt2", settings="gpt2"),
    )
}

TINY_MODELS = {
    "bert": "bert",
    "vit-tiny": "vit",
    "vit-base": "vit",
    "deberta-v2-xxlarge": "deberta",
    "deberta-v3-base": "deberta",
    "roberta-base": "roberta",
    "roberta-large": "roberta",
    "tinyllama-1.1b": "llama",
    "llama3-8b": "llama",
    "deepseek-coder-1.3b": "llama",
    "gpt2-small": "gpt2",
}
"""Name of a tiny random stand-in -> its architecture. The paper's ten models, and BERT."""
