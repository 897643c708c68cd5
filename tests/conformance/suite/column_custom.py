"""PEFT's tests on custom modules: MLP, embeddings with Conv1D; several active adapters; FSDP state dicts."""

from adapters import ColumnConfig
from tests import test_custom_models as theirs

WINDOW = {"method": "cla"}
RANDOM = {"method": "r-cla", "seed": 3}
CHAIN = {"method": "c3la", "links": 2, "link": 1}
SHUFFLED = {"method": "r-c3la", "links": 2}
IN_PLACE = {"method": "paca", "seed": 1}

theirs.TEST_CASES[:] = [
    ("MLP 1 cLA", "MLP", ColumnConfig, {"target_modules": "lin0", **WINDOW}),
    ("MLP 2 cLA", "MLP", ColumnConfig, {"target_modules": ["lin0"], **WINDOW}),
    ("MLP 3 cLA", "MLP", ColumnConfig, {"target_modules": ["lin1"], **WINDOW}),
    ("MLP 4 cLA", "MLP", ColumnConfig, {"target_modules": ["lin0", "lin1"], **WINDOW}),
    ("MLP 5 cLA", "MLP", ColumnConfig, {"target_modules": ["lin0"], "modules_to_save": ["lin1"], **WINDOW}),
    ("MLP 6 cLA", "MLP", ColumnConfig, {"target_modules": ["lin0"], "r": 4, "lora_alpha": 32, **WINDOW}),
    ("EmbConv1D cLA", "EmbConv1D", ColumnConfig, {"target_modules": ["conv1d"], "r": 4, **WINDOW}),
    ("MLP r-cLA", "MLP", ColumnConfig, {"target_modules": ["lin0", "lin1"], **RANDOM}),
    ("EmbConv1D r-cLA", "EmbConv1D", ColumnConfig, {"target_modules": ["conv1d"], "r": 4, **RANDOM}),
    ("MLP c3LA", "MLP", ColumnConfig, {"target_modules": ["lin0", "lin1"], "r": 4, **CHAIN}),
    ("MLP r-c3LA", "MLP", ColumnConfig, {"target_modules": ["lin0", "lin1"], "r": 4, **SHUFFLED}),
    ("MLP PaCA", "MLP", ColumnConfig, {"target_modules": ["lin0", "lin1"], **IN_PLACE}),
]
theirs.ALL_PEFT_CONFIG_CLASSES[:] = [ColumnConfig]
theirs.MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES[:] = [
    (
        f"{name} {where}",
        "column",
        ColumnConfig,
        {"target_modules": ["lin0"], "init_weights": False, **rule},
        {"target_modules": [second], "init_weights": False, **rule},
    )
    for name, rule in (("cLA", WINDOW), ("r-cLA", RANDOM))
    for where, second in (("Same", "lin0"), ("Different", "lin1"))
]


class TestCustom(theirs.TestPeftCustomModel):
    """Everything that PEFT asks of a tuner on a custom model."""


class TestSeveralActive(theirs.TestMultipleActiveAdapters):
    """Several adapters of one kind at once."""


class TestShardedState(theirs.TestPeftFsdpStateDict):
    """Saving and loading under FSDP, one process."""
