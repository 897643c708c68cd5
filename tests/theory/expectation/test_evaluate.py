import math

import pytest

from theory import bounds
from theory.counting import log2_binomial


def record(**changes):
    plain = {
        "name": "layer.0.query",
        "kind": "factors",
        "out_features": 32,
        "in_features": 48,
        "rank": 4,
        "links": 1,
        "numbers_trained": 4 * (32 + 48),
        "a_trained": True,
        "support": None,
        "bits": 16,
        "side_information_bits": 0.0,
        "norm_update": 0.5,
        "norm_base": 2.0,
        "norm_merged": 2.2,
        "seed": 0,
    }
    return {**plain, **changes}


def columns(support, links=1, rank=4, **changes):
    trained = {"numbers_trained": 32 * rank * links, "a_trained": False, "links": links, "rank": rank}
    return record(kind="columns", support=list(support), **trained, **changes)


def bits_of(records, **options):
    frame = bounds.from_update(records, num_examples=1000, **options)
    return dict(zip(frame["bound"], frame["bits"], strict=True))


def test_every_description_is_counted_by_hand():
    found = bits_of([record()])
    assert found["table1-root"] == found["direct"] == 16 * 320
    assert found["support"] == 16 * 32 * 48
    assert found["gauge-fixed"] == pytest.approx(16 * 4 * (32 + 48 - 4) + log2_binomial(48, 4))
    assert found["cheapest"] == min(found["direct"], found["gauge-fixed"])


def test_revisited_columns_make_the_merged_update_cheaper_than_the_links():
    # Five links of four columns that stay on the same eight: 5 x 4 x 32 numbers trained, 8 x 32 in the end.
    found = bits_of([columns(range(8), links=5)])
    assert found["direct"] == 16 * 640
    assert found["support"] == found["cheapest"] == 16 * 256


def test_long_chain_is_never_dearer_than_the_dense_matrix():
    chain = record(links=60, numbers_trained=60 * 320)
    found = bits_of([chain])
    assert found["direct"] > found["cheapest"] == 16 * 32 * 48
    assert "gauge-fixed" not in found


def test_head_side_information_and_choices_are_counted_on_top_of_the_papers_count():
    head = record(name="classifier", kind="head", out_features=6, in_features=48, numbers_trained=6 * 48, rank=None)
    head |= {"a_trained": False, "bits": 32}
    chosen = columns(range(4), side_information_bits=log2_binomial(48, 4))
    found = bits_of([chosen, head], num_choices=8)
    assert found["table1-root"] == 16 * 128
    assert found["direct"] == pytest.approx(16 * 128 + 32 * 288 + log2_binomial(48, 4) + 3)
    assert found["cheapest"] == found["direct"] == found["support"]


def test_records_decide_and_not_the_name():
    """A run that says RAC but trained both factors costs what it trained (the paper's public code does this)."""
    honest = record(name="rac", a_trained=False, links=3, numbers_trained=3 * 4 * 32)
    real = record(name="rac", a_trained=True, links=3, numbers_trained=3 * 320)
    assert bits_of([honest])["direct"] == 16 * 384
    assert bits_of([real])["direct"] == 16 * 960


def test_planned_records_agree_with_records_of_the_same_training():
    planned = bounds.plan([(32, 48)], method="c3la", rank=4, links=3)
    trained = columns(range(12), links=3)
    keys = ("kind", "rank", "links", "numbers_trained", "a_trained", "support", "bits")
    assert {key: planned[0][key] for key in keys} == {key: trained[key] for key in keys}
    direct = next(one for one in bounds.evaluate([(32, 48)], method="c3la", rank=4, links=3, num_examples=1000))
    assert direct.bits == bits_of([trained])["direct"]


@pytest.mark.parametrize(("method", "size"), [("c3la", 10), ("r-c3la", 10), ("cla", 4), ("paca", 4), ("r-cla", 4)])
def test_planned_supports_cover_every_column_once_the_chain_is_round(method, size):
    support = bounds.plan([(3, 10)], method=method, rank=4, links=3, seed=7)[0]["support"]
    assert len(set(support)) == len(support) == size
    assert set(support) <= set(range(10))


def test_network_rows_use_the_measured_norms_and_say_so():
    records = [record(name="a", out_features=8, in_features=8, numbers_trained=64), record(name="b", out_features=8)]
    records[1] |= {"in_features": 8, "numbers_trained": 64}
    network = bounds.Network(base_norms=[2.0, 2.0], radius=0.15, loss_lipschitz=0.5)
    frame = bounds.from_update(records, num_examples=10**6, network=network).set_index("bound")
    assert list(frame.index[-4:]) == ["table1", "perturbation", "excess-network", "excess-measured"]
    # Phi_dW = 2 * 0.5 * 0.15 (2.5^2 - 2^2), Phi_W0 = 0.15 (2.5^2 - 0.5^2).
    assert frame.loc["perturbation", "gap"] == pytest.approx(0.15 * 2.25)
    root = frame.loc["table1-root", "gap"]
    assert frame.loc["table1", "gap"] == pytest.approx(root + 0.15 * 6.0)
    assert frame.loc["perturbation", "measured"] == "norm_update"
    # With |W0 + dW| = 2.2: D = 0.5 * 0.15 (2 * 0.5 + 0.5 * 2.2), where the merged norm replaces 2.5.
    change = 0.5 * 0.15 * (2.0 * 0.5 + 0.5 * 2.2)
    bits = frame.loc["excess-measured", "bits"]
    expected = change * math.sqrt(2 * math.log(2) * bits / 10**6)
    assert frame.loc["excess-measured", "gap"] == pytest.approx(min(expected, 2 * change))
    capped = bounds.from_update(records, num_examples=10**6, network=network, update_norms=0.6).set_index("bound")
    assert capped.loc["perturbation", "measured"] == ""
    assert capped.loc["perturbation", "gap"] > frame.loc["perturbation", "gap"]


def test_measured_inputs_tighten_the_diagnostic_and_are_named():
    records = [record(name=name, out_features=8, in_features=8, numbers_trained=64) for name in "ab"]
    network = bounds.Network(base_norms=[2.0, 2.0], radius=0.15, loss_lipschitz=0.5)
    setting = {"num_examples": 10**6, "network": network}
    loose = {one.name: one for one in bounds.update_bounds(records, **setting)}
    inputs = {"merged_input_norms": [0.15, 0.2], "selected_norms": [0.05, 0.06]}
    tight = {one.name: one for one in bounds.update_bounds(records, input_norms=inputs, **setting)}
    assert tight["excess-measured"].value < loose["excess-measured"].value < loose["excess-network"].value * 1.0001
    assert tight["excess-measured"].measured == ("norm_update", "merged_norms", *inputs)
    # By hand: D = 0.5 (2 * 0.5 * 0.05 + 0.5 * 0.06), times sqrt(2 I / n).
    scale = math.sqrt(2 * math.log(2) * tight["excess-measured"].bits / 10**6)
    assert tight["excess-measured"].value == pytest.approx(0.5 * 0.08 * min(scale, 2))
    with pytest.raises(ValueError, match=r"input_norms must be one of .*; got 'output_norms'"):
        bounds.update_bounds(records, input_norms={"output_norms": [1.0, 1.0]}, **setting)


def test_frame_has_one_row_per_bound_and_the_promised_columns():
    frame = bounds.from_update([record()], num_examples=1000, loss_change=0.01)
    for column in ("bound", "gap", "about", "unit", "kind", "vacuous", "bits", "source", "assumptions"):
        assert column in frame.columns
    assert frame["bound"].is_unique
    assert (frame["kind"] == "expectation").all()
    assert frame.set_index("bound").loc["excess", "gap"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_update": math.nan}, r"norm_update of records\[0\] \('layer.0.query'\) must be .* got nan"),
        ({"norm_base": -1.0}, "norm_base .* got -1.0"),
        ({"norm_merged": math.inf}, "norm_merged .* got inf"),
        ({"in_features": 0}, "in_features .* got 0"),
        ({"links": 0}, "links .* got 0"),
        ({"bits": 0}, "bits .* above 0, got 0"),
        ({"kind": "sparse"}, "kind .* must be one of dense, factors, columns, head; got 'sparse'"),
        ({"kind": "columns", "support": None}, "support .* must list the columns"),
        ({"support": [3, 3]}, "support .* distinct columns in ascending order"),
        ({"support": [3, 48]}, "support .* columns between 0 and 47"),
        ({"numbers_trained": 0}, "numbers_trained .* is 0 although norm_update is 0.5"),
        ({"side_information_bits": -2.0}, "side_information_bits .* got -2.0"),
    ],
)
def test_bad_records_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        bounds.from_update([record(**changes)], num_examples=100)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"records must hold at least one trained matrix"):
        bounds.from_update([], num_examples=100)
    with pytest.raises(ValueError, match=r"records\[0\] must hold every key of UpdateRecord, lacks bits"):
        bounds.from_update([{key: value for key, value in record().items() if key != "bits"}], num_examples=100)
    with pytest.raises(TypeError, match=r"records.0. must be a mapping, got .lora."):
        bounds.from_update(["lora"], num_examples=100)
    with pytest.raises(ValueError, match=r"num_choices must be .* got 0"):
        bounds.from_update([record()], num_examples=100, num_choices=0)
    with pytest.raises(ValueError, match=r"network must have one layer per record, 1; it has 2"):
        bounds.from_update([record()], num_examples=100, network=bounds.Network(base_norms=[1.0, 1.0]))
    with pytest.raises(ValueError, match=r"base_norms must be at least norm_base, got 1.0"):
        bounds.from_update([record()], num_examples=100, network=bounds.Network(base_norms=[1.0]))
    with pytest.raises(ValueError, match=r"update_norms must hold caps, got 0.1 below norm_update"):
        bounds.from_update([record()], num_examples=9, network=bounds.Network(base_norms=[2.0]), update_norms=0.1)
    with pytest.raises(ValueError, match=r"update_norms must hold one cap per layer"):
        bounds.evaluate([(4, 4)], method="fft", num_examples=9, network=bounds.Network(base_norms=[2.0]))
