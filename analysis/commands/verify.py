"""``verify``: recompute a certificate from its code and the data; exit status 1 when it is rejected."""

from __future__ import annotations

import argparse

from analysis import certificates, records
from analysis.commands.certify import add_data_arguments, task_of

HELP = "recompute a certificate from its coded adapter and the data, and accept or reject it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("certificate", help="file written by certify")
    add_data_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print every check and the verdict."""
    record = records.read_json(args.certificate)
    checks = certificates.verify(record, task_of(args))
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{'ok  ' if check.passed else 'FAIL'}  {check.name.ljust(width)}  {check.detail}")
    failed = next((check for check in checks if not check.passed), None)
    if failed is not None:
        print(f"REJECTED at {failed.name}. {failed.advice}")
        return 1
    print(f"ACCEPTED: error at most {record['bound']:.4f} with probability {1 - record['delta']:g} over the sample")
    return 0
