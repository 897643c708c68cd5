"""Run all of the zoo and count; ``make test-full`` has it write ``tests/adapters/zoo.json``.

Prints, and with ``--write`` stores, how many checks of each architecture passed with each method; exit status 1 if any
failed. ``--select`` narrows it, by pytest's ``-k``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

from zoo import ZOO

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def count(report: Path) -> dict:
    """Return what a report of pytest says: architecture -> method -> "passed/run", and by check."""
    cells: dict[str, dict[str, list[bool]]] = {}
    checks: dict[str, list[bool]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        check, _, cell = case.get("name", "").rstrip("]").partition("[")
        name = max((one for one in ZOO if cell.startswith(f"{one}-")), key=len)
        passed = not list(case)
        cells.setdefault(name, {}).setdefault(cell.removeprefix(f"{name}-"), []).append(passed)
        checks.setdefault(check.removeprefix("test_").replace("_", " "), []).append(passed)

    def told(found: list[bool]) -> str:
        return f"{sum(found)}/{len(found)}"

    return {
        "table": {name: {key: told(found) for key, found in row.items()} for name, row in cells.items()},
        "checks": {check: told(found) for check, found in checks.items()},
    }


def main() -> int:
    """Run, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="pytest-xdist workers (default: %(default)s)")
    parser.add_argument("--select", help="pytest's -k expression")
    parser.add_argument("--write", type=Path, help="write the counts there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-p", "no:nbmake", "-n", str(args.jobs), "--tb=short", "-m", "full or not full"]
        words += [f"--junitxml={report}", *(["-k", args.select] if args.select else []), str(HERE / "test_zoo.py")]
        status = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False).returncode
        if not report.exists():
            return status or 1
        versions = {name: version(name) for name in ("peft", "torch", "transformers")}
        counts = {"command": "python tests/adapters/run_zoo.py", **versions, **count(report)}
    text = json.dumps(counts, indent=1) + "\n"
    print(text, end="")
    if args.write is not None:
        args.write.write_text(text)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
