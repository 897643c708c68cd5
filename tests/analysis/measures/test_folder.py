"""Folders of runs are measured once, each instrument into its own file, and what fails is counted."""

import dataclasses
import shutil

import pytest

from analysis.measures import (
    MEASURES,
    Instrument,
    Measure,
    checkpoints,
    code_length,
    folder,
    geometry,
    instruments,
    measure_runs,
)
from analysis.measures.checkpoints import CheckpointChoice
from analysis.measures.folder import measure_run
from analysis.records import atomic_write_json, config_key, read_json

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")

FILES = {"geometry": "measures.json", "best": "best.json", "code": "code.json"}


@pytest.fixture
def calls(monkeypatch):
    """What the instruments were called with; they return planned numbers."""
    made = []

    def shape(run, *, cache, settings):
        made.append(("geometry", settings))
        assert cache is not None
        taken = {"hessian_top_merged": 1.5, "intruders_authors": 2.0}
        return taken | {"hessian_top_merged_residual": 0.25, "intruders_authors_low": 1.0, "novel": 7.0}

    def code(run, *, settings):
        made.append(("code", settings))
        return {"bits": 8.0, "rounding_step": 2.0, "rounding_edge": 1.0, "rounding_doubtful": 0.0}

    def spectra(run, *, cache, settings):
        made.append(("best", settings))
        assert cache is not None
        names = [f"intruders_{kind}{end}" for kind in ("authors", "paper") for end in ("", "_low", "_high")]
        return dict.fromkeys([*names, "intruders_mean_share", "stable_rank"], 3.0)

    def choose(path, *, data, model, last):
        made.append(("choose", path))
        return CheckpointChoice(chosen={"last": last, "best": last}, margin=0.125, doubtful=True)

    monkeypatch.setattr(geometry, "geometry_of_run", shape)
    monkeypatch.setattr(code_length, "code_of_run", code)
    monkeypatch.setattr(checkpoints, "spectra_of_run", spectra)
    monkeypatch.setattr(checkpoints, "choose_checkpoint", choose)
    return made


@pytest.fixture
def runs(finished, tmp_path):
    """A folder of its own with the finished run in it."""
    shutil.copytree(finished, tmp_path / "runs" / "one")
    return tmp_path / "runs"


def test_each_instrument_writes_its_own_file_with_what_is_open_beside(runs, calls):
    one = runs / "one"
    found = measure_run(one, kinds=list(FILES))
    # Of the intruders, the later instrument's are returned; each file keeps its own.
    assert found == {"hessian_top_merged": 1.5, "intruders_authors": 3.0, "intruders_paper": 3.0, "bits": 8.0}
    assert {kind: instruments()[kind].file for kind in FILES} == FILES
    written = {kind: read_json(one / name) for kind, name in FILES.items()}
    beside = {kind: dict(content["uncertainties"]) for kind, content in written.items()}
    assert beside["geometry"] == {"hessian_top_merged_residual": 0.25, "intruders_authors_low": 1, "novel": 7}
    assert beside["code"] == {"rounding_step": 2, "rounding_edge": 1, "rounding_doubtful": 0}
    ranges = dict.fromkeys([f"intruders_{kind}{end}" for kind in ("authors", "paper") for end in ("_low", "_high")], 3)
    assert beside["best"] == ranges | {"choice_margin": 0.125, "choice_doubtful": 1}
    best = {name: geometry.GEOMETRY_SETTINGS[name] for name in ("version", "intruder_count", "intruder_epsilon")}
    for kind, settings in (
        ("geometry", geometry.GEOMETRY_SETTINGS),
        ("best", best),
        ("code", code_length.CODE_SETTINGS),
    ):
        assert written[kind]["settings"] == [list(pair) for pair in settings.items()]
        assert written[kind]["settings_key"] == config_key(settings)
    lists = {"settings", "settings_key", "uncertainties"}
    numbers = {kind: {name: content[name] for name in content.keys() - lists} for kind, content in written.items()}
    assert numbers == {
        "geometry": {"hessian_top_merged": 1.5, "intruders_authors": 2},
        "best": {"intruders_authors": 3, "intruders_paper": 3},
        "code": {"bits": 8},
    }
    assert calls == [
        ("geometry", geometry.GEOMETRY_SETTINGS),
        ("choose", one),
        ("best", best),
        ("code", code_length.CODE_SETTINGS),
    ]


def test_every_instrument_that_a_measure_names_is_a_kind(runs, calls, monkeypatch):
    rough = Instrument(name="rough", file="rough.json", take="math:hypot", settings={"examples": 9, "radius": 0.5})
    rise = Measure(name="rough/rise", family="sharpness", unit="nats", space="adapter", instrument=rough)
    known = instruments() | {"rough": rough}
    taken = []

    def take(run, settings):
        taken.append((run.folder, settings))
        return {"rise": 4.0, "bits": 5.0}  # "bits" is a measure of another file alone

    monkeypatch.setattr(folder, "instruments", lambda: known)
    monkeypatch.setattr(folder, "MEASURES", dict(MEASURES) | {rise.name: rise})
    resolve = folder.resolve
    monkeypatch.setattr(folder, "resolve", lambda name: take if name == "math:hypot" else resolve(name))
    assert measure_run(runs / "one", kinds=["rough"], examples=20) == {"rise": 4.0}
    assert taken == [(runs / "one", {"examples": 20, "radius": 0.5})]
    assert read_json(runs / "one" / "rough.json")["uncertainties"] == [["bits", 5]]
    everything = measure_run(runs / "one", again=True)
    assert everything["rise"] == 4.0
    assert everything["bits"] == 8.0
    assert [name for name, _ in calls] == ["geometry", "choose", "best", "code"]


def test_what_is_measured_is_not_measured_again_unless_asked_or_the_settings_differ(runs, calls):
    one = runs / "one"
    assert measure_run(one, kinds=["code"]) == {"bits": 8.0}
    assert measure_run(one, kinds=["code"]) is None
    assert measure_run(one, kinds=["code"], examples=7) is None  # no setting of this instrument
    assert len(calls) == 1
    assert measure_run(one, kinds=["code"], again=True) == {"bits": 8.0}
    measure_run(one, kinds=["geometry"])
    measure_run(one, kinds=["geometry"], examples=7)
    assert len(calls) == 4
    assert calls[-2][1] == geometry.GEOMETRY_SETTINGS
    assert calls[-1][1] == geometry.GEOMETRY_SETTINGS | {"examples": 7, "curvature_examples": 3}
    assert measure_run(one, kinds=["geometry"], examples=7) is None
    measure_run(one, kinds=["geometry"], examples=2)
    assert calls[-1][1] == geometry.GEOMETRY_SETTINGS | {"examples": 2, "curvature_examples": 1}
    assert dict(read_json(one / "measures.json")["settings"]) == calls[-1][1]


def test_a_task_without_errors_has_no_code_and_a_run_without_snapshots_no_best(runs, calls, monkeypatch):
    load = folder.load_run

    def regression(*args, **options):
        run = load(*args, **options)
        return dataclasses.replace(run, task=dataclasses.replace(run.task, kind="regression"))

    monkeypatch.setattr(folder, "load_run", regression)
    assert measure_run(runs / "one", kinds=["code"]) is None
    assert not (runs / "one" / "code.json").exists()
    shutil.rmtree(runs / "one" / "checkpoints")
    found = measure_run(runs / "one", kinds=["best", "geometry"])
    assert found == {"hessian_top_merged": 1.5, "intruders_authors": 2.0}
    assert not (runs / "one" / "best.json").exists()


def test_runs_are_counted_by_what_became_of_them(runs, calls, monkeypatch, capsys):
    shutil.copytree(runs / "one", runs / "deep" / "two")
    shutil.copytree(runs / "one", runs / "bare")
    shutil.rmtree(runs / "bare" / "adapter")
    shutil.copytree(runs / "one", runs / "failed")
    record = read_json(runs / "failed" / "record.json")
    atomic_write_json(runs / "failed" / "record.json", record | {"status": "failed"})
    assert measure_runs(runs, kinds=["code"]) == {"measured": 2, "skipped": 0, "without weights": 1, "failed": 0}
    assert measure_runs(runs, kinds=["code"]) == {"measured": 0, "skipped": 2, "without weights": 1, "failed": 0}
    measured = {path.parent.name for path in runs.rglob("code.json")}
    assert measured == {"one", "two"}

    def refuse(run, *, settings):
        raise ValueError("no code for this one")

    monkeypatch.setattr(code_length, "code_of_run", refuse)
    counts = measure_runs(runs, kinds=["code"], again=True)
    assert counts == {"measured": 0, "skipped": 0, "without weights": 1, "failed": 2}
    printed = capsys.readouterr()
    assert "one: no code for this one" in printed.out + printed.err
    assert "two: no code for this one" in printed.out + printed.err


def test_options_reach_every_run(runs, calls, monkeypatch):
    shutil.copytree(runs / "one", runs / "two")
    load, asked = folder.load_run, []

    def where(path, *, data, model):
        asked.append((path.name, data, model))
        return load(path)

    monkeypatch.setattr(folder, "load_run", where)
    measure_runs(runs, kinds=("geometry",), examples=5, data="elsewhere", model="moved")
    assert [(name, settings["examples"]) for name, settings in calls] == [("geometry", 5)] * 2
    assert asked == [("one", "elsewhere", "moved"), ("two", "elsewhere", "moved")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 1}, "examples must be at least 2, got 1"),
        ({"kinds": []}, "kinds must be some of geometry, best, code.*, got none"),
        ({"kinds": ["code", "bets"]}, "kinds must be some of geometry, best, code.*, got code, bets"),
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
