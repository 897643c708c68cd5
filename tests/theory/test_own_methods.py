"""Methods that others add: their rows come from what they declare. DoRA, VeRA, LoRA-XS and LoRA-FA as examples."""

import pytest

from theory import bounds, layers
from theory.counting import log2_binomial
from theory.descriptions import LINKS, SUPPORT, Description
from theory.methods import FACTORS, METHODS, Family, Method

SHAPES = [(64, 48)] * 2


def per_row(*, out_features, in_features, rank):
    return out_features


def per_row_and_rank(*, out_features, in_features, rank):
    return out_features + rank


def core(*, out_features, in_features, rank):
    return rank * rank


def gauge_and_lengths(record):
    rank, rows, columns = record["rank"], record["out_features"], record["in_features"]
    return (rank * (rows + columns - rank) + rows) * record["bits"] + log2_binomial(columns, rank)


DORA = Method(
    key="dora", name="DoRA", arxiv="2402.09353", trains="both", selector="gaussian", beside=per_row, family=FACTORS
)
OWN = Method(
    key="dora", name="DoRA", arxiv="2402.09353", trains="both", selector="gaussian", beside=per_row,
    family=Family(
        name="dora", hooks="somewhere.hooks:HOOKS",
        descriptions=(LINKS, SUPPORT, Description(name="gauge-and-lengths", bits=gauge_and_lengths, why="as DoRA is")),
    ),
)  # fmt: skip
VECTORS = Family(name="vectors", hooks="somewhere.hooks:HOOKS", descriptions=(LINKS,))
VERA = Method(
    key="vera", name="VeRA", arxiv="2310.11454", trains="none", selector="none", beside=per_row_and_rank, family=VECTORS
)
LORA_XS = Method(
    key="lora-xs", name="LoRA-XS", arxiv="2405.17604", trains="none", selector="none", beside=core, family=VECTORS
)
LORA_FA = Method(key="lora-fa", name="LoRA-FA", arxiv="2308.03303", trains="b", selector="gaussian", family=FACTORS)


@pytest.fixture
def added(monkeypatch):
    """Register methods for one test."""

    def add(*methods):
        monkeypatch.setattr(METHODS, "_found", dict(METHODS.items()))
        for method in methods:
            METHODS.register(method)

    return add


def rows(method, shapes=SHAPES, **options):
    found = bounds.evaluate(shapes, method=method, num_examples=1000, rank=4, **options)
    return {one.name: one.bits for one in found}


def test_what_is_trained_beside_the_factors_is_in_every_row(added):
    added(DORA)
    found = rows("dora")
    trained = 2 * (4 * (64 + 48) + 64)
    fixed = 2 * (4 * (64 + 48 - 4) + 64)
    assert found["table1-root"] == found["direct"] == 16 * trained
    assert found["gauge-fixed"] == pytest.approx(16 * fixed + 2 * log2_binomial(48, 4))
    assert found["cheapest"] == min(found["direct"], found["gauge-fixed"])


def test_a_method_that_states_its_own_descriptions_gets_those_rows_and_no_others(added):
    added(OWN)
    assert set(rows("dora")) == {"table1-root", "direct", "support", "gauge-and-lengths", "cheapest"}


def test_a_family_without_a_merged_description_has_no_support_row_of_its_own(added):
    added(VERA, LORA_XS)
    for method, numbers in ((VERA, 64 + 4), (LORA_XS, 16)):
        found = rows(method.key)
        assert "gauge-fixed" not in found
        assert found["direct"] == found["cheapest"] == 16 * 2 * numbers


def test_vera_on_llama3_is_counted_at_what_it_trains(added):
    added(VERA)
    shapes = layers.for_model("llama3-8b")
    # 32 layers with queries of 4,096 and values of 1,024 rows, one number a row, and r a matrix.
    numbers = 32 * (4096 + 1024) + 64 * 4
    assert rows("vera", shapes)["direct"] == 16 * numbers == pytest.approx(2.6e6, rel=0.02)


def test_lora_with_a_frozen_is_asymmetric_lora_and_has_its_rows(added):
    added(LORA_FA)
    assert rows("lora-fa") == rows("asym")
    assert "gauge-fixed" not in rows("lora-fa")
