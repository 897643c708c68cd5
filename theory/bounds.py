"""The public face of the bounds: every one of them, under one name.

>>> from theory import bounds
>>> round(bounds.table1([(768, 768)] * 24, method="cla", num_examples=3668).value, 1)
21.1
"""

from theory.beyond import direct, excess, gauge_fixed_numbers, information, log2_binomial, perturbation
from theory.description import description_bits, plan
from theory.perturbation import Network, Phi, correction, deviation_log
from theory.records import Bound, UpdateRecord, bounds_frame
from theory.table1 import method_numbers, table1
from theory.update import evaluate, from_update, update_bounds

__all__ = [
    "Bound",
    "Network",
    "Phi",
    "UpdateRecord",
    "bounds_frame",
    "correction",
    "description_bits",
    "deviation_log",
    "direct",
    "evaluate",
    "excess",
    "from_update",
    "gauge_fixed_numbers",
    "information",
    "log2_binomial",
    "method_numbers",
    "perturbation",
    "plan",
    "table1",
    "update_bounds",
]
