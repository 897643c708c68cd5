"""Build the report from committed results: numbers by key, figures, LaTeX, PDF; and the site.

``python -m report`` builds report/report.pdf; ``--figures`` only the figures; ``--check`` builds twice and
compares the bytes; ``--site`` writes site/index.html. Nothing here measures anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import typst

from analysis.records import atomic_write_bytes, atomic_write_json, atomic_write_text, read_json
from report.equations import EQUATIONS
from report.figures import Figure, draw_figures
from report.tasks import methods_table, present_tasks
from report.webpage import write_site

Results = dict[str, dict[str, Any]]

REPORT = Path(__file__).resolve().parent
ROOT = REPORT.parent
RESULTS = REPORT / "results"
GENERATED = REPORT / "generated"


class BuildError(RuntimeError):
    """The report cannot be built; the message says why in one line."""


def load_results(folder: Path = RESULTS) -> Results:
    """Merge every result file: keys are prefixed by the file's name, ``bounds/roberta-base/cla``."""
    merged: Results = {"values": {}, "tables": {}, "series": {}, "provenance": {}}
    for path in sorted(folder.glob("*.json")):
        record = read_json(path)
        for part in ("values", "tables", "series"):
            for key, value in record.get(part, {}).items():
                merged[part][f"{path.stem}/{key}"] = value
        merged["provenance"][path.stem] = record.get("provenance", {})
    if present_tasks(merged):
        merged["tables"]["tasks/methods"] = methods_table(merged)
    return merged


_LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%_#${}"}
    | {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "–": "--",
        "−": "$-$",
        "\n": " ",
    }
)


def latex_table(table: dict[str, Any]) -> str:
    """Write one table as LaTeX, for people who write in it."""

    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else "--" if value is None else str(value).translate(_LATEX)

    lines = [
        f"\\begin{{tabular}}{{l{'r' * (len(table['columns']) - 1)}}}\n\\hline",
        " & ".join(cell(name) for name in table["columns"]) + r" \\ \hline",
        *(" & ".join(cell(value) for value in row) + r" \\" for row in table["rows"]),
        "\\hline\n\\end{tabular}\n",
    ]
    return "\n".join(lines)


def write_generated(results: Results, figures: list[Figure], folder: Path = REPORT) -> None:
    """Write what main.typ reads into ``folder/generated``, and every equation and table as LaTeX.

    Args:
        results: as :func:`load_results` returns them.
        figures: those drawn.
        folder: the folder of main.typ.
    """
    made = folder / "generated"
    tasks = [{"key": task.key, "title": task.title} for task in present_tasks(results)]
    atomic_write_json(made / "results.json", {**results, "tasks": tasks})
    known = {figure.name: [topic for topic in figure.topics if topic in results["provenance"]] for figure in figures}
    atomic_write_json(made / "figures.json", known)
    atomic_write_json(made / "equations.json", {key: typst_source for key, (typst_source, _) in EQUATIONS.items()})
    latex = [f"% {key}\n\\begin{{equation}}\n{source}\n\\end{{equation}}\n" for key, (_, source) in EQUATIONS.items()]
    atomic_write_text(made / "latex" / "equations.tex", "\n".join(latex))
    for key, table in results["tables"].items():
        atomic_write_text(made / "latex" / f"table-{key.replace('/', '-')}.tex", latex_table(table))


def compile_pdf(folder: Path = REPORT) -> bytes:
    """Compile main.typ; an unknown key, an overflow or an error of its language stops the build.

    Raises:
        BuildError: with the reason.
    """
    try:
        return typst.compile(str(folder / "main.typ"), root=str(folder), ignore_system_fonts=True, timestamp=0)
    except typst.TypstError as error:
        raise BuildError(" ".join([error.message, *error.hints, *error.trace[:1]])) from None


def check_keys(results: Results, folder: Path = REPORT) -> None:
    """Fail when a key is used nowhere: a number that nobody reads is a number that nobody checks.

    Raises:
        BuildError: naming the first dozen.
    """
    for known, part, label in (
        (results["values"], "values", "<used-key>"),
        (EQUATIONS, "equations", "<used-equation>"),
    ):
        found = json.loads(
            typst.query(str(folder / "main.typ"), label, field="value", root=str(folder), ignore_system_fonts=True)
        )
        unused = sorted(set(known) - set(found))
        if unused:
            raise BuildError(f"{len(unused)} {part} used nowhere in main.typ: {', '.join(unused[:12])}")


def build_report(results: Results) -> bytes:
    """Draw the figures, write what main.typ reads, compile it, and check that every key is used."""
    figures = draw_figures(results, GENERATED / "figures")
    write_generated(results, figures)
    pdf = compile_pdf()
    check_keys(results)
    return pdf


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="build twice and compare the bytes")
    parser.add_argument("--figures", action="store_true", help="only redraw the figures")
    parser.add_argument("--site", action="store_true", help="only write site/index.html, from the same results")
    args = parser.parse_args()
    start = time.perf_counter()
    try:
        results = load_results()
        if args.figures or args.site:
            made = GENERATED / "figures"
            figures = draw_figures(results, made)
            atomic_write_bytes(REPORT / "readme.svg", (made / "digits.svg").read_bytes())
            if args.site:
                made = write_site(results, figures, folder=made, target=ROOT / "site" / "index.html")
        else:
            pdf = build_report(results)
            if args.check and build_report(results) != pdf:
                raise BuildError("two builds of the same results differ")
            made = atomic_write_bytes(REPORT / "report.pdf", pdf)
    except (BuildError, ValueError) as error:
        print(f"report: error: {error}", file=sys.stderr)
        return 1
    print(f"report: {made.relative_to(ROOT)} built in {time.perf_counter() - start:.1f} s")
    return 0
