"""Every bound for one adapter: from the records of what was really trained, or from a plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from numpy.typing import ArrayLike

from theory.checks import check_choice, check_integer, check_norms, check_number
from theory.expectation.description import check_record, description_bits, plan
from theory.expectation.forms import direct, excess, loss_change_from_log, perturbation
from theory.expectation.table1 import resolve_range, table1_from_bits
from theory.layers import Layers
from theory.methods import Method
from theory.networks import Network, correction, deviation_log
from theory.records import Bound, UpdateRecord, bounds_frame

__all__ = ["evaluate", "from_update", "update_bounds"]

MERGED = "the merged weights are stored in the stated bits"
GAUGE = "the update is quantised after its gauge is fixed, and that network is the one evaluated"
MEASURABLE = ("merged_norms", "base_input_norms", "merged_input_norms", "selected_norms")
DIAGNOSTIC = "the norms were measured on this run: a diagnostic, unless they were enforced in training"


class _Setting(TypedDict):
    num_examples: int
    sigma: float
    loss_range: float


def from_update(
    records: Iterable[UpdateRecord] | Iterable[Mapping[str, Any]],
    *,
    num_examples: int,
    sigma: float = 0.5,
    **options: Any,
) -> Any:
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


def update_bounds(
    records: Iterable[UpdateRecord] | Iterable[Mapping[str, Any]],
    *,
    num_examples: int,
    sigma: float = 0.5,
    loss_range: float | None = None,
    num_choices: int = 1,
    loss_change: float | None = None,
    network: Network | None = None,
    update_norms: ArrayLike | None = None,
    input_norms: Mapping[str, ArrayLike] | None = None,
) -> tuple[Bound, ...]:
    """Evaluate every bound for what a run really trained.

    Names: ``table1-root`` (the paper's count: adapter numbers alone), ``direct`` (with head, side information
    and choices), ``support``, ``gauge-fixed``, ``cheapest`` (per matrix the shortest description); with
    ``loss_change`` also ``excess``; with ``network`` also ``table1``, ``perturbation``, ``excess-network`` and,
    from the measured norms of W0 + dW and of the layers' inputs, ``excess-measured``.

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

    Returns:
        One ``Bound`` per name.

    Raises:
        ValueError: if a record or an argument is out of range (NaN norms too); the message names it.
        TypeError: if a record is no mapping or a count is no integer.
    """
    checked = [check_record(record, position) for position, record in enumerate(records)]
    setting = _setting(num_examples, sigma, loss_range)
    found, bits = _counting_bounds(checked, setting, num_choices, loss_change)
    if network is None:
        return found
    _check_network(network, checked)
    trained = [record["norm_update"] for record in checked]
    measured: tuple[str, ...] = ()
    if update_norms is None:
        norms, measured = trained, ("norm_update",)
    else:
        norms = check_norms("update_norms", update_norms, length=len(checked)).tolist()
        for cap, record in zip(norms, checked, strict=True):
            if record["norm_update"] > cap:
                raise ValueError(f"update_norms must hold caps, got {cap} below norm_update of {record['name']}")
    found += _network_bounds(checked, setting, network, norms, measured, bits)
    known = {"merged_norms": [record["norm_merged"] for record in checked], **(input_norms or {})}
    for name in known:
        check_choice("input_norms", name, MEASURABLE)
    change = deviation_log(network, update_norms=trained, **known)
    return (
        *found,
        excess(
            bits,
            loss_change=loss_change_from_log(change, loss_lipschitz=network.loss_lipschitz),
            name="excess-measured",
            measured=("norm_update", *known),
            assumptions=(DIAGNOSTIC,),
            **setting,
        ),
    )


def evaluate(
    layers: Layers,
    *,
    method: str | Method,
    num_examples: int,
    rank: int = 16,
    bits: float = 16,
    links: int = 1,
    sigma: float = 0.5,
    loss_range: float | None = None,
    head_numbers: int = 0,
    num_choices: int = 1,
    loss_change: float | None = None,
    network: Network | None = None,
    update_norms: ArrayLike | None = None,
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
    records = plan(layers, method=method, rank=rank, links=links, bits=bits, head_numbers=head_numbers)
    setting = _setting(num_examples, sigma, loss_range)
    found, total = _counting_bounds(records, setting, num_choices, loss_change)
    if network is None:
        return found
    if update_norms is None:
        raise ValueError("update_norms must hold one cap per layer when network is given, got None")
    adapted = len(records) - (head_numbers > 0)
    if network.depth != adapted or head_numbers:
        raise ValueError(f"network must have the {adapted} layers given and no other head, has {network.depth}")
    return found + _network_bounds(records, setting, network, update_norms, (), total)


def _setting(num_examples: int, sigma: float, loss_range: float | None) -> _Setting:
    check_integer("num_examples", num_examples)
    check_number("sigma", sigma, positive=True)
    return {"num_examples": num_examples, "sigma": sigma, "loss_range": resolve_range(loss_range, sigma)}


def _counting_bounds(
    records: Sequence[UpdateRecord], setting: _Setting, num_choices: int, loss_change: float | None
) -> tuple[tuple[Bound, ...], float]:
    if not records:
        raise ValueError("records must hold at least one trained matrix, got none")
    extra = math.log2(check_integer("num_choices", num_choices))
    described = [description_bits(record) for record in records]
    names = ["links", "support"]
    if any("gauge-fixed" in lengths for lengths in described):
        names.append("gauge-fixed")
    totals = {name: extra + sum(lengths.get(name, lengths["links"]) for lengths in described) for name in names}
    totals["cheapest"] = extra + sum(min(lengths.values()) for lengths in described)
    used = {min(lengths, key=lambda name: lengths[name]) for lengths in described}
    why = {"links": (), "support": (MERGED,), "gauge-fixed": (GAUGE,)}
    why["cheapest"] = tuple(reason for name in sorted(used) for reason in why[name])
    adapter = sum(record["numbers_trained"] * record["bits"] for record in records if record["kind"] != "head")
    found = [table1_from_bits(adapter, **setting)]
    for name, bits in totals.items():
        label = "direct" if name == "links" else name
        found.append(direct(bits, name=label, assumptions=why[name], **setting))
    if loss_change is not None:
        found.append(excess(totals["cheapest"], loss_change=loss_change, assumptions=why["cheapest"], **setting))
    return tuple(found), totals["cheapest"]


def _network_bounds(
    records: Sequence[UpdateRecord],
    setting: _Setting,
    network: Network,
    update_norms: ArrayLike,
    measured: tuple[str, ...],
    bits: float,
) -> tuple[Bound, ...]:
    phi = correction(network, update_norms=update_norms)
    adapter = sum(record["numbers_trained"] * record["bits"] for record in records if record["kind"] != "head")
    change = loss_change_from_log(phi.log_update - math.log(2))
    note = (DIAGNOSTIC,) if measured else ()
    return (
        table1_from_bits(adapter, phi=phi, measured=measured, **setting),
        perturbation(phi, sigma=setting["sigma"], loss_range=setting["loss_range"], measured=measured),
        excess(bits, loss_change=change, name="excess-network", measured=measured, assumptions=note, **setting),
    )


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
