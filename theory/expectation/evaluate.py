"""Every bound for one adapter: from the records of what was really trained, or from a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import pandas as pd
from numpy.typing import ArrayLike

from theory.arguments import Count, Extended, NonNegative, NonNegatives, Positive, Probability, Range, Whole, checked
from theory.checks import check_choice, check_norms
from theory.defaults import BITS, RANK
from theory.expectation.description import check_record, plan
from theory.expectation.rules import Case
from theory.expectation.shipped import BOUNDS
from theory.expectation.table1 import resolve_range
from theory.layers import Layers
from theory.methods import Method
from theory.networks import Network
from theory.records import Bound, UpdateRecord, bounds_frame

__all__ = ["evaluate", "from_update", "update_bounds"]

MEASURABLE = ("merged_norms", "base_input_norms", "merged_input_norms", "selected_norms")


class _Setting(TypedDict):
    num_examples: int
    sigma: float
    loss_range: float


@checked
def from_update(
    records: Iterable[UpdateRecord] | Iterable[Mapping[str, Any]],
    *,
    num_examples: Count,
    sigma: Positive = 0.5,
    **options: Any,
) -> pd.DataFrame:
    """Tabulate every bound for what a run really trained; goes by the records, never by a method's name.

    Args:
        records: from ``adapters.describe``; see ``theory.records.UpdateRecord``.
        num_examples: n, size of the fine-tuning sample.
        sigma: sub-Gaussian parameter of the loss; 1/2 for a loss in [0, 1].
        **options: as in ``update_bounds``, which says what the rows are.

    Returns:
        A pandas data frame, one row per bound, columns as in ``theory.records.bounds_frame``.

    Raises:
        ValueError: if a record or an argument is out of range (NaN norms too); the message names it.
        TypeError: if a record is no mapping or a count is no integer.

    >>> record = dict(name="q", kind="columns", out_features=4, in_features=8, rank=2, links=1, numbers_trained=8,
    ...     a_trained=False, support=[0, 1], bits=16, side_information_bits=0.0, norm_update=0.1, norm_base=1.0,
    ...     norm_merged=1.05, seed=None)
    >>> from_update([record], num_examples=1000)[["bound", "bits", "vacuous"]].to_records(index=False).tolist()
    [('table1-root', 128.0, False), ('direct', 128.0, False), ('support', 128.0, False), ('cheapest', 128.0, False)]
    """
    return bounds_frame(update_bounds(records, num_examples=num_examples, sigma=sigma, **options))


@checked
def update_bounds(
    records: Iterable[UpdateRecord] | Iterable[Mapping[str, Any]],
    *,
    num_examples: Count,
    sigma: Positive = 0.5,
    loss_range: Range | None = None,
    num_choices: Count = 1,
    loss_change: Extended | None = None,
    network: Network | None = None,
    update_norms: NonNegatives | None = None,
    input_norms: Mapping[str, NonNegatives] | None = None,
    empirical_risk: NonNegative | None = None,
    delta: Probability = 0.05,
) -> tuple[Bound, ...]:
    """Evaluate every bound for what a run really trained.

    Every rule of ``theory.bounds.BOUNDS`` that the arguments suffice for. Names: ``table1-root`` (the paper's count:
    adapter numbers alone), ``direct`` (with head, side information and choices), ``support``, ``gauge-fixed``,
    ``cheapest`` (per matrix the shortest description); with ``loss_change`` also ``excess``; with ``network`` also
    ``table1``, ``perturbation``, ``excess-network`` and, from the measured norms of W0 + dW and of the layers' inputs,
    ``excess-measured``; with ``empirical_risk`` also ``certificate``, of the risk and with confidence 1 - delta; then
    what packages outside add.

    Args:
        records: from ``adapters.describe``; see ``theory.records.UpdateRecord``.
        num_examples: n, size of the fine-tuning sample.
        sigma: sub-Gaussian parameter of the loss; 1/2 for a loss in [0, 1].
        loss_range: length of the loss's interval, for the vacuous mark; 2 sigma by default.
        num_choices: number of alternatives picked from by looking at data that a decoder must be told (seeds,
            ranks, layers); log2 of it is added. Checkpoints and learning rates cost nothing, see ``direct``.
        loss_change: D of ``theory.expectation.forms.excess``, where it is known a priori.
        network: only for a feed-forward network whose layers are the records, in order (a frozen layer is a
            record with nothing trained). Transformers are none: pass ``loss_change``.
        update_norms: caps of |dW_l|_2 enforced in training, one per record; without them the measured norms
            enter and the bounds that use them are marked as measured.
        input_norms: measured norms of the layers' inputs for ``excess-measured``, under the names of
            ``theory.networks.perturbation.deviation_log``: ``base_input_norms``, ``merged_input_norms`` and, for column
            methods, ``selected_norms``.
        empirical_risk: mean loss on the sample of the network that the records describe, for ``certificate``.
        delta: probability of failure of what holds with high probability.

    Returns:
        One ``Bound`` per name.

    Raises:
        ValueError: if a record or an argument is out of range (NaN norms too); the message names it.
        TypeError: if a record is no mapping or a count is no integer.
    """
    checked = tuple(check_record(record, position) for position, record in enumerate(records))
    known: dict[str, Any] = {}
    if network is not None:
        _check_network(network, checked)
        measured_inputs = {"merged_norms": [record["norm_merged"] for record in checked], **(input_norms or {})}
        for name in measured_inputs:
            check_choice("input_norms", name, MEASURABLE)
        known = {"network": network, "input_norms": measured_inputs}
        if update_norms is None:
            known |= {"update_norms": tuple(record["norm_update"] for record in checked), "measured": ("norm_update",)}
        else:
            known["update_norms"] = _check_caps(update_norms, checked)
    setting = _setting(num_examples, sigma, loss_range)
    return _bounds(
        Case(
            records=checked,
            num_choices=num_choices,
            loss_change=loss_change,
            empirical_risk=empirical_risk,
            delta=delta,
            **setting,
            **known,
        )
    )


@checked
def evaluate(
    layers: Layers,
    *,
    method: str | Method,
    num_examples: Count,
    rank: Count = RANK,
    bits: Positive = BITS,
    links: Count = 1,
    sigma: Positive = 0.5,
    loss_range: Range | None = None,
    head_numbers: Whole = 0,
    num_choices: Count = 1,
    loss_change: Extended | None = None,
    network: Network | None = None,
    update_norms: NonNegatives | None = None,
) -> tuple[Bound, ...]:
    """Evaluate every bound for a method before it is trained; names as in ``update_bounds``.

    Args:
        layers: shapes of the adapted matrices, or (out_features, in_features) pairs.
        method: a key of ``theory.methods``, or a ``Method``.
        num_examples: n.
        rank: r.
        bits: q, stored bits per number.
        links: k; not used by unchained methods.
        sigma: sub-Gaussian parameter of the loss.
        loss_range: length of the loss's interval; 2 sigma by default.
        head_numbers: numbers trained outside the adapted matrices.
        num_choices: as in ``update_bounds``.
        loss_change: as in ``update_bounds``.
        network: norms of a feed-forward network whose layers are ``layers``.
        update_norms: caps of |dW_l|_2, one per layer; required with ``network``.

    Returns:
        One ``Bound`` per name.

    Raises:
        ValueError: if an argument is out of range, or ``network`` comes without ``update_norms``.

    >>> [bound.name for bound in evaluate([(768, 768)] * 24, method="lora", num_examples=3668)]
    ['table1-root', 'direct', 'support', 'gauge-fixed', 'cheapest']
    """
    records = tuple(plan(layers, method=method, rank=rank, links=links, bits=bits, head_numbers=head_numbers))
    setting = _setting(num_examples, sigma, loss_range)
    known: dict[str, Any] = {}
    if network is not None:
        if update_norms is None:
            raise ValueError("update_norms must hold one cap per layer when network is given, got None")
        adapted = len(records) - (head_numbers > 0)
        if network.depth != adapted or head_numbers:
            raise ValueError(f"network must have the {adapted} layers given and no other head, has {network.depth}")
        norms = check_norms("update_norms", update_norms, length=len(records))
        known = {"network": network, "update_norms": tuple(norms.tolist())}
    return _bounds(Case(records=records, num_choices=num_choices, loss_change=loss_change, **setting, **known))


def _setting(num_examples: int, sigma: float, loss_range: float | None) -> _Setting:
    return {"num_examples": num_examples, "sigma": sigma, "loss_range": resolve_range(loss_range, sigma)}


def _bounds(case: Case) -> tuple[Bound, ...]:
    found: dict[str, Bound] = {}
    for rule in BOUNDS.values():
        for bound in rule.bounds(case):
            if bound.name in found:
                raise ValueError(f"bound {rule.name!r} yielded {bound.name!r}, which another bound is called")
            found[bound.name] = bound
    return tuple(found.values())


def _check_caps(update_norms: ArrayLike, records: Sequence[UpdateRecord]) -> tuple[float, ...]:
    norms = check_norms("update_norms", update_norms, length=len(records)).tolist()
    for cap, record in zip(norms, records, strict=True):
        if record["norm_update"] > cap:
            raise ValueError(f"update_norms must hold caps, got {cap} below norm_update of {record['name']}")
    return tuple(norms)


def _check_network(network: Network, records: Sequence[UpdateRecord]) -> None:
    if network.depth != len(records):
        raise ValueError(f"network must have one layer per record, {len(records)}; it has {network.depth}")
    for norm, record in zip(network.norms, records, strict=True):
        if record["in_features"] == 1 and record["numbers_trained"]:
            raise ValueError(f"network does not cover trained biases, got record {record['name']} with in_features 1")
        if record["norm_base"] > norm * (1 + 1e-6):
            raise ValueError(
                f"network.base_norms must be at least norm_base, got {norm} for {record['name']}, "
                f"whose norm_base is {record['norm_base']}"
            )
