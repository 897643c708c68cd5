"""What a measure says about itself, and what takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, get_args

from theory.checks import check_choice, check_text
from theory.registry import check_reference

__all__ = ["FAMILIES", "Family", "Instrument", "Measure", "Space"]

Family = Literal["bound", "norm", "sharpness", "curvature", "intruders", "fit", "information", "code"]
Space = Literal["adapter", "merged", "whole"]
FAMILIES: tuple[str, ...] = get_args(Family)


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """What takes measures of a finished run: one file beside the run's record.

    Attributes:
        name: the kind, as ``measure --kinds`` takes it.
        file: name of the file, ``"<place>.json"``; its measures are called ``"<place>/..."``.
        take: a function ``(run, settings) -> {name: number}`` as ``"package.module:function"``; ``run`` is an
            ``analysis.runs.LoadedRun``. Names that are no registered measure are kept beside as uncertainties. None
            for a run that the instrument does not apply to.
        settings: what it is taken with; runs are comparable when theirs are equal.

    Raises:
        TypeError, ValueError: if a field makes no sense; the message names it.
    """

    name: str
    file: str
    take: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_text("file", self.file)
        path = PurePath(self.file)
        if path.name != self.file or path.suffix != ".json" or self.file in ("record.json", "paths.json"):
            raise ValueError(f"file must be the name of a JSON file other than record.json, got {self.file!r}")
        check_reference("take", self.take)
        if not isinstance(self.settings, Mapping):
            raise TypeError(f"settings must be a mapping, got {type(self.settings).__name__}")

    @property
    def place(self) -> str:
        """First part of the names of its measures."""
        return PurePath(self.file).stem


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a finished run that may predict its generalization error.

    Attributes:
        name: ``"<place>/<measure>"``, the column under which it is compared.
        family: ``"bound"``, ``"norm"``, ``"sharpness"``, ``"curvature"``, ``"intruders"``, ``"fit"``,
            ``"information"`` or ``"code"``.
        unit: for readers: ``"nats"``, ``"bits"``, ``"count"``, ``"1"`` ...
        space: what it is measured of: ``"adapter"`` (what the method trains), ``"merged"`` (W0 + dW) or ``"whole"``
            (the trained network or the run).
        instrument: what takes it; None where the run's record holds it, or a table joined to the comparison.

    Raises:
        TypeError, ValueError: if a field makes no sense; the message names it.

    >>> Measure(name="flat/rise", family="flat", unit="nats", space="merged")
    Traceback (most recent call last):
    ValueError: family must be one of bound, norm, sharpness, curvature, intruders, fit, information, code; got 'flat'
    """

    name: str
    family: Family
    unit: str
    space: Space
    instrument: Instrument | None = None

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_choice("family", self.family, FAMILIES)
        check_text("unit", self.unit)
        check_choice("space", self.space, get_args(Space))
        place, slash, rest = self.name.partition("/")
        if not (place and slash and rest):
            raise ValueError(f"name must be of the form 'place/measure', got {self.name!r}")
        if self.instrument is not None and not isinstance(self.instrument, Instrument):
            raise TypeError(f"instrument must be an Instrument or None, got {type(self.instrument).__name__}")
        if self.instrument is not None and self.instrument.place != place:
            raise ValueError(f"name must begin with {self.instrument.place!r}, its file, got {self.name!r}")
