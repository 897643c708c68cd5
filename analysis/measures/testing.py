"""Checks that come with the package: a test class inherits what every measure must do.

class TestRise(MeasureChecks):
def measure(self):
return WIDE_RISE

def run(self):
return load_run(folder)
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch

from analysis.measures.measure import Measure
from analysis.measures.registry import MEASURES, families, instruments
from analysis.runs import LoadedRun
from theory.registry import resolve

__all__ = ["MeasureChecks"]


class MeasureChecks:
    """What holds for every measure that an instrument takes of a finished run."""

    @abstractmethod
    def measure(self) -> Measure:
        """Return the measure."""

    @abstractmethod
    def run(self) -> LoadedRun:
        """Return a finished run that the measure applies to."""

    def take(self) -> dict[str, float]:
        """Return what the measure's instrument takes of the run."""
        instrument = self.measure().instrument
        assert instrument is not None
        return resolve(instrument.take)(self.run(), instrument.settings)  # type: ignore[operator]

    def test_it_is_registered_with_its_family_and_its_instrument(self) -> None:
        measure = self.measure()
        assert MEASURES[measure.name] == measure
        assert families([measure.name]) == {measure.name: measure.family}
        assert measure.instrument is not None
        assert instruments()[measure.instrument.name] == measure.instrument

    def test_its_instrument_takes_a_finite_number_under_its_name(self) -> None:
        taken = self.take()
        assert math.isfinite(taken[self.measure().name.partition("/")[2]])
        assert all(isinstance(value, (int, float)) for value in taken.values())

    def test_taking_it_twice_gives_the_same_number(self) -> None:
        assert self.take() == self.take()

    def test_the_run_is_left_as_it_was(self) -> None:
        run = self.run()
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        wanted = {name: parameter.requires_grad for name, parameter in run.model.named_parameters()}
        instrument = self.measure().instrument
        assert instrument is not None
        resolve(instrument.take)(run, instrument.settings)  # type: ignore[operator]
        assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
        assert {name: parameter.requires_grad for name, parameter in run.model.named_parameters()} == wanted
        assert all(parameter.grad is None for parameter in run.model.parameters())
