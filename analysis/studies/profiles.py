"""How much work an experiment does: ``PROFILE=smoke|default|full``, read from ``profiles.toml``."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PROFILES", "Profile", "get_profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Scale of the experiments.

    Attributes:
        name: smoke (continuous integration), default (ten minutes on two cores), full (the paper's grid).
        seeds: number of seeds of a fine-tuning run.
        epochs: epochs of a digits run.
        grid: points per axis of a loss plane.
        repeats: repetitions of a Monte Carlo experiment.
    """

    name: str
    seeds: int
    epochs: int
    grid: int
    repeats: int


_ENTRIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PROFILES: dict[str, Profile] = {name: Profile(name=name, **entry) for name, entry in _ENTRIES.items()}


def get_profile(name: str | None = None) -> Profile:
    """Return a profile by name, or the one that the environment variable PROFILE names.

    Raises:
        ValueError: if there is no such profile.

    >>> get_profile("smoke").seeds
    2
    """
    name = name if name is not None else os.environ.get("PROFILE", "default")
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; accepted: {', '.join(PROFILES)}")
    return PROFILES[name]
