"""The shipped checks hold for a measure of the package, and fail where a measure or its instrument is wrong."""

import pytest
import torch

from analysis.measures import MEASURES, Instrument, Measure
from analysis.measures.testing import MeasureChecks

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


@pytest.mark.parametrize("name", ["code/bits"])
class TestShippedMeasures(MeasureChecks):
    @pytest.fixture(autouse=True)
    def _given(self, name, loaded):
        self.name, self.loaded = name, loaded

    def measure(self):
        return MEASURES[self.name]

    def run(self):
        return self.loaded


class _Checked(MeasureChecks):
    def __init__(self, run, take):
        self.loaded = run
        where = f"{__name__}:{take}"
        made = Instrument(name="odd", file="odd.json", take=where)
        self.made = Measure(name="odd/one", family="fit", unit="1", space="whole", instrument=made)

    def measure(self):
        return self.made

    def run(self):
        return self.loaded


_taken = []


def right(run, settings):
    return {"one": 1.0}


def infinite(run, settings):
    return {"one": float("inf")}


def words(run, settings):
    return {"one": 1.0, "beside": "much"}


def another(run, settings):
    _taken.append(run)
    return {"one": float(len(_taken))}


def moves(run, settings):
    next(run.model.parameters()).data += 1
    return {"one": 1.0}


def thaws(run, settings):
    for parameter in run.model.parameters():
        parameter.requires_grad_(True)
    return {"one": 1.0}


def leaves_gradients(run, settings):
    parameter = next(run.model.parameters())
    parameter.grad = torch.zeros_like(parameter)
    return {"one": 1.0}


@pytest.mark.parametrize(
    ("take", "check"),
    [
        ("infinite", "test_its_instrument_takes_a_finite_number_under_its_name"),
        ("words", "test_its_instrument_takes_a_finite_number_under_its_name"),
        ("another", "test_taking_it_twice_gives_the_same_number"),
        ("moves", "test_the_run_is_left_as_it_was"),
        ("thaws", "test_the_run_is_left_as_it_was"),
        ("leaves_gradients", "test_the_run_is_left_as_it_was"),
    ],
)
def test_a_wrong_instrument_fails_the_check(take, check, loaded):
    getattr(_Checked(loaded, "right"), check)()
    with pytest.raises(AssertionError):
        getattr(_Checked(loaded, take), check)()


def test_a_measure_that_nobody_registered_fails_the_check(loaded, monkeypatch):
    with pytest.raises(KeyError, match="odd/one"):
        _Checked(loaded, "right").test_it_is_registered_with_its_family_and_its_instrument()
