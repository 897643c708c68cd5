"""Curvature against the dense Hessian, closed forms, and curvlinops where it is installed."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn

from analysis.geometry.curvature import batch_eigenvalues, gauss_newton, hessian, top_eigenvalues
from analysis.geometry.density import hutchinson, hutchpp, spectral_density


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(12, 4, dtype=torch.float64)
    return model, (x, torch.randint(0, 3, (12,)))


def dense_hessian(model, batch):
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])

    def loss(vector):
        parts = [part.reshape(s) for part, s in zip(vector.split([s.numel() for s in shapes]), shapes, strict=True)]
        output = torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (batch[0],))
        return nn.functional.cross_entropy(output, batch[1])

    return torch.autograd.functional.hessian(loss, flat).numpy()


def matrix_operator(matrix):
    return LinearOperator(matrix.shape, matvec=lambda vector: matrix @ vector, dtype=np.float64)


def test_hessian_products_build_the_dense_hessian(network):
    model, batch = network
    # float64 on both sides
    np.testing.assert_allclose(hessian(model, batch, space="full").dense(), dense_hessian(model, batch), atol=1e-12)


@pytest.mark.parametrize("retain", [True, False])
def test_hessian_of_uneven_batches_is_the_whole_loaders(network, retain):
    model, (x, y) = network
    parts = [(x[:5], y[:5]), (x[5:], y[5:])]
    split = hessian(model, parts, space="full", retain=retain).dense()
    np.testing.assert_allclose(split, dense_hessian(model, (x, y)), atol=1e-12)


def test_gauss_newton_equals_jacobian_form_and_is_positive(network):
    model, (x, y) = network
    names = [name for name, _ in model.named_parameters()]
    function = lambda *values: torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))  # noqa: E731
    jacobians = torch.autograd.functional.jacobian(function, tuple(p.detach() for p in model.parameters()))
    jacobian = torch.cat([part.reshape(12, 3, -1) for part in jacobians], dim=2)
    p = model(x).detach().softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("nka,nkl,nlb->ab", jacobian, inner, jacobian) / 12
    found = gauss_newton(model, (x, y), space="full").dense()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > -1e-12


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    batch = (torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 3, (9,)))
    both = [operator(model, batch, space="full").dense() for operator in (hessian, gauss_newton)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-13)


def test_hessian_of_a_matrix_factorisation_has_its_known_spectrum():
    """At b a = T the Hessian of |b a - T|^2 / 2 is J^T J: |a|^2 + |b|^2 once, |a|^2 m - 1 times, |b|^2 n - 1 times."""

    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.b = nn.Parameter(torch.randn(4, 1, dtype=torch.float64, generator=generator))
            self.a = nn.Parameter(torch.randn(1, 3, dtype=torch.float64, generator=generator))

        def forward(self, target):
            return self.b @ self.a - target

    model = Factors()
    target = (model.b @ model.a).detach()
    operator = hessian(model, target, loss=lambda forward, batch: forward(batch).square().sum() / 2, space="full")
    a, b = float(model.a.detach().square().sum()), float(model.b.detach().square().sum())
    expected = np.sort([a + b, 0.0, a, a, a, b, b])
    np.testing.assert_allclose(np.linalg.eigvalsh(operator.dense()), expected, atol=1e-12)
    found = top_eigenvalues(operator, count=2)
    np.testing.assert_allclose(found.values, expected[::-1][:2], rtol=1e-10)


def test_fused_attention_has_second_derivatives_here():
    from transformers import BertConfig, BertForSequenceClassification

    from adapters import prepare

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    model = prepare(BertForSequenceClassification(config), "cla", rank=2).model.double().train()
    batch = {"input_ids": torch.randint(0, 50, (4, 5)), "labels": torch.tensor([0, 1, 1, 0])}
    operator = hessian(model, batch)
    assert model.training
    matrix = operator.dense()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert operator.shape[0] == 2 * 8 * 2
    assert np.abs(matrix).max() > 0
    assert gauss_newton(model, batch).dense().trace() > 0


@pytest.mark.parametrize("method", ["lora", "cla", "c3la", "rac", "paca"])
def test_adapter_hessian_is_that_of_its_own_parameters(method):
    """Finite differences of the gradient along a random direction, in float64: error O(h^2)."""
    from adapters import prepare
    from analysis.geometry.objective import Objective
    from analysis.geometry.spaces import parameter_space

    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    links = 2 if method in ("c3la", "rac") else 1
    model = prepare(base, method, rank=2, target_modules=["0"], links=links, modules_to_save=[]).model.double()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.5)
    batch = (torch.randn(7, 6, dtype=torch.float64), torch.randint(0, 3, (7,)))
    for space_name in ("adapter", "merged"):
        operator = hessian(model, batch, space=space_name)
        space, objective = parameter_space(model, space_name), Objective(model, batch)
        vector = np.random.default_rng(0).standard_normal(operator.shape[0])
        step = {name: torch.tensor(part) * 1e-5 for name, part in operator.split(vector).items()}
        ahead = objective.gradient({name: space.start[name] + step[name] for name in step})[1]
        back = objective.gradient({name: space.start[name] - step[name] for name in step})[1]
        slope = np.concatenate([(ahead[name] - back[name]).numpy().ravel() for name in step]) / 2e-5
        product = operator.matvec(vector)
        assert np.abs(product).max() > 1e-4
        np.testing.assert_allclose(product, slope, rtol=1e-5, atol=1e-6)


def test_top_eigenvalues_match_the_dense_ones_and_carry_their_residuals(network):
    model, batch = network
    values = np.linalg.eigvalsh(dense_hessian(model, batch))
    operator = hessian(model, batch, space="full")
    found = top_eigenvalues(operator, count=4, tolerance=1e-8)
    np.testing.assert_allclose(found.values, values[::-1][:4], rtol=1e-7)
    assert (found.residuals < 1e-6 * found.values[0]).all()
    assert found.converged
    assert operator.products == found.products
    lowest = top_eigenvalues(operator, count=1, which="smallest", tolerance=1e-8)
    assert lowest.values[0] == pytest.approx(values[0], rel=1e-6)


def test_residuals_bound_the_error_of_unconverged_eigenvalues():
    """For a symmetric matrix some eigenvalue lies within the residual of each Ritz value."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((60, 60))
    matrix = matrix + matrix.T
    found = top_eigenvalues(matrix_operator(matrix), count=3, tolerance=0.3, subspace=5)
    values = np.linalg.eigvalsh(matrix)
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert np.abs(values - value).min() <= residual * (1 + 1e-9)
        assert residual > 1e-9


def test_trace_estimates_cover_the_trace_and_hutchpp_is_tighter_on_decaying_spectra():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((80, 80)))[0]
    matrix = basis @ np.diag(1.0 / np.arange(1, 81) ** 2) @ basis.T
    trace = np.trace(matrix)
    errors = {"hutchinson": [], "hutchpp": []}
    covered = 0
    for seed in range(40):
        plain = hutchinson(matrix_operator(matrix), probes=30, seed=seed)
        better = hutchpp(matrix_operator(matrix), products=30, seed=seed)
        errors["hutchinson"].append(plain.value - trace)
        errors["hutchpp"].append(better.value - trace)
        covered += abs(plain.value - trace) <= 2 * plain.standard_error
    assert np.std(errors["hutchpp"]) < 0.2 * np.std(errors["hutchinson"])
    # 40 intervals of about 95 %: fewer than 33 would have probability below 1 %
    assert covered >= 33


@pytest.mark.parametrize("probes", [4, 100])
def test_the_standard_error_is_the_spread_of_the_estimates(probes):
    """With signs the variance of one probe is 2 (|H|_F^2 - sum of squares of the diagonal); a mean's is 1 / n of it."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((30, 30))
    matrix = matrix + matrix.T
    deviation = np.sqrt(2 * (np.square(matrix).sum() - np.square(np.diag(matrix)).sum()) / probes)
    found = [hutchinson(matrix_operator(matrix), probes=probes, seed=seed) for seed in range(200)]
    # A root mean square of 200 estimates of the deviation varies by 1 / sqrt(2 * 200 * (n - 1)), at most 3 %.
    mean_square = np.mean([estimate.standard_error**2 for estimate in found])
    assert np.sqrt(mean_square) == pytest.approx(deviation, rel=0.1)
    # A standard deviation of 200 values varies by 5 %.
    assert np.std([estimate.value for estimate in found]) == pytest.approx(deviation, rel=0.2)
    assert np.isnan(hutchinson(matrix_operator(matrix), probes=1).standard_error)


def test_hutchpps_standard_error_is_the_spread_given_its_sketch():
    matrix = np.random.default_rng(4).standard_normal((40, 40))
    matrix = matrix + matrix.T
    found = [hutchpp(matrix_operator(matrix), products=30, seed=seed) for seed in range(150)]
    spread = np.std([estimate.value for estimate in found])
    assert np.sqrt(np.mean([estimate.standard_error**2 for estimate in found])) == pytest.approx(spread, rel=0.25)
    assert {estimate.products for estimate in found} == {30}


def test_the_densitys_standard_error_is_the_spread_of_its_mean():
    matrix = np.random.default_rng(5).standard_normal((20, 20))
    matrix = matrix + matrix.T
    options = {"steps": 10, "points": 5, "width": 2.0}
    found = [spectral_density(matrix_operator(matrix), probes=6, seed=seed, **options) for seed in range(120)]
    # The grid follows the nodes; compare at zero, where every grid's middle nearly lies.
    at_zero = np.array([np.interp(0.0, item.grid, item.density) for item in found])
    errors = np.array([np.interp(0.0, item.grid, item.standard_error) for item in found])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(at_zero.std(), rel=0.35)
    assert np.isnan(spectral_density(matrix_operator(matrix), probes=1, **options).standard_error).all()


def test_hutchpp_is_exact_once_its_sketch_spans_the_space():
    matrix = np.diag([3.0, 1.0])
    found = hutchpp(matrix_operator(matrix), products=12)
    assert found.value == pytest.approx(4.0)
    assert found.standard_error == 0.0


def test_spectral_density_has_the_matrices_moments_and_unit_mass():
    rng = np.random.default_rng(2)
    matrix = rng.standard_normal((50, 50))
    matrix = (matrix + matrix.T) / 10
    found = spectral_density(matrix_operator(matrix), steps=50, probes=200)
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1.0, abs=1e-3)
    # Gaussian probes: the second moment's relative error is about sqrt(2 / 50 / 200) = 1.4 %, six of them allowed
    assert found.moment(2) == pytest.approx(np.trace(matrix @ matrix), rel=0.085)
    assert found.nodes.max() == pytest.approx(np.linalg.eigvalsh(matrix).max(), rel=1e-6)


def test_density_of_the_identity_is_one_spike():
    found = spectral_density(matrix_operator(np.eye(10)), steps=5, probes=2)
    assert found.grid[found.density.argmax()] == pytest.approx(1.0, abs=2 * found.width)
    assert np.isnan(found.nodes[:, 1:]).all()


def test_bad_counts_are_refused(network):
    model, batch = network
    operator = hessian(model, batch, space="full")
    with pytest.raises(ValueError, match="between 1 and the dimension 43"):
        top_eigenvalues(operator, count=44)
    with pytest.raises(ValueError, match="unknown which"):
        top_eigenvalues(operator, which="LA")
    with pytest.raises(ValueError, match="probes must be at least 1"):
        hutchinson(operator, probes=0)
    with pytest.raises(ValueError, match="products must be at least 6"):
        hutchpp(operator, products=5)
    with pytest.raises(ValueError, match="empty"):
        hessian(model, [], space="full")


def test_curvlinops_agrees(network):
    curvlinops = pytest.importorskip("curvlinops")
    model, batch = network
    theirs = curvlinops.HessianLinearOperator(
        model, nn.CrossEntropyLoss(), [p for p in model.parameters() if p.requires_grad], [batch]
    ).to_scipy()
    vector = np.random.default_rng(0).standard_normal(43)
    np.testing.assert_allclose(hessian(model, batch, space="full").matvec(vector), theirs @ vector, atol=1e-10)


class Pixels(nn.Module):
    """A linear segmentation of images as wide as there are classes: (N, C, H, W) with C = W."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1).double()

    def forward(self, x):
        return self.conv(x)


class Tokens(nn.Module):
    """A linear model of tokens whose loss shifts the labels or does not, whatever its name is."""

    def __init__(self, shift):
        super().__init__()
        self.table, self.shift = nn.Linear(5, 5, bias=False).double(), shift

    def forward(self, x, labels):
        logits = self.table(x)
        z, y = (logits[:, :-1], labels[:, 1:]) if self.shift else (logits, labels)
        loss = nn.functional.cross_entropy(z.reshape(-1, 5), y.reshape(-1))
        return type("Output", (), {"loss": loss, "logits": logits})()


def linear_cases():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    yield Pixels(), (images, torch.randint(0, 4, (3, 4, 4), generator=generator))
    x = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (2, 6), generator=generator)
    for shift in (True, False):
        yield Tokens(shift), {"x": x, "labels": labels}
        ragged = labels.clone()
        ragged[0, 3:] = -100
        yield Tokens(shift), [{"x": x, "labels": ragged}, {"x": x[:1], "labels": labels[:1]}]


@pytest.mark.parametrize("case", range(5))
def test_gauss_newton_is_the_hessian_wherever_the_model_is_linear(case):
    model, data = list(linear_cases())[case]
    both = [operator(model, data, space="full").dense() for operator in (hessian, gauss_newton)]
    assert np.abs(both[0]).max() > 1e-3
    np.testing.assert_allclose(both[0], both[1], atol=1e-12)


def test_a_loss_that_the_gauss_newton_product_does_not_know_is_refused():
    class Weighted(Tokens):
        def forward(self, x, labels):
            found = super().forward(x, labels)
            found.loss = 2 * found.loss
            return found

    batch = {"x": torch.randn(2, 6, 5, dtype=torch.float64), "labels": torch.randint(0, 5, (2, 6))}
    with pytest.raises(ValueError, match="give criterion"):
        gauss_newton(Weighted(False), batch, space="full")
    given = gauss_newton(
        Weighted(False),
        batch,
        space="full",
        criterion=lambda z, b: 2 * nn.functional.cross_entropy(z.reshape(-1, 5), b["labels"].reshape(-1)),
    )
    assert given.dense().shape == (25, 25)


@pytest.mark.parametrize("size", [5, 60])
def test_a_zero_hessian_and_one_of_nan_have_an_answer(size):
    found = top_eigenvalues(matrix_operator(np.zeros((size, size))), count=2)
    np.testing.assert_array_equal(found.values, [0.0, 0.0])
    np.testing.assert_array_equal(found.residuals, [0.0, 0.0])
    assert found.converged
    broken = top_eigenvalues(matrix_operator(np.full((size, size), np.nan)), count=2)
    assert np.isnan(broken.values).all()


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_products_are_spent_than_allowed(count):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((80, 80))
    operator = matrix_operator(root + root.T)
    for allowed in range(2 * count + 4, 60, 3):
        for subspace in (None, 7):
            found = top_eigenvalues(
                operator, count=count, max_products=allowed, subspace=subspace, tolerance=1e-12, which="magnitude"
            )
            assert found.products <= allowed
    with pytest.raises(ValueError, match=f"max_products must be at least {2 * count + 4} for"):
        top_eigenvalues(operator, count=count, max_products=2 * count + 3)


def test_each_batch_has_its_own_top_eigenvalue(network):
    model, (x, y) = network
    parts = [(x[:5], y[:5]), (x[5:], y[5:])]
    found = batch_eigenvalues(model, parts, space="full", count=2)
    for one, batch in zip(found, parts, strict=True):
        want = np.linalg.eigvalsh(dense_hessian(model, batch))[::-1][:2]
        np.testing.assert_allclose(one.values, want, rtol=1e-3)  # ARPACK's tolerance is 1e-4
    assert abs(found[0].values[0] - found[1].values[0]) > 0.01
