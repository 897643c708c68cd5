"""A static page of the report's figures and tables, for people who would rather look than read.

Plain HTML with inline SVG, made from the same results: it opens from disk and asks the network for nothing (links to
sources excepted, when they are followed).
"""

from __future__ import annotations

import html
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import atomic_write_text
from report.figures import Figure
from report.tasks import known_tasks

__all__ = ["SECTIONS", "Section", "write_site"]

Results = dict[str, dict[str, Any]]

_SHORT = 16
"""Tables with more rows than this are folded away, and so are those without a title of their own."""

_STYLE = """
:root { --ink: #1c1c1c; --soft: #5a5a5a; --line: #dcdcdc; --accent: #1a4a8a; --wash: #f6f7f9; }
* { box-sizing: border-box; }
body { font: 17px/1.55 Georgia, 'Times New Roman', serif; color: var(--ink); margin: 0; background: #fff; }
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.2rem; }
header { padding-top: 2.5rem; } h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.45rem; margin: 3rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1.3rem; }
h3 { font: 600 .98rem/1.4 system-ui, sans-serif; margin: 1.4rem 0 .4rem; }
p { max-width: 44rem; } a { color: var(--accent); } .lead { font-size: 1.1rem; }
nav ol { columns: 2; padding-left: 1.3rem; } @media (max-width: 40rem) { nav ol { columns: 1; } }
.skip { position: absolute; left: -999px; } .skip:focus { left: 1rem; top: 1rem; background: #fff; padding: .5rem; }
figure { margin: 1.4rem 0; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; min-width: 34rem; }
figure.narrow svg { max-width: 34rem; min-width: 20rem; }
figcaption, .source, .note { color: var(--soft); font-size: .9rem; }
.source { font: .8rem/1.5 system-ui, sans-serif; background: var(--wash); padding: .6rem .8rem; overflow-wrap: anywhere;
  max-width: none; border-radius: 4px; } .source p { margin: .2rem 0; max-width: none; }
.scroll { overflow-x: auto; } details .scroll { max-height: 36rem; overflow-y: auto; }
table { border-collapse: collapse; font: 13.5px/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.lines { white-space: pre; } td.text, th.text { text-align: left; }
td.long { white-space: normal; min-width: 18rem; text-align: left; }
thead th { position: sticky; top: 0; background: #fff; white-space: pre; vertical-align: bottom; }
tbody th { text-align: left; font-weight: 400; }
details { margin: .6rem 0; } summary { cursor: pointer; } summary h3 { display: inline; margin: 0; }
summary .note { margin-left: .4rem; } code { font-size: .85em; }
footer { color: var(--soft); font-size: .9rem; padding-bottom: 3rem; }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its anchor.
        title: its heading.
        intro: what is asked here and how to read it; holds no number, since numbers come from results.
        topics: the result files it shows, the first its main one.
    """

    key: str
    title: str
    intro: str
    topics: tuple[str, ...]


SECTIONS = (
    Section(
        "bounds",
        "The bounds: mended, evaluated, vacuous?",
        "The reference paper bounds the generalization error of each method by the bits it trains (its Table 1) and by "
        "how far training can move a network's output (its Theorem 1). Theorem 1 as typeset has errata; mended, it is "
        "tried on random networks and by a search for the worst one. Table 1 is evaluated for the paper's own models "
        "and data sets: a bound above one says nothing about a loss between zero and one.",
        ("bounds", "bench_bounds"),
    ),
    Section(
        "exact",
        "Where the truth is known",
        "In a coin, a Gaussian mean and linear regression both the generalization gap and the mutual information can "
        "be computed, so that each bound can be divided by the truth. One is perfect.",
        ("exact",),
    ),
    Section(
        "cost",
        "What an adapter costs",
        "Time of one training step over that of the frozen base, and activations kept for the backward pass, for our "
        "adapters and their peers; then whether PEFT's own tests pass on our tuner.",
        ("bench_adapters", "bench_sweep", "conformance"),
    ),
    Section(
        "tasks",
        "Eleven methods on real tasks",
        "Held-out accuracy and measured generalization error G(W), the absolute difference of held-out and training "
        "loss. Intervals are Student's over seeds. What the paper prints for the same data sets stands beside ours and "
        "is labelled so: it was copied, not measured, and belongs to another, larger model.",
        ("tasks", *(task.key for task in known_tasks()), "chain_length"),
    ),
    Section(
        "landscapes",
        "Landscapes, curvature, spectra",
        "Are chained adapters sharper, and have they more intruder dimensions, than the method they chain? Paired by "
        "seed. And how fast the instruments are beside public ones.",
        ("landscape", "spectra", "bench_landscape", "bench_curvature", "bench_spectra", "bench_streaming"),
    ),
    Section(
        "information",
        "Information estimated by retraining",
        "Instead of counting the bits of an update, train on random halves of a supersample and estimate how much the "
        "losses tell of which half was trained on. These are estimates with intervals, not guarantees.",
        ("information",),
    ),
    Section(
        "certificates",
        "Certificates that are not vacuous",
        "A network that is written as a few hundred bits has, with probability 0.95, an error below what those bits "
        "certify. Each certificate is a file that anybody can decode and verify.",
        ("certificates",),
    ),
    Section(
        "agreement",
        "What predicts generalization?",
        "Every bound, landscape, spectrum and norm is ranked against the measured generalization error by Kendall's "
        "tau and by statistics that hold hyper-parameters fixed. One is perfect agreement, zero none. The paper's own "
        "printed tables are put to the same question.",
        ("agreement", "published_agreement"),
    ),
    Section(
        "peers",
        "What exists beside this toolkit",
        "What public code can do today. Each cell links to the file or folder where it can be checked; the table below "
        "says in words what is found there.",
        ("peers",),
    ),
)

_TITLES = {
    "tasks/methods": "Eleven methods at rank sixteen, beside the paper's printed rows",
    "bounds/errata": "Smallest networks that break Theorem 1 as typeset",
    "bounds/beyond": "RoBERTa-Base on MRPC: what each refinement gains",
    "bench_adapters/steps": "Training steps in every setting",
    "bench_adapters/inference": "Inference: adapters and the merged weight",
    "conformance/reasons": "Why some of PEFT's tests are skipped",
    "exact/mean": "Gaussian mean estimation",
    "certificates/certificates": "Certified errors",
    "landscape/claim": "Are chains sharper? Paired by seed",
    "spectra/claim": "Have chains more intruders? Paired by seed",
    "published_agreement/performance": "The paper's table 2, as printed",
    "published_agreement/generalization_error": "The paper's table 3, as printed",
    "peers/capabilities": "Who can do what",
    "peers/evidence": "Where each cell can be checked",
}


_PRINTED = ("published_agreement/performance", "published_agreement/generalization_error")

_TOPICS = {
    "agreement": "Comparison",
    "bench_adapters": "Adapter benchmark",
    "bench_bounds": "Benchmark of the bounds",
    "bench_curvature": "Curvature benchmark",
    "bench_landscape": "Landscape benchmark",
    "bench_spectra": "Spectrum benchmark",
    "exact": "Exact models",
    "landscape": "Chains, landscape",
    "published_agreement": "The paper's tables",
    "spectra": "Chains, spectrum",
} | {task.key: task.title for task in known_tasks()}

_NUMBER = re.compile(r"[−-]?\d[^ a-z]*(\n\[.*\])?$|–$")
"""A cell that holds a number as text, perhaps with its interval beneath."""


def _text(value: object) -> str:
    """Any cell but a finite float; a missing value is a dash, an undefined one says so."""
    if value is None:
        return '<span title="no value">–</span>'
    if value == "nan" or (isinstance(value, float) and math.isnan(value)):
        return '<span title="not defined here">NaN</span>'
    return html.escape(str(value))


def _decimals(values: Sequence[float]) -> int | None:
    """Decimals that give a column's typical number four digits; None where its sizes differ too much to share any."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return 0
    if max(sizes) >= 1e7 or max(sizes) < 1e-4 or max(sizes) / min(sizes) > 3e3:
        return None
    decimals = max(0, 3 - math.floor(math.log10(statistics.median(sizes))))
    while decimals and all(math.isclose(value, round(value, decimals - 1), rel_tol=1e-9) for value in values):
        decimals -= 1
    return decimals


def _column(values: Sequence[Any]) -> tuple[str, list[str]]:
    """The class and the cells of one column; numbers share their decimals so that they line up."""
    floats = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    decimals = _decimals(floats)
    shown = []
    for value in values:
        if isinstance(value, float) and math.isfinite(value):
            shown.append((f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}").replace("-", "−"))
        else:
            shown.append(_text(value))
    words = [str(value) for value in values if isinstance(value, str) and value != "nan"]
    if all(_NUMBER.match(word) for word in words):
        return ("lines" if words else ""), shown
    return ("long" if max(map(len, words)) > 40 else "text"), shown


def _grid(columns: Sequence[str], cells: Sequence[Sequence[str]], classes: Sequence[str]) -> str:
    def attribute(name: str) -> str:
        return f' class="{name}"' if name else ""

    head = "".join(
        f'<th scope="col"{attribute("text" if kind in ("text", "long") else "")}>{html.escape(name)}</th>'
        for name, kind in zip(columns, classes, strict=True)
    )
    body = []
    for row in cells:
        first, *rest = (f"{attribute(kind)}>{cell}" for cell, kind in zip(row, classes, strict=True))
        body.append(f'<tr><th scope="row"{first}</th>' + "".join(f"<td{cell}</td>" for cell in rest) + "</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _table(table: dict[str, Any], *, printed: bool = False) -> str:
    """A table; one that was copied as printed keeps its digits."""
    rows = [[str(cell) if printed else cell for cell in row] for row in table["rows"]]
    columns = [_column([row[place] for row in rows]) for place in range(len(table["columns"]))]
    names = [name.replace("_", " ") for name in table["columns"]]
    return _grid(names, list(zip(*(cells for _, cells in columns), strict=True)), [kind for kind, _ in columns])


def _linked(address: str, text: str, *, title: str = "") -> str:
    """A link; an address without a scheme is a path of the repository, which lies one folder above the page."""
    where = address if "://" in address else f"../{address}"
    label = f' title="{html.escape(title)}"' if title else ""
    return f'<a href="{html.escape(where)}"{label}>{html.escape(text)}</a>'


def _capabilities(table: dict[str, Any], evidence: dict[str, Any]) -> str:
    """The comparison with peers: each cell links to where it can be checked."""
    found = {(tool, capability): (words, source) for tool, capability, words, source in evidence["rows"]}
    rows = []
    for capability, *values in table["rows"]:
        linked = []
        for tool, value in zip(table["columns"][1:], values, strict=True):
            words, source = found[tool, capability]
            linked.append(_linked(source, str(value), title=words))
        rows.append([html.escape(str(capability)), *linked])
    return _grid(table["columns"], rows, ["text"] * len(table["columns"]))


def _evidence(table: dict[str, Any]) -> str:
    rows = [
        [html.escape(tool), html.escape(capability), html.escape(words), _linked(source, source.rsplit("/", 1)[-1])]
        for tool, capability, words, source in table["rows"]
    ]
    return _grid(table["columns"], rows, ["text", "text", "long", "text"])


def _folded(title: str, content: str, *, rows: int, open_: bool) -> str:
    heading = f"<h3>{html.escape(title)}</h3>"
    if open_:
        return heading + content
    return f'<details><summary>{heading}<span class="note">{rows} rows</span></summary>{content}</details>'


def _source(topic: str, record: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, record.get("seeds", []))) or "none"
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    notes = "".join(f"<p>{html.escape(str(note))}</p>" for note in record.get("notes", []))
    return (
        f'<div class="source"><p><code>{html.escape(topic)}.json</code>: '
        f"<code>{html.escape(str(record.get('command', '')))}</code></p>"
        f"<p>{html.escape(str(record.get('date', '')))}, {html.escape(str(record.get('device', '')))}; seeds: {seeds}; "
        f"commit: {html.escape(str(record.get('commit', '')))}</p>{notes}"
        f"<details><summary>versions</summary><p>{html.escape(versions)}</p></details></div>"
    )


def _drawing(figure: Figure, folder: Path) -> str:
    """A figure inline: its ids made its own, so that two figures on a page do not mix, and named for who cannot see."""
    svg = (folder / f"{figure.name}.svg").read_text(encoding="utf-8")
    for mark in ('id="', "url(#", 'href="#'):
        svg = svg.replace(mark, f"{mark}{figure.name}-")
    svg = svg[svg.index("<svg") :]
    title = html.escape(figure.title)
    width = float(svg.split('width="', 1)[1].split("pt", 1)[0])
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    kind = ' class="narrow"' if width < 300 else ""
    return f"<figure{kind}>{svg}<figcaption>{title}</figcaption></figure>"


def _section(section: Section, results: Results, figures: Sequence[Figure], folder: Path) -> str:
    parts = [f'<section aria-labelledby="{section.key}"><h2 id="{section.key}">{html.escape(section.title)}</h2>']
    parts.append(f"<p>{html.escape(section.intro)}</p>")
    parts += [_drawing(figure, folder) for figure in figures if figure.topics[0] in section.topics]
    for topic in section.topics:
        for key, table in results["tables"].items():
            if key.split("/", 1)[0] != topic:
                continue
            title = _TITLES.get(key) or _titled(key)
            if key == "peers/capabilities":
                content = _capabilities(table, results["tables"]["peers/evidence"])
            else:
                content = _evidence(table) if key == "peers/evidence" else _table(table, printed=key in _PRINTED)
            rows = len(table["rows"])
            parts.append(_folded(title, content, rows=rows, open_=rows <= _SHORT and key in _TITLES))
        values = {key: value for key, value in results["values"].items() if key.split("/", 1)[0] == topic}
        if values:
            listed = {"columns": ["name", "value"], "rows": [[key.split("/", 1)[1], values[key]] for key in values]}
            cells = [[html.escape(name), _column([value])[1][0]] for name, value in listed["rows"]]
            content = _grid(listed["columns"], cells, ["text", ""])
            parts.append(_folded(_titled(f"{topic}/named values"), content, rows=len(values), open_=False))
    parts += [
        _source(topic, results["provenance"][topic]) for topic in section.topics if topic in results["provenance"]
    ]
    return "".join([*parts, "</section>"])


def _titled(key: str) -> str:
    topic, name = key.split("/", 1)
    words = [_TOPICS.get(part, part.replace("_", " ")) if part != topic else part for part in name.split("/")]
    return f"{_TOPICS.get(topic, topic.replace('_', ' ').capitalize())}: {', '.join(words)}"


def _rest(sections: Iterable[Section], results: Results) -> list[Section]:
    """What no section claims still has its place."""
    known = {topic for section in sections for topic in section.topics}
    rest = tuple(topic for topic in results["provenance"] if topic not in known)
    intro = "Results that belong to no part above."
    return [Section("more", "More measurements", intro, rest)] if rest else []


def write_site(results: Results, figures: Sequence[Figure], *, folder: Path, target: Path) -> Path:
    """Write the page.

    Args:
        results: as ``build.load_results`` returns them.
        figures: those drawn.
        folder: where they lie as SVG.
        target: the page, ``site/index.html``.

    Returns:
        The page's path.
    """
    shown = [section for section in SECTIONS if any(topic in results["provenance"] for topic in section.topics)]
    shown += _rest(SECTIONS, results)
    links = "".join(f'<li><a href="#{section.key}">{html.escape(section.title)}</a></li>' for section in shown)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>Does a cheap adapter generalize?</title>'
        f'<style>{_STYLE}</style></head><body><a class="skip" href="#{shown[0].key}">Skip to the results</a>'
        "<header><h1>Does a cheap adapter generalize, and what does it cost?</h1>"
        '<p class="lead">Eleven fine-tuning methods, their information-theoretic bounds, and measurements of both: '
        "every figure and table of the report, from the same committed results, with the commands that make them.</p>"
        '<p class="note">A dash means that there is no value, NaN that one is not defined. Long tables are folded; '
        "their headings open them. The argument, with its limitations, is in the report (<code>make report</code>).</p>"
        f'<nav aria-label="Contents"><ol>{links}</ol></nav></header><main>'
        f"{''.join(_section(section, results, figures, folder) for section in shown)}</main>"
        "<footer><p>Built by <code>make site</code> from <code>report/results</code>.</p></footer></body></html>\n"
    )
    return atomic_write_text(target, page)
