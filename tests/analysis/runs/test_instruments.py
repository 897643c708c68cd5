"""Steps are timed one by one, and the first two do not count."""

import math
from types import SimpleNamespace

from analysis.runs import instruments
from analysis.runs.instruments import StepClock


def test_seconds_per_step_are_the_median_without_the_first_two(monkeypatch):
    lengths = (50.0, 40.0, 3.0, 1.0, 2.0)
    readings = iter([reading for i, length in enumerate(lengths) for reading in (100.0 * i, 100.0 * i + length)])
    monkeypatch.setattr(instruments, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    clock = StepClock()
    for _ in lengths:
        clock.on_step_begin(None, None, None)
        clock.on_step_end(None, None, None)
    assert clock.seconds == list(lengths)
    assert clock.summary() == {"steps": 5, "seconds_per_step": 2.0}


def test_no_step_has_no_time():
    assert math.isnan(StepClock().summary()["seconds_per_step"])
