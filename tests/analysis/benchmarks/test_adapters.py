"""The adapter benchmark measures what it says: counted bytes and products against hand counts."""

import dataclasses
import functools
import itertools
import warnings
from types import SimpleNamespace

import pytest
import torch

from analysis.benchmarks import adapters
from analysis.benchmarks.adapter_cases import CASES, Setting, attach, base_model, batch
from analysis.benchmarks.adapter_measure import Step, arithmetic, cuda_peak, operator_profile, saved_bytes
from analysis.benchmarks.adapters import grid, measure, measure_in_rounds, merged_inference, profile_difference, run
from analysis.benchmarks.method_comparison import COLUMNS, comparison_record, comparison_table
from analysis.commands.main import main

TINY = Setting(
    hidden=32,
    inner=64,
    layers=2,
    heads=2,
    kv_heads=2,
    vocabulary=64,
    length=8,
    sequences=2,
    rank=4,
    targets="all-linear",
)
TOKENS = TINY.length * TINY.sequences
OUTPUTS = 4 * TINY.hidden + 2 * TINY.inner + TINY.hidden
INPUTS = 6 * TINY.hidden + TINY.inner


@pytest.fixture(scope="module")
def base():
    return base_model(TINY)


def test_columns_save_only_the_selected_inputs(base):
    inputs = batch(TINY)
    floor = saved_bytes(attach(base, "floor", TINY), inputs)
    for key in ("cla", "r-cla"):
        extra = saved_bytes(attach(base, key, TINY), inputs) - floor
        # One fp32 copy of r columns per adapted layer; a random selector also keeps r int64 indices, a buffer.
        assert extra == 7 * TINY.layers * TOKENS * TINY.rank * 4


def test_lora_saves_the_whole_inputs_that_columns_do_not(base):
    inputs = batch(TINY)
    floor, lora, cla = (saved_bytes(attach(base, key, TINY), inputs) for key in ("floor", "lora", "cla"))
    assert lora - floor > 3 * (cla - floor)


def test_products_are_counted_as_the_shapes_say(base):
    inputs = batch(TINY)
    counted = {
        key: arithmetic(Step(attach(base, key, TINY), inputs)) for key in ("floor", "cla", "naive-gather", "lora")
    }
    columns = 3 * 2 * TOKENS * TINY.rank * OUTPUTS * TINY.layers
    assert counted["cla"] - counted["floor"] == columns
    assert counted["naive-gather"] - counted["floor"] == columns
    assert counted["lora"] - counted["floor"] == columns + 3 * 2 * TOKENS * TINY.rank * INPUTS * TINY.layers


def test_folded_columns_leave_one_product_of_three():
    """With at least as many tokens as columns, fp32 columns are folded into a copy of W: only dB is left over."""
    setting = dataclasses.replace(TINY, length=64)
    base, inputs = base_model(setting), batch(setting)
    floor, cla = (arithmetic(Step(attach(base, key, setting), inputs)) for key in ("floor", "cla"))
    assert cla - floor == 2 * setting.length * setting.sequences * TINY.rank * OUTPUTS * TINY.layers


def test_the_naive_gather_is_the_same_function_with_the_same_gradients(base):
    inputs = batch(TINY)
    naive, cla = attach(base, "naive-gather", TINY), attach(base, "cla", TINY)
    pairs = list(
        zip(
            [p for p in naive.parameters() if p.requires_grad],
            [p for p in cla.parameters() if p.requires_grad],
            strict=True,
        )
    )
    assert len(pairs) == 7 * TINY.layers
    generator = torch.Generator().manual_seed(1)
    for one, other in pairs:
        one.data = torch.randn(one.shape, generator=generator) * 0.1
        other.data = one.data.clone()
    losses = [model(**inputs).loss for model in (naive, cla)]
    for loss in losses:
        loss.backward()
    # fp32, two orders of summation.
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for one, other in pairs:
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # SHiRA's own sparse tensor
def test_every_case_trains_what_its_title_says(base):
    trained = {}
    for key in CASES:
        model = attach(base, key, TINY)
        Step(model, batch(TINY))()
        trained[key] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    per_layer = TINY.rank * OUTPUTS * TINY.layers
    assert trained["floor"] == 0
    assert trained["cla"] == trained["r-cla"] == trained["c3la"] == trained["naive-gather"] == per_layer
    assert trained["lora-frozen-a"] == trained["miss"] == per_layer
    assert trained["lora"] == per_layer + TINY.rank * INPUTS * TINY.layers
    assert trained["fft"] == sum(p.numel() for p in base.parameters())


@pytest.mark.parametrize("measurement", [measure, measure_in_rounds])
def test_measurements_are_relative_to_the_floor(measurement, monkeypatch):
    # A clock that goes on by one at each reading: a step is one second if it alone lies between two readings.
    readings = itertools.count()
    tick = functools.partial(next, readings)
    monkeypatch.setattr(adapters, "time", SimpleNamespace(process_time=tick, perf_counter=tick))
    amount = {"repeats": 2} if measurement is measure else {"rounds": 2, "steps": 1}
    rows = measurement(TINY, cases=("floor", "lora", "cla"), progress=False, **amount)
    assert rows["floor"]["arithmetic_ratio"] == 1.0
    assert all(row["seconds"] == row["step_ratio"] == 1.0 for row in rows.values())
    assert rows["floor"]["adapter_saved_bytes"] == 0
    assert rows["cla"]["adapter_saved_bytes"] < rows["lora"]["adapter_saved_bytes"]
    assert rows["cla"]["arithmetic_ratio"] < rows["lora"]["arithmetic_ratio"]
    assert all(row["peak_bytes"] is None for row in rows.values())


def test_merged_model_is_the_base_architecture_and_is_timed_against_it():
    rows = merged_inference(TINY, repeats=1, progress=False)
    assert set(rows) == {"base", "cla", "cla-merged", "lora"}
    assert rows["base"]["speedup"] == 1.0


def test_profile_says_where_columns_spend_what_the_floor_does_not():
    table = profile_difference(TINY, steps=1, rows=10_000)  # all of them: the first by time differ from call to call
    rows = {row[0]: row for row in table["rows"]}
    assert table["rows"][0][0] == "total"
    assert rows["aten::addmm_"][4] == 0
    assert rows["aten::addmm_"][5] == 2 * 7 * TINY.layers
    assert operator_profile(Step(base_model(TINY), batch(TINY)), steps=1)["aten::mm"][1] > 0


def test_grid_covers_targets_lengths_and_types_and_cpu_has_no_device_peak(base):
    assert len({setting.name for setting in grid()}) == 8
    assert {setting.targets for setting in grid(quick=True)} == {"all-linear", "q,v"}
    assert cuda_peak(Step(attach(base, "cla", TINY), batch(TINY))) is None


def test_records_have_every_field_that_pefts_comparison_reads():
    row = {"seconds": 0.1, "trained": 5, "peak_bytes": None}
    records = [comparison_record(TINY, key, row, repeats=3) for key in ("cla", "lora", "fft")]
    assert comparison_record(TINY, "floor", row, repeats=3) is None
    for record in records:
        assert record["train_info"]["status"] == "success"
        assert record["train_info"]["file_size"] > 0
        assert record["train_info"]["metrics"][-1]["test accuracy"] is None
    assert records[0]["run_info"]["peft_config"]["peft_type"] == "BEYOND_COLUMN"
    assert records[2]["run_info"]["peft_config"] is None
    table = comparison_table(records)
    assert tuple(table["columns"]) == COLUMNS
    assert len(COLUMNS) == 27


def test_bfloat16_keeps_the_trained_factors_in_fp32():
    setting = dataclasses.replace(TINY, dtype="bfloat16", targets="q,v")
    model = attach(base_model(setting), "cla", setting)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "adapters", "--repeats", "0"], "--repeats"),
        (["bench", "landscape", "--gpu"], "belong to the topic adapters"),
    ],
)
def test_command_refuses_what_cannot_be_run(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_gpu_is_not_made_up():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with warnings.catch_warnings(), pytest.raises(ValueError, match="torch sees none"):
        run(gpu=True)
    with pytest.raises(ValueError, match="floor"):
        measure_in_rounds(TINY, cases=("cla",))
    with pytest.raises(ValueError, match="unknown case"):
        attach(torch.nn.Linear(1, 1), "dora2", TINY)
