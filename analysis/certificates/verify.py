"""Check somebody else's certificate from its code, the data and the base model; believe none of its numbers."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.certificates.fingerprints import data_fingerprint, example_digest
from analysis.certificates.shared import (
    GRIDS,
    all_bounds,
    check_task,
    from_text,
    full_precision_bound,
    heldout_predictions,
    measure,
    separate_heldout,
    start_of,
)
from analysis.tasks import Task
from theory.certificates import CodeError, decode_subspace
from theory.checks import check_integer, check_number, check_probability

__all__ = ["Check", "verify"]

_TOLERANCE = 1e-9
"""Of bounds computed anew from the same counts: kl is inverted to 1e-12 in float64."""


@dataclass(frozen=True)
class Check:
    """One thing that :func:`verify` looked at.

    Attributes:
        name: of the check.
        passed: whether what was found is what was stated.
        detail: what was looked at and found.
        advice: after a failure, what the reader can do.
    """

    name: str
    passed: bool
    detail: str
    advice: str = ""


_ADVICE = {
    "grid": "The certificate was made with another grid of choices: verify it with the version that made it.",
    "code": "The code was altered or cut short: get the file again from where it was published.",
    "data": "The data are not those of the certificate: give the options of the command that made it "
    "({command}) and the data in the same edition.",
    "held-out set": "Inputs of the training set are among the held-out ones, which tests nothing: the certificate "
    "dropped none of them and must be made again.",
    "base model": "Give the base model that the certificate was made for. The digits model is part of this package "
    "(python -m analysis pretrain says whether it is intact); any other is named in the command ({command}).",
    "start": "The adapter's or the head's start is drawn otherwise by this version of the package: verify with the "
    "version that made the certificate (commit {commit}).",
    "empirical error": "More errors than {slack} of rounding allow: the stated count does not belong to this code.",
    "bound": "The stated bound does not follow from the code and the counts: do not quote it.",
    "cross-entropy bound": "The stated bound is below what the losses allow for any rounding: do not quote it.",
    "held-out error": "The stated held-out count does not belong to this code and these data.",
    "full-precision numbers": "The full-precision adapter does not have the code's shape: the file was altered.",
    "disagreements": "The full-precision adapter disagrees with the code more often than stated: the file was altered.",
    "full-precision bound": "The stated bound does not follow from the counts: do not quote it.",
}


def verify(certificate: Mapping[str, Any], task: Task) -> list[Check]:
    """Recompute a certificate from its code and the data; stop at the first check that fails.

    Nothing in the record is believed: the code is decoded, the model rebuilt from W0 and the seeds, its
    losses measured, and the bound computed anew. It must not exceed the one that is stated.

    Args:
        certificate: from :func:`analysis.certificates.certify`.
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
    made = certificate.get("provenance") or {}
    known = {name: made.get(name, "not recorded") for name in ("command", "commit")}
    for check in _checks(stated, task):
        if not check.passed:
            checks.append(replace(check, advice=_ADVICE[check.name].format(slack=stated.slack, **known)))
            break
        checks.append(check)
    return checks


def _checks(stated: _Stated, task: Task) -> Iterator[Check]:
    grid = GRIDS.get(stated.grid_name)
    known = grid is not None and grid.fingerprint == stated.grid_sha
    found = "unknown" if grid is None else grid.fingerprint[:12]
    yield Check("grid", known, f"{stated.grid_name!r}: hash {found}, {stated.grid_sha[:12]} stated")
    assert grid is not None
    try:
        word = base64.b64decode(stated.code, validate=True)
        code = decode_subspace(word, grid=grid)
    except (CodeError, binascii.Error) as error:
        yield Check("code", False, str(error))
        return
    bits = 8 * len(word)
    matches = hashlib.sha256(word).hexdigest() == stated.code_sha and bits == stated.bits
    detail = f"{bits} bits decoded, {stated.bits} stated"
    yield Check("code", matches and code.choice == stated.choice, detail)

    if stated.dropped:
        task = separate_heldout(task, overlap=stated.dropped)
    shas = data_fingerprint(task.train), data_fingerprint(task.heldout)
    same = shas == (stated.train_sha, stated.heldout_sha)
    detail = (
        f"{len(task.train)} training examples, hashes {shas[0][:12]} and {shas[1][:12]}; {stated.num_examples}, "
        f"{stated.train_sha[:12]} and {stated.heldout_sha[:12]} stated"
    )
    yield Check("data", same and len(task.train) == stated.num_examples, detail)
    overlap = {example_digest(e) for e in task.train} & {example_digest(e) for e in task.heldout}
    yield Check("held-out set", not overlap, f"{len(overlap)} inputs shared with the training set")
    check_task(task)
    subspace, base_fingerprint = start_of(task, code.choice)
    detail = f"W0 with its head: hash {base_fingerprint[:12]}, {stated.base_sha[:12]} stated"
    yield Check("base model", base_fingerprint == stated.base_sha, detail)
    detail = (
        f"adapter and head as the seed draws them: hash {subspace.fingerprint[:12]}, {stated.start_sha[:12]} stated"
    )
    yield Check("start", subspace.fingerprint == stated.start_sha, detail)

    measured = measure(subspace, {group: part.values for group, part in code.groups.items()}, task)
    errors, held = measured.errors, measured.heldout_errors
    detail = f"{errors} errors, {stated.errors} + {stated.slack} stated"
    yield Check("empirical error", errors <= stated.errors + stated.slack, detail)
    given: dict[str, Any] = {"bits": bits, "task": task, "delta": stated.delta, "slack": stated.slack}
    moved = measured.probabilities(moved=measured.loss_reach)
    bounds = all_bounds(stated.errors, moved, **given)
    bound = bounds["zero_one"]["bound"]
    yield Check("bound", bound <= stated.bound + _TOLERANCE, f"{bound:.6f}, {stated.bound:.6f} stated")
    bound = bounds["cross_entropy"]["bound"]
    detail = f"{bound:.6f} with every loss {measured.loss_reach:.1e} lower, {stated.cross_entropy:.6f} stated"
    yield Check("cross-entropy bound", bound <= stated.cross_entropy + _TOLERANCE, detail)
    detail = f"{held} errors, {stated.heldout_errors} stated"
    yield Check("held-out error", abs(held - stated.heldout_errors) <= stated.slack, detail)

    sizes = {group: part.symbols.size for group, part in code.groups.items()}
    yield Check("full-precision numbers", {g: w.size for g, w in stated.full.items()} == sizes, f"{sizes}")
    differ = int((heldout_predictions(subspace, stated.full, task) != measured.heldout_predictions).sum())
    detail = f"{differ} disagreements, {stated.disagreements} stated"
    yield Check("disagreements", differ <= stated.disagreements + stated.slack, detail)
    bound = full_precision_bound(stated.disagreements, stated.errors, **given)
    detail = f"{bound:.6f}, {stated.full_bound:.6f} stated"
    yield Check("full-precision bound", bound <= stated.full_bound + _TOLERANCE, detail)


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
