"""Levels against exhaustive search, the gauge against its definition, the code book bit for bit."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.certificates import CodeError, Grid, decode_subspace, encode_subspace, fit_levels, fix_gauge, nearest
from theory.certificates.codebook import STANDARD_GRID, GroupCode, SubspaceCode
from theory.certificates.quantize import uniform_levels

GRID = Grid(
    {
        "method": ("cla", "lora"),
        "adapter_numbers": (0, 3, 40),
        "head_numbers": (0, 5),
        "quantizer": ("uniform", "learned"),
        "levels": (2, 3, 5),
    }
)


def _error(values, levels):
    return np.square(values - levels[nearest(values, levels)]).sum()


def test_learned_levels_reach_the_best_split_of_few_numbers():
    values = np.array([-2.0, -1.9, 0.1, 0.2, 0.3, 4.0, 4.1])
    best = min(
        sum(np.square(part - part.mean()).sum() for part in np.split(values, cuts))
        for cuts in itertools.combinations(range(1, 7), 2)
    )
    levels, code = fit_levels(values, 3, quantizer="learned")
    assert code is None
    # 16-bit rounding of a level near 4 moves it by at most 2e-3, squared and summed over two numbers.
    assert _error(values, levels) <= best + 1e-5


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=60), st.sampled_from([2, 3, 4, 8]))
def test_uniform_levels_are_the_best_of_all_steps(values, count):
    values = np.array(values)
    levels, code = fit_levels(values, count)
    assert np.array_equal(levels, uniform_levels(count, step_code=code))
    assert _error(values, levels) <= min(_error(values, uniform_levels(count, step_code=c)) for c in range(64)) + 1e-12


def test_learned_levels_beat_uniform_ones_on_skewed_numbers():
    values = np.random.default_rng(0).exponential(size=2000)
    errors = [_error(values, fit_levels(values, 4, quantizer=kind)[0]) for kind in ("learned", "uniform")]
    assert errors[0] < 0.5 * errors[1]


@given(st.integers(1, 4), st.integers(0, 1000))
def test_gauge_keeps_the_update_and_does_not_depend_on_the_factors(rank, seed):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((6, rank)), rng.standard_normal((rank, 7))
    mix = np.eye(rank) + 0.3 * rng.standard_normal((rank, rank)) / rank
    gauge, other = fix_gauge(left, right), fix_gauge(left @ mix, np.linalg.solve(mix, right))
    # Float64 with condition numbers below about 1e4.
    np.testing.assert_allclose(gauge.left @ gauge.right, left @ right, atol=1e-9)
    assert np.array_equal(gauge.right[:, gauge.pivots], np.eye(rank))
    if np.array_equal(gauge.pivots, other.pivots):
        np.testing.assert_allclose(gauge.right, other.right, atol=1e-8)
        np.testing.assert_allclose(gauge.left, other.left, atol=1e-8)


def test_gauge_pivots_are_those_of_the_update_in_most_mixings():
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((8, 3)), rng.standard_normal((3, 12))
    gauge = fix_gauge(left, right)
    np.testing.assert_allclose(gauge.left, (left @ right)[:, gauge.pivots], atol=1e-12)


def _code(choice, seed=0):
    rng, groups = np.random.default_rng(seed), {}
    for group in ("adapter", "head"):
        count = choice[f"{group}_numbers"]
        levels, step_code = fit_levels(rng.standard_normal(50), choice["levels"], quantizer=choice["quantizer"])
        if count:
            groups[group] = GroupCode(levels, rng.integers(0, choice["levels"], size=count), step_code)
    return SubspaceCode(choice, groups)


@pytest.mark.parametrize(
    "choice", [dict(zip(GRID.options, c, strict=True)) for c in itertools.product(*GRID.options.values())]
)
def test_adapters_come_back_bit_for_bit(choice):
    code = _code(choice)
    word, parts = encode_subspace(code, grid=GRID)
    back = decode_subspace(word, grid=GRID)
    assert back.choice == choice
    assert set(back.groups) == set(code.groups)
    for group, part in code.groups.items():
        assert back.groups[group].values.tobytes() == part.values.tobytes()
    assert parts["choices"] == pytest.approx(GRID.bits, abs=1e-9)
    assert sum(parts.values()) == pytest.approx(8 * len(word), abs=1e-9)
    expected = {"uniform": 6.0, "learned": 16.0 * choice["levels"]}[choice["quantizer"]]
    assert parts.get("levels", 0.0) == pytest.approx(expected * len(code.groups), abs=1e-9)


def test_choices_on_the_standard_grid_cost_their_logarithm():
    assert STANDARD_GRID.bits == pytest.approx(math.log2(math.prod(map(len, STANDARD_GRID.options.values()))))
    assert STANDARD_GRID.bits < 26
    assert Grid(dict(GRID.options)).fingerprint == GRID.fingerprint != STANDARD_GRID.fingerprint


def test_a_code_is_rejected_when_truncated_padded_or_off_the_grid():
    choice = {"method": "lora", "adapter_numbers": 40, "head_numbers": 5, "quantizer": "uniform", "levels": 5}
    word, _ = encode_subspace(_code(choice), grid=GRID)
    for bad in (word[:-1], word[:1], b"", word + b"\0"):
        with pytest.raises(CodeError):
            decode_subspace(bad, grid=GRID)
    with pytest.raises(ValueError, match="levels must be one of 2, 3, 5"):
        encode_subspace(SubspaceCode({**choice, "levels": 4}, {}), grid=GRID)
    with pytest.raises(ValueError, match="choice must name"):
        encode_subspace(SubspaceCode({"method": "cla"}, {}), grid=GRID)
    with pytest.raises(ValueError, match="adapter must hold 40 numbers"):
        encode_subspace(
            _code({**choice, "adapter_numbers": 3}).__class__(choice, _code({**choice, "adapter_numbers": 3}).groups),
            grid=GRID,
        )


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="finite"):
        fit_levels([1.0, np.nan], 3)
    with pytest.raises(ValueError, match="quantizer"):
        fit_levels([1.0], 3, quantizer="ternary")
    with pytest.raises(ValueError, match="ascend"):
        nearest([0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="rank"):
        fix_gauge(np.ones((3, 2)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="must be"):
        fix_gauge(np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="grid must offer"):
        Grid({"levels": (2,)})
    with pytest.raises(ValueError, match="distinct"):
        Grid({**GRID.options, "levels": (2, 2)})
