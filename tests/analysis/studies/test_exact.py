"""The tables and the command of the exactly solved models: small runs, whole files, nothing below the truth."""

import matplotlib as mpl
import pytest

from analysis.commands.main import main
from analysis.plots import exact as plots
from analysis.plots import save
from analysis.records import read_json
from analysis.studies import exact

mpl.use("Agg")


def test_command_writes_every_table_and_the_values_of_the_report(tmp_path):
    path = tmp_path / "results" / "exact.json"
    assert main(["exact", "--results", str(path), "--repeats", "20"]) == 0
    record = read_json(path)
    assert set(record["tables"]) >= {"coin", "mean", "rank", "chain", "null", "estimation", "constants"}
    coin = record["tables"]["coin"]
    ratio = coin["columns"].index("ratio")
    assert min(row[ratio] for row in coin["rows"]) >= 1 - 1e-9
    assert record["values"]["exact/coin/377/individual"] == pytest.approx(1.0, abs=1e-3)
    assert record["provenance"]["seeds"] == [0]
    assert [p.name for p in path.parent.iterdir()] == ["exact.json"]


def test_command_refuses_a_single_repeat_in_one_line(tmp_path, capsys):
    assert main(["exact", "--results", str(tmp_path / "exact.json"), "--repeats", "1"]) == 2
    assert "repeats must be" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_tables():
    assert exact.estimation_curve([20, 40], seed=3).equals(exact.estimation_curve([20, 40], seed=3))
    assert not exact.estimation_curve([20, 40], seed=3).equals(exact.estimation_curve([20, 40], seed=4))


def test_three_choices_of_a_agree_in_gap_and_differ_in_information():
    frame = exact.rank_curve([2, 4])
    assert (frame.groupby("rank").gap.std() < 1e-9).all()
    spread = frame.pivot(index="rank", columns="method", values="information")
    assert (spread["cla"] < spread["asym"]).all()
    assert (spread["asym"] < spread["cla-last"]).all()


def test_chain_stops_charging_the_merged_update_once_columns_repeat():
    frame = exact.chain_curve([1, 4, 8], rank=4, in_features=16)
    late = frame[(frame.links == 8) & (frame.method == "c3la")].iloc[0]
    early = frame[(frame.links == 4) & (frame.method == "c3la")].iloc[0]
    assert early.merged == pytest.approx(early.information)
    assert late.merged < 0.7 * late.information
    assert late.distinct == early.distinct


def test_every_figure_draws_and_is_saved_the_same_twice(tmp_path):
    drawn = {
        "tightness": plots.plot_tightness(exact.coin_curve([1, 3, 9])),
        "rates": plots.plot_rates(exact.mean_curve([2, 4], repeats=50)),
        "ranks": plots.plot_ranks(exact.rank_curve([1, 2])),
        "chain": plots.plot_chain(exact.chain_curve([1, 2])),
        "null": plots.plot_null(exact.null_curve([10, 20])),
        "estimation": plots.plot_estimation(exact.estimation_curve([10, 20])),
    }
    for name, ax in drawn.items():
        assert ax.get_xlabel(), name
        assert ax.get_ylabel(), name
        assert save(ax.get_figure(), tmp_path / f"{name}.svg").stat().st_size > 1000
    again = save(plots.plot_chain(exact.chain_curve([1, 2])).get_figure(), tmp_path / "again.svg")
    assert again.read_bytes() == (tmp_path / "chain.svg").read_bytes()
