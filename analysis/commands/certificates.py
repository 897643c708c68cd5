"""``certificates``: collect certificates and simulated coverage into one result file."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import certificates, records

HELP = "collect certificates written by certify, and their simulated coverage, into one result file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--folder", default="report/results/certificates", help="folder of certificates")
    parser.add_argument("--output", default="report/results/certificates.json", help="the result file")
    parser.add_argument("--experiments", type=int, default=4000, help="simulated experiments per certificate")


def main(args: argparse.Namespace) -> int:
    """Collect, write, and print the table."""
    files = sorted(Path(args.folder).glob("*.json"))
    if not files:
        raise ValueError(f"folder {args.folder!r} holds no certificate (*.json)")
    folder, output = records.shown_path(args.folder), records.shown_path(args.output)
    command = f"python -m analysis certificates --folder {folder} --output {output}"
    path = certificates.write_certificate_results(files, args.output, experiments=args.experiments, command=command)
    for name, table in records.read_json(path)["tables"].items():
        print(f"{name}\n{records.frame_of(table).to_string(index=False, float_format='{:.4f}'.format)}\n")
    print(f"written to {path}")
    return 0
