"""A certificate as a small table of plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["certificate_rows", "certificate_table", "paid_choices"]

FREE = "epochs, learning rates, batches, the search itself: every code word is covered at once"


def paid_choices(certificate: Mapping[str, Any]) -> str:
    """Name the choices the code pays for, with what was chosen."""
    return ", ".join(f"{name} {value}" for name, value in certificate["choice"].items())


def certificate_rows(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a certificate's lines: what, and how much."""
    return list(_rows(certificate))


def _rows(c: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data, code, bounds = c["data"], c["code"], c["bounds"]
    yield "task", f"{c['task']['name']}, {c['task']['num_labels']} classes"
    dropped = data["dropped_train"] + data["dropped_heldout"]
    note = f" ({dropped} dropped because they are in both splits)" if dropped else ""
    yield "examples", f"n = {data['num_examples']}, {data['num_heldout']} held out{note}"
    yield "prior", f"W0 {c['base']['sha256'][:12]}, seed {c['choice']['seed']}, grid {c['grid']['name']!r}"
    yield "choices paid for", paid_choices(c)
    yield "free", FREE
    for position, assumption in enumerate(c["assumptions"], start=1):
        yield f"assumption {position}", assumption
    for part, bits in code["bits_by_part"].items():
        yield f"  bits: {part}", f"{bits:.1f}"
    yield "code length", f"{code['bits']} bits ({code['bits'] // 8} bytes) for {code['numbers']} numbers"
    yield "delta", f"{c['delta']:g}"
    slack = f" + {c['empirical']['slack']} of slack" if c["empirical"]["slack"] else ""
    yield "empirical 0-1 error", f"{c['empirical']['error']:.4f} ({c['empirical']['errors']} errors{slack})"
    yield "CERTIFIED 0-1 error", f"{c['bound']:.4f} with probability {1 - c['delta']:g} over the sample"
    held = c["heldout"]
    yield "held-out 0-1 error", f"{held['error']:.4f} [{held['low']:.4f}, {held['high']:.4f}]"
    yield "always the commonest class", f"{c['majority_error']:.4f} on the sample"
    ce = bounds["cross_entropy"]
    where = f"smoothed by {ce['alpha']:g}, range [{ce['range'][0]:.2f}, {ce['range'][1]:.2f}] nats"
    yield "certified cross-entropy", f"{ce['bound']:.4f} (empirical {ce['empirical']:.4f}, {where})"
    full = c["full_precision"]
    yield (
        "full-precision adapter",
        f"certified {full['bound']:.4f}; it disagrees on {full['disagreements']} of {data['num_heldout']} held-out "
        f"inputs; its held-out error {full['heldout_error']:.4f}",
    )
    yield "points of the grid tried", f"{len(c['tried'])}"


def certificate_table(certificate: Mapping[str, Any]) -> str:
    """Return a certificate as lines of plain text, the names in one column."""
    return _aligned(certificate_rows(certificate))


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)
