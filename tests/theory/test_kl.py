"""kl and its inverses against fifty-digit arithmetic and their definitions."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.kl import binary_kl, kl_lower, kl_upper

means = st.floats(0, 1)
budgets = st.floats(0, 50)


def _exact_upper(q, budget):
    with mpmath.workdps(50):
        q = mpmath.mpf(q)

        def spent(p):
            if p == 1:
                return mpmath.inf
            return (q * mpmath.log(q / p) if q else 0) + (1 - q) * mpmath.log((1 - q) / (1 - p))

        low, high = q, mpmath.mpf(1)
        for _ in range(160):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(middle) < budget else (low, middle)
        return high


@pytest.mark.parametrize("q", [0.0, 1e-9, 0.003, 0.1, 0.5, 0.97, 1 - 1e-9])
@pytest.mark.parametrize("budget", [1e-18, 1e-9, 1e-4, 0.1, 1.0, 20.0])
def test_upper_inverse_agrees_with_fifty_digits_to_1e_12(q, budget):
    exact = _exact_upper(q, budget)
    assert abs(float(kl_upper(q, budget)) - exact) <= 1e-12
    assert abs(float(kl_lower(1 - q, budget)) - (1 - _exact_upper(1 - (1 - q), budget))) <= 1e-12


def test_inverses_are_vectorised_and_broadcast():
    q, budget = np.linspace(0, 1, 7)[:, None], np.array([0.01, 0.1, 1.0])
    upper = kl_upper(q, budget)
    assert upper.shape == (7, 3)
    assert all(upper[i, j] == kl_upper(q[i, 0], budget[j]) for i in range(7) for j in range(3))


@given(means, budgets)
def test_the_inverses_spend_the_budget_or_reach_the_end(q, budget):
    for p in (float(kl_upper(q, budget)), float(kl_lower(q, budget))):
        spent = float(binary_kl(q, p))
        # p is rounded outwards by sixteen units in the last place, which moves kl by up to that over min(p, 1 - p).
        slack = 1e-9 + 5e-15 / max(min(p, 1 - p), 1e-300)
        assert p in (0.0, 1.0) or abs(spent - budget) <= slack or spent == np.inf


@given(means, means, budgets, budgets)
def test_the_upper_inverse_rises_in_both_arguments(q, r, budget, more):
    low, high = sorted((q, r))
    assert kl_upper(low, budget) <= kl_upper(high, budget) + 1e-12
    assert kl_upper(q, min(budget, more)) <= kl_upper(q, max(budget, more)) + 1e-12


@given(means, budgets)
def test_pinsker_is_never_tighter(q, budget):
    assert kl_upper(q, budget) <= q + np.sqrt(budget / 2) + 1e-12


def test_limits():
    assert float(kl_upper(0.25, 0.0)) == 0.25
    assert float(kl_upper(0.25, np.inf)) == 1.0
    assert float(kl_upper(1.0, 0.5)) == 1.0
    assert abs(float(kl_upper(0.0, 0.7)) - (1 - np.exp(-0.7))) <= 1e-15
    assert binary_kl([0, 1, 0.3, 0.3], [0, 1, 0.3, 0.0]).tolist() == [0, 0, 0, np.inf]


@pytest.mark.parametrize(("q", "budget"), [(1.1, 0.1), (-0.1, 0.1), (np.nan, 0.1), (0.5, -1.0), (0.5, np.nan)])
def test_bad_input_is_refused(q, budget):
    with pytest.raises(ValueError, match="must"):
        kl_upper(q, budget)
