"""The site: one page that works from disk, in order, with a source for everything."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report import build
from report.figures import FIGURES
from report.webpage import SECTIONS, _column, write_site

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "br", "img", "hr", "path", "use", "rect", "stop"}


class Outline(HTMLParser):
    """What a page holds: headings in order, links, anchors, images, and whether its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.headings, self.links, self.ids, self.images, self.loaded, self.open = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag == "a":
            self.links.append(found["href"])
        if tag == "svg":
            self.images.append(found)
        self.ids += [found["id"]] if "id" in found else []
        self.loaded += [found[name] for name in ("src", "data") if name in found]
        self.loaded += [found["href"]] if tag == "link" else []

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, tag


@pytest.fixture
def page(results, tmp_path):
    def write(figures=()):
        for figure in figures:
            svg = '<?xml version="1.0"?>\n<svg width="240pt" height="9pt"><g id="a"><use href="#a"/></g></svg>'
            (tmp_path / f"{figure.name}.svg").write_text(svg)
        return write_site(results, figures, folder=tmp_path, target=tmp_path / "index.html").read_text()

    return write


def read(text):
    outline = Outline()
    outline.feed(text)
    assert not outline.open
    return outline


def test_the_committed_results_make_a_sound_page(tmp_path):
    results = build.load_results()
    text = write_site(results, [], folder=tmp_path, target=tmp_path / "index.html").read_text()
    outline = read(text)
    assert '<html lang="en">' in text
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert not outline.loaded
    assert len(outline.ids) == len(set(outline.ids))
    inside = {link[1:] for link in outline.links if link.startswith("#")}
    assert inside <= set(outline.ids)
    assert {section.key for section in SECTIONS} <= inside
    for link in outline.links:
        assert link.startswith(("#", "https://")) or (ROOT / link.removeprefix("../")).exists(), link
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    for record in results["provenance"].values():
        assert record["commit"] in text
        assert record["date"] in text


def test_every_cell_about_a_peer_has_its_source():
    tables = build.load_results()["tables"]
    evidence = {tuple(row[:2]): row[2:] for row in tables["peers/evidence"]["rows"]}
    tools = tables["peers/capabilities"]["columns"][1:]
    for row in tables["peers/capabilities"]["rows"]:
        for tool in tools:
            words, source = evidence.pop((tool, row[0]))
            assert words
            assert source.startswith("https://github.com/") or (ROOT / source).exists(), source
    assert not evidence


def test_results_that_no_section_knows_are_still_shown(page):
    text = page()
    assert "More measurements" in text
    assert "python -m analysis measure" in text
    assert "commit: 0123456789ab-dirty, ba9876543210" in text


def test_missing_and_undefined_values_say_so(page):
    text = page()
    assert '<span title="no value">–</span>' in text
    assert '<span title="not defined here">NaN</span>' in text


def test_figures_have_names_and_ids_of_their_own(page, results):
    results["provenance"]["bounds"] = results["provenance"]["small"]
    figures = [figure for figure in FIGURES if figure.topics == ("bounds",)]
    text = page(figures)
    outline = read(text)
    assert [image["aria-label"] for image in outline.images] == [figure.title for figure in figures]
    assert all(image["role"] == "img" for image in outline.images)
    assert [f"{figure.name}-a" for figure in figures] == [name for name in outline.ids if name.endswith("-a")]
    assert all(f'href="#{figure.name}-a"' in text for figure in figures)


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.1234567, 12.3, None], ["0.123", "12.300", "–"]),
        ([0.2, 0.02], ["0.20", "0.02"]),
        ([1e-9, 2.5], ["1e−09", "2.5"]),
        ([3, 14], ["3", "14"]),
        ([-1.5, 2.0], ["−1.5", "2.0"]),
    ],
)
def test_the_numbers_of_a_column_line_up(values, cells):
    shown = [re.sub("<.*?>", "", cell) for cell in _column(values)[1]]
    assert shown == cells
