"""How much work an experiment does: ``PROFILE=smoke|default|full``."""

from __future__ import annotations

import os
from dataclasses import dataclass

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


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="smoke", seeds=2, epochs=2, grid=5, repeats=200),
        Profile(name="default", seeds=3, epochs=12, grid=15, repeats=2_000),
        Profile(name="full", seeds=5, epochs=30, grid=25, repeats=20_000),
    )
}


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
