"""Scaled intruders: the formula against the plain SVD, PEFT's own where both apply, and what the loss does."""

import copy

import numpy as np
import pytest
import torch
from peft.tuners.lora.intruders import reduce_intruder_dimension

from adapters import prepare, updates
from analysis.measures import mitigate, mitigation_table, training_batch
from analysis.runs import load_models
from analysis.spectra import LayerUpdate
from analysis.tasks import DataOptions
from analysis.tasks.models import load_pretrained


def planted():
    """W0 and one new direction, twice as strong as any of W0's."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(30, 20, generator=generator, dtype=torch.float64) / 10
    left = torch.linalg.qr(torch.randn(30, 1, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(20, 1, generator=generator, dtype=torch.float64)).Q.T
    return LayerUpdate(name="a", base=base, left=3 * left, right=right)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_an_intruder_is_scaled_and_nothing_else_is(scale):
    layer = planted()
    found = mitigate(layer, scale=scale)
    u, s, vh = np.linalg.svd(layer.tuned.numpy(), full_matrices=False)
    wanted = s.copy()
    wanted[0] *= scale
    np.testing.assert_allclose(found.tuned.numpy(), (u * wanted) @ vh, atol=1e-12)
    assert mitigate(LayerUpdate(name="a", base=layer.base, delta=0 * layer.base), scale=scale).delta.any() == 0
    with pytest.raises(ValueError, match="scale must be at least 0"):
        mitigate(layer, scale=-1.0)


@pytest.fixture(scope="module")
def intruded(model_cache, tmp_path_factory):
    """A tiny GPT-2 with a LoRA adapter strong enough to have intruders."""
    folder = tmp_path_factory.mktemp("intruded")
    base = load_pretrained("tiny:gpt2-small", kind="causal-lm", num_labels=0, seed=0)
    model = prepare(base, "lora", rank=2, modules_to_save=[]).model
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1.0)
    model.save_pretrained(str(folder / "adapter"))
    rows = [f"the {a} is {b}\t{b} it is" for a in ("clock", "river", "town", "tree") for b in ("old", "new", "big")]
    (folder / "texts.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    options = DataOptions(kind="causal-lm", text="text", label="label", max_length=16)
    given = {"adapters": [folder / "adapter"], "data": str(folder / "texts.tsv"), "options": options}
    (run,) = load_models("tiny:gpt2-small", **given)
    return run


def test_the_table_says_what_scaling_does_to_losses_and_counts(intruded):
    table = mitigation_table(intruded, scales=(1.0, 0.25, 0.0), examples=4).set_index("scale")
    with torch.no_grad():
        own = float(intruded.model(**training_batch(intruded, examples=4)).loss)
    assert table.loc[1.0, "loss"] == pytest.approx(own, rel=1e-4)
    assert table.loc[1.0, "intruders"] > table.loc[0.0, "intruders"]
    assert table["matrices"].nunique() == 1
    assert table.loc[1.0, "matrices"] > 0
    assert abs(table.loc[0.0, "loss"] - own) > 1e-3
    # a model that really has the scaled weights
    plain = copy.deepcopy(intruded.model).merge_and_unload()
    for item in updates(intruded.model):
        layer = LayerUpdate(name=item.name, base=item.base.T, delta=item.update.T)
        plain.get_parameter(f"{item.name}.weight").data = mitigate(layer, scale=0.25).tuned.T.contiguous()
    with torch.no_grad():
        wanted = float(plain(**training_batch(intruded, examples=4)).loss)
    assert table.loc[0.25, "loss"] == pytest.approx(wanted, rel=1e-4)


def test_where_the_rank_is_enough_peft_does_the_same():
    """At full rank PEFT's cut of dW to the adapter's rank loses nothing."""
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(40, 40, bias=False))
    model = prepare(base, "lora", rank=40, target_modules=["0"], modules_to_save=[]).model
    with torch.no_grad():
        layer = model.base_model.model[0]
        layer.lora_A["default"].weight.copy_(torch.eye(40))
        layer.lora_B["default"].weight.copy_(torch.outer(torch.randn(40), torch.randn(40)) / 10)
    delta = layer.get_delta_weight("default").detach()
    ours = mitigate(LayerUpdate(name="0", base=layer.weight.detach(), delta=delta), scale=0.75)
    reduce_intruder_dimension(model, logging_sink=None)
    theirs = layer.weight + layer.get_delta_weight("intruder_reduced")
    assert not torch.allclose(ours.update, delta)
    torch.testing.assert_close(ours.tuned, theirs.detach(), atol=1e-5, rtol=0)
