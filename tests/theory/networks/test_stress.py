import math

import numpy as np
import pytest

from theory.networks import stress
from theory.networks.errata import ScalarNetwork, violates


def test_ten_thousand_random_networks_never_violate_the_mended_theorem():
    found = stress.stress(networks=10_000, seed=0)
    assert found.networks == len(found.ratios) == 10_000
    assert found.violations == 0
    # Able to fail: somewhere the bound is within 5 % of the truth, so a bound smaller by a tenth is violated.
    assert 0.95 < found.ratios.max() <= 1 + 1e-9


def test_stress_would_notice_a_bound_that_is_too_small(monkeypatch):
    true_logs = stress._Batch.log_corrections
    monkeypatch.setattr(stress._Batch, "log_corrections", lambda batch: true_logs(batch) + math.log(0.5))
    assert stress.stress(networks=2_000, seed=0).violations > 0


@pytest.mark.parametrize("shifted", [False, True])
def test_directed_search_comes_within_a_factor_of_two(shifted):
    found = stress.tightest(activation="relu", shifted=shifted, chains=16, steps=300)
    assert 0.5 < found.ratio <= 1 + 1e-9
    assert (np.diff(found.course) >= 0).all()


def test_aligned_relu_network_attains_the_bound():
    network = ScalarNetwork(base=(2, 3), update=(1, 1), offsets=(1, 0), point=4)
    # (3 * 4 + 1) * 4 - (2 * 4 + 1) * 3 = 52 - 27; the closed form gives 4 (12 - 6) + 1 (4 - 3) = 25.
    assert network.deviation() == 25
    assert not violates(network, mended=("E1", "E2", "E3"))


@pytest.mark.parametrize("name", list(stress.ACTIVATIONS))
def test_lipschitz_constants_are_upper_bounds_and_tight(name):
    function, constant = stress.ACTIVATIONS[name]
    x = np.linspace(-30, 30, 600_001)
    slopes = np.abs(np.diff(function(x))) / np.diff(x)
    # Secants over 1e-4 miss the steepest slope by far less than 1e-6.
    assert constant * (1 - 1e-6) <= slopes.max() <= constant * (1 + 1e-9)


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match=r"activation must be one of relu, .*got 'swish'"):
        stress.tightest(activation="swish")
