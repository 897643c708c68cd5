"""Where the package of `tests/plugin` is installed: train, measure, compare; find it in tables and figures."""

import sys
from pathlib import Path

import matplotlib
import torch
from safetensors.torch import save_file
from torch import nn

from adapters import prepare
from analysis.commands.main import main
from analysis.geometry import parameter_space
from analysis.measures import families
from analysis.plots import agreement
from analysis.plots.style import method_colors
from analysis.records import frame_of, read_json
from analysis.spectra import from_adapter
from analysis.tasks import DATASETS
from report.build import load_results
from theory import METHODS, bounds, symbolic


def registries():
    assert list(METHODS)[11:] == ["dora"]
    assert list(DATASETS)[15:] == ["parity"]
    assert len(set(method_colors().values())) == 12
    assert "DoRA" in symbolic.table1_latex()
    assert "DoRA" in symbolic.table1_typst()


def descriptions():
    """Its update has full rank: the description by rank is stated for LoRA, not for it."""
    lora, dora = (
        [one.name for one in bounds.evaluate([(64, 64)], method=key, num_examples=99)] for key in ("lora", "dora")
    )
    assert "gauge-fixed" in lora
    assert "gauge-fixed" not in dora
    assert {"gauge-and-lengths", "capped"} <= set(dora)
    assert "capped" in lora


def merged(folder):
    """What does not add to W0 still has a merged weight: a space to move it in, and a spectrum from disk."""
    base = nn.Sequential(nn.Linear(8, 8))
    save_file(base.state_dict(), folder / "base.safetensors")
    model = prepare(base, "dora", rank=2, target_modules=["0"], modules_to_save=[]).model
    assert len(parameter_space(model, "adapter").center) == 3
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape) * parameter.requires_grad
    model.save_pretrained(str(folder / "adapter"))
    space = parameter_space(model, "merged")
    assert space.bare == ("base_model.model.0",)
    (update,) = from_adapter(folder / "adapter", folder / "base.safetensors")
    want = model.merge_and_unload()[0].weight
    for found in (*space.center.values(), update.tuned):
        torch.testing.assert_close(found, want.detach())


def commands(folder):
    runs, results = str(folder / "runs"), folder / "results"
    few = ["--epochs", "2", "--num-train", "60", "--num-heldout", "60", "--save-adapter", "--quiet"]
    grid = ["--methods", "dora", "cla", "--ranks", "1,16", "--seeds", "2"]
    assert main(["sweep", "--tasks", "digits", *grid, *few, "--folder", runs]) == 0
    assert main(["measure", runs, "--kinds", "wide", "--quiet"]) == 0
    draws = ["--permutations", "9", "--quiet"]
    assert main(["compare", runs, *draws, "--results", str(results / "agreement.json")]) == 0
    assert main(["collect", runs, "--result", str(results / "digits.json"), "--command", "sweep"]) == 0
    printed = "published_agreement.json"
    (results / printed).write_text(Path("report/results", printed).read_text())


def comparison(folder):
    tables = read_json(folder / "results" / "agreement.json")["tables"]
    table = frame_of(tables["agreement/digits/cross_entropy"]).set_index("measure").replace({"nan": float("nan")})
    assert {"wide/rise", "bound/gauge-and-lengths"} <= set(table.index)
    stated = dict(tables["families"]["rows"])
    assert stated["wide/rise"] == families(["wide/rise"])["wide/rise"] == "sharpness"
    assert stated["bound/gauge-and-lengths"] == "bound"
    assert {row[0] for row in tables["differences/digits/cross_entropy"]["rows"]} == {"wide/rise"}
    axes = agreement.plot_agreement(table, families=stated)
    assert "wide/rise" in [label.get_text() for label in axes.get_yticklabels()]


def report(folder):
    shown = load_results(folder / "results")["tables"]["tasks/methods"]
    (row,) = [row for row in shown["rows"] if row[0] == "DoRA"]
    assert "\u2013" not in row[1:3], row


if __name__ == "__main__":
    matplotlib.use("agg")
    registries()
    descriptions()
    merged(Path(sys.argv[1]))
    commands(Path(sys.argv[1]))
    comparison(Path(sys.argv[1]))
    report(Path(sys.argv[1]))
    print("appears")
