"""Check somebody else's certificate from its code, the data and the base model; believe none of its numbers."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.certificate_parts import (
    GRIDS,
    all_bounds,
    check_task,
    count_disagreements,
    from_text,
    full_precision_bound,
    measure,
    separate_heldout,
    start_of,
)
from analysis.fingerprints import data_fingerprint, example_digest
from theory.certificates import CodeError, decode_subspace
from theory.checks import check_integer, check_number, check_probability

if TYPE_CHECKING:
    from analysis.tasks import Task

__all__ = ["Check", "verify"]

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Check:
    """One thing that :func:`verify` looked at."""

    name: str
    passed: bool
    detail: str


def verify(certificate: Mapping[str, Any], task: Task) -> list[Check]:
    """Recompute a certificate from its code and the data; stop at the first check that fails.

    Nothing in the record is believed: the code is decoded, the model rebuilt from W0 and the seeds, its
    losses measured, and the bound computed anew. It must not exceed the one that is stated.

    Args:
        certificate: from :func:`certify`.
        task: the same data and base model; examples that the certificate dropped are dropped here too.

    Returns:
        The checks made; the certificate is accepted when all of them passed.

    Raises:
        ValueError: if the record lacks a part of a certificate or states one of the wrong type.
    """
    try:
        stated = _Stated(certificate)
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"the certificate lacks {error}: it is no record written by certify") from None
    checks: list[Check] = []
    for check in _checks(stated, task):
        checks.append(check)
        if not check.passed:
            break
    return checks


def _checks(stated: _Stated, task: Task) -> Iterator[Check]:
    grid = GRIDS.get(stated.grid_name)
    known = grid is not None and grid.fingerprint == stated.grid_sha
    yield Check("grid", known, f"{stated.grid_name!r}, by hash")
    assert grid is not None
    try:
        word = base64.b64decode(stated.code, validate=True)
        code = decode_subspace(word, grid=grid)
    except (CodeError, binascii.Error) as error:
        yield Check("code", False, str(error))
        return
    bits = 8 * len(word)
    matches = hashlib.sha256(word).hexdigest() == stated.code_sha and bits == stated.bits
    yield Check("code", matches and code.choice == stated.choice, f"{bits} bits, decoded")

    if stated.dropped:
        task = separate_heldout(task, overlap=stated.dropped)
    same = data_fingerprint(task.train) == stated.train_sha and data_fingerprint(task.heldout) == stated.heldout_sha
    yield Check("data", same and len(task.train) == stated.num_examples, f"{len(task.train)} examples, by hash")
    overlap = {example_digest(e) for e in task.train} & {example_digest(e) for e in task.heldout}
    yield Check("held-out set", not overlap, f"{len(overlap)} inputs shared with the training set")
    check_task(task)
    subspace, base_fingerprint = start_of(task, code.choice)
    yield Check("base model", base_fingerprint == stated.base_sha, "W0 and its head, by hash")
    yield Check("start", subspace.fingerprint == stated.start_sha, "adapter and head drawn by the seed, by hash")

    measured = measure(subspace, {group: part.values for group, part in code.groups.items()}, task)
    errors, held = measured["errors"], measured["heldout_errors"]
    detail = f"{errors} errors, {stated.errors} + {stated.slack} stated"
    yield Check("empirical error", errors <= stated.errors + stated.slack, detail)
    given: dict[str, Any] = {"bits": bits, "task": task, "delta": stated.delta, "slack": stated.slack}
    bounds = all_bounds(stated.errors, measured["probabilities"], **given)
    found = bounds["zero_one"]["bound"]
    yield Check("bound", found <= stated.bound + _TOLERANCE, f"{found:.6f}, {stated.bound:.6f} stated")
    found = bounds["cross_entropy"]["bound"]
    # Another machine's rounding of float32 moves the cross-entropy in its sixth digit.
    detail = f"{found:.6f}, {stated.cross_entropy:.6f} stated"
    yield Check("cross-entropy bound", found <= stated.cross_entropy + 1e-4, detail)
    detail = f"{held} errors, {stated.heldout_errors} stated"
    yield Check("held-out error", abs(held - stated.heldout_errors) <= stated.slack, detail)

    sizes = {group: part.symbols.size for group, part in code.groups.items()}
    yield Check("full-precision numbers", {g: w.size for g, w in stated.full.items()} == sizes, f"{sizes}")
    differ = count_disagreements(measure(subspace, stated.full, task), measured)
    detail = f"{differ} disagreements, {stated.disagreements} stated"
    yield Check("disagreements", differ <= stated.disagreements + stated.slack, detail)
    found = full_precision_bound(stated.disagreements, stated.errors, **given)
    detail = f"{found:.6f}, {stated.full_bound:.6f} stated"
    yield Check("full-precision bound", found <= stated.full_bound + _TOLERANCE, detail)


class _Stated:
    """What a certificate states, with every part there and of its type."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.delta = check_probability("delta", record["delta"])
        self.grid_name, self.grid_sha = str(record["grid"]["name"]), str(record["grid"]["sha256"])
        code, data, base = record["code"], record["data"], record["base"]
        self.code, self.code_sha, self.bits = str(code["base64"]), str(code["sha256"]), int(code["bits"])
        self.choice = dict(record["choice"])
        self.train_sha, self.heldout_sha = str(data["train_sha256"]), str(data["heldout_sha256"])
        self.num_examples = int(data["num_examples"])
        self.dropped: Any = "drop-train" if data["dropped_train"] else "drop-heldout" if data["dropped_heldout"] else ""
        self.base_sha, self.start_sha = str(base["sha256"]), str(base["start_sha256"])
        self.errors = check_integer("errors", record["empirical"]["errors"], minimum=0)
        self.slack = check_integer("slack", record["empirical"]["slack"], minimum=0)
        self.bound = check_number("bound", record["bound"])
        self.heldout_errors = check_integer("held-out errors", record["heldout"]["errors"], minimum=0)
        full = record["full_precision"]
        self.full = {group: from_text(text) for group, text in full["numbers"].items()}
        self.disagreements = check_integer("disagreements", full["disagreements"], minimum=0)
        self.full_bound = check_number("bound of the full-precision adapter", full["bound"])
        self.cross_entropy = check_number("cross-entropy bound", record["bounds"]["cross_entropy"]["bound"])
