"""PEFT's tests on configuration classes."""

import pytest

from adapters import ColumnConfig
from tests import test_config as theirs

CLASSES = ((ColumnConfig, {}),)


def _ours(mark):
    """Their parametrisation over all configuration classes, over ours instead."""
    if mark.name == "parametrize" and "config_class" in str(mark.args[0]):
        return pytest.mark.parametrize(
            mark.args[0], CLASSES if "mandatory_kwargs" in str(mark.args[0]) else [ColumnConfig], **mark.kwargs
        ).mark
    return mark


class TestConfiguration(theirs.TestPeftConfig):
    """Construction, saving, loading, unknown fields, hashing."""


for _name, _function in list(vars(theirs.TestPeftConfig).items()):
    if hasattr(_function, "pytestmark"):
        _function.pytestmark = [_ours(mark) for mark in _function.pytestmark]
