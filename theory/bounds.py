"""The public face of the bounds: every one of them, under one name.

====================  =======================================================================================
``table1``            table 1 of arXiv:2606.13767, with or without its correction term Phi_W0
``correction``        theorem 1's Phi_dW and Phi_W0 in closed form; ``perturbation`` is the bound they give
``information``       sigma sqrt(2 I / n)
``direct``            the same with I at most the bits of the update, for the fine-tuned network itself
``excess``            min(sigma, D) sqrt(2 I / n), D a cap of the change in loss over W0; ``deviation_log`` gives D
``certificate``       one run, with high probability; ``theory.certificates`` holds its kin
``needed``            solved for n, bits or rank: when does a bound say something; ``survey`` over grids of all
``evaluate``          all of them for a method on given layers, before training
``BOUNDS``            the registry of what these evaluate; ``register_bound`` adds a ``Rule``, a function of a ``Case``
``from_update``       all of them for what was really trained, as a data frame; ``update_bounds`` as records
====================  =======================================================================================

>>> from theory import bounds
>>> round(bounds.table1([(768, 768)] * 24, method="cla", num_examples=3668).value, 1)
21.1
"""

from theory.counting import log2_binomial
from theory.descriptions import gauge_fixed_numbers
from theory.expectation import (
    BOUNDS,
    Case,
    Rule,
    certificate,
    description_bits,
    direct,
    evaluate,
    excess,
    from_update,
    information,
    method_numbers,
    needed,
    perturbation,
    plan,
    register_bound,
    survey,
    table1,
    update_bounds,
)
from theory.networks import Network, Phi, correction, deviation_log
from theory.records import Bound, UpdateRecord, bounds_frame

__all__ = [
    "BOUNDS",
    "Bound",
    "Case",
    "Network",
    "Phi",
    "Rule",
    "UpdateRecord",
    "bounds_frame",
    "certificate",
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
    "needed",
    "perturbation",
    "plan",
    "register_bound",
    "survey",
    "table1",
    "update_bounds",
]
