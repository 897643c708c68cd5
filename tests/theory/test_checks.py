"""The shipped checks on the eleven methods and on the bounds, and what they must find."""

import math

import pytest

from theory.bounds import BOUNDS, Bound, Case, Rule
from theory.descriptions import LINKS
from theory.methods import FACTORS, METHODS, Family, Method
from theory.testing import BoundChecks, MethodChecks, example_record

# Worked by hand for one 4 x 10 layer (n = 4, m = 10), r = 3, k = 2: r (m+n) = 42, r n = 12.
BY_HAND = {
    "fft": 40, "lora": 42, "lora+": 42, "asym": 12, "cola": 84, "rac": 24, "cla": 12, "r-cla": 12, "c3la": 24,
    "r-c3la": 24, "paca": 12,
}  # fmt: skip


@pytest.mark.parametrize("key", list(BY_HAND))
class TestShippedMethods(MethodChecks):
    @pytest.fixture(autouse=True)
    def _key(self, key):
        self.key = key

    def method(self):
        return METHODS[self.key]

    def by_hand(self):
        return [((4, 10), 3, 2, BY_HAND[self.key])]


@pytest.mark.parametrize("name", BOUNDS)
class TestShippedBounds(BoundChecks):
    @pytest.fixture(autouse=True)
    def _name(self, name):
        self.name = name

    def rule(self):
        return BOUNDS[self.name]

    def truths(self):
        """One bit, kept in full, of n fair coins: the mean gap of the better of two opposite guesses, exactly.

        The loss of guess w on a coin z is 1 for w != z; both guesses have risk 1/2. The algorithm takes the guess that
        errs less, so that the mean gap is 1/2 - E min(K, n - K) / n with K binomial(n, 1/2). Its weight is one bit.
        """
        risk = self.rule().of == "risk"
        for n in (4, 25) if risk else (1, 4, 25):
            smaller = sum(math.comb(n, k) * min(k, n - k) for k in range(n + 1)) / 2**n
            record = example_record(kind="dense", rows=1, columns=1, bits=1)
            record |= {"numbers_trained": 1, "a_trained": False, "support": None, "rank": None}
            seen = smaller / n
            case = Case(
                records=(record,), num_examples=n, sigma=0.5, loss_range=1.0, empirical_risk=seen if risk else None
            )
            yield case, 0.5 if risk else 0.5 - seen


class _Unstated(MethodChecks):
    def method(self):
        return Method(
            key="unstated",
            name="Unstated",
            arxiv="",
            trains="both",
            selector="gaussian",
            family=Family(
                name="unstated",
                hooks="a.b:c",
                descriptions=(LINKS, type(LINKS)(name="free", bits=lambda record: 1.0, why="it is not")),
            ),
        )

    def by_hand(self):
        return [((4, 10), 3, 1, 43)]


@pytest.mark.parametrize("check", ["it_is_registered", "it_trains_what", "its_row_is_in", "every_desc", "side_info"])
def test_a_wrong_method_fails_the_checks(check):
    checks = _Unstated()
    (name,) = (name for name in dir(checks) if name.startswith(f"test_{check}"))
    with pytest.raises((AssertionError, KeyError)):
        getattr(checks, name)()


class _Wrong(BoundChecks):
    """It grows with n, falls with bits, and lies below what it bounds."""

    def rule(self):
        return Rule(
            name="wrong", of="gap", kind="expectation", source="none", assumptions=("mean",), evaluate=self._evaluate
        )

    def _evaluate(self, case):
        value = case.num_examples / case.adapter_bits / 1e6
        yield Bound(name="wrong", value=value, kind="expectation", source="none", assumptions=("mean",))

    def truths(self):
        yield self.case(), 0.1


@pytest.mark.parametrize("check", ["it_is_registered", "more_examples", "more_stored", "what_it_bounds"])
def test_a_wrong_bound_fails_the_checks(check):
    checks = _Wrong()
    (name,) = (name for name in dir(checks) if name.startswith(f"test_{check}"))
    with pytest.raises((AssertionError, KeyError)):
        getattr(checks, name)()


def test_a_bound_that_yields_another_quantity_than_it_states_is_refused():
    def other(case):
        yield Bound(name="b", value=0.1, of="risk", kind="expectation", source="s", assumptions=("mean",))

    rule = Rule(name="b", of="gap", kind="expectation", source="s", assumptions=("mean",), evaluate=other)
    with pytest.raises(ValueError, match="states that it bounds a gap, expectation; it yielded a risk"):
        rule.bounds(_Wrong().case())
    forgetful = Rule(
        name="b", of="gap", kind="expectation", source="s", assumptions=("mean", "stored"),
        evaluate=lambda case: [Bound(name="b", value=0.1, kind="expectation", source="s", assumptions=("mean",))],
    )  # fmt: skip
    with pytest.raises(ValueError, match="without its assumption 'stored'"):
        forgetful.bounds(_Wrong().case())


def test_the_family_of_factors_is_the_one_that_lora_has():
    assert METHODS["lora"].family is FACTORS
