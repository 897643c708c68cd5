"""Tiny results, and a folder in which a report of a few lines can be built from them."""

import shutil

import pytest

from report import build

PROVENANCE = {
    "command": "python -m analysis measure --results report/results/small.json",
    "commit": "0123456789ab-dirty, ba9876543210",
    "date": "2026-01-02",
    "device": "CPU: a small one",
    "seeds": [0, 1],
    "versions": {"python": "3.11"},
}


@pytest.fixture
def results():
    return {
        "values": {"small/gap": 0.25, "small/name": "measures/hessian_top"},
        "tables": {
            "small/rows": {"columns": ["method", "gap"], "rows": [["cla", 0.5], ["lora", None], ["fft", "nan"]]},
            "small/wide": {"columns": [f"column {i}" for i in range(20)], "rows": [[1.5] * 20]},
        },
        "series": {},
        "provenance": {"small": PROVENANCE},
    }


@pytest.fixture
def compile_text(results, tmp_path, monkeypatch):
    """Build a report whose body is the given text, and check its keys."""
    monkeypatch.setattr(build, "EQUATIONS", {"wide": (" + ".join(["x_(1 2 3)"] * 40), "x"), "gap": ("g = 1", "g = 1")})

    def run(text, *, check=False):
        shutil.copy(build.REPORT / "template.typ", tmp_path)
        head = '#import "template.typ": *\n#show: paper.with(title: [T], subtitle: [S], abstract: [A])\n'
        (tmp_path / "main.typ").write_text(head + text)
        build.write_generated(results, [], tmp_path)
        pdf = build.compile_pdf(tmp_path)
        if check:
            build.check_keys(results, tmp_path)
        return pdf

    return run
