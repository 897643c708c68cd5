"""The build stops where a reader would be misled: unknown keys, unused keys, what overflows its column."""

import re

import pytest

from analysis.records import atomic_write_json
from report import build
from report.equations import EQUATIONS
from report.figures import FIGURES, draw_figures

ALL = '#result("small/gap") #result("small/name") #eq("gap")'


def test_a_report_that_uses_every_key_is_built(compile_text):
    cells = '#cell("small/rows", "gap", method: "cla") #result-table("small/rows")'
    whole = '#figure(provenance-table(), placement: auto, scope: "parent")'
    text = f"{ALL} {cells} {whole}"
    assert compile_text(text).startswith(b"%PDF")


def test_the_same_results_give_the_same_bytes(compile_text):
    assert compile_text(ALL) == compile_text(ALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('#result("small/gpa")', "unknown result key: small/gpa"),
        ('#result-table("small/row")', "unknown result table: small/row"),
        ('#result-table("small/rows", columns: ("gain",))', "table small/rows has no column gain"),
        ('#cell("small/rows", "gap", method: "paca")', "has 0 rows where"),
        ('#eq("gpa")', "unknown equation: gpa"),
        ('#plot("nothing", [None.])', "unknown figure: nothing"),
        ('#listing("nothing/")', "no result key starts with nothing/"),
        ('#made-by("nothing")', "unknown result file: nothing"),
        ('#result-table("small/wide")', r"a table of 20 columns is [\d.]+pt wide, its column [\d.]+pt"),
        ('#eq("wide")', r"an equation is [\d.]+pt wide, its column [\d.]+pt"),
    ],
)
def test_what_would_mislead_stops_the_build(compile_text, text, message):
    with pytest.raises(build.BuildError, match=message):
        compile_text(text)


def test_a_wide_table_may_span_the_page_but_not_leave_it(compile_text, results):
    results["tables"]["small/wide"]["columns"] = [f"c {i}" for i in range(20)]
    assert compile_text('#figure(result-table("small/wide"), placement: auto, scope: "parent")')
    results["tables"]["small/wide"]["columns"] = [f"a long name {i}" for i in range(20)]
    with pytest.raises(build.BuildError, match="a table of 20 columns"):
        compile_text('#figure(result-table("small/wide"), placement: auto, scope: "parent")')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALL.replace('#result("small/gap")', ""), "1 values used nowhere in main.typ: small/gap"),
        (ALL, "1 equations used nowhere in main.typ: wide"),
    ],
)
def test_a_key_that_nobody_reads_stops_the_build(compile_text, text, message):
    with pytest.raises(build.BuildError, match=message):
        compile_text(text, check=True)


def test_a_listing_uses_every_key_that_it_sets(compile_text, results, monkeypatch):
    monkeypatch.setattr(build, "EQUATIONS", {})
    shared = {f"small/{parent}/{leaf}": 0.001 for parent in ("a/x", "a/y", "b") for leaf in ("low", "mean", "high")}
    results["values"] |= shared | {"small/a/x/extra/word": "text", "small/flag": True}
    assert compile_text('#listing("small/")', check=True)


def test_result_files_are_merged_under_their_names(tmp_path):
    for name in ("one", "two"):
        record = {"values": {"gap": name}, "tables": {}, "series": {"s": [1]}, "provenance": {"command": name}}
        atomic_write_json(tmp_path / f"{name}.json", record)
    merged = build.load_results(tmp_path)
    assert merged["values"] == {"one/gap": "one", "two/gap": "two"}
    assert merged["provenance"]["two"]["command"] == "two"


def test_figures_without_results_are_left_out(tmp_path, results):
    assert draw_figures(results, tmp_path) == []
    assert all(isinstance(figure.topics, tuple) for figure in FIGURES)
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def _balanced(source):
    depth = 0
    for mark in re.findall(r"(?<!\\)[{}]", source):
        depth += 1 if mark == "{" else -1
        assert depth >= 0, source
    assert depth == 0, source
    opened = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", source):
        assert what == "begin" or opened.pop() == name, source
        opened += [name] if what == "begin" else []
    assert not opened
    assert len(re.findall(r"\\left\b", source)) == len(re.findall(r"\\right\b", source))


@pytest.mark.parametrize("key", EQUATIONS)
def test_equations_are_balanced_latex(key):
    _balanced(EQUATIONS[key][1])
    assert "&" not in EQUATIONS[key][1] or r"\begin{aligned}" in EQUATIONS[key][1]


def test_tables_are_latex_whatever_their_cells_hold():
    rows = [["50 % of_x & y {z} ~ ^ # $ \\", 1.23456789, None], ["two\nlines", float("nan"), 3]]
    latex = build.latex_table({"columns": ["a_b", "c", "d"], "rows": rows})
    _balanced(latex)
    body = [line for line in latex.splitlines() if line.endswith((r"\\", r"\hline")) and "&" in line]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [2, 2, 2]
    assert r"50 \% of\_x \& y \{z\}" in latex
    assert "1.235" in latex


def test_every_committed_table_is_written_as_latex(tmp_path):
    results = build.load_results()
    build.write_generated(results, [], tmp_path)
    written = sorted((tmp_path / "generated" / "latex").glob("*.tex"))
    assert len(written) == len(results["tables"]) + 1
    for path in written:
        text = path.read_text()
        _balanced(text)
        assert text.isascii(), "plain LaTeX knows no other letters"
