"""``recount``: the intruders of committed updates, counted again into ``spectra.json``."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import studies

HELP = "count the intruders of exported updates again, and the claim about chains with them, in spectra.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("adapters", type=Path, metavar="ADAPTERS", help="folder that export wrote")
    parser.add_argument("--task", required=True, help="the task of the updates, for example trec")
    parser.add_argument(
        "--results", type=Path, required=True, metavar="FOLDER", help="holds spectra.json, which is rewritten"
    )


def main(args: argparse.Namespace) -> int:
    """Count, rewrite, and print what changed."""
    changed = studies.recount(args.results / "spectra.json", args.adapters, task=args.task)
    moved = changed[(changed["authors"] != changed["authors_before"]) | (changed["paper"] != changed["paper_before"])]
    print(f"{len(changed)} updates counted, {len(moved)} counts changed")
    if len(moved):
        print(moved.to_string(index=False))
    return 0
