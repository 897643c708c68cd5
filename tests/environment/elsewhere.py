"""Run the checks as other processors would: ``python tests/environment/elsewhere.py``, or ``make test-elsewhere``.

Numerical libraries choose their kernels by the processor, and kernels round differently. Each imitated processor below
takes choices away through the libraries' own variables, so one machine can see what others would. What cannot be
imitated is a processor with more instructions than this one.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
X86 = platform.machine() in ("x86_64", "AMD64")
_SUMMARY = re.compile(r"^(?=.*\b(?:passed|failed|error|errors|skipped)\b)[\w ,.:]*in [\d.]+s", re.M)


def numpy_features() -> str:
    """Name the instruction sets beyond its baseline that NumPy uses here."""
    from numpy._core import _multiarray_umath as core

    return " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__[name])


def processors() -> dict[str, dict[str, str]]:
    """Return each imitated processor's variables: one axis at a time, then all of them at once.

    here: nothing changed; torch: torch's and MKL's kernels without AVX; onednn: oneDNN's; arrays: NumPy's and
    OpenBLAS's, and the C library's mathematics; threads: two instead of one; old: all without AVX.
    """
    torch = {"ATEN_CPU_CAPABILITY": "default"}
    onednn, arrays, libc = {}, {"NPY_DISABLE_CPU_FEATURES": numpy_features()}, {}
    if X86:
        torch |= {"MKL_CBWR": "COMPATIBLE", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
        onednn = {"ONEDNN_MAX_CPU_ISA": "SSE41"}
        arrays |= {"OPENBLAS_CORETYPE": "Nehalem"}
        libc = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2_Usable,-FMA_Usable,-AVX2,-FMA,-FMA4"}
    two = {f"{library}_NUM_THREADS": "2" for library in ("OMP", "MKL", "OPENBLAS")}
    return {
        "here": {},
        "torch": torch,
        "onednn": onednn,
        "arrays": arrays | libc,
        "threads": two,
        "old": torch | onednn | arrays | libc,
    }


def marked() -> list[str]:
    """Name the files that hold a test marked ``committed``: collecting all others would take longer than the tests."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if "mark.committed" in path.read_text(encoding="utf-8")]


@dataclass(frozen=True)
class Outcome:
    """What came of one command on one imitated processor."""

    processor: str
    checks: str
    passed: bool
    summary: str
    seconds: float
    output: str


def check(processor: str, checks: str, words: list[str], extra: dict[str, str]) -> Outcome:
    """Run pytest with a processor's variables and an empty cache; read its closing line."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as cache:
        environment = os.environ | {"BEYOND_LORA_CACHE": cache} | extra | processors()[processor]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    found = _SUMMARY.findall(done.stdout)
    summary = found[-1].strip("= ") if found else "no test ran"
    passed = done.returncode == 0 and "passed" in summary
    return Outcome(processor, checks, passed, summary, time.monotonic() - started, done.stdout)


def main(argv: list[str] | None = None) -> int:
    """Run the chosen checks on the chosen processors; exit status 1 if any fails."""
    known = list(processors())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processors", nargs="+", default=known, choices=known, metavar="NAME",
                        help=f"some of {', '.join(known)} (default: all)")  # fmt: skip
    parser.add_argument("--checks", nargs="+", default=["committed"], choices=("committed", "suite", "notebooks"),
                        help="committed: tests marked so; suite: every test; notebooks: all of them")  # fmt: skip
    parser.add_argument("--profile", default="smoke", choices=("smoke", "default", "full"), help="of the notebooks")
    parser.add_argument("--jobs", type=int, default=1, help="processors imitated at a time")
    args = parser.parse_args(argv)
    words = {
        "committed": ["-m", "committed", "-n", "0", "-p", "no:nbmake", *marked()],
        "suite": ["-n", "2", "--dist", "worksteal", "-p", "no:nbmake"],
        "notebooks": ["-n", "2", "--nbmake", "--nbmake-timeout=1800", "--override-ini=filterwarnings=default",
                      "--override-ini=testpaths=notebooks", "notebooks"],
    }  # fmt: skip
    tasks = [(name, kind) for kind in args.checks for name in args.processors]
    with ThreadPoolExecutor(args.jobs) as pool:
        outcomes = []
        for outcome in pool.map(lambda task: check(*task, words[task[1]], {"PROFILE": args.profile}), tasks):
            outcomes.append(outcome)
            verdict = "ok  " if outcome.passed else "FAIL"
            print(f"{verdict} {outcome.checks:10} {outcome.processor:8} {outcome.summary}", flush=True)
    for outcome in outcomes:
        if not outcome.passed:
            print(f"\n{outcome.checks} on {outcome.processor}:\n{outcome.output}")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
