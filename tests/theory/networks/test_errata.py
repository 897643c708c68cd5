import pytest

from theory.networks.errata import (
    ERRATA,
    ExactNetwork,
    ScalarNetwork,
    enumerated,
    find_counterexample,
    recursed,
    violates,
)


def test_exponent_as_typeset_loses_the_true_value():
    # E1, by hand: L = 2, a = (10, 0), d = (0, 1): f_W0 = 0, f_(W0+dW)(1) = 10.
    network = ScalarNetwork(base=(10, 0), update=(0, 1), offsets=(0, 0))
    assert network.deviation() == 10
    assert enumerated(network.exact(), mended=())[0] == 0
    assert enumerated(network.exact())[0] == 10


def test_labels_as_typeset_keep_the_path_of_the_base_alone():
    # E2: with no update at all the typeset offset sum is a_2 z_1, the true deviation 0; and the other way round.
    still = ExactNetwork(base_norms=[1, 5], update_norms=[0, 0], lipschitz=[1, 1], offsets=[3, 0], radius=0)
    assert enumerated(still, mended=("E1", "E3"))[0] == 15
    assert enumerated(still)[0] == 0
    moving = ScalarNetwork(base=(0, 0), update=(0, 1), offsets=(1, 0), point=0)
    assert violates(moving, mended=("E1", "E3"))


def test_missing_exclusion_adds_the_last_offset_and_breaks_nothing():
    network = ExactNetwork(base_norms=[2, 3], update_norms=[1, 4], lipschitz=[1, 1], offsets=[5, 7], radius=1)
    assert enumerated(network, mended=("E1", "E2"))[1] - enumerated(network)[1] == 7
    assert enumerated(network)[1] == recursed(network)[1]


def test_search_finds_counterexamples_for_each_of_the_two_that_break_the_theorem():
    for mended in ((), ("E2", "E3"), ("E1", "E3")):
        found = find_counterexample(mended=mended)
        assert found is not None
        assert violates(found, mended=mended)
        assert not violates(found, mended=ERRATA)


def test_minimised_counterexample_cannot_be_made_smaller():
    found = find_counterexample(mended=("E2", "E3"), seed=5)
    assert len(found.base) == 2
    assert sorted(map(abs, found.base + found.update)) == [0, 0, 1, 1]
    assert found.offsets == (0, 0)


@pytest.mark.parametrize("mended", [ERRATA, ("E1", "E2")])
def test_search_finds_nothing_once_the_two_are_mended(mended):
    assert find_counterexample(mended=mended, tries=400, seed=1) is None


def test_unknown_erratum_is_named():
    with pytest.raises(ValueError, match=r"mended must be one of E1, E2, E3; got 'E4'"):
        find_counterexample(mended=("E4",))
    deep = ExactNetwork(base_norms=[1] * 25, update_norms=[1] * 25, lipschitz=[1] * 25, offsets=[0] * 25)
    with pytest.raises(ValueError, match=r"depth must be .* at most 20, got 25"):
        enumerated(deep)
