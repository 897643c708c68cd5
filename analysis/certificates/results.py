"""Certificates side by side, as rows of a table and as the committed result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.certificates.coverage import coverage_table
from analysis.records import provenance, read_json, write_result
from theory.certificates import occam_bound

__all__ = ["certificate_row", "write_certificate_results"]

COLUMNS = (
    "task", "method", "n", "d", "levels", "bits", "sample_error", "certified_error", "heldout_error",
    "heldout_low", "heldout_high", "majority_error", "certified_cross_entropy", "full_precision_certified",
)  # fmt: skip


def certificate_row(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Return one certificate as a row of :data:`COLUMNS`."""
    c = certificate
    return {
        "task": c["task"]["name"],
        "method": c["choice"]["method"],
        "n": c["data"]["num_examples"],
        "d": c["code"]["numbers"],
        "levels": c["choice"]["levels"],
        "bits": c["code"]["bits"],
        "sample_error": c["empirical"]["error"],
        "certified_error": c["bound"],
        "heldout_error": c["heldout"]["error"],
        "heldout_low": c["heldout"]["low"],
        "heldout_high": c["heldout"]["high"],
        "majority_error": c["majority_error"],
        "certified_cross_entropy": c["bounds"]["cross_entropy"]["bound"],
        "full_precision_certified": c["full_precision"]["bound"],
    }


def write_certificate_results(
    files: Sequence[str | Path], path: str | Path, *, experiments: int = 4000, command: str = ""
) -> Path:
    """Write the result file of the certificates: the table, the codes by part, coverage, and what would help next.

    Args:
        files: certificates written by ``certify``.
        path: the result file.
        experiments: simulated experiments per certificate of the coverage table.
        command: how to make the file again.

    Raises:
        ValueError: if there is no certificate, or one is no record of ``certify``.
    """
    if not files:
        raise ValueError("files must name at least one certificate")
    certificates = [read_json(file) for file in files]
    try:
        rows = [certificate_row(c) for c in certificates]
    except KeyError as error:
        raise ValueError(f"a certificate lacks {error}: it is no record written by certify") from None
    parts = sorted({part for c in certificates for part in c["code"]["bits_by_part"]})
    codes = [[r["task"], r["method"], *(c["code"]["bits_by_part"].get(p, 0.0) for p in parts), r["bits"]]
             for r, c in zip(rows, certificates, strict=True)]  # fmt: skip
    next_steps = [
        [r["task"], r["method"], r["certified_error"],
         _bound(c, bits=r["bits"] / 2), _bound(c, examples=4), _bound(c, error=r["sample_error"] / 2)]
        for r, c in zip(rows, certificates, strict=True)
    ]  # fmt: skip
    coverage = coverage_table(experiments=experiments)
    values = {f"{r['task']}/{r['method']}/{name}": r[name] for r in rows for name in COLUMNS[2:]}
    return write_result(
        path,
        provenance=provenance(command, sorted({c["choice"]["seed"] for c in certificates})),
        values={**values, "coverage/worst_rate": float(coverage["violation_rate"].max()),
                "coverage/delta": float(coverage["delta"].iloc[0]), "coverage/experiments": experiments},
        tables={
            "certificates": {"columns": list(COLUMNS), "rows": [[r[name] for name in COLUMNS] for r in rows]},
            "code_bits": {"columns": ["task", "method", *parts, "total"], "rows": codes},
            "coverage": {"columns": list(coverage.columns), "rows": coverage.to_numpy().tolist()},
            "what_would_help": {
                "columns": ["task", "method", "certified", "half_the_bits", "four_times_n", "half_the_sample_error"],
                "rows": next_steps,
            },
        },
    )  # fmt: skip


def _bound(certificate: Mapping[str, Any], *, bits: float | None = None, examples: int = 1, error: float | None = None):
    c = certificate
    return float(
        occam_bound(
            c["empirical"]["error"] if error is None else error,
            bits=c["code"]["bits"] if bits is None else bits,
            num_examples=examples * c["data"]["num_examples"],
            delta=c["delta"],
        ).value
    )
