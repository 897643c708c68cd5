"""Checks that come with the package: a test class inherits them by stating what it tests.

    class TestDora(MethodChecks):
        def method(self):
            return DORA

        def by_hand(self):
            return [((4, 10), 3, 1, 46)]

pytest collects the ``test_`` methods of the subclass. Needs nothing but this package; assertions are plain.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable

import numpy as np

from theory.defaults import BITS
from theory.descriptions import Description
from theory.expectation.rules import Case, Rule
from theory.expectation.shipped import BOUNDS
from theory.expectation.table1 import method_numbers
from theory.methods import METHODS, Method
from theory.networks import Network
from theory.printing.symbolic import at_layers, table1_latex, table1_numbers, table1_typst
from theory.records import UpdateRecord

__all__ = ["BoundChecks", "MethodChecks", "example_record"]

_SHAPES = ((12, 20), (20, 12), (16, 16))


def example_record(*, kind: str, rows: int = 12, columns: int = 20, rank: int = 2, bits: int = BITS) -> UpdateRecord:
    """Return the record of one matrix with both factors trained and every column touched."""
    return UpdateRecord(
        name="layer",
        kind=kind,
        out_features=rows,
        in_features=columns,
        rank=rank,
        links=1,
        numbers_trained=rank * (rows + columns),
        a_trained=True,
        support=list(range(columns)),
        bits=bits,
        side_information_bits=0.0,
        norm_update=0.5,
        norm_base=2.0,
        norm_merged=2.25,
        seed=None,
    )


class MethodChecks:
    """What holds for every method, whatever it trains."""

    @abstractmethod
    def method(self) -> Method:
        """Return the method."""

    @abstractmethod
    def by_hand(self) -> Iterable[tuple[tuple[int, int], int, int, int]]:
        """Return ((rows, columns), rank, links, numbers trained), the last one counted by hand."""

    def test_it_is_registered_under_its_key(self) -> None:
        method = self.method()
        assert METHODS[method.key] == method

    def test_it_trains_what_a_count_by_hand_says(self) -> None:
        worked = list(self.by_hand())
        assert worked
        for (rows, columns), rank, links, numbers in worked:
            counted = self.method().numbers_trained(out_features=rows, in_features=columns, rank=rank, links=links)
            assert counted == numbers

    def test_letters_and_numbers_agree(self) -> None:
        for rank, links in ((1, 1), (3, 2)):
            number = method_numbers(_SHAPES, method=self.method(), rank=rank, links=links)
            assert at_layers(table1_numbers(self.method()), layers=_SHAPES, r=rank, k=links) == number

    def test_its_row_is_in_the_printed_tables(self) -> None:
        assert self.method().name in table1_latex()
        assert self.method().name in table1_typst()

    def test_more_rank_or_links_never_train_fewer_numbers(self) -> None:
        for shape in _SHAPES:
            counts = [method_numbers([shape], method=self.method(), rank=rank, links=2) for rank in (1, 2, 4)]
            assert counts == sorted(counts)
            assert counts[0] > 0
            once = method_numbers([shape], method=self.method(), rank=2, links=1)
            assert method_numbers([shape], method=self.method(), rank=2, links=3) == (3 if self._chained else 1) * once

    def test_every_description_is_finite_and_grows_with_the_stored_bits(self) -> None:
        applied = []
        for one in self.method().family.descriptions:
            for rows, columns in _SHAPES:
                short, long = (self._length(one, rows, columns, bits) for bits in (8, 16))
                if short is None or long is None:
                    assert short is long
                    continue
                assert 0 < short < long < math.inf, one.name
                applied.append(one.name)
        assert "links" in applied

    def test_side_information_is_counted_by_every_description(self) -> None:
        for one in self.method().family.descriptions:
            record = example_record(kind=self.method().family.name)
            without = one.bits(record)
            record["side_information_bits"] = 5.0
            told = one.bits(record)
            if without is not None:
                assert told is not None
                assert math.isclose(told - without, 5.0, rel_tol=1e-9), one.name

    @property
    def _chained(self) -> bool:
        return self.method().chained

    def _length(self, one: Description, rows: int, columns: int, bits: int) -> float | None:
        return one.bits(example_record(kind=self.method().family.name, rows=rows, columns=columns, bits=bits))


class BoundChecks:
    """What holds for every bound."""

    @abstractmethod
    def rule(self) -> Rule:
        """Return the bound."""

    @abstractmethod
    def truths(self) -> Iterable[tuple[Case, float]]:
        """Return cases for which what is bounded is known, or known to be at least some number, with that number."""

    def case(self, *, num_examples: int = 1000, bits: int = BITS) -> Case:
        """Return a case that gives every bound all that it may ask for."""
        record = example_record(kind="factors", bits=bits)
        norms = {"merged_norms": [2.25]}
        return Case(
            records=(record,), num_examples=num_examples, sigma=0.5, loss_range=1.0, loss_change=0.3,
            network=Network(base_norms=[2.0]), update_norms=(0.5,), input_norms=norms, empirical_risk=0.1,
        )  # fmt: skip

    def test_it_is_registered_under_its_name(self) -> None:
        assert BOUNDS[self.rule().name] == self.rule()

    def test_it_yields_what_it_states(self) -> None:
        found = self.rule().bounds(self.case())
        assert found
        for bound in found:
            assert bound.of == self.rule().of
            assert set(self.rule().assumptions) <= set(bound.assumptions)
            assert not math.isnan(bound.value)
            assert bound.value >= 0

    def test_more_examples_never_make_it_larger(self) -> None:
        for sizes in zip(*(self._values(num_examples=n) for n in (10, 100, 1000, 10_000)), strict=True):
            assert np.all(np.diff(sizes) <= 1e-12 * np.abs(sizes[:-1])), sizes

    def test_more_stored_bits_never_make_it_smaller(self) -> None:
        for sizes in zip(*(self._values(bits=bits) for bits in (8, 16, 32)), strict=True):
            assert np.all(np.diff(sizes) >= -1e-12 * np.abs(sizes[:-1])), sizes

    def test_what_it_bounds_never_lies_above_it(self) -> None:
        known = list(self.truths())
        assert known
        for case, truth in known:
            for bound in self.rule().bounds(case):
                assert truth <= bound.value, (bound.name, truth, bound.value)

    def test_a_case_without_what_it_needs_is_no_error(self) -> None:
        bare = Case(records=(example_record(kind="factors"),), num_examples=100, sigma=0.5, loss_range=1.0)
        assert all(bound.of == self.rule().of for bound in self.rule().bounds(bare))

    def _values(self, **changes: int) -> list[float]:
        return [float(bound.value) for bound in self.rule().bounds(self.case(**changes))]
