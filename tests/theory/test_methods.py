import pytest

from theory.descriptions import LINKS, SUPPORT
from theory.methods import FACTORS, METHODS, Family, Method, get_method, method_keys, register_method


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
    with pytest.raises(TypeError, match=r"method must be a string, got 3"):
        get_method(3)


BODY = {"key": "x", "name": "X", "arxiv": "", "trains": "both", "selector": "gaussian", "family": FACTORS}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"trains": "vectors"}, ValueError, "trains must be one of weight, both, b, none; got 'vectors'"),
        ({"selector": "cols"}, ValueError, "selector must be one of none, gaussian"),
        ({"key": "a b"}, ValueError, "key must be lower-case letters"),
        ({"name": " "}, ValueError, "name must not be empty"),
        ({"family": "factors"}, TypeError, "family must be a Family, got .* of type str"),
        ({"chained": 1}, TypeError, "chained must be True or False, got 1"),
        ({"lr_ratio": 0.0}, ValueError, "lr_ratio must be a finite number above 0"),
        ({"lr_ratio": 2.0, "trains": "b"}, ValueError, "lr_ratio must be 1 where trains is 'b'"),
        ({"selector": "none"}, ValueError, "selector must say where A comes from"),
        ({"trains": "weight"}, ValueError, "selector must be 'none' and chained False where trains is 'weight'"),
        ({"trains": "none"}, ValueError, "beside must count what is trained"),
        ({"selector": "window"}, ValueError, "selector 'window' does not go with family 'factors'"),
        ({"in_place": True}, ValueError, "in_place must be False"),
        ({"beside": 3}, TypeError, "beside must be a function"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        Method(**BODY | change)


def test_what_is_trained_beside_the_matrices_counts_once_a_link():
    method = Method(**BODY | {"chained": True, "beside": lambda *, out_features, in_features, rank: out_features})
    assert method.numbers_trained(out_features=4, in_features=10, rank=3, links=2) == 2 * (3 * 14 + 4)


def test_two_families_of_one_name_are_refused():
    other = Family(name="factors", hooks="somewhere.else:HOOKS", descriptions=(LINKS,))
    with pytest.raises(ValueError, match="family 'factors' of method 'x' is another than that of 'lora'"):
        register_method(Method(**BODY | {"family": other}))
    assert "x" not in METHODS


def test_a_family_must_state_how_all_that_was_trained_is_described():
    with pytest.raises(ValueError, match="'links' among them; got support"):
        Family(name="f", hooks="a.b:c", descriptions=(SUPPORT,))
    with pytest.raises(ValueError, match=r"hooks must be of the form 'package.module:object', got 'a.b'"):
        Family(name="f", hooks="a.b", descriptions=(LINKS,))
