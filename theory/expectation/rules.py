"""The registry of bounds: each a rule that says what it bounds, how surely, and under which assumptions.

How to add one: ``theory/ADD_A_BOUND.md``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from theory.arguments import Count, Extended, NonNegative, NonNegatives, Positive, Probability, Range, checked
from theory.assumptions import check_codes
from theory.checks import check_text
from theory.expectation.description import check_record, described, descriptions_of
from theory.networks import Network, Phi, correction
from theory.records import Bound, Quantity, UpdateRecord
from theory.registry import Registry

__all__ = ["BOUNDS", "Case", "Rule", "register_bound"]


@checked
@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """All that a bound may ask for: what was trained (or is planned), the sample, and what else is known.

    Attributes:
        records: one checked ``UpdateRecord`` per trained matrix; norms are NaN for a plan.
        num_examples: n.
        sigma: sub-Gaussian parameter of the loss.
        loss_range: length of the loss's interval.
        num_choices: alternatives picked from by looking at data that a decoder must be told.
        loss_change: D of ``theory.expectation.forms.excess``, where it is known a priori; else None.
        network: the feed-forward network whose layers are the records; None where it is none.
        update_norms: |dW_l|_2 per record, caps or measured; None without a network.
        measured: names of the inputs that were measured on data.
        input_norms: measured norms for ``deviation_log``; None for a plan.
        empirical_risk: mean loss on the sample of the network that the records describe; None where it is not known.
        delta: probability of failure of what holds with high probability.
    """

    records: tuple[UpdateRecord, ...]
    num_examples: Count
    sigma: Positive
    loss_range: Range
    num_choices: Count = 1
    loss_change: Extended | None = None
    network: Network | None = None
    update_norms: tuple[float, ...] | None = None
    measured: tuple[str, ...] = ()
    input_norms: Mapping[str, NonNegatives] | None = None
    empirical_risk: NonNegative | None = None
    delta: Probability = 0.05

    def __post_init__(self) -> None:
        if not self.records:
            raise ValueError("records must hold at least one trained matrix, got none")
        for position, record in enumerate(self.records):
            check_record(record, position, planned=True)

    @property
    def setting(self) -> dict[str, Any]:
        """``num_examples``, ``sigma`` and ``loss_range``, as the functions of ``theory.bounds`` take them."""
        return {"num_examples": self.num_examples, "sigma": self.sigma, "loss_range": self.loss_range}

    @property
    def adapter_bits(self) -> float:
        """Stored bits of the adapters' numbers alone, as table 1 counts them."""
        return sum(record["numbers_trained"] * record["bits"] for record in self.records if record["kind"] != "head")

    @functools.cached_property
    def lengths(self) -> dict[str, float]:
        """Bits of everything that depends on the sample, by description; ``cheapest`` takes the shortest per matrix.

        A description that a matrix has not is replaced there by ``links``, which all have.
        """
        extra = math.log2(self.num_choices)
        described = self._described
        names = ["links", *(name for lengths in described for name in lengths)]
        totals = {
            name: extra + sum(lengths.get(name, lengths["links"]) for lengths in described)
            for name in dict.fromkeys(names)
        }
        return totals | {"cheapest": extra + sum(min(lengths.values()) for lengths in described)}

    @functools.cached_property
    def assumptions(self) -> dict[str, tuple[str, ...]]:
        """What each description of ``lengths`` assumes."""
        why: dict[str, tuple[str, ...]] = {}
        for kind in dict.fromkeys(record["kind"] for record in self.records):
            for one in descriptions_of(kind):
                why[one.name] = tuple(dict.fromkeys((*why.get(one.name, ()), *one.assumptions)))
        used = {min(lengths, key=lambda name: lengths[name]) for lengths in self._described}
        cheapest = tuple(reason for name in sorted(used) for reason in why[name])
        return {name: why.get(name, ()) for name in self.lengths} | {"cheapest": cheapest}

    @functools.cached_property
    def phi(self) -> Phi | None:
        """Theorem 1's correction terms at ``update_norms``; None where no network or no norms are known."""
        if self.network is None or self.update_norms is None:
            return None
        return correction(self.network, update_norms=self.update_norms)

    @functools.cached_property
    def _described(self) -> list[dict[str, float]]:
        return [described(record) for record in self.records]


@checked
@dataclass(frozen=True, kw_only=True)
class Rule:
    """One bound: what it says, and the function that evaluates it.

    Attributes:
        name: short name; what it yields is named so, or says more (``direct`` also yields ``support``).
        of: ``"gap"`` (population minus empirical risk) or ``"risk"`` (the population risk itself).
        kind: ``"expectation"`` (over the sample and the training's randomness) or ``"high-probability"``, with
            confidence 1 - ``Case.delta``.
        source: theorem and arXiv number.
        assumptions: what must hold, as codes of ``theory.assumptions``; every bound that it yields repeats them.
        evaluate: a case -> its bounds; none where the case lacks what it needs.

    Raises:
        TypeError, ValueError: if a field makes no sense; the message names it.
    """

    name: str
    of: Quantity
    kind: Literal["expectation", "high-probability"]
    source: str
    assumptions: tuple[str, ...]
    evaluate: Callable[[Case], Iterable[Bound]]

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_text("source", self.source)
        if not self.assumptions:
            raise ValueError("assumptions must name at least one code, got none")
        check_codes("assumptions", self.assumptions)

    @checked
    def bounds(self, case: Case) -> tuple[Bound, ...]:
        """Evaluate the rule, and check that what it yields says what the rule says.

        Raises:
            TypeError: if it yields something else than bounds.
            ValueError: if a bound is of another quantity or kind, has another confidence or leaves out an assumption.
        """
        found = tuple(self.evaluate(case))
        for bound in found:
            if not isinstance(bound, Bound):
                raise TypeError(f"bound {self.name!r} must yield Bound records, got {type(bound).__name__}")
            if (bound.of, bound.kind) != (self.of, self.kind):
                stated, came = f"a {self.of}, {self.kind}", f"a {bound.of}, {bound.kind}"
                raise ValueError(f"bound {self.name!r} states that it bounds {stated}; it yielded {came}")
            if bound.delta is not None and not math.isclose(bound.delta, case.delta):
                raise ValueError(f"bound {self.name!r} must fail with delta {case.delta} at most: {bound.delta}")
            missing = set(self.assumptions) - set(bound.assumptions)
            if missing:
                raise ValueError(f"bound {self.name!r} yielded a bound without its assumption {min(missing)!r}")
        return found


BOUNDS: Registry[Rule] = Registry("bound", group="beyond_lora.bounds", accepts=Rule, name=lambda rule: rule.name)
"""Every bound that is evaluated for an adapter, by name, in the order of the tables' rows."""

register_bound = BOUNDS.register
