"""The shipped checks on the eleven methods, and what they must find."""

import pytest

from adapters.testing import MethodChecks
from theory.methods import METHODS


@pytest.mark.parametrize("key", METHODS)
class TestShippedMethods(MethodChecks):
    @pytest.fixture(autouse=True)
    def _key(self, key):
        self.key = key

    def method(self):
        return METHODS[self.key]
