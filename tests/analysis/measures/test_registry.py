"""The registry states what committed results hold, refuses instruments in each other's way, and fixed settings stay."""

from pathlib import Path

import pytest

from analysis.measures import MEASURES, Instrument, Measure, families, instruments
from analysis.measures.registry import CODE_SETTINGS, GEOMETRY_SETTINGS, _check_instrument
from analysis.records import config_key, read_json

AGREEMENT = Path(__file__).resolve().parents[3] / "report" / "results" / "agreement.json"


def instrument(**change):
    return Instrument(**{"name": "wide", "file": "wide.json", "take": "package.module:take"} | change)


def measure(**change):
    return Measure(
        **{"name": "wide/rise", "family": "sharpness", "unit": "nats", "space": "merged", "instrument": instrument()}
        | change
    )


def test_what_committed_runs_were_measured_with_has_not_changed():
    """Runs are compared where settings are equal: whoever changes one raises the version, and these keys."""
    assert config_key(GEOMETRY_SETTINGS) == "1a8022d7851942d6"
    assert config_key(CODE_SETTINGS) == "64b6f04a51d111fc"
    assert {name: one.file for name, one in instruments().items()} == {
        "geometry": "measures.json",
        "best": "best.json",
        "code": "code.json",
    }


def test_every_measure_of_the_committed_comparison_is_registered_with_the_family_it_states():
    stated = dict(read_json(AGREEMENT)["tables"]["families"]["rows"])
    assert len(stated) > 40
    assert families(stated) == stated


@pytest.mark.parametrize(
    ("newcomer", "message"),
    [
        (measure(instrument=instrument(take="package.other:take")), "instrument 'wide' of 'wide/rise' is another"),
        (
            measure(instrument=instrument(name="other")),
            "file 'wide.json' of 'wide/rise' is written by 'wide' already",
        ),
    ],
)
def test_an_instrument_in_anothers_way_is_refused(newcomer, message):
    with pytest.raises(ValueError, match=message):
        _check_instrument(newcomer, {"wide/fall": measure(name="wide/fall")})


@pytest.mark.parametrize("newcomer", [measure(), measure(instrument=None), measure(name="size/x", instrument=None)])
@pytest.mark.parametrize("known", [measure(name="wide/fall"), measure(name="size/y", instrument=None)])
def test_one_instrument_takes_several_measures_and_none_takes_the_rest(newcomer, known):
    _check_instrument(newcomer, {known.name: known})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name must"),
        ({"name": 3}, "name must be a string"),
        ({"file": ""}, "file must"),
        ({"file": 3}, "file must be a string"),
        ({"file": "folder/wide.json"}, "file must be the name of a JSON file"),
        ({"file": "wide.csv"}, "file must be the name of a JSON file"),
        ({"file": "record.json"}, "other than record.json"),
        ({"file": "paths.json"}, "other than record.json"),
        ({"take": "no reference"}, "take must"),
        ({"settings": [1]}, "settings must be a mapping, got list"),
    ],
)
def test_an_instrument_that_makes_no_sense_is_refused_by_its_field(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        instrument(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name must be a string"),
        ({"name": "rise"}, "of the form 'place/measure'"),
        ({"name": "/rise"}, "of the form 'place/measure'"),
        ({"name": "wide/"}, "of the form 'place/measure'"),
        ({"name": "narrow/rise"}, "must begin with 'wide', its file"),
        ({"unit": ""}, "unit must"),
        ({"unit": 3}, "unit must be a string"),
        ({"space": "inner"}, "space must be one of"),
        ({"instrument": "wide"}, "instrument must be an Instrument or None, got str"),
    ],
)
def test_a_measure_that_makes_no_sense_is_refused_by_its_field(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        measure(**change)


def test_an_instrument_without_settings_has_none():
    assert instrument().settings == {}
    assert instrument().place == "wide"
    assert "wide/rise" not in MEASURES
