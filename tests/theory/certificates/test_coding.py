"""The coder against the definition of a prefix code, the information it should cost, and altered bytes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.certificates import CodeError, CodeReader, CodeWriter, kraft_sum


def _word(symbols, size):
    writer = CodeWriter()
    writer.adaptive(symbols, size, part="symbols")
    return writer.finish(), writer.bits_by_part()


@given(
    st.integers(2, 9).flatmap(lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), max_size=80)))
)
def test_symbols_come_back_and_cost_their_information(case):
    size, symbols = case
    code, parts = _word(symbols, size)
    reader = CodeReader(code)
    assert reader.adaptive(len(symbols), size).tolist() == symbols
    reader.finish()
    assert sum(parts.values()) == pytest.approx(8 * len(code), abs=1e-9)
    # The interval's width needs its information; a byte-aligned interval inside it under two bytes more.
    assert -1e-9 <= parts["rounding to bytes"] < 16


def test_adaptive_code_stays_near_the_empirical_entropy():
    rng = np.random.default_rng(0)
    symbols = rng.choice(3, p=[0.1, 0.8, 0.1], size=2000)
    code, _ = _word(symbols, 3)
    shares = np.bincount(symbols, minlength=3) / 2000
    entropy = -2000 * float(shares @ np.log2(shares))
    # Krichevsky-Trofimov: (L - 1)/2 log2 n = 11 bits and a constant of a few bits above the entropy.
    assert entropy <= 8 * len(code) <= entropy + math.log2(2000) + 16


def test_all_words_of_a_message_length_form_a_prefix_code():
    words = [_word(symbols, 3)[0] for symbols in itertools.product(range(3), repeat=6)]
    assert len(set(words)) == 3**6
    assert kraft_sum([8 * len(word) for word in words]) <= 1
    ordered = sorted(words)
    assert not any(after.startswith(before) for before, after in itertools.pairwise(ordered))


@given(st.data())
def test_subsets_come_back_and_cost_log2_of_their_number(data):
    size = data.draw(st.integers(1, 60))
    members = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    writer = CodeWriter()
    writer.subset(members, size, part="pivots")
    reader = CodeReader(writer.finish())
    assert reader.subset(len(members), size) == members
    reader.finish()
    assert writer.bits_by_part()["pivots"] == pytest.approx(math.log2(math.comb(size, len(members))), abs=1e-9)


def test_every_subset_has_its_own_index():
    codes = set()
    for members in itertools.combinations(range(7), 3):
        writer = CodeWriter()
        writer.subset(members, 7, part="pivots")
        codes.add(writer._low)
    assert codes == set(range(35))


@pytest.mark.parametrize("value", [0.0, -1.5, 6e-8, 65504.0])
def test_half_precision_levels_come_back_exactly(value):
    value = float(np.float16(value))
    writer = CodeWriter()
    writer.half(value, part="levels")
    reader = CodeReader(writer.finish())
    assert reader.half() == value
    reader.finish()
    assert len(writer.finish()) <= 3


def test_no_altered_code_word_decodes_to_the_same_message():
    symbols = np.random.default_rng(1).integers(0, 5, size=60)
    code, _ = _word(symbols, 5)
    altered = [code[:-1], code + b"\0", code[1:], b""]
    altered += [bytes([*code[:i], code[i] ^ (1 << bit), *code[i + 1 :]]) for i in range(len(code)) for bit in range(8)]
    for word in altered:
        reader = CodeReader(word)
        found = reader.adaptive(60, 5)
        try:
            reader.finish()
        except CodeError:
            continue
        assert found.tolist() != symbols.tolist()


def test_truncated_and_padded_codes_are_rejected():
    code, _ = _word(np.random.default_rng(2).integers(0, 5, size=60), 5)
    for word in (code[:-1], code[: len(code) // 2], code + b"\0", b""):
        reader = CodeReader(word)
        reader.adaptive(60, 5)
        with pytest.raises(CodeError, match="no code word"):
            reader.finish()


def test_bad_input_is_refused():
    writer = CodeWriter()
    with pytest.raises(ValueError, match="value must be an integer"):
        writer.uniform(6, 6, part="x")
    with pytest.raises(ValueError, match="symbol"):
        writer.adaptive([3], 3, part="x")
    with pytest.raises(ValueError, match="value must be a finite"):
        writer.half(0.1, part="x")
    with pytest.raises(ValueError, match="value must be a finite"):
        writer.half(float("nan"), part="x")
    with pytest.raises(ValueError, match="distinct"):
        writer.subset([1, 1], 4, part="x")
    with pytest.raises(TypeError, match="bytes"):
        CodeReader("abc")
