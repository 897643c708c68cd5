import json

import matplotlib as mpl
import numpy as np
import pytest

from analysis.commands import bounds as command
from analysis.commands import main as cli
from analysis.studies import table1 as bound_grid
from theory import layers
from theory.layers import MODELS
from theory.methods import METHODS

mpl.use("agg")


@pytest.fixture(scope="module")
def found():
    return bound_grid.result(networks=300, steps=5)


def test_every_model_of_the_paper_and_every_pair_of_its_tables_is_there():
    pairs = bound_grid.paper_pairs()
    assert {model for model, _, _ in pairs} == set(MODELS)
    assert len(pairs) == len(set(pairs)) == 22
    assert ("deepseek-coder-1.3b", "DJANGO", 16_000) in pairs


def test_grid_holds_every_method_and_marks_what_is_vacuous(found):
    frame = bound_grid.table1_frame()
    assert len(frame) == 22 * len(METHODS)
    assert (frame["vacuous"] == (frame["value"] >= 1)).all()
    one = frame.set_index(["model", "dataset", "method"]).loc[("roberta-base", "MRPC", "lora")]
    assert round(one["value"], 1) == 29.9
    assert found["values"]["entries"] == len(frame)
    row = next(row for row in found["tables"]["table1"]["rows"] if row[:2] == ["RoBERTa-Base", "MRPC"])
    assert row[2:] == [3668, "146.3*", "29.9*", "21.1*", "51.7*", "36.6*"]


def test_small_adapters_are_not_marked():
    frame = bound_grid.table1_frame(rank=1, bits=0.1, links=1)
    assert 0 < (~frame["vacuous"]).sum() < len(frame)


def test_errata_table_shows_true_values_above_the_typeset_bound(found):
    table = found["tables"]["errata"]
    true, typeset, mended = (table["columns"].index(name) for name in ("true", "as typeset", "mended"))
    shown = [row for row in table["rows"] if row[true] is not None]
    assert len(shown) == 3
    for row in shown:
        assert row[typeset] < row[true] <= row[mended]


def test_beyond_table_never_exceeds_the_direct_count(found):
    columns = found["tables"]["beyond"]["columns"]
    for row in found["tables"]["beyond"]["rows"]:
        cells = dict(zip(columns, row, strict=True))
        assert cells["cheapest"] <= cells["direct"]
        assert cells["table1-root"] < cells["direct"]
        assert cells["excess, D = 0.01"] == pytest.approx(0.02)


def test_command_prints_a_table_and_writes_json_and_csv(tmp_path, capsys):
    arguments = ["bounds", "--model", "gpt2-small", "--method", "cla", "--rank", "1", "--n", "42061"]
    outputs = ["--json", str(tmp_path / "b.json"), "--csv", str(tmp_path / "b.csv"), "--loss-change", "0.01"]
    assert cli.main([*arguments, *outputs]) == 0
    printed = capsys.readouterr().out
    assert "table1-root" in printed
    assert "excess" in printed
    written = json.loads((tmp_path / "b.json").read_text())["bounds"]
    assert {row["bound"] for row in written} == {"table1-root", "direct", "support", "cheapest", "excess"}
    assert (tmp_path / "b.csv").read_text().startswith("method,bound,gap")


def test_command_bounds_what_a_run_really_trained(tmp_path, capsys):
    update = {
        "name": "q",
        "kind": "columns",
        "out_features": 4,
        "in_features": 8,
        "rank": 2,
        "links": 1,
        "numbers_trained": 8,
        "a_trained": False,
        "support": [0, 1],
        "bits": 16,
        "side_information_bits": 0.0,
        "norm_update": 0.1,
        "norm_base": 1.0,
        "norm_merged": 1.0,
        "seed": None,
    }
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"updates": [update]}))
    assert cli.main(["bounds", "--record", str(path), "--n", "1000"]) == 0
    assert "128" in capsys.readouterr().out
    path.write_text(json.dumps({"updates": [{**update, "norm_update": "nan"}]}))
    assert cli.main(["bounds", "--record", str(path), "--n", "1000"]) == 2
    assert "norm_update" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "bert"], "model must be one of"),
        (["--method", "dora"], "unknown method 'dora'"),
        (["--rank", "0"], "rank must be"),
        (["--rank", "4096"], "rank must be at most in_features 768"),
        (["--n", "0"], "num_examples must be"),
        (["--sigma", "-1"], "sigma must be"),
        (["--target-modules", "key_proj"], "matches no layer"),
        (["--record", "missing.json"], "no record at"),
    ],
)
def test_bad_input_ends_in_one_line_and_status_two(arguments, message, capsys):
    assert cli.main(["bounds", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--latex", "--typst"])
def test_command_prints_the_papers_table(flag, capsys):
    assert cli.main(["bounds", flag]) == 0
    assert "r-c3LA" in capsys.readouterr().out


def test_help_says_what_the_command_does():
    assert "bound" in command.HELP


def test_figures_draw_what_they_are_given(found):
    from analysis.plots import bounds as plots

    table = plots.plot_table1(bound_grid.table1_frame())
    assert len(table.get_yticklabels()) == 22
    plots.plot_ratios(**found["series"]["ratios"])
    courses = plots.plot_courses(found["series"]["courses"])
    assert len(courses.get_lines()) == len(found["series"]["courses"]) + 1 == 6
    chain = plots.plot_chain_bits(layers.for_model("vit-tiny"), links=[1, 4, 12, 40])
    counted, cheapest = (np.asarray(line.get_ydata(), dtype=float) for line in chain.get_lines()[:2])
    assert (cheapest <= counted).all()
    assert cheapest[-1] < counted[-1]
    mpl.pyplot.close("all")


def test_the_inverse_table_says_for_every_pair_what_it_would_take():
    frame = bound_grid.needed_frame(methods=("lora", "cla"))
    assert len(frame) == 2 * len(bound_grid.paper_pairs())
    assert (frame["times"] == frame["needed"] / frame["n"]).all()
    row = frame[(frame["model"] == "roberta-base") & (frame["dataset"] == "MRPC") & (frame["method"] == "cla")].iloc[0]
    # The bound is 21.1149 at n = 3,668 and falls as the root: 3,668 x 21.1149^2 examples make it 1.
    assert row["needed"] == pytest.approx(3668 * 21.1149**2, rel=1e-4)
