from dora_plugin.method import DORA

import adapters.testing
import theory.testing


class TestDora(theory.testing.MethodChecks):
    def method(self):
        return DORA

    def by_hand(self):  # r (m + n) + n for one 4 x 10 layer, r = 3
        return [((4, 10), 3, 1, 46)]


class TestDoraTrains(adapters.testing.MethodChecks):
    def method(self):
        return DORA
