"""Every architecture of the zoo with every method; all of it is ``make test-full``, the gate takes a sample."""

import copy

import pytest
import zoo

from adapters.testing import ModelChecks
from theory.methods import METHODS

KEYS = list(METHODS)
SAMPLE = ("phi3", "gpt2", "mixtral", "gpt_oss", "mamba", "albert", "modernbert", "t5", "dinov2", "whisper", "diffusion")


def cells():
    """Every pair; one method of each sampled architecture is in the gate."""
    for name in zoo.ZOO:
        for key in KEYS:
            sampled = name in SAMPLE and KEYS.index(key) == (SAMPLE.index(name) + 1) % len(KEYS)
            yield pytest.param(name, key, id=f"{name}-{key}", marks=() if sampled else pytest.mark.full)


@pytest.mark.parametrize(("name", "key"), list(cells()))
class TestZoo(ModelChecks):
    @pytest.fixture(autouse=True)
    def _which(self, name, key):
        self.name, self.key = name, key

    def method(self):
        return METHODS[self.key]

    def model(self):
        return copy.deepcopy(zoo.build(self.name))

    def batch(self):
        return zoo.batch(self.name)

    def arguments(self):
        return {"target_modules": zoo.ZOO[self.name].targets}
