"""The commands that look around finished runs: what they print is what they write."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from analysis.commands.main import main
from analysis.geometry import Landscape
from analysis.measures import training_batch
from analysis.records import frame_of, read_json
from analysis.runs import load_models
from analysis.spectra import from_model, intruder_dimensions
from analysis.studies import digits_runs
from analysis.tasks import DataOptions
from analysis.tasks.models import load_pretrained, load_tokenizer

pytestmark = pytest.mark.usefixtures("model_cache", "one_thread")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return digits_runs(["cla"], seeds=2, epochs=0.2, folder=tmp_path / "runs", rank=2, checkpoints=0)


def test_curvature_of_two_seeds_is_printed_and_written(paths: list[Path], tmp_path: Path, capsys):
    small = ["--count", "1", "--probes", "6", "--trace", "hutch++", "--density", "3", "--examples", "8"]
    out = ["--out", str(tmp_path / "curvature.json"), "--figure", str(tmp_path / "densities.pdf")]
    assert main(["curvature", *map(str, paths), *small, *out, "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = read_json(tmp_path / "curvature.json")
    rows = frame_of(found["tables"]["eigenvalues"])
    assert list(rows["run"]) == [path.name for path in paths]
    for line, row in zip(lines, rows.itertuples(), strict=False):
        assert f"seed {row.seed}: top {float(row.eigenvalue):.5g}" in line
        assert f"trace {float(row.trace):.4g}" in line
    assert list(found["series"]) == ["cla", f"cla, {paths[1].name[:6]}"]
    assert (tmp_path / "densities.pdf").stat().st_size > 0


def test_planes_are_printed_and_saved_under_the_runs_keys(paths: list[Path], tmp_path: Path, capsys):
    folder = tmp_path / "planes"
    given = [*map(str, paths[:-1]), str(paths[-1] / "record.json")]  # a run is named by its folder or by its record
    assert main(["landscape", *given, "--steps", "3", "--examples", "8", "--out", str(folder), "--quiet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sum("not moved: base_model.model.classifier" in line for line in printed) == 2
    lines = [line for line in printed if not line.startswith("  ")]
    for seed, (line, path) in enumerate(zip(lines, paths, strict=False)):
        surface = Landscape.load(folder / f"plane-{path.name}")
        assert line.startswith(f"cLA seed {seed}: loss {surface.center_loss:.4g}, ")
        assert f"worst rise {surface.rise()['worst']:.4g}" in line
    assert "<html" in (folder / "planes.html").read_text()


@pytest.fixture(scope="module")
def foreign(model_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A GPT-2-shaped model with plain PEFT LoRA adapters, and texts, none of it made by this package."""
    folder = tmp_path_factory.mktemp("foreign")
    base = load_pretrained("tiny:gpt2-small", kind="causal-lm", num_labels=0, seed=0)
    base.save_pretrained(str(folder / "base"))
    load_tokenizer("tiny:gpt2-small").save_pretrained(str(folder / "base"))
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config)
    for step in range(4):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter += 0.02 * torch.randn(parameter.shape)
        model.save_pretrained(str(folder / f"checkpoint-{step}"))
    rows = [f"the {a} is {b}\t{b} it is" for a in ("clock", "river", "town", "tree") for b in ("old", "new", "big")]
    (folder / "texts.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return {"base": folder / "base", "data": folder / "texts.tsv", "folder": folder}


def of(foreign: dict[str, Path]) -> list[str]:
    data = ["--data", str(foreign["data"]), "--kind", "causal-lm", "--text", "text", "--label", "label"]
    return ["--model", str(foreign["base"]), *data, "--max-length", "16"]


def test_a_plane_of_anyones_adapters_is_measured_from_the_command_line(foreign, tmp_path: Path, capsys):
    adapters = ["--adapter", *(str(foreign["folder"] / f"checkpoint-{step}") for step in (2, 3))]
    small = ["--steps", "3", "5", "--radius", "0.5", "1", "--examples", "4", "--space", "merged", "--method", "serial"]
    assert main(["landscape", *of(foreign), *adapters, *small, "--out", str(tmp_path), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    planes = [Landscape.load(path) for path in sorted(tmp_path.glob("plane-*.json"))]
    assert sorted(plane.title for plane in planes) == ["checkpoint-2", "checkpoint-3"]
    for plane in planes:
        assert plane.values.shape == (5, 3)
        assert plane.values[2, 1] == pytest.approx(plane.center_loss, rel=1e-5)
        assert any(line.startswith(f"{plane.title} seed 0: loss {plane.center_loss:.4g}") for line in lines)


def test_a_path_of_peft_checkpoints_is_drawn_with_its_own_losses(foreign, tmp_path: Path, capsys):
    path = ["--checkpoints", *(str(foreign["folder"] / f"checkpoint-{step}") for step in range(4))]
    small = ["--steps", "3", "--examples", "4", "--directions", "pca", "--method", "serial"]
    assert main(["landscape", *of(foreign), *path, *small, "--out", str(tmp_path), "--quiet"]) == 0
    (plane,) = [Landscape.load(path) for path in tmp_path.glob("plane-*.json")]
    options = DataOptions(kind="causal-lm", text="text", label="label", max_length=16)
    for step, loss in enumerate(plane.path_losses):
        place = foreign["folder"] / f"checkpoint-{step}"
        given = {"adapters": [place], "data": str(foreign["data"]), "options": options}
        (model,) = load_models(str(foreign["base"]), **given)
        with torch.no_grad():
            assert loss == pytest.approx(float(model.model(**training_batch(model, examples=4)).loss), rel=1e-5)
    assert capsys.readouterr().out.count("from the plane") == 4


def test_curvature_and_measures_of_anyones_adapter(foreign, tmp_path: Path, capsys):
    adapter = ["--adapter", str(foreign["folder"] / "checkpoint-3"), "--examples", "4"]
    assert main(["curvature", *of(foreign), *adapter, "--count", "1", "--probes", "2", "--quiet"]) == 0
    assert "checkpoint-3 seed 0: top " in capsys.readouterr().out
    out = ["--out", str(tmp_path / "measures.json")]
    assert main(["measure", *of(foreign), *adapter, *out, "--quiet"]) == 0
    rows = frame_of(read_json(tmp_path / "measures.json")["tables"]["measures"])
    assert {"sharpness_worst_merged", "hessian_top_adapter", "intruders_authors"} <= set(rows["measure"])


def test_spectra_of_several_adapters_and_of_checkpoints_of_anyones_model(foreign, tmp_path: Path, capsys):
    folders = [str(foreign["folder"] / f"checkpoint-{step}") for step in (1, 3)]
    out = tmp_path / "spectra.json"
    given = ["--model", str(foreign["base"]), "--adapter", *folders]
    assert main(["spectra", *given, "--out", str(out), "--quiet"]) == 0
    tables = read_json(out)["tables"]
    base = load_pretrained(str(foreign["base"]), kind="causal-lm", num_labels=0, seed=0)
    for folder in folders:
        live = list(from_model(PeftModel.from_pretrained(copy.deepcopy(base), folder)))
        frame = frame_of(tables[f"{Path(folder).name}/vectors"])
        np.testing.assert_allclose(frame["cosine"].astype(float), intruder_dimensions(live)["cosine"], atol=1e-6)
        merged = PeftModel.from_pretrained(copy.deepcopy(base), folder).merge_and_unload()
        merged.save_pretrained(str(tmp_path / Path(folder).name))
    capsys.readouterr()
    whole = ["--checkpoints", *(str(tmp_path / Path(folder).name) for folder in folders), "--include", "c_attn"]
    assert main(["spectra", "--model", str(foreign["base"]), *whole, "--quiet"]) == 0
    assert capsys.readouterr().out.count("matrices, 20 left vectors") == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give folders of runs, or --model with"),
        (["--adapter", "nowhere"], "need --model"),
        (["--model", "tiny:gpt2-small", "--adapter", "nowhere"], "no folder at 'nowhere'"),
        (["run", "--adapter", "nowhere"], "give folders of runs, or --model with"),
    ],
)
def test_what_names_no_model_is_refused(given, message, capsys):
    assert main(["curvature", *given]) == 2
    assert message in capsys.readouterr().err
