"""Intruders of planted updates are counted, and rated per direction that the update uses."""

import inspect

import numpy as np
import pytest
import torch

from analysis.measures import EPSILONS, intruder_measures
from analysis.spectra import LayerUpdate

# Orthonormal bases of W0, values 2 to 1: an update along vector 0 of the base is no intruder; one that lies evenly
# between left vectors 2 and 3 has best cosine 0.7071, one between four has 0.5.
SIZE = 12
LEFT = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
RIGHT = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
BASE = (LEFT * torch.linspace(2, 1, SIZE, dtype=torch.float64)) @ RIGHT.T


def update(name, *members, strength=1000.0):
    """An update of rank 1 along the even sum of some left vectors of W0, at the right vector of the first."""
    left = LEFT[:, list(members)].sum(dim=1, keepdim=True) / len(members) ** 0.5
    return LayerUpdate(name=name, base=BASE, left=strength * left, right=RIGHT[:, members[0] : members[0] + 1].T)


def test_planted_intruders_are_counted_below_their_cosine():
    updates = [update("aligned", 0), update("half", 2, 3), update("quarter", 4, 5, 6, 7)]
    found = intruder_measures(updates, epsilon=0.6, count=1)
    assert found["authors"] == found["authors_low"] == found["authors_high"] == 1
    assert found["paper_low"] <= found["paper"] <= found["paper_high"]
    assert intruder_measures(updates, epsilon=0.75, count=1)["authors"] == 2
    assert intruder_measures(updates, epsilon=0.45, count=1)["authors"] == 0
    # Rank one each: one direction, so the rates are the sums.
    assert found["effective_rank"] == pytest.approx(1.0)
    assert found["stable_rank"] == pytest.approx(1.0)
    assert found["authors_per_direction"] == pytest.approx(1.0)
    assert found["paper_per_direction"] == pytest.approx(found["paper"])


def test_curves_run_over_fifty_thresholds_and_pass_through_the_count():
    assert pytest.approx(np.arange(1, 51) / 50) == EPSILONS
    updates = [update("half", 2, 3), update("quarter", 4, 5, 6, 7)]
    found = intruder_measures(updates)
    at_half = int(np.flatnonzero(np.isclose(EPSILONS, 0.5))[0])
    assert len(found["curve"]) == len(found["curve_low"]) == len(found["curve_high"]) == 50
    assert found["curve"] == sorted(found["curve"])
    assert found["curve"][at_half] == found["paper"]
    assert all(a <= b <= c for a, b, c in zip(found["curve_low"], found["curve"], found["curve_high"], strict=True))
    assert found["curve_high"][-1] == 2 * SIZE


def test_two_even_directions_halve_the_rate():
    two = LayerUpdate(
        name="two", base=BASE, left=1000 * LEFT[:, [0, 1]], right=RIGHT[:, [0, 1]].T
    )  # fmt: skip
    mixed = update("mixed", 4, 5, 6, 7)
    found = intruder_measures([two, mixed], epsilon=0.6, count=2)
    assert found["effective_rank"] == pytest.approx((2 + 1) / 2)
    assert found["stable_rank"] == pytest.approx((2 + 1) / 2)
    assert found["authors_per_direction"] == pytest.approx(found["authors"] / 1.5)


def test_half_and_ten_vectors_are_the_papers_own():
    given = {name: one.default for name, one in inspect.signature(intruder_measures).parameters.items()}
    assert (given["epsilon"], given["count"]) == (0.5, 10)
    updates = [update("half", 2, 3)]
    found, said = intruder_measures(updates), intruder_measures(updates, epsilon=0.5, count=10)
    assert found == said
