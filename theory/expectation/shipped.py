"""The bounds that come with the package, as rules of the registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from theory.assumptions import (
    ADAPTER_ONLY,
    CODE_FIRST,
    COUNTED,
    DIAGNOSTIC,
    FEED_FORWARD,
    IID,
    IN_RANGE,
    INDEPENDENT,
    MEAN,
    REACHABLE,
    STORED,
    SUB_GAUSSIAN,
)
from theory.certificates.occam import OCCAM
from theory.expectation.forms import ADAPTERS, certificate, direct, excess, loss_change_from_log, perturbation
from theory.expectation.rules import BOUNDS, Case, Rule, register_bound
from theory.expectation.table1 import TABLE1, XU_RAGINSKY, table1_from_bits
from theory.networks import deviation_log
from theory.records import Bound

__all__ = ["BOUNDS"]


def _table1_root(case: Case) -> Iterator[Bound]:
    yield table1_from_bits(case.adapter_bits, **case.setting)


def _direct(case: Case) -> Iterator[Bound]:
    for name, bits in case.lengths.items():
        label = "direct" if name == "links" else name
        yield direct(bits, name=label, assumptions=case.assumptions[name], **case.setting)


def _excess(case: Case) -> Iterator[Bound]:
    if case.loss_change is not None:
        notes = case.assumptions["cheapest"]
        yield excess(case.lengths["cheapest"], loss_change=case.loss_change, assumptions=notes, **case.setting)


def _table1(case: Case) -> Iterator[Bound]:
    if case.phi is not None:
        yield table1_from_bits(case.adapter_bits, phi=case.phi, measured=case.measured, **case.setting)


def _perturbation(case: Case) -> Iterator[Bound]:
    if case.phi is not None:
        yield perturbation(case.phi, sigma=case.sigma, loss_range=case.loss_range, measured=case.measured)


def _excess_network(case: Case) -> Iterator[Bound]:
    if case.phi is not None:
        yield excess(
            case.lengths["cheapest"],
            loss_change=loss_change_from_log(case.phi.log_update - math.log(2)),
            name="excess-network",
            measured=case.measured,
            assumptions=(DIAGNOSTIC,) if case.measured else (),
            **case.setting,
        )


def _excess_measured(case: Case) -> Iterator[Bound]:
    if case.network is not None and case.input_norms is not None:
        trained = [record["norm_update"] for record in case.records]
        change = deviation_log(case.network, update_norms=trained, **case.input_norms)
        yield excess(
            case.lengths["cheapest"],
            loss_change=loss_change_from_log(change, loss_lipschitz=case.network.loss_lipschitz),
            name="excess-measured",
            measured=("norm_update", *case.input_norms),
            assumptions=(DIAGNOSTIC,),
            **case.setting,
        )


def _certificate(case: Case) -> Iterator[Bound]:
    if case.empirical_risk is not None:
        yield certificate(
            case.lengths["links"],
            empirical_risk=case.empirical_risk,
            num_examples=case.num_examples,
            delta=case.delta,
            loss_range=case.loss_range,
        )


def _gap(name: str, source: str, assumptions: tuple[str, ...], evaluate: Callable[[Case], Iterator[Bound]]) -> None:
    register_bound(
        Rule(name=name, of="gap", kind="expectation", source=source, assumptions=assumptions, evaluate=evaluate)
    )


_COUNTS = (MEAN, SUB_GAUSSIAN, INDEPENDENT, COUNTED)
_PAPER = (MEAN, SUB_GAUSSIAN, STORED, ADAPTER_ONLY)
_EXCESS = f"excess loss over W0 in {XU_RAGINSKY}"

_gap("table1-root", TABLE1, _PAPER, _table1_root)
_gap("direct", ADAPTERS, _COUNTS, _direct)
_gap("excess", _EXCESS, (*_COUNTS, REACHABLE), _excess)
_gap("table1", TABLE1, _PAPER, _table1)
_gap("perturbation", "theorem 1 (mended), arXiv:2606.13767", (MEAN, INDEPENDENT, FEED_FORWARD), _perturbation)
_gap("excess-network", _EXCESS, (*_COUNTS, REACHABLE), _excess_network)
_gap("excess-measured", _EXCESS, (*_COUNTS, REACHABLE, DIAGNOSTIC), _excess_measured)
register_bound(
    Rule(
        name="certificate",
        of="risk",
        kind="high-probability",
        source=OCCAM,
        assumptions=(IID, CODE_FIRST, IN_RANGE),
        evaluate=_certificate,
    )
)
