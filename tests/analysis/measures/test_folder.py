"""Folders of runs are measured once, each kind into its own file, and what fails is counted."""

import dataclasses
import shutil

import pytest

from analysis.measures import code_length, folder, geometry, measure_runs
from analysis.measures.checkpoints import CheckpointChoice
from analysis.measures.folder import KINDS, measure_run
from analysis.records import atomic_write_json, config_key, read_json

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


@pytest.fixture
def instruments(monkeypatch):
    """Instruments that count their calls and return planned numbers."""
    calls = []

    def shape(run, *, cache, settings):
        calls.append(("geometry", settings))
        assert cache is not None
        return {"top": 1.5, "top_residual": 0.25, "trace_error": 0.5, "count_low": 1.0, "count_high": 2.0}

    def code(run):
        calls.append(("code", None))
        return {"bits": 8.0, "rounding_step": 2.0, "rounding_edge": 1.0, "rounding_doubtful": 0.0}

    def spectra(run, *, cache, settings):
        calls.append(("best", settings))
        names = ("intruders_authors", "intruders_authors_low", "intruders_paper", "intruders_mean_share", "stable_rank")
        return dict.fromkeys(names, 3.0)

    def choose(path, *, data, model, last):
        calls.append(("choose", path))
        return CheckpointChoice(chosen={"last": last, "best": last}, margin=0.125, doubtful=True)

    monkeypatch.setattr(geometry, "geometry_of_run", shape)
    monkeypatch.setattr(code_length, "code_of_run", code)
    monkeypatch.setattr(folder, "spectra_of_run", spectra)
    monkeypatch.setattr(folder, "choose_checkpoint", choose)
    return calls


@pytest.fixture
def runs(finished, tmp_path):
    """A folder of its own with the finished run in it."""
    shutil.copytree(finished, tmp_path / "runs" / "one")
    return tmp_path / "runs"


def test_each_kind_is_written_into_its_own_file_with_what_is_open_beside(runs, instruments):
    one = runs / "one"
    found = measure_run(one)
    assert found == {"top": 1.5, "intruders_authors": 3.0, "intruders_paper": 3.0, "bits": 8.0}
    assert KINDS == {"geometry": "measures.json", "best": "best.json", "code": "code.json"}
    written = {kind: read_json(one / name) for kind, name in KINDS.items()}
    assert written["geometry"]["uncertainties"] == [
        ["top_residual", 0.25], ["trace_error", 0.5], ["count_low", 1.0], ["count_high", 2.0],
    ]  # fmt: skip
    assert written["code"]["uncertainties"] == [["rounding_step", 2], ["rounding_edge", 1], ["rounding_doubtful", 0]]
    beside = [["intruders_authors_low", 3], ["choice_margin", 0.125], ["choice_doubtful", 1]]
    assert written["best"]["uncertainties"] == beside
    best = {name: geometry.SETTINGS[name] for name in ("version", "intruder_count", "intruder_epsilon")}
    for kind, settings in (("geometry", geometry.SETTINGS), ("best", best), ("code", code_length.SETTINGS)):
        assert written[kind]["settings"] == [list(pair) for pair in settings.items()]
        assert written[kind]["settings_key"] == config_key(settings)
    assert written["geometry"]["top"] == 1.5
    assert [name for name, _ in instruments] == ["geometry", "choose", "best", "code"]
    assert instruments[1][1] == one


def test_what_is_measured_is_not_measured_again_unless_asked_or_the_settings_differ(runs, instruments):
    one = runs / "one"
    assert measure_run(one, kinds=["code"]) == {"bits": 8.0}
    assert measure_run(one, kinds=["code"]) is None
    assert len(instruments) == 1
    assert measure_run(one, kinds=["code"], again=True) == {"bits": 8.0}
    measure_run(one, kinds=["geometry"])
    measure_run(one, kinds=["geometry"], examples=7)
    assert len(instruments) == 4
    settings = instruments[-1][1]
    assert (settings["examples"], settings["curvature_examples"]) == (7, 3)
    assert instruments[-2][1] == geometry.SETTINGS
    assert measure_run(one, kinds=["geometry"], examples=7) is None
    measure_run(one, kinds=["geometry"], examples=2)
    assert instruments[-1][1]["curvature_examples"] == 1


def test_a_task_without_errors_has_no_code_and_a_run_without_snapshots_no_best(runs, instruments, monkeypatch):
    load = folder.load_run

    def regression(*args, **options):
        run = load(*args, **options)
        return dataclasses.replace(run, task=dataclasses.replace(run.task, kind="regression"))

    monkeypatch.setattr(folder, "load_run", regression)
    assert measure_run(runs / "one", kinds=["code"]) is None
    assert not (runs / "one" / "code.json").exists()
    shutil.rmtree(runs / "one" / "checkpoints")
    assert measure_run(runs / "one", kinds=["best", "geometry"]) == {"top": 1.5}
    assert not (runs / "one" / "best.json").exists()


def test_runs_are_counted_by_what_became_of_them(runs, instruments, monkeypatch, capsys):
    shutil.copytree(runs / "one", runs / "deep" / "two")
    shutil.copytree(runs / "one", runs / "bare")
    shutil.rmtree(runs / "bare" / "adapter")
    shutil.copytree(runs / "one", runs / "failed")
    record = read_json(runs / "failed" / "record.json")
    atomic_write_json(runs / "failed" / "record.json", record | {"status": "failed"})
    assert measure_runs(runs, kinds=["code"]) == {"measured": 2, "skipped": 0, "without weights": 1, "failed": 0}
    assert measure_runs(runs, kinds=["code"]) == {"measured": 0, "skipped": 2, "without weights": 1, "failed": 0}

    def refuse(run):
        raise ValueError("no code for this one")

    monkeypatch.setattr(code_length, "code_of_run", refuse)
    counts = measure_runs(runs, kinds=["code"], again=True)
    assert counts == {"measured": 0, "skipped": 0, "without weights": 1, "failed": 2}
    printed = capsys.readouterr()
    assert "two: no code for this one" in printed.out + printed.err


def test_options_reach_every_run(runs, instruments):
    measure_runs(runs, kinds=("geometry",), examples=5)
    assert instruments[-1][1]["examples"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 1}, "examples must be at least 2, got 1"),
        ({"kinds": []}, "kinds must be some of geometry, best, code, got none"),
        ({"kinds": ["code", "bets"]}, "kinds must be some of geometry, best, code, got code, bets"),
    ],
)
def test_wrong_options_are_refused_first(options, message, tmp_path):
    for measure in (measure_run, measure_runs):
        with pytest.raises(ValueError, match=message):
            measure(tmp_path, **options)


def test_no_process_and_no_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="jobs must be at least 1, or -1 for every core, got 0"):
        measure_runs(tmp_path, jobs=0)
    with pytest.raises(ValueError, match="no finished run under"):
        measure_runs(tmp_path)
