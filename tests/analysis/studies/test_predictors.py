"""From run records on disk to the agreement table and the verdict."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest

from analysis.commands.main import main
from analysis.records import atomic_write_json, read_json
from analysis.statistics import Comparison
from analysis.studies.claim import compare_task, judge_claim, published_result, result, rival_columns
from analysis.studies.predictors import (
    bound_columns,
    candidates,
    comparison_frame,
    join_measures,
    norm_columns,
    read_runs,
    recorded_frame,
    with_recorded,
)
from analysis.studies.published import generalization_error, performance
from theory.bounds import update_bounds

WIDTH = 16


def update(*, rank, links, base=2.0, change=0.5, name="layer.0", kind="columns"):
    return {
        "name": name,
        "kind": kind,
        "out_features": WIDTH,
        "in_features": WIDTH,
        "rank": rank,
        "links": links,
        "numbers_trained": WIDTH * rank * links,
        "a_trained": False,
        "support": None if kind == "head" else list(range(min(WIDTH, rank * links))),
        "bits": 32,
        "side_information_bits": 0.0,
        "norm_update": change,
        "norm_base": base,
        "norm_merged": base + change / 2,
        "seed": None,
    }


def record(*, method, rank, links, seed, gap, num_train=200):
    links = links if method == "c3la" else 1
    return {
        "schema": 1,
        "key": f"{method}-{rank}-{links}-{seed}",
        "status": "done",
        "config": {"task": "digits", "method": method, "rank": rank, "links": links, "seed": seed},
        "task": {"kind": "image-classification", "num_train": num_train},
        "measures": {"margin_mean": gap * 2 + seed, "links": float(links)},
        "parameters": {"trainable": WIDTH * rank, "total": 1000},
        "metrics": {"accuracy": 0.9, "train_loss": 0.1 + 0.01 * seed},
        "generalization": {
            "cross_entropy": {"value": gap, "low": gap - 0.1, "high": gap + 0.1, "range": [0.0, 4.0]},
            "zero_one": {"value": round(gap / 4, 2), "low": 0.0, "high": 1.0, "range": 1.0},
        },
        "updates": [update(rank=rank, links=links), update(rank=rank, links=1, name="head", kind="head")],
    }


def write_world(folder, *, follow, seed=0):
    """Runs whose gap follows the bound, the sharpness or neither; sharpness and intruders beside them."""
    rng = np.random.default_rng(seed)
    for method, rank, links, run in product(("cla", "c3la"), (1, 2, 4), (2, 3), range(3)):
        if method == "cla" and links != 2:
            continue
        size = rank * (links if method == "c3la" else 1)
        sharpness = rng.uniform(0, 1)
        gap = {"bound": 0.2 * size + 0.01 * rng.normal(), "sharpness": sharpness, "neither": rng.uniform()}[follow]
        done = record(method=method, rank=rank, links=links, seed=run, gap=abs(gap))
        atomic_write_json(folder / done["key"] / "record.json", done)
        measures = {
            "schema": 1,
            "sharpness_worst_adapter": sharpness,
            "sharpness_worst_merged": rng.uniform(),
            "intruders_paper": int(rng.integers(5)),
            "note": "text",
            "effective_rank": rng.uniform(),
            "spectrum": {"values": [1, 2]},
            "traced_tokens": int(rng.integers(5)),
        }
        atomic_write_json(folder / done["key"] / "measures.json", measures)


def test_frame_holds_design_gaps_bounds_norms_and_measures(tmp_path):
    write_world(tmp_path, follow="bound")
    frame = comparison_frame([tmp_path])
    assert len(frame) == 27
    row = frame.loc["c3la-4-3-0"]
    assert (row["method"], row["rank"], row["links"], row["seed"]) == ("c3la", 4, 3, 0)
    assert {"gap/cross_entropy", "gap/zero_one", "measures/intruders_paper", "size/trainable"} <= set(frame.columns)
    assert not {"measures/schema", "measures/note", "measures/spectrum/values"} & set(frame.columns)
    assert "measures/traced_tokens" not in frame.columns
    assert frame.attrs["unstated"] == ["measures/traced_tokens"]
    assert "run/margin_mean" in candidates(frame)
    assert "norm/update_max" not in candidates(frame)


def test_bounds_are_evaluated_from_the_update_with_the_loss_own_range():
    updates = [update(rank=2, links=1), update(rank=2, links=1, name="head", kind="head")]
    columns = bound_columns(updates, num_examples=50, loss_range=4.0)
    for bound in update_bounds(updates, num_examples=50, sigma=2.0, loss_range=4.0):
        assert columns[f"bound/{bound.name}"] == bound.log_value
    # Theorem 1 with one layer, a = 2, d = 1/2, unit constants, counted on the update alone: Phi_dW = 2 ((a + d) - a).
    assert np.exp(columns["unit-network/perturbation"]) == pytest.approx(1.0, rel=1e-12)


def test_norms_are_of_the_adapted_matrices_alone():
    updates = [update(rank=2, links=1), update(rank=2, links=1, change=9.0, name="head", kind="head")]
    columns = norm_columns(updates)
    assert columns["norm/update_sum"] == 0.5
    assert columns["norm/relative_sum"] == 0.25
    assert columns["norm/log_growth"] == pytest.approx(np.log(1.25))
    assert columns["norm/log_merged"] == pytest.approx(np.log(2.25))


def test_measures_of_a_configuration_reach_all_its_seeds(tmp_path):
    write_world(tmp_path / "runs", follow="bound")
    frame = comparison_frame([tmp_path / "runs"])
    table = tmp_path / "information.csv"
    table.write_text("method,rank,links,ld_mi\ncla,1,1,0.25\nc3la,2,3,0.5\n")
    joined = join_measures(frame, table)["information/ld_mi"]
    assert joined.notna().sum() == 6
    assert set(joined[frame["method"] == "cla"].dropna()) == {0.25}
    assert joined.index.equals(frame.index)
    dense = frame.assign(method="fft", rank=WIDTH)  # its rank is the full one, whatever the table calls it
    table.write_text("method,rank,ld_mi\nfft,1,0.75\n")
    assert set(join_measures(dense, table)["information/ld_mi"]) == {0.75}
    assert join_measures(dense, table)["rank"].equals(dense["rank"])
    table.write_text("method,ld_mi\ncla,1\ncla,2\n")
    with pytest.raises(ValueError, match="two rows for one combination of method"):
        join_measures(frame, table)
    with pytest.raises(ValueError, match="no table of measures"):
        join_measures(frame, tmp_path / "missing.csv")


def test_failed_and_repeated_runs_are_told_apart(tmp_path):
    write_world(tmp_path / "a", follow="bound")
    done = read_json(tmp_path / "a" / "cla-1-1-0" / "record.json")
    atomic_write_json(tmp_path / "b" / "again" / "record.json", done)
    atomic_write_json(tmp_path / "b" / "bad" / "record.json", {"status": "failed", "key": "bad", "config": {}})
    runs, failed = read_runs([tmp_path / "a", tmp_path / "b"])
    assert len(runs) == 27
    assert failed == ["bad"]
    assert comparison_frame([tmp_path]).attrs["failed"] == ["bad"]


@pytest.mark.parametrize(("follow", "verdict"), [("bound", "supported"), ("sharpness", "contradicted")])
def test_the_claim_is_decided_for_the_planted_side(tmp_path, follow, verdict):
    write_world(tmp_path, follow=follow)
    frame = comparison_frame([tmp_path])
    comparison = Comparison(target="gap/cross_entropy", axes=("method", "rank", "links"))
    claim = judge_claim(frame, comparison=comparison)
    assert claim["verdict"] == verdict
    assert claim["sentence"].endswith(f"the claim is {verdict}.")
    rivals = {"measures/sharpness_worst_adapter", "measures/sharpness_worst_merged", "measures/intruders_paper"}
    assert set(claim["differences"].index) == rivals


def test_rivals_are_told_by_the_family_they_state_and_never_by_their_name():
    stated = {
        "measures/sam_gap": "sharpness",
        "measures/fisher_norm": "curvature",
        "measures/traced_tokens": "fit",
        "bound/sharpened": "bound",
    }
    assert rival_columns(list(stated), families=stated) == ["measures/sam_gap", "measures/fisher_norm"]
    with pytest.raises(ValueError, match="lacks measures/hessian_like"):
        rival_columns(["measures/hessian_like"], families=stated)


def test_joined_measures_are_of_the_family_that_was_stated(tmp_path):
    write_world(tmp_path / "runs", follow="bound")
    frame = comparison_frame([tmp_path / "runs"])
    table = tmp_path / "information.csv"
    table.write_text("method,ld-mi,flat\ncla,0.25,1\nc3la,0.5,2\n")
    stated = join_measures(frame, table, family="sharpness").attrs["families"]
    assert stated["information/ld-mi"] == "information"  # the registry knows it
    assert stated["information/flat"] == "sharpness"
    with pytest.raises(ValueError, match="family must be one of bound, norm"):
        join_measures(frame, table, family="flat")


def test_a_world_without_rivals_says_so(tmp_path):
    write_world(tmp_path, follow="bound")
    frame = comparison_frame([tmp_path])
    stated = frame.attrs["families"]
    frame = frame.drop(columns=[name for name in stated if stated[name] in ("sharpness", "curvature", "intruders")])
    comparison = Comparison(target="gap/cross_entropy", axes=("method", "rank"))
    assert judge_claim(frame, comparison=comparison)["verdict"] == "no rivals"


def test_compare_task_finds_the_planted_bound(tmp_path):
    write_world(tmp_path, follow="bound")
    table, _ = compare_task(comparison_frame([tmp_path]), loss="cross_entropy", permutations=99)
    assert table.loc["bound/table1-root", "tau_b"] > 0.8
    assert table.loc["bound/table1-root", "q"] < 0.1
    assert abs(table.loc["measures/sharpness_worst_merged", "tau_b"]) < 0.4


def test_result_and_command_write_the_same_tables(tmp_path, capsys):
    write_world(tmp_path / "runs", follow="neither")
    path = tmp_path / "agreement.json"
    words = ["compare", str(tmp_path / "runs"), "--results", str(path), "--permutations", "19", "--worlds", "2"]
    assert main([*words, "--figures", str(tmp_path / "figures")]) == 0
    assert sorted(item.name for item in (tmp_path / "figures").iterdir()) == [
        "digits-cross_entropy.pdf",
        "digits-zero_one.pdf",
    ]
    written = read_json(path)
    again = result(comparison_frame([tmp_path / "runs"]), permutations=19, worlds=2, seed=0)
    assert written["values"]["runs"] == 27
    assert set(written["tables"]) == set(again["tables"])
    assert written["values"]["digits/cross_entropy/sentence"] == again["values"]["digits/cross_entropy/sentence"]
    rows = pd.DataFrame(**{k: written["tables"]["runs"][v] for k, v in (("data", "rows"), ("columns", "columns"))})
    assert rows["key"].is_unique
    printed = capsys.readouterr().out
    assert "the claim is" in printed
    assert "with a power of 0.8 it would see" in printed
    rates = pd.DataFrame(written["tables"]["rates/digits/zero_one"]["rows"]).set_index(0)
    assert rates.index.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert written["values"]["digits/zero_one/null_decided"] == 1 - rates.loc[0.0].iloc[-1]
    assert str(tmp_path) not in json.dumps(written)


def test_runs_of_other_tasks_are_taken_from_an_earlier_comparison(tmp_path, capsys):
    write_world(tmp_path / "old", follow="bound")
    for path in (tmp_path / "old").glob("*/record.json"):
        done = read_json(path)
        atomic_write_json(path, done | {"key": f"t-{done['key']}", "config": done["config"] | {"task": "trec"}})
    table = tmp_path / "information.csv"
    table.write_text("task,method,rank,ld_mi\ntrec,cla,1,0.75\ntrec,cla,2,0.25\n")
    draws = ["--permutations", "9"]
    old, both = tmp_path / "old.json", tmp_path / "both.json"
    assert main(["compare", str(tmp_path / "old"), "--join", str(table), "--results", str(old), *draws]) == 0
    write_world(tmp_path / "new", follow="neither", seed=1)
    table.write_text("task,method,rank,ld_mi\ndigits,cla,1,0.5\ndigits,cla,2,0.125\n")
    words = ["compare", str(tmp_path / "new"), str(old), "--join", str(table), "--results", str(both), *draws]
    assert main(words) == 0
    assert "old.json: 27 runs of trec as recorded there" in capsys.readouterr().out
    assert read_json(both)["provenance"]["notes"][0].startswith("trec: as recorded on ")
    recorded, found = recorded_frame(old), recorded_frame(both)
    assert recorded.attrs["families"]["information/ld_mi"] == "information"
    assert recorded.attrs["families"]["measures/intruders_paper"] == "intruders"
    pd.testing.assert_frame_equal(
        found[found["task"] == "trec"][recorded.columns].sort_index(), recorded.sort_index(), check_dtype=False
    )
    fresh = comparison_frame([tmp_path / "new"])
    fresh = fresh[[name for name in fresh.columns if name in found]]  # a result keeps what varies
    assert {"gap/cross_entropy", "bound/table1-root", "measures/sharpness_worst_merged"} <= set(fresh.columns)
    pd.testing.assert_frame_equal(found.loc[fresh.index, fresh.columns], fresh, check_dtype=False)
    known = found["information/ld_mi"].dropna().groupby(found["task"]).agg(["size", "min", "max"])
    assert known.loc["trec"].tolist() == [6, 0.25, 0.75]
    assert known.loc["digits"].tolist() == [6, 0.125, 0.5]
    with pytest.raises(ValueError, match=r"every task of .*both.json"):
        with_recorded(found, both)
    atomic_write_json(old, {"tables": {}})
    with pytest.raises(ValueError, match="holds no table of runs"):
        recorded_frame(old)


def test_published_result_repeats_the_recount_and_keeps_the_tables_as_printed():
    found = published_result(generalization_error(), performance(), permutations=49)
    values, tables = found["values"], found["tables"]
    assert tables["performance"]["columns"][:4] == ["model", "dataset", "metric", "fft"]
    assert ["ViT-Tiny", "OfficeHome", 0.485] in [row[:3] for row in tables["generalization_error"]["rows"]]
    assert values["links-3/all/concordant"] == 194
    assert values["cla-below-lora/agree"] == 8


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no folder of runs"),
        (lambda folder: folder.mkdir(), "no finished run"),
        (
            lambda folder: (folder / "a").mkdir(parents=True) or (folder / "a" / "record.json").write_text("{"),
            "corrupt",
        ),
        (
            lambda folder: atomic_write_json(folder / "a" / "record.json", {"status": "done", "config": {}}),
            "has no 'updates'",
        ),
    ],
)
def test_unusable_folders_end_in_one_line(tmp_path, capsys, prepare, message):
    prepare(tmp_path / "runs")
    assert main(["compare", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert main(["compare"]) == 2
