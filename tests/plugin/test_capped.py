from dora_plugin.bound import CAPPED

from theory.testing import BoundChecks


class TestCapped(BoundChecks):
    def rule(self):
        return CAPPED

    def truths(self):  # a gap of a loss in [0, 1] may be 1 where any number of bits was trained on one example
        yield self.case(num_examples=1), 1.0
