"""A static page of the report's figures and tables, for people who would rather look than read.

Plain HTML with inline SVG, made from the same results: it opens from disk and asks the network for nothing.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from figures import FIGURES

from analysis.store import atomic_write_text

__all__ = ["write_site"]

_STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --soft: #666; --line: #ddd; --accent: #1a4a8a; }
body { font: 16px/1.5 Georgia, 'Times New Roman', serif; color: var(--ink); margin: 0 auto; max-width: 72rem;
  padding: 2rem 1.2rem; background: #fff; }
h1 { font-size: 1.9rem; line-height: 1.2; }
h2 { margin-top: 2.6rem; border-top: 1px solid var(--line); padding-top: 1rem; }
nav { columns: 2; font-size: .95rem; } nav a, a { color: var(--accent); }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption, .source { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font: 14px/1.4 system-ui, sans-serif; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } code { font-size: .85rem; }
"""


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _table(table: dict[str, Any]) -> str:
    head = "".join(f"<th>{_cell(name)}</th>" for name in table["columns"])
    rows = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in table["rows"])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _source(provenance: dict[str, Any]) -> str:
    command = html.escape(str(provenance.get("command", "")))
    device = html.escape(str(provenance.get("device", "")))
    return f'<p class="source">Made by <code>{command}</code> ({device}).</p>'


def write_site(results: dict[str, dict[str, Any]], *, figures: Path, target: Path) -> Path:
    """Write the page.

    Args:
        results: as ``build.load_results`` returns them.
        figures: folder of the figures as SVG.
        target: the page, ``site/index.html``.

    Returns:
        The page's path.
    """
    topics = sorted({key.split("/", 1)[0] for key in results["tables"]} | {figure.topic for figure in FIGURES})
    parts = []
    for topic in topics:
        title = topic.replace("_", " ").capitalize()
        parts.append(f'<h2 id="{topic}">{title}</h2>')
        for figure in (figure for figure in FIGURES if figure.topic == topic):
            svg = (figures / f"{figure.name}.svg").read_text(encoding="utf-8")
            for mark in ('id="', "url(#", 'href="#'):
                svg = svg.replace(mark, f"{mark}{figure.name}-")
            svg = svg[svg.index("<svg") :]
            parts.append(f"<figure>{svg}<figcaption>{html.escape(figure.title)}</figcaption></figure>")
        for key, table in results["tables"].items():
            if key.split("/", 1)[0] == topic:
                parts.append(f"<h3>{html.escape(key.split('/', 1)[1].replace('_', ' '))}</h3>{_table(table)}")
        parts.append(_source(results["provenance"].get(topic, {})))
    links = "<br>".join(f'<a href="#{topic}">{topic.replace("_", " ").capitalize()}</a>' for topic in topics)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>Does a cheap adapter generalize?</title>'
        f"<style>{_STYLE}</style></head><body><h1>Does a cheap adapter generalize, and what does it cost?</h1>"
        "<p>Every figure and table of the report, from the same committed results.</p>"
        f"<nav>{links}</nav>{''.join(parts)}</body></html>\n"
    )
    return atomic_write_text(target, page)
