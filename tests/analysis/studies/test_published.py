"""The reference paper's tables: what they hold, and what their order says."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, kendalltau

from analysis.studies.published import bound_order, generalization_error, pair_tests, performance, published_agreement
from theory.methods import METHODS


def test_tables_hold_ten_methods_and_the_printed_rows():
    errors, scores = generalization_error(), performance()
    assert errors.shape == (10, 10)
    assert scores.shape == (20, 10)
    assert set(errors.columns) == set(scores.columns) == set(METHODS) - {"paca"}
    assert errors.loc[("TinyLlama", "CLUTRR"), "lora+"] == 5.48
    assert not errors.isna().any(axis=None)
    assert not scores.isna().any(axis=None)


@pytest.mark.parametrize("links", [1, 2, 3, 6, 30])
def test_bound_order_is_the_order_of_table_one_at_a_real_width(links):
    keys = list(generalization_error().columns)
    width, rank = 4096, 16
    counts = [
        METHODS[key].numbers_trained(out_features=width, in_features=width, rank=rank, links=links) for key in keys
    ]
    short = bound_order(keys, links=links)
    for i, j in combinations(range(len(keys)), 2):
        assert np.sign(short[i] - short[j]) == np.sign(counts[i] - counts[j])


@pytest.mark.parametrize("links", [1, 3])
def test_published_agreement_equals_a_recount_row_by_row(links):
    table = generalization_error()
    result = published_agreement(table, links=links, permutations=9, replicates=50)
    order = bound_order(list(table.columns), links=links)
    agree = decided = 0
    for (_, row), tau in zip(table.iterrows(), result["tau"], strict=True):
        assert tau == pytest.approx(kendalltau(order, row).statistic, abs=1e-14)
        for i, j in combinations(range(len(order)), 2):
            product = (order[i] - order[j]) * (row.iloc[i] - row.iloc[j])
            agree, decided = agree + (product > 0), decided + (product != 0)
    assert (result["concordant"], result["decidable"]) == (agree, decided)


def test_chain_of_three_leaves_the_order_at_a_coin():
    """194 of 379 pairs with full fine-tuning, 146 of 289 without: counted independently from the printed table."""
    table = generalization_error()
    result = published_agreement(table, permutations=999)
    assert (result["concordant"], result["decidable"]) == (194, 379)
    without = published_agreement(table.drop(columns="fft"), permutations=9)
    assert (without["concordant"], without["decidable"]) == (146, 289)
    assert result["low"] < 0 < result["high"]
    assert result["p"] > 0.5
    assert abs(result["mean_tau"]) < result["null_high"]


def test_a_table_ordered_by_the_bounds_is_recognised():
    table = generalization_error()
    order = bound_order(list(table.columns))
    planted = table.copy()
    planted.loc[:, :] = order + np.random.default_rng(0).uniform(0, 0.4, size=table.shape)
    result = published_agreement(planted, permutations=999)
    assert result["concordance"] == 1.0
    assert result["p"] == pytest.approx(1 / 1000)


def test_cla_lies_below_lora_in_eight_of_ten_rows():
    tests = pair_tests(generalization_error()).set_index(["smaller_bound", "larger_bound"])
    row = tests.loc[("cla", "lora")]
    assert (row["agree"], row["rows"]) == (8, 10)
    assert row["p"] == pytest.approx(binomtest(8, 10).pvalue)
    assert row["p"] > 0.1
    assert ("lora", "lora+") not in tests.index


def test_missing_or_foreign_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no published table"):
        generalization_error(tmp_path)
    (tmp_path / "table3_generalization_error.csv").write_text("model,dataset,FFT,DoRA\na,b,1,2\n")
    with pytest.raises(ValueError, match="unknown methods dora"):
        generalization_error(tmp_path)
    with pytest.raises(ValueError, match="links"):
        bound_order(["cla"], links=0)
