import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.selectors import RULES, blocks_per_round, link_columns, visited_columns

sizes = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(sizes, st.sampled_from(("circulant", "shuffled")), st.integers(0, 5), st.integers(0, 3))
def test_every_round_visits_every_column_exactly_once(size, rule, seed, round_):
    n, r = size
    blocks = blocks_per_round(in_features=n, rank=r)
    links = range(round_ * blocks, (round_ + 1) * blocks)
    visits = [c for k in links for c in link_columns(rule, in_features=n, rank=r, link=k, seed=seed, name="q")]
    assert sorted(visits) == list(range(n))


@given(sizes, st.sampled_from(RULES), st.integers(0, 7), st.integers(0, 5))
def test_a_link_selects_distinct_columns_of_the_layer_and_only_remainders_are_short(size, rule, link, seed):
    n, r = size
    columns = link_columns(rule, in_features=n, rank=r, link=link, seed=seed, name="q")
    assert len(set(columns)) == len(columns)
    assert all(0 <= column < n for column in columns)
    assert len(columns) in (r, n % r or r)


def test_circulant_windows_wrap_around_after_the_remainder_block():
    windows = [link_columns("circulant", in_features=7, rank=3, link=k) for k in range(4)]
    assert windows == [(0, 1, 2), (3, 4, 5), (6,), (0, 1, 2)]


def test_windows_of_the_shuffled_rule_are_the_circulant_ones_in_another_order():
    common = {"in_features": 50, "rank": 4}
    shuffled = [link_columns("shuffled", **common, link=k, seed=3, name="q") for k in range(13)]
    circulant = [link_columns("circulant", **common, link=k) for k in range(13)]
    assert sorted(shuffled) == circulant
    assert shuffled != circulant


def test_the_shuffled_rule_reorders_every_round():
    rounds = [
        tuple(link_columns("shuffled", in_features=64, rank=4, link=16 * t + k, seed=1)[0] for k in range(16))
        for t in range(3)
    ]
    assert len(set(rounds)) == 3


def test_random_columns_follow_seed_and_module_name():
    def pick(seed, name):
        return link_columns("random", in_features=100, rank=10, seed=seed, name=name)

    assert pick(0, "a") == pick(0, "a")
    assert len({pick(0, "a"), pick(1, "a"), pick(0, "b"), pick(1, "b")}) == 4


def test_random_columns_are_uniform():
    # 400 draws of 5 of 20: each column is drawn 100 times in the mean, standard deviation 8.7; 5 sigma either way.
    counts = [0] * 20
    for seed in range(400):
        for column in link_columns("random", in_features=20, rank=5, seed=seed, name="q"):
            counts[column] += 1
    assert max(counts) < 144
    assert min(counts) > 56


def test_random_columns_are_the_ones_saved_adapters_were_trained_with():
    """The stream is part of the saved format: other numbers here would make old adapters load wrong columns."""
    common = {"seed": 5, "name": "layers.0.q_proj"}
    assert link_columns("random", in_features=100, rank=6, **common) == (6, 7, 27, 80, 93, 96)
    starts = [link_columns("shuffled", in_features=10, rank=2, seed=5, name="q", link=k)[0] for k in range(5)]
    assert starts == [6, 0, 4, 2, 8]


def test_visited_columns_are_the_union_in_order_of_first_visit():
    assert visited_columns("circulant", links=2, in_features=5, rank=2) == (0, 1, 2, 3)
    assert visited_columns("circulant", links=9, in_features=5, rank=2) == (0, 1, 2, 3, 4)
    assert visited_columns("window", links=3, in_features=5, rank=2) == (0, 1)
    assert visited_columns("window", links=0, in_features=5, rank=2) == ()


def test_given_columns_are_taken_as_they_are():
    assert link_columns("window", in_features=9, rank=2, link=1, columns=[[0, 4], [8, 3]]) == (8, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 11}, "rank must lie between 1 and in_features=10, got 11"),
        ({"rank": 0}, "rank must lie between 1"),
        ({"rule": "spiral"}, "rule must be one of window, random, circulant, shuffled, got 'spiral'"),
        ({"link": -1}, "link must not be negative, got -1"),
        ({"columns": [[0, 1], [1, 2]]}, "got 1 more than once"),
        ({"columns": [[3, 3]]}, "got 3 more than once"),
        ({"columns": [[0, 10]]}, "between 0 and in_features-1=9, got 10"),
        ({"columns": [[0, 1]], "link": 1}, "names 1 links, but link 1"),
        ({"columns": [[0, 1, 2]]}, "between 1 and rank=2, got 3"),
    ],
)
def test_bad_selections_are_refused(change, message):
    arguments = {"rule": "circulant", "in_features": 10, "rank": 2, **change}
    with pytest.raises(ValueError, match=message):
        link_columns(**arguments)
