"""A gap is never longer than the loss's interval: the cheapest description's bound, capped there."""

from theory.assumptions import assume
from theory.bounds import Bound, Rule, direct

CAP = assume("interval", "the loss lies in an interval of length loss_range")


def _capped(case):
    bound = direct(case.lengths["cheapest"], assumptions=case.assumptions["cheapest"], **case.setting)
    yield Bound(
        name="capped",
        of="gap",
        kind="expectation",
        value=min(bound.value, case.loss_range),
        source=bound.source,
        assumptions=(*bound.assumptions, CAP),
        loss_range=case.loss_range,
        bits=bound.bits,
    )


CAPPED = Rule(
    name="capped",
    of="gap",
    kind="expectation",
    source="lemma on adapters, arXiv:2402.16842, and the loss's range",
    assumptions=(CAP,),
    evaluate=_capped,
)
