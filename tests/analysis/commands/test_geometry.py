"""The commands that look around finished runs: what they print is what they write."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.commands.main import main
from analysis.geometry import Landscape
from analysis.records import frame_of, read_json
from analysis.studies import digits_runs

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return digits_runs(["cla"], seeds=2, epochs=0.2, folder=tmp_path / "runs", rank=2, checkpoints=0)


def test_curvature_of_two_seeds_is_printed_and_written(paths: list[Path], tmp_path: Path, capsys):
    small = ["--count", "1", "--probes", "6", "--trace", "hutch++", "--density", "3", "--examples", "8"]
    out = ["--out", str(tmp_path / "curvature.json"), "--figure", str(tmp_path / "densities.pdf")]
    assert main(["curvature", *map(str, paths), *small, *out, "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = read_json(tmp_path / "curvature.json")
    rows = frame_of(found["tables"]["eigenvalues"])
    assert list(rows["run"]) == [path.name for path in paths]
    for line, row in zip(lines, rows.itertuples(), strict=False):
        assert f"seed {row.seed}: top {float(row.eigenvalue):.5g}" in line
        assert f"trace {float(row.trace):.4g}" in line
    assert list(found["series"]) == ["cla", f"cla, {paths[1].name[:6]}"]
    assert (tmp_path / "densities.pdf").stat().st_size > 0


def test_planes_are_printed_and_saved_under_the_runs_keys(paths: list[Path], tmp_path: Path, capsys):
    folder = tmp_path / "planes"
    given = [*map(str, paths[:-1]), str(paths[-1] / "record.json")]  # a run is named by its folder or by its record
    assert main(["landscape", *given, "--steps", "3", "--examples", "8", "--out", str(folder), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for seed, (line, path) in enumerate(zip(lines, paths, strict=False)):
        surface = Landscape.load(folder / f"plane-{path.name}")
        assert line.startswith(f"cLA seed {seed}: loss {surface.center_loss:.4g}, ")
        assert f"worst rise {surface.rise()['worst']:.4g}" in line
    assert "<html" in (folder / "planes.html").read_text()
