"""The commands of the experiments: what a newcomer types, and one clear line for every mistake."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.commands.main import main
from analysis.plots.information import plot_estimates
from analysis.records import atomic_write_json, frame_of, read_json
from analysis.runs import RunConfig, frame, run, seeds_of
from analysis.tasks import DataOptions
from analysis.tasks.load import _load_task

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")

SMALL = ["--rank", "2", "--epochs", "1", "--num-train", "40", "--num-heldout", "60", "--quiet"]


def test_run_prints_a_line_per_seed_and_the_mean(tmp_path: Path, capsys):
    assert main(["run", "--method", "c3la", "--links", "2", "--seeds", "2", "--folder", str(tmp_path), *SMALL]) == 0
    output = capsys.readouterr().out
    assert output.count("G cross_entropy") == 2
    assert "mean of 2: metric" in output
    assert output.startswith("data: scikit-learn's digits 5-9: 896 rows read, 896 kept\ndata: train: 40 examples\n")
    assert output.count("before training: 2 steps, about ") == 2
    assert len(list(tmp_path.glob("*/record.json"))) == 2


def test_seeds_that_share_a_test_set_say_so_and_draw_their_own_when_asked(tmp_path: Path, trec_folder: Path, capsys):
    words = ["run", "--task", "trec", "--data", str(trec_folder), "--model", "tiny:bert", "--method", "cla",
             "--rank", "1", "--epochs", "1", "--seeds", "2", "--folder", str(tmp_path / "runs"), "--quiet"]  # fmt: skip
    assert main(words) == 0
    assert "all seeds share one held-out set" in capsys.readouterr().out
    assert main([*words, "--split", "seed"]) == 0
    assert "all seeds share one held-out set" not in capsys.readouterr().out


def test_again_keeps_the_old_record_until_the_new_one_is_whole(tmp_path: Path, monkeypatch, capsys):
    words = ["run", "--method", "cla", "--folder", str(tmp_path), *SMALL]
    assert main(words) == 0
    (path,) = tmp_path.glob("*/record.json")
    first = read_json(path)

    def torn(*args, **kwargs):
        assert read_json(path) == first
        raise ArithmeticError("torn")

    with monkeypatch.context() as patch:
        patch.setattr("analysis.runs.finetune._measure", torn)
        assert main([*words, "--again"]) == 1
    assert read_json(path) == first
    assert main([*words, "--again"]) == 0
    again = read_json(path)
    assert again["timing"] != first["timing"]
    assert again["metrics"] == first["metrics"]
    assert [item.name for item in tmp_path.iterdir()] == [path.parent.name]


def test_collect_reports_a_corrupt_record_and_goes_on_when_asked(tmp_path: Path, capsys):
    assert main(["run", "--method", "cla", "--folder", str(tmp_path), *SMALL]) == 0
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "record.json").write_text("{")
    assert main(["collect", str(tmp_path)]) == 2
    assert "torn/record.json" in capsys.readouterr().err
    assert main(["collect", str(tmp_path), "--skip-corrupt"]) == 0
    output = capsys.readouterr()
    assert "left out: record" in output.err
    assert "gap_zero_one" in output.out


def test_a_recorded_command_makes_the_same_run_again(tmp_path: Path):
    assert main(["run", "--method", "cla", "--folder", str(tmp_path / "a"), *SMALL]) == 0
    (path,) = (tmp_path / "a").glob("*/record.json")
    words = read_json(path)["provenance"]["command"].split()
    assert words[:4] == ["python", "-m", "analysis", "run"]
    assert main([*words[3:], "--folder", str(tmp_path / "b"), "--quiet"]) == 0
    (again,) = (tmp_path / "b").glob("*/record.json")
    assert again.parent.name == path.parent.name
    assert read_json(again)["metrics"] == read_json(path)["metrics"]


def test_sweep_is_listed_run_resumed_and_collected(tmp_path: Path, capsys):
    folder = str(tmp_path / "runs")
    grid = ["sweep", "--methods", "fft", "cla", "c3la", "--ranks", "1,2", "--seeds", "2", "--folder", folder,
            "--epochs", "2", "--num-train", "40", "--num-heldout", "60", "--quiet"]  # fmt: skip
    assert main([*grid, "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert listed.count(" open ") == 10
    assert "10 runs, 10 to do, no finished run yet" in listed
    assert not Path(folder).exists()
    assert main([*grid, "--workers", "2", "--parquet", str(tmp_path / "all.parquet")]) == 0
    assert "10 computed" in capsys.readouterr().out
    assert main(grid) == 0
    assert "10 were there, 0 computed" in capsys.readouterr().out
    result = tmp_path / "digits.json"
    assert main(["collect", folder, "--result", str(result), "--command", "python -m analysis sweep"]) == 0
    assert "gap_cross_entropy" in capsys.readouterr().out
    tables = read_json(result)["tables"]
    assert len(tables["runs"]["rows"]) == 10
    assert len(tables["means"]["rows"]) == 5
    only = ["--methods", "fft", "c3la", "--ranks", "2", "--links", "3"]
    assert main(["collect", folder, *only, "--result", str(result)]) == 0
    kept = read_json(result)["tables"]["runs"]
    assert len(kept["rows"]) == 4
    assert {row[kept["columns"].index("rank")] for row in kept["rows"]} == {2, None}
    assert main(["collect", folder, "--methods", "paca"]) == 2
    assert "no run with method in ['paca']" in capsys.readouterr().err


def test_masks_prints_bounds_beside_the_gap(tmp_path: Path, capsys):
    options = ["--rows", "15", "--masks", "2", "--folder", str(tmp_path), "--output", str(tmp_path / "x.safetensors")]
    assert main(["masks", "--methods", "cla", *options, *SMALL]) == 0
    output = capsys.readouterr().out
    assert output.count(" ld-mi ") == 1
    assert "gap " in output
    assert main(["masks", "--methods", "cla", "fft", *options, *SMALL]) == 2
    assert "the arrays of one configuration, got 2" in capsys.readouterr().err


def test_masks_of_a_grid_become_a_table_that_compare_joins(tmp_path: Path, capsys):
    grid = ["masks", "--methods", "cla", "fft", "c3la", "--ranks", "1,2", "--rows", "12", "--masks", "2"]
    rest = ["--epochs", "3", "--num-train", "40", "--num-heldout", "60", "--quiet", "--folder", str(tmp_path)]
    files = ["--table", str(tmp_path / "information.csv"), "--results", str(tmp_path / "information.json")]
    assert main([*grid, *rest, *files]) == 0
    capsys.readouterr()
    table = pd.read_csv(tmp_path / "information.csv")
    assert list(table.columns) == ["task", "method", "rank", "links", "ld-mi", "e-cmi", "fast-rate", "masked-gap"]
    assert table["method"].tolist() == ["cla", "cla", "fft", "c3la", "c3la"]
    assert table.query("method == 'c3la'")["links"].tolist() == [3, 3]
    result = read_json(tmp_path / "information.json")
    estimates = frame_of(result["tables"]["estimates"])
    assert len(estimates) == 5 * 3
    ld_mi = estimates[estimates["quantity"] == "ld-mi"]
    assert len(ld_mi) == 5
    assert result["provenance"]["command"].endswith("--supersamples 1 --epochs 3 --num-train 40 --num-heldout 60")
    ax = plot_estimates(estimates)
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["bound = gap", "ld-MI"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--method", "dora"], "unknown method 'dora'; accepted: fft, lora"),
        (["run", "--task", "mnist"], "unknown task 'mnist'; accepted: digits"),
        (["run", "--rank", "0"], "rank must be a whole number of at least 1, got 0"),
        (["run", "--rank", "-3"], "rank must be"),
        (["run", "--rank", "100", "--method", "cla"], "100"),
        (["run", "--seeds", "0"], "seeds must be at least 1"),
        (["run", "--task", "trec"], "needs a base model"),
        (["sweep", "--tasks", "digits", "trec"], "needs a base model"),
        (["sweep", "--task", "trec", "--data", "nowhere", "--model", "tiny:bert"], "must be a folder in its publisher"),
        (["sweep", "--task", "trec", "--model", "./nowhere"], "no model folder at './nowhere'"),
        (["sweep", "--task", "trec", "--model", "tiny:nothing"], "unknown tiny model 'nothing'; accepted: tiny:bert"),
        (["sweep", "--task", "custom", "--data", "nowhere.csv", "--model", "tiny:bert"], "no data at 'nowhere.csv'"),
        (["run", "--task", "trec", "--data", "/no/such/folder", "--model", "tiny:bert"], "must be a folder"),
        (["run", "--num-train", "0"], "num_train must be at least 2"),
        (["run", "--num-train", "890"], "num_train of digits must be at most 846"),
        (["run", "--settings", "gpt9"], "unknown settings 'gpt9'"),
        (["run", "--text", "body"], "task 'digits' is bundled and has no columns, got text='body'"),
        (["run", "--target-modules", "nothing"], "nothing"),
        (["sweep", "--methods", "cla", "dora"], "unknown method 'dora'"),
        (["sweep", "--backend", "dask"], "needs its scheduler's address"),
        (["masks", "--rows", "1000"], "rows must lie in 2..100"),
        (["collect", "/no/such/folder"], "no folder of runs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_two(words: list[str], message: str, tmp_path: Path, capsys):
    folder = [] if words[0] == "collect" else ["--folder", str(tmp_path / "runs")]
    assert main([*words, *folder]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize("command", ["collect", "measure", "compare"])
def test_a_folder_that_is_not_there_is_named_before_torch_is_loaded(command: str):
    code = (
        "import sys\nfrom analysis.commands.main import main\n"
        f"status = main(['{command}', '/no/such/folder'])\nsys.exit(10 * ('torch' in sys.modules) + status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no folder of runs at '/no/such/folder'" in done.stderr


def test_a_run_that_fails_is_exit_status_one_and_is_recorded(tmp_path: Path, capsys):
    words = ["run", "--method", "fft", "--learning-rate", "1e30", "--max-grad-norm", "1e30", "--folder", str(tmp_path)]
    assert main([*words, *SMALL[2:], "--epochs", "3"]) == 1
    assert "the training loss is nan at step" in capsys.readouterr().err
    (path,) = tmp_path.glob("*/record.json")
    assert read_json(path)["status"] == "failed"


def test_an_unwritable_folder_is_exit_status_two(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["run", "--folder", str(tmp_path / "file"), *SMALL]) == 2
    assert "cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "sweep", "masks", "collect"])
def test_help_says_what_every_option_is_for(command: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--folder" in capsys.readouterr().out or command == "collect"


def test_runs_made_in_two_ways_are_not_seeds_of_one_another(tmp_path: Path, capsys):
    common = ["run", "--method", "cla", "--seeds", "2", "--folder", str(tmp_path), *SMALL]
    for rate in ("0.001", "0.03"):
        assert main([*common, "--learning-rate", rate]) == 0
    capsys.readouterr()
    assert main(["collect", str(tmp_path), "--csv", str(tmp_path / "all.csv")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("digits")]
    assert [line.split()[5:7] for line in lines] == [["0.0010", "2"], ["0.0300", "2"]]
    assert main(["collect", str(tmp_path), "--result", str(tmp_path / "x.json")]) == 2
    assert "differ in learning_rate" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_neither_a_failed_run_nor_a_renamed_data_folder_is_another_configuration(tmp_path: Path):
    config = RunConfig(method="cla", rank=2, epochs=1, links=1, options=DataOptions(num_train=40, num_heldout=60))
    done = run(config, folder=tmp_path)
    asked = dataclasses.asdict(config) | {"model_name": "digits-vit"}  # as a sweep records what failed
    failed = {"key": "f", "status": "failed", "config": asked, "failure": {"message": "no"}}
    one, again, changed = (
        {**done, "config": done["config"] | {"data": {"name": name, "fingerprint": content}}}
        for name, content in (("a", "1"), ("b", "1"), ("a", "2"))
    )
    assert frame([one, again])["variant"].nunique() == 1
    assert frame([one, failed])["variant"].nunique() == 2
    usual = seeds_of(frame([one]))
    assert seeds_of(frame([one, again, failed])) == usual
    assert seeds_of(frame([one, changed])) == [*usual, "variant"]


def test_quiet_shows_no_bar(tmp_path: Path, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "record.json").write_text('{"status": "done"}')
    words = ["measure", str(tmp_path)]
    assert main(words) == 0
    shown = capsys.readouterr()
    quiet = subprocess.run([sys.executable, "-m", "analysis", *words, "--quiet"], capture_output=True, text=True)
    assert "1 without weights" in shown.out
    assert shown.out == quiet.stdout
    assert "run/s" in shown.err
    assert "run/s" not in quiet.stderr


def test_an_encoder_is_no_causal_lm_and_an_empty_label_no_class(tmp_path: Path, write, capsys):
    write(tmp_path / "lm.csv", "text,target\n" + "".join(f"a{i} b,c{i} d\n" for i in range(20)))
    lm = ["--task", "custom", "--data", str(tmp_path / "lm.csv"), "--kind", "causal-lm", "--text", "text"]
    assert main(["run", *lm, "--label", "target", "--model", "tiny:bert", "--folder", str(tmp_path / "r")]) == 2
    assert "is an encoder" in capsys.readouterr().err
    write(tmp_path / "c.csv", "text,label\n" + "".join(f"word {i},{'' if i == 3 else i % 2}\n" for i in range(20)))
    text = ["--task", "custom", "--data", str(tmp_path / "c.csv"), "--kind", "text-classification", "--text", "text"]
    assert main(["run", *text, "--label", "label", "--model", "tiny:bert", "--folder", str(tmp_path / "r")]) == 2
    assert "the label is empty in c.csv row 4; fill it in" in capsys.readouterr().err


def test_data_is_reported_without_training_and_refused_strictly(tmp_path: Path, write, capsys):
    rows = "".join(f"word {i % 15}\t{'-' if i == 7 else i % 2}\n" for i in range(20))
    path = write(tmp_path / "a.tsv", f"body\tlabel\n{rows}")
    words = ["--task", "custom", "--data", str(path), "--kind", "text-classification", "--text", "body"]
    words += ["--label", "label", "--model", "tiny:bert"]
    assert main(["data", *words]) == 2
    assert "the label is '-' in a.tsv row 8; fill it in" in capsys.readouterr().err
    assert main(["data", *words, "--missing", "drop", "--json", str(tmp_path / "report.json")]) == 0
    shown = capsys.readouterr().out
    assert "a.tsv: 20 rows read, 19 kept, 1 dropped because the label is '-'" in shown
    assert read_json(tmp_path / "report.json")["parts"][0]["first_dropped"] == {"the label is '-'": 8}
    for command in (["data"], ["run", "--folder", str(tmp_path / "runs")]):
        assert main([*command, *words, "--missing", "drop", "--strict"]) == 2
        assert "error: strict: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_data_that_was_edited_under_its_name_and_size_is_not_taken_for_what_was_recorded(tmp_path: Path, write, capsys):
    rows = "".join(f"word {i},{i % 2}\n" for i in range(20))
    words = ["run", "--task", "custom", "--data", str(tmp_path / "a.csv"), "--kind", "text-classification"]
    words += ["--text", "body", "--label", "label", "--model", "tiny:bert", "--epochs", "1", "--quiet"]
    words += ["--folder", str(tmp_path / "r")]
    write(tmp_path / "a.csv", f"body,label\n{rows}")
    assert main(words) == 0
    assert main(words) == 0
    write(tmp_path / "a.csv", f"body,label\n{rows.replace('word 1,1', 'word 1,0')}")
    _load_task.cache_clear()  # as another process would begin
    capsys.readouterr()
    assert main(words) == 2
    assert "was made on other data" in capsys.readouterr().err


def test_a_chain_longer_than_its_run_is_refused_before_training(tmp_path: Path, capsys):
    words = ["run", "--method", "c3la", "--folder", str(tmp_path), *SMALL]
    assert main([*words, "--links", "3"]) == 2
    assert "links=3 needs an optimizer step per link, but 40 examples" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/record.json"))


def test_a_folder_of_runs_is_not_taken_for_a_run(tmp_path: Path, capsys):
    assert main(["run", "--method", "cla", "--folder", str(tmp_path), *SMALL]) == 0
    shown = capsys.readouterr().out
    (record,) = tmp_path.glob("*/record.json")
    assert str(record.parent) in shown
    assert main(["landscape", str(tmp_path), "--out", str(tmp_path / "planes")]) == 2
    assert "is a folder of runs; give one of them" in capsys.readouterr().err


def test_failed_runs_are_counted_in_a_result(tmp_path: Path, capsys):
    assert main(["run", "--method", "cla", "--folder", str(tmp_path / "runs"), *SMALL]) == 0
    (record,) = (tmp_path / "runs").glob("*/record.json")
    failed = {**read_json(record), "status": "failed", "key": "f" * 16, "failure": {"message": "NaN"}}
    failed["config"] = {**failed["config"], "seed": 1}
    atomic_write_json(tmp_path / "runs" / failed["key"] / "record.json", failed)
    capsys.readouterr()
    assert main(["collect", str(tmp_path / "runs"), "--result", str(tmp_path / "x.json")]) == 0
    assert "1 failed runs left out" in capsys.readouterr().err
    values = read_json(tmp_path / "x.json")["values"]
    assert (values["runs"], values["failed"]) == (1, 1)


def test_a_record_that_is_neither_done_nor_failed_is_left_out(tmp_path: Path, capsys):
    assert main(["run", "--method", "cla", "--folder", str(tmp_path / "runs"), *SMALL]) == 0
    atomic_write_json(tmp_path / "runs" / ("0" * 16) / "record.json", {})
    capsys.readouterr()
    for extra in ([], ["--methods", "cla"], ["--failed"]):
        assert main(["collect", str(tmp_path / "runs"), *extra, "--result", str(tmp_path / "x.json")]) == 0
        values = read_json(tmp_path / "x.json")["values"]
        assert (values["runs"], values["failed"]) == (1, 0)
