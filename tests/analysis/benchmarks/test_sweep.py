"""The sweep's benchmark times four kinds of real workers; `make bench` gives them real runs, this test light ones."""

from __future__ import annotations

import pytest

from analysis.benchmarks import sweep
from analysis.records import read_json


def test_every_way_to_sweep_is_timed_beside_one_process(tmp_path, monkeypatch):
    pytest.importorskip("distributed")

    def cell(values, folder):
        with (tmp_path / "cells").open("a") as file:
            file.write(f"{values['method']} {values['num_train']}\n")
        return {"config": dict(values)}

    monkeypatch.setattr(sweep, "run_cell", cell)
    found = sweep.run(results=tmp_path / "bench_sweep.json", quick=True, repeats=1)
    (cases,) = found["timings"].values()
    assert sorted((tmp_path / "cells").read_text().split("\n")) == ["", *["cla 40"] * 4, *["lora 40"] * 4]
    assert list(cases) == ["one process", "loky, two workers", "Dask, one worker", "Dask, two workers"]
    one, two = (cases[f"Dask, {name}"]["seconds"] for name in ("one worker", "two workers"))
    assert found["values"]["Dask, two workers over one"] == pytest.approx(one / two)
    written = read_json(tmp_path / "bench_sweep.json")
    assert written["values"]["sweep of 2 digits runs/one process"] == 1.0
    assert written["provenance"]["seeds"] == [0]
