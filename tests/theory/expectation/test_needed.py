import math

import pytest

from theory import bounds, layers
from theory.certificates import occam_bound

SHAPES = [(64, 32)] * 3
LLAMA = layers.for_model("llama3-8b")


def cheapest(method, n, **options):
    found = {one.name: one for one in bounds.evaluate(SHAPES, method=method, num_examples=n, **options)}
    return found["cheapest"]


@pytest.mark.parametrize("method", ["cla", "lora", "c3la"])
@pytest.mark.parametrize("target", [1.0, 0.3])
def test_the_examples_needed_are_the_least_at_which_the_bound_is_met(method, target):
    options = {"rank": 3, "bits": 8, "links": 2}
    least = bounds.needed("num_examples", layers=SHAPES, method=method, target=target, **options)
    assert cheapest(method, least, **options).value <= target < cheapest(method, least - 1, **options).value


def test_cheap_lora_on_llama_needs_14_and_a_half_million_examples():
    least = bounds.needed("num_examples", layers=LLAMA, method="cla", rank=16, bits=16)
    # 2 ln2 b / 4 with b = 16 bits x 16 columns x 32 layers x (4096 + 1024) rows.
    assert least == pytest.approx(14.5364e6, rel=1e-4)


def test_bits_and_rank_are_the_most_that_the_examples_pay_for():
    rank = bounds.needed("rank", layers=SHAPES, method="cla", num_examples=8000)
    assert cheapest("cla", 8000, rank=rank).value <= 1 < cheapest("cla", 8000, rank=rank + 1).value
    bits = bounds.needed("bits", layers=SHAPES, method="cla", rank=4, num_examples=8000)
    assert bits == pytest.approx(2 * 8000 / math.log(2) / (64 * 4 * 3), rel=1e-9)
    assert bounds.needed("rank", layers=SHAPES, method="cla", num_examples=2) is None


def test_the_certificate_is_inverted_as_well():
    options = {"rank": 1, "bits": 2, "target": 0.5, "empirical_risk": 0.1}
    least = bounds.needed("num_examples", layers=SHAPES, method="cla", **options)
    total = 64 * 3 * 2
    assert occam_bound(0.1, bits=total, num_examples=least, delta=0.05).value <= 0.5
    assert occam_bound(0.1, bits=total, num_examples=least - 1, delta=0.05).value > 0.5
    with pytest.raises(ValueError, match="empirical_risk must be below target"):
        bounds.needed("num_examples", layers=SHAPES, method="cla", target=0.05, empirical_risk=0.1)
    with pytest.raises(ValueError, match="num_examples must be given where rank is solved for"):
        bounds.needed("rank", layers=SHAPES, method="cla")


def test_a_survey_has_a_row_for_every_point_and_agrees_with_single_bounds():
    frame = bounds.survey(
        SHAPES, method=["cla", "c3la"], num_examples=[100, 10**6], rank=[1, 4], bits=[8, 16], links=[1, 2]
    )
    assert len(frame) == 32
    assert not frame.duplicated(["method", "num_examples", "rank", "bits_per_number", "links"]).any()
    for row in frame.itertuples():
        one = cheapest(row.method, row.num_examples, rank=row.rank, bits=row.bits_per_number, links=row.links)
        assert (row.gap, row.vacuous) == (pytest.approx(one.value), one.vacuous)
