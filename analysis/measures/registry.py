"""The registry of measures: each states what it is, in which unit and of which space, and how it is taken.

How to add one: ``analysis/measures/ADD_A_MEASURE.md``. Imports no torch, so that the command line can name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from analysis.measures.measure import Family, Instrument, Measure, Space
from theory.registry import Registry

__all__ = ["CODE_SETTINGS", "GEOMETRY_SETTINGS", "MEASURES", "families", "instruments", "register"]

GEOMETRY_SETTINGS: dict[str, Any] = {
    "version": 2,
    "examples": 200,
    "curvature_examples": 100,
    "relative_radius": 0.05,
    "sigma": 0.05,
    "ascent_steps": 6,
    "samples": 8,
    "trace_probes": 8,
    "intruder_count": 10,
    "intruder_epsilon": 0.5,
    "seed": 0,
}
"""Fixed, so that runs are comparable; written beside the measures. Version 2 counts intruders in float64."""

CODE_SETTINGS: dict[str, Any] = {
    "version": 2,
    "steps": [4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125],
    "tolerance": 0.01,
    "delta": 0.05,
}
"""Steps over a tensor's root mean square; rise of the training error that a code may cause; failure probability.
Version 2 compares numbers of errors: shares at the limit were decided by the rounding of a sum."""


def _check_instrument(newcomer: Measure, known: Mapping[str, Measure]) -> None:
    """Refuse a second instrument of one name, or two that write one file."""
    made = newcomer.instrument
    for measure in known.values():
        other = measure.instrument
        if made is not None and other is not None and made != other:
            if made.name == other.name:
                raise ValueError(f"instrument {made.name!r} of {newcomer.name!r} is another than {measure.name!r}'s")
            if made.file == other.file:
                raise ValueError(f"file {made.file!r} of {newcomer.name!r} is written by {other.name!r} already")


MEASURES: Registry[Measure] = Registry(
    "measure", group="beyond_lora.measures", accepts=Measure, name=lambda measure: measure.name, check=_check_instrument
)
"""Every measure by name, those of the package first."""

register = MEASURES.register


_GEOMETRY = Instrument(
    name="geometry", file="measures.json", take="analysis.measures.geometry:take", settings=GEOMETRY_SETTINGS
)
_BEST = Instrument(
    name="best",
    file="best.json",
    take="analysis.measures.checkpoints:take",
    settings={name: GEOMETRY_SETTINGS[name] for name in ("version", "intruder_count", "intruder_epsilon")},
)
_CODE = Instrument(name="code", file="code.json", take="analysis.measures.code_length:take", settings=CODE_SETTINGS)


def _add(instrument: Instrument | None, place: str, family: Family, unit: str, space: Space, *names: str) -> None:
    for name in names:
        register(Measure(name=f"{place}/{name}", family=family, unit=unit, space=space, instrument=instrument))


_add(_GEOMETRY, "measures", "sharpness", "nats", "adapter", "sharpness_worst_adapter", "sharpness_mean_adapter")
_add(_GEOMETRY, "measures", "sharpness", "nats", "merged", "sharpness_worst_merged", "sharpness_mean_merged")
_add(_GEOMETRY, "measures", "sharpness", "nats", "merged", "sharpness_expected_merged")
_add(_GEOMETRY, "measures", "curvature", "nats", "adapter", "hessian_top_adapter", "hessian_trace_adapter")
_add(_GEOMETRY, "measures", "curvature", "nats", "merged", "hessian_top_merged", "hessian_trace_merged")
_add(_GEOMETRY, "measures", "intruders", "count", "merged", "intruders_authors", "intruders_paper")
_add(_GEOMETRY, "measures", "intruders", "share", "merged", "intruders_mean_share")
_add(_GEOMETRY, "measures", "norm", "1", "merged", "effective_rank", "stable_rank", "frobenius_ratio")
_add(_BEST, "best", "intruders", "count", "merged", "intruders_authors", "intruders_paper")
_add(_CODE, "code", "code", "bits", "whole", "bits")
_add(_CODE, "code", "code", "0-1 loss", "whole", "bound")

# What a record says itself, or its bounds: logarithms of what is bounded.
_add(None, "bound", "bound", "ln loss", "merged", "table1-root", "direct", "support", "gauge-fixed", "cheapest")
_add(None, "unit-network", "bound", "ln loss", "merged", "table1", "perturbation", "excess-network", "excess-measured")
_add(None, "norm", "norm", "1", "merged", "update_sum", "update_max", "relative_sum", "log_growth", "log_merged")
_add(None, "size", "norm", "count", "whole", "trainable")
_add(None, "run", "norm", "1", "merged", "frobenius_norm_update", "relative_update", "spectral_norm_sum")
_add(None, "run", "norm", "1", "merged", "log_spectral_product")
_add(None, "run", "norm", "count", "adapter", "numbers_trained", "head_numbers_trained", "links")
_add(None, "run", "fit", "nats", "whole", "train_loss")
_add(None, "run", "fit", "0-1 loss", "whole", "train_error")
_add(None, "run", "fit", "logits", "whole", "margin_mean", "margin_q10")

# What a table of the information estimated by retraining joins to the comparison.
_add(None, "information", "information", "0-1 loss", "whole", "ld-mi", "e-cmi", "fast-rate", "masked-gap")


def instruments() -> dict[str, Instrument]:
    """Return the instruments of all measures by name.

    >>> list(instruments())[:3]
    ['geometry', 'best', 'code']
    """
    found = (measure.instrument for measure in MEASURES.values())
    return {instrument.name: instrument for instrument in found if instrument is not None}


def families(names: Iterable[str]) -> dict[str, str]:
    """Return the stated family of each name that is a registered measure; others are left out.

    >>> families(["measures/hessian_top_merged", "measures/traced_tokens"])
    {'measures/hessian_top_merged': 'curvature'}
    """
    return {name: MEASURES[name].family for name in names if name in MEASURES}
