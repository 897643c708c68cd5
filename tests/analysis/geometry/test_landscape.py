"""Landscapes against closed forms, and every fast path against the slow one."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from adapters.lora import FACTORS
from analysis.geometry import landscape
from analysis.geometry.chebyshev import chebyshev_matrix, chebyshev_nodes, evaluate_chebyshev
from analysis.geometry.landscape import Landscape
from analysis.geometry.points import Evaluated, Evaluation
from analysis.geometry.sharpness import expected_rise, mean_rise, worst_rise
from analysis.geometry.spaces import parameter_space
from analysis.plots import surfaces_page

QUIET = {"evaluation": Evaluation(progress=False)}


def walking(method, **options):
    return {"evaluation": Evaluation(method=method, progress=False, **options)}


class Quadratic(nn.Module):
    """L(w) = w^T H w / 2 + b^T w: every landscape, gradient and Hessian is known."""

    def __init__(self, size=6, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=generator, dtype=torch.float64)
        self.w = nn.Parameter(torch.randn(1, size, generator=generator, dtype=torch.float64))
        self.register_buffer("hessian", root @ root.T / size)
        self.register_buffer("slope", torch.randn(size, generator=generator, dtype=torch.float64))

    def forward(self, x):
        w = self.w[0]
        return 0.5 * w @ self.hessian @ w + self.slope @ w + 0.0 * x.sum()


def quadratic_loss(forward, batch):
    return forward(batch)


@pytest.fixture
def quadratic():
    return Quadratic(), torch.zeros(3, 1, dtype=torch.float64)


def adapted(method="lora", links=1, seed=0):
    """A small two-layer network with an adapter whose update is not zero."""
    from adapters import prepare

    torch.manual_seed(seed)
    base = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    model = prepare(base, method, rank=2, alpha=2.0, target_modules=["0"], links=links, modules_to_save=[]).model
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ("lora_B" in name or "column_B" in name):
            nn.init.normal_(parameter, std=0.3)
    return model


def batch_of(count=10, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 8, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def test_plane_of_a_quadratic_is_the_quadratic(quadratic):
    model, batch = quadratic
    directions = [
        {"w": torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(s))} for s in (1, 2)
    ]
    surface = landscape.plane(
        model,
        batch,
        loss=quadratic_loss,
        space="full",
        directions=directions,
        normalization="none",
        steps=7,
        radius=2.0,
        **QUIET,
    )
    w, H, b = model.w.detach()[0], model.hessian, model.slope
    for i, y in enumerate(surface.y):
        for j, x in enumerate(surface.x):
            at = w + x * directions[0]["w"][0] + y * directions[1]["w"][0]
            # float64 throughout: rounding of about ten operations
            assert surface.values[i, j] == pytest.approx(float(0.5 * at @ H @ at + b @ at), rel=1e-12)


@pytest.mark.parametrize("space", ["adapter", "merged", "full"])
@pytest.mark.parametrize("method", ["serial", "vmap", "auto"])
def test_every_walk_gives_the_same_plane_and_its_centre_is_the_models_loss(space, method):
    model, batch = adapted(), batch_of()
    reference = landscape.plane(model, batch, space=space, steps=5, **walking("serial"))
    surface = landscape.plane(model, batch, space=space, steps=5, **walking(method))
    # float32 losses of order 1; vmap reorders sums
    np.testing.assert_allclose(surface.values, reference.values, rtol=0, atol=2e-6)
    loss = float(nn.functional.cross_entropy(model.eval()(batch[0]), batch[1]).detach())
    assert surface.center_loss == pytest.approx(loss, abs=1e-7)
    assert surface.values[2, 2] == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("method", ["cla", "c3la", "paca", "asym", "cola"])
def test_merged_plane_moves_the_merged_weight_of_every_kind_of_adapter(method):
    """The loss of a plain network at W0 + dW + x d is the landscape of the adapted one."""
    model, batch = adapted(method, links=2 if method in ("c3la", "cola") else 1), batch_of()
    space = parameter_space(model, "merged")
    (name,) = space.center
    line = landscape.line(model, batch, space="merged", steps=5, seed=4, **QUIET)
    plain = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    inner = model.base_model.model
    plain[0].bias, plain[2].weight, plain[2].bias = inner[0].get_base_layer().bias, inner[2].weight, inner[2].bias
    plain[0].weight = nn.Parameter(space.center[name].clone())
    expected = landscape.line(plain, batch, names=["0.weight"], space="full", steps=5, seed=4, **QUIET)
    np.testing.assert_allclose(line.values, expected.values, atol=2e-6)


def test_measuring_never_changes_the_model_and_restores_its_mode():
    model = adapted()
    model.train()
    model.base_model.model.append(nn.Dropout(0.5))
    model.base_model.model[1].eval()
    before = copy.deepcopy(model.state_dict())
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    first = landscape.plane(model, batch_of(), steps=3, **QUIET)
    second = landscape.plane(model, batch_of(), steps=3, **QUIET)
    np.testing.assert_array_equal(first.values, second.values)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert model.training
    assert model.base_model.model[3].training
    assert not model.base_model.model[1].training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loader_of_uneven_batches_is_averaged_over_examples():
    model = adapted()
    x, y = batch_of(10)
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    whole = landscape.plane(model, (x, y), steps=3, **QUIET)
    split = landscape.plane(model, loader, steps=3, **QUIET)
    np.testing.assert_allclose(split.values, whole.values, atol=1e-6)


def test_loaders_that_shuffle_or_are_empty_are_refused():
    data = torch.utils.data.TensorDataset(*batch_of(32))
    model = adapted()
    with pytest.raises(ValueError, match="shuffles"):
        landscape.plane(model, torch.utils.data.DataLoader(data, batch_size=4, shuffle=True), steps=3, **QUIET)
    with pytest.raises(ValueError, match="empty"):
        landscape.plane(model, [], steps=3, **QUIET)
    with pytest.raises(ValueError, match="no batch holds an example"):
        landscape.plane(model, tuple(tensor[:0] for tensor in batch_of(4)), steps=3, **QUIET)

    class Hidden:
        def __iter__(self):
            order = torch.randperm(32)
            yield [tensor[order] for tensor in data.tensors]

    torch.manual_seed(0)
    with pytest.raises(ValueError, match="different batches"):
        landscape.plane(model, Hidden(), steps=3, **QUIET)


def test_nan_stays_nan_and_infinity_infinity():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)

    def loss(forward, batch):
        return torch.log(forward(batch)).mean() / (forward(batch).mean() - 2.0)

    line = landscape.line(
        model, torch.ones(4, 1), loss=loss, space="full", direction={"weight": torch.ones(1, 1)}, normalization="none",
        radius=2.0, steps=5, **QUIET
    )  # fmt: skip
    # weights -1, 0, 1, 2, 3: log of a negative number, log 0 over -2, 0 over -1, log 2 over 0
    assert np.isnan(line.values[0])
    assert line.values[1] == np.inf
    assert line.values[2] == 0.0
    assert line.values[3] == np.inf
    assert np.isnan(line.rise(2.0)["worst"])


def test_vmap_failure_falls_back_to_the_serial_walk_and_says_so():
    model = nn.Linear(4, 1)

    def loss(forward, batch):
        value = forward(batch).square().mean()
        return value if float(value) > 0 else -value  # data-dependent control flow, which vmap cannot batch

    surface = landscape.plane(model, torch.ones(3, 4), loss=loss, space="full", steps=5, **QUIET)
    assert surface.method == "serial"
    assert "vmap failed" in surface.note
    with pytest.raises((RuntimeError, ValueError)):
        landscape.plane(model, torch.ones(3, 4), loss=loss, space="full", steps=5, **walking("vmap"))


def test_grid_chunks_on_joblib_workers_give_the_same_plane():
    from joblib import parallel_config

    model, batch = adapted(), batch_of()
    here = landscape.plane(model, batch, steps=31, **walking("serial"))  # enough points for threads to meet
    with parallel_config(backend="threading", n_jobs=2), warnings.catch_warnings():
        there = landscape.plane(model, batch, steps=31, **walking("serial", n_jobs=None))
    np.testing.assert_allclose(there.values, here.values, atol=1e-6)
    assert "2 workers" in there.method


def test_transformers_attention_is_vectorised_exactly():
    from transformers import BertConfig, BertForSequenceClassification

    from adapters import prepare

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    model = prepare(BertForSequenceClassification(config), "lora", rank=2, alpha=32).model
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    batch = {
        "input_ids": torch.randint(0, 50, (3, 5)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
        "labels": torch.tensor([0, 1, 2]),
    }
    fast = landscape.plane(model, batch, steps=5, **walking("vmap"))
    slow = landscape.plane(model, batch, steps=5, **walking("serial"))
    np.testing.assert_allclose(fast.values, slow.values, atol=2e-6)
    assert np.ptp(slow.values) > 1e-3


def test_language_models_are_weighted_by_their_counted_tokens():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 20, (2, 6))
    labels = ids.clone()
    labels[0, 2:] = -100
    halves = [{"input_ids": ids[i : i + 1], "labels": labels[i : i + 1]} for i in range(2)]
    whole = float(model(input_ids=ids, labels=labels, use_cache=False).loss.detach())
    line = landscape.line(model, halves, space="full", steps=3, radius=0.1, **QUIET)
    assert line.center_loss == pytest.approx(whole, abs=1e-6)


def test_chebyshev_nodes_interpolate_polynomials_exactly():
    at = np.linspace(-1, 1, 25)
    for degree in range(9):
        values = chebyshev_nodes(9) ** degree
        np.testing.assert_allclose(chebyshev_matrix(9, at) @ values, at**degree, atol=1e-13)
    assert chebyshev_nodes(9)[4] == 0.0


def test_chebyshev_plane_is_within_its_stated_error_and_much_cheaper():
    model, batch = adapted(), batch_of()
    dense = landscape.plane(model, batch, steps=25, radius=0.5, **walking("vmap"))
    sparse = landscape.plane(model, batch, steps=25, radius=0.5, **walking("chebyshev"))
    span = np.ptp(dense.values)
    assert sparse.method.startswith("chebyshev")
    assert sparse.evaluations < 625 / 4
    assert sparse.error <= 0.01
    assert np.abs(sparse.values - dense.values).max() / span < 0.01
    assert sparse.values[12, 12] == pytest.approx(sparse.center_loss, abs=1e-6)


def test_rough_surfaces_fail_the_held_out_check_and_are_evaluated_everywhere():
    def rough(points):
        return Evaluated(
            losses=np.sin(40 * points[:, 0]) * np.cos(31 * points[:, 1]), method="serial", evaluations=len(points)
        )

    axis = np.linspace(-1, 1, 25)
    found = evaluate_chebyshev(rough, [axis, axis])
    x, y = np.meshgrid(axis, axis)
    np.testing.assert_array_equal(found.losses, (np.sin(40 * x) * np.cos(31 * y)).ravel())
    assert found.method == "serial, every point"
    assert "9 nodes miss" in found.note


def test_chebyshev_never_interpolates_over_a_loss_that_is_not_finite():
    def broken(points):
        losses = points.sum(axis=1)
        losses[points[:, 0] == 1.0] = np.nan
        return Evaluated(losses=losses, method="serial", evaluations=len(points))

    axis = np.linspace(-1, 1, 25)
    found = evaluate_chebyshev(broken, [axis, axis])
    assert "not finite" in found.note
    assert np.isnan(found.losses.reshape(25, 25)[:, -1]).all()
    assert np.isfinite(found.losses.reshape(25, 25)[:, :-1]).all()


def test_pca_plane_passes_through_the_path_and_reports_its_variance(quadratic):
    model, batch = quadratic
    generator = torch.Generator().manual_seed(3)
    steps = [torch.randn(1, 6, dtype=torch.float64, generator=generator) for _ in range(2)]
    last = model.w.detach()
    path = [last + a * steps[0] + a**2 * steps[1] for a in (3.0, 2.0, 1.0, 0.0)]
    checkpoints = [{"w": state} for state in path]
    surface = landscape.plane(
        model, batch, loss=quadratic_loss, space="full", directions="pca", checkpoints=checkpoints, steps=5, **QUIET
    )
    assert sum(surface.explained) == pytest.approx(1.0)
    assert np.abs(surface.path).max() < surface.x.max()
    assert surface.path[-1] == pytest.approx([0.0, 0.0], abs=1e-12)
    with pytest.raises(ValueError, match="at least 3 checkpoints, got 1"):
        landscape.plane(
            model, batch, loss=quadratic_loss, space="full", directions="pca", checkpoints=checkpoints[-1:], **QUIET
        )
    with pytest.raises(ValueError, match="last checkpoint"):
        landscape.plane(
            model, batch, loss=quadratic_loss, space="full", directions="pca", checkpoints=checkpoints[::-1], **QUIET
        )
    with pytest.raises(ValueError, match="needs checkpoints"):
        landscape.plane(model, batch, loss=quadratic_loss, space="full", directions="pca", **QUIET)


def test_interpolation_has_both_adapters_losses_at_its_ends():
    first, second, batch = adapted(seed=0), adapted(seed=0), batch_of()
    with torch.no_grad():
        for parameter in second.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2)
    start, end = (parameter_space(model, "adapter").center for model in (first, second))
    line = landscape.interpolate(first, batch, start=start, end=end, steps=7, margin=0.25, **QUIET)
    losses = [float(nn.functional.cross_entropy(model(batch[0]), batch[1]).detach()) for model in (first, second)]
    assert line.values[1] == pytest.approx(losses[0], abs=1e-6)
    assert line.values[5] == pytest.approx(losses[1], abs=1e-6)
    with pytest.raises(ValueError, match="'chebyshev' interpolates grids around 0"):
        landscape.interpolate(first, batch, start=start, end=end, **walking("chebyshev"))
    with pytest.raises(ValueError, match="is zero"):
        landscape.interpolate(first, batch, start=start, end=start, **QUIET)
    with pytest.raises(ValueError, match="shape"):
        landscape.interpolate(first, batch, start=start, end={k: v[:1] for k, v in end.items()}, **QUIET)


def test_a_family_that_does_not_add_to_the_base_is_computed_from_its_merged_weight(monkeypatch):
    model, batch = adapted("lora"), batch_of()
    added = landscape.plane(model, batch, space="merged", steps=5, **QUIET)
    monkeypatch.setattr(FACTORS, "additive", False)
    space = parameter_space(model, "merged")
    assert space.bare == ("base_model.model.0",)
    merged = landscape.plane(model, batch, space="merged", steps=5, **QUIET)
    # W0 x + dW x against (W0 + dW) x, in float32
    np.testing.assert_allclose(merged.values, added.values, atol=2e-6)
    assert not model.base_model.model[0].disable_adapters


def test_bad_grids_spaces_and_weights_are_refused_before_any_work():
    model, batch = adapted(), batch_of()
    with pytest.raises(ValueError, match="steps must be odd"):
        landscape.plane(model, batch, steps=4)
    with pytest.raises(ValueError, match="radius must be positive"):
        landscape.plane(model, batch, radius=0.0)
    with pytest.raises(ValueError, match="unknown space 'weights'"):
        landscape.plane(model, batch, space="weights")
    with pytest.raises(ValueError, match="unknown method 'fast'"):
        Evaluation(method="fast")
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        Evaluation(chunk=0)
    with pytest.raises(ValueError, match="tolerance must be positive, got nan"):
        Evaluation(tolerance=float("nan"))
    with pytest.raises(ValueError, match="unknown directions 'hessian'"):
        landscape.plane(model, batch, directions="hessian")
    with pytest.raises(ValueError, match="no parameter 'nowhere'"):
        landscape.plane(model, batch, names=["nowhere"])
    with pytest.raises(TypeError, match="torch module"):
        landscape.plane("model", batch)
    with pytest.raises(ValueError, match="'labels'"):
        landscape.plane(model, {"input": batch[0]})
    direction = parameter_space(model, "adapter").center
    with pytest.raises(ValueError, match="parallel"):
        landscape.plane(model, batch, directions=[direction, direction])
    whole = nn.Linear(2, 2).requires_grad_(False)
    whole.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match="int8, not floating point"):
        landscape.plane(whole, batch, space="full", names=["weight"])
    with pytest.raises(ValueError, match="space is empty"):
        landscape.plane(nn.Linear(2, 2).requires_grad_(False), batch)


def test_saved_landscapes_come_back_whole(tmp_path):
    surface = landscape.plane(adapted(), batch_of(), steps=3, title="a", **QUIET)
    surface.save(tmp_path / "plane")
    again = Landscape.load(tmp_path / "plane")
    np.testing.assert_array_equal(again.values, surface.values)
    assert (again.title, again.space, again.center_loss) == ("a", "adapter", surface.center_loss)
    assert surface.to_frame().shape == (9, 4)
    assert Landscape.from_dict(surface.to_dict()).values.tolist() == surface.values.tolist()
    page = surfaces_page([surface])
    assert "<html" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    (tmp_path / "plane.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="missing or truncated"):
        Landscape.load(tmp_path / "plane")


def test_worst_rise_of_a_quadratic_is_half_its_top_eigenvalue(quadratic):
    """At a minimum, max over |d| <= rho of L is rho^2 lambda_1 / 2, along the top eigenvector."""
    model, batch = quadratic
    with torch.no_grad():
        model.w[0] = torch.linalg.solve(model.hessian, -model.slope)
    found = worst_rise(
        model, batch, loss=quadratic_loss, space="full", relative_radius=0.1, ascent_steps=200, restarts=2
    )
    top = float(torch.linalg.eigvalsh(model.hessian)[-1])
    # ascent approaches the maximum from below; 200 steps reach it to 1e-3
    assert 0.999 * found.radius**2 * top / 2 <= found.value <= found.radius**2 * top / 2 * (1 + 1e-9)


def test_mean_rise_of_a_quadratic_is_its_trace(quadratic):
    model, batch = quadratic
    found = mean_rise(model, batch, loss=quadratic_loss, space="full", relative_radius=0.1, samples=400)
    expected = found.radius**2 * float(torch.trace(model.hessian)) / (2 * 6)
    assert abs(found.value - expected) < 4 * found.standard_error
    assert found.standard_error < 0.1 * expected


def test_expected_rise_of_a_quadratic_is_its_row_scaled_trace(quadratic):
    """E e^T H e / 2 = sigma^2 |w|^2 tr H / 2n for one row of n entries."""
    model, batch = quadratic
    found = expected_rise(model, batch, loss=quadratic_loss, space="full", sigma=0.1, samples=400)
    scale = 0.01 * float(model.w.detach().square().sum()) / 6
    expected = scale * float(torch.trace(model.hessian)) / 2
    assert abs(found.value - expected) < 4 * found.standard_error
    assert found.standard_error < 0.1 * expected


def test_merged_gradients_reach_the_base_weight_of_column_adapters():
    """A gradient that stopped at the frozen weight would leave the worst case at the random start's loss."""
    model, batch = adapted("cla"), batch_of()
    worst = worst_rise(model, batch, space="merged", relative_radius=0.2)
    mean = mean_rise(model, batch, space="merged", relative_radius=0.2)
    assert worst.value > 3 * abs(mean.value)


def test_flat_in_one_space_can_be_sharp_in_the_other():
    """(B, A) and (B / g, g A) are one function: the merged landscape is the same, the adapter's is not."""
    model, batch = adapted(), batch_of()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if "lora_A" in name:
                parameter.mul_(8.0)
            elif "lora_B" in name:
                parameter.div_(8.0)
    options = {"relative_radius": 0.05, "samples": 4}
    merged = [mean_rise(m, batch, space="merged", **options).value for m in (model, twin)]
    adapter = [mean_rise(m, batch, space="adapter", **options).value for m in (model, twin)]
    assert merged[0] == pytest.approx(merged[1], abs=2e-6)
    assert abs(adapter[1] - adapter[0]) > 10 * abs(merged[0] - merged[1])


def test_bad_radii_and_counts_of_sharpness_are_refused(quadratic):
    model, batch = quadratic
    with pytest.raises(ValueError, match="radius must be positive"):
        worst_rise(model, batch, loss=quadratic_loss, space="full", relative_radius=-1.0)
    with pytest.raises(ValueError, match="samples must be at least 2"):
        mean_rise(model, batch, loss=quadratic_loss, space="full", samples=1)
    nn.init.zeros_(model.w)
    with pytest.raises(ValueError, match="centre of the full space is zero"):
        mean_rise(model, batch, loss=quadratic_loss, space="full")
    with pytest.raises(ValueError, match="no grid point"):
        landscape.line(adapted(), batch_of(), steps=3, **QUIET).rise(0.1)
