"""``python -m analysis bench``: time this project against its peers, in one process, interleaved."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import benchmarks, records

HELP = "benchmarks: bounds, adapters, landscape, curvature, spectra against peers; streaming of 8B numbers; sweeps"
TOPICS = ("bounds", "adapters", "landscape", "curvature", "spectra", "streaming", "sweep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument(
        "topics", nargs="+", choices=("all", *TOPICS), metavar="TOPIC", help=f"all, {', '.join(TOPICS)}"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("report/results"), metavar="FOLDER",
        help="folder for bench_TOPIC.json (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats: a trial, written nowhere")
    parser.add_argument("--repeats", type=int, help="timed repeats of each case")
    parser.add_argument("--gpu", action="store_true", help="adapters: Llama-3-8B's shapes in bfloat16 on a CUDA device")
    parser.add_argument(
        "--method-comparison", type=Path, metavar="FOLDER", help="adapters: also write peft's method_comparison JSON"
    )


def main(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if args.repeats is not None and args.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {args.repeats}")
    if args.topics != ["adapters"] and (args.gpu or args.method_comparison):
        raise ValueError("--gpu and --method-comparison belong to the topic adapters alone")
    topics = TOPICS if "all" in args.topics else list(dict.fromkeys(args.topics))
    for topic in topics:
        name = f"bench_{topic}_gpu.json" if args.gpu else f"bench_{topic}.json"
        path = None if args.quick else args.results / name
        extra = {"gpu": args.gpu, "export": args.method_comparison} if topic == "adapters" else {}
        found = getattr(benchmarks, topic).run(results=path, quick=args.quick, repeats=args.repeats, **extra)
        shown = next(name for name in ("steps", "measured", "timings") if name in found["tables"])
        frame = records.frame_of(found["tables"][shown])
        print(f"\n{topic}\n{frame.to_string(index=False, float_format='{:.4g}'.format)}")
        if path is not None:
            print(f"written: {path}")
    return 0
