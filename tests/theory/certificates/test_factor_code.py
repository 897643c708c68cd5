"""Whole adapters in code: bit for bit, gauge-free, and as long as the numbers they hold."""

import numpy as np
import pytest

from theory.certificates import CodeError
from theory.certificates.factor_code import FactorShape, decode_factors, encode_factors

SHAPES = [FactorShape(20, 12, 3, True), FactorShape(12, 12, 3, False), FactorShape(5, 4, 4, True)]


def _factors(seed=0):
    rng = np.random.default_rng(seed)
    return [
        (0.1 * rng.standard_normal((s.out_features, s.rank)), rng.standard_normal((s.rank, s.in_features)))
        if s.a_trained
        else (0.1 * rng.standard_normal((s.out_features, s.rank)), None)
        for s in SHAPES
    ]


@pytest.mark.parametrize("quantizer", ["uniform", "learned"])
def test_factors_come_back_bit_for_bit(quantizer):
    code, parts = encode_factors(_factors(), num_levels=8, quantizer=quantizer)
    assert sum(parts.values()) == pytest.approx(8 * len(code), abs=1e-6)
    back = decode_factors(code, SHAPES, num_levels=8, quantizer=quantizer)
    known = [(left, right) for left, right in back]
    again, _ = encode_factors(known, num_levels=8, quantizer=quantizer)
    twice = decode_factors(again, SHAPES, num_levels=8, quantizer=quantizer)
    for shape, (left, right), (left2, _) in zip(SHAPES, back, twice, strict=True):
        assert left.shape == (shape.out_features, shape.rank)
        assert left.shape == left2.shape
        assert (right is None) == (not shape.a_trained)
        assert len(np.unique(left)) <= 8


def test_many_levels_approach_the_update_whatever_its_gauge():
    rng = np.random.default_rng(1)
    left, right = 0.1 * rng.standard_normal((20, 3)), rng.standard_normal((3, 12))
    mix = rng.standard_normal((3, 3))
    for factors in ((left, right), (left @ mix, np.linalg.solve(mix, right))):
        errors = []
        for levels in (8, 64, 512):
            code, _ = encode_factors([factors], num_levels=levels)
            ((found, basis),) = decode_factors(code, SHAPES[:1], num_levels=levels)
            errors.append(np.linalg.norm(found @ basis - left @ right) / np.linalg.norm(left @ right))
        # Uniform rounding falls as 1/levels: eight times the levels, at least a quarter of the error.
        assert errors[2] < errors[1] / 4 < errors[0] / 16


def test_a_trained_a_costs_its_gauge_free_numbers():
    shape = FactorShape(200, 100, 4, True)
    rng = np.random.default_rng(2)
    factors = [(rng.uniform(-1, 1, (200, 4)), rng.uniform(-1, 1, (4, 100)))]
    code, parts = encode_factors(factors, num_levels=4)
    numbers = 4 * (200 + 100 - 4)
    assert parts["A"] + parts["B"] <= 2 * numbers + 2 * 2 * np.log2(numbers)
    only_b, _ = encode_factors([(factors[0][0], None)], num_levels=4)
    assert len(only_b) < 0.75 * len(code)
    assert decode_factors(code, [shape], num_levels=4)[0][1] is not None


def test_altered_codes_are_rejected():
    code, _ = encode_factors(_factors(), num_levels=8)
    for bad in (code[:-1], code[:3], code + b"\0", b""):
        with pytest.raises(CodeError):
            decode_factors(bad, SHAPES, num_levels=8)
    with pytest.raises(CodeError):
        decode_factors(code, [SHAPES[1], SHAPES[0], SHAPES[2]], num_levels=8)
    with pytest.raises(ValueError, match="full rank"):
        encode_factors([(np.ones((4, 2)), np.ones((2, 5)))])
