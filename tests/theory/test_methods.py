import pytest

from theory.methods import METHODS, get_method, method_keys


def test_registry_holds_the_eleven_methods_of_the_paper():
    assert len(METHODS) == 11
    assert method_keys() == tuple(method.key for method in METHODS.values())


# Worked by hand for one 4 x 10 layer (n = 4, m = 10), r = 3, k = 2: r (m+n) = 42, r n = 12.
BY_HAND = {
    "fft": 40,
    "lora": 42,
    "lora+": 42,
    "asym": 12,
    "cola": 84,
    "rac": 24,
    "cla": 12,
    "r-cla": 12,
    "c3la": 24,
    "r-c3la": 24,
    "paca": 12,
}


@pytest.mark.parametrize("key", list(METHODS))
def test_numbers_trained_agree_with_the_count_by_hand(key):
    assert METHODS[key].numbers_trained(out_features=4, in_features=10, rank=3, links=2) == BY_HAND[key]


def test_random_variants_cost_what_their_deterministic_ones_cost():
    shape = {"out_features": 6, "in_features": 9, "rank": 2, "links": 4}
    for random, fixed in (("r-cla", "cla"), ("r-c3la", "c3la"), ("paca", "cla"), ("rac", "c3la")):
        assert METHODS[random].numbers_trained(**shape) == METHODS[fixed].numbers_trained(**shape)


def test_only_column_methods_select_columns():
    assert {key for key, method in METHODS.items() if method.selects_columns} == {
        "cla",
        "r-cla",
        "c3la",
        "r-c3la",
        "paca",
    }


def test_unknown_method_is_named_with_the_accepted_ones():
    with pytest.raises(ValueError, match=r"'qlora'.*accepted: fft, lora"):
        get_method("qlora")
    with pytest.raises(TypeError, match=r"method must be a string, got int"):
        get_method(3)
