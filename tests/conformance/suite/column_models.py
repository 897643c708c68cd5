"""PEFT's tests on transformers models: decoders, encoders, sequence classification, encoder-decoders."""

import os
from pathlib import Path

from adapters import ColumnConfig
from tests import test_decoder_models as decoders
from tests import test_encoder_decoder_models as pairs
from tests import test_feature_extraction_models as encoders
from tests import test_seq_classifier as classifiers
from tests import testing_common

MODELS = Path(os.environ["CONFORMANCE_MODELS"])


def _paths(*names):
    return [str(MODELS / name) for name in names]


def _configurations(task, **more):
    return [
        (ColumnConfig, {"task_type": task, "target_modules": None, **more, **rule})
        for rule in ({"method": "cla"}, {"method": "c3la", "links": 2, "r": 4})
    ]


# Conv1D is supported here; PEFT's own lists of exceptions do not know that.
testing_common._skip_if_conv1d_not_supported = lambda *args: None
decoders._skip_if_not_conv1d_supported = lambda *args: None

decoders.PEFT_DECODER_MODELS_TO_TEST[:] = _paths(
    "tiny-random-OPTForCausalLM", "tiny-random-GPT2LMHeadModel", "tiny-random-LlamaForCausalLM"
)
decoders.ALL_CONFIGS[:] = _configurations("CAUSAL_LM")
encoders.PEFT_FEATURE_EXTRACTION_MODELS_TO_TEST[:] = _paths(
    "tiny-random-BertModel", "tiny-random-RobertaModel", "tiny-random-DebertaV2Model"
)
encoders.ALL_CONFIGS[:] = _configurations("FEATURE_EXTRACTION")
classifiers.PEFT_SEQ_CLS_MODELS_TO_TEST[:] = _paths(
    "tiny-random-BertForSequenceClassification", "tiny-LlamaForSequenceClassification"
)
classifiers.ALL_CONFIGS[:] = _configurations("SEQ_CLS")
pairs.PEFT_ENCODER_DECODER_MODELS_TO_TEST[:] = _paths(
    "tiny-random-T5ForConditionalGeneration", "tiny-random-BartForConditionalGeneration"
)
pairs.ALL_CONFIGS[:] = _configurations("SEQ_2_SEQ_LM")


class TestDecoders(decoders.TestDecoderModels):
    """OPT, GPT-2 (Conv1D) and Llama."""


class TestEncoders(encoders.TestPeftFeatureExtractionModel):
    """BERT, RoBERTa and DeBERTa-v2."""


class TestClassifiers(classifiers.TestSequenceClassificationModels):
    """BERT and Llama with a classification head."""


class TestPairs(pairs.TestEncoderDecoderModels):
    """T5 and BART."""
