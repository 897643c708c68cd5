"""The sweep's benchmark runs real cells on real workers."""

from __future__ import annotations

import pytest

from analysis.benchmarks.sweep import run
from analysis.records import read_json

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


def test_every_way_to_sweep_is_timed_beside_one_process(tmp_path):
    pytest.importorskip("distributed")
    found = run(results=tmp_path / "bench_sweep.json", quick=True, repeats=1)
    (cases,) = found["timings"].values()
    assert list(cases) == ["one process", "loky, two workers", "Dask, one worker", "Dask, two workers"]
    one, two = (cases[f"Dask, {name}"]["seconds"] for name in ("one worker", "two workers"))
    assert found["values"]["Dask, two workers over one"] == pytest.approx(one / two)
    written = read_json(tmp_path / "bench_sweep.json")
    assert written["values"]["sweep of 2 digits runs/one process"] == 1.0
    assert written["provenance"]["seeds"] == [0]
