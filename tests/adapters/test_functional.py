import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adapters.functional import Term, column_linear, select_columns

INDEX = torch.tensor([5, 0, 2])


def tensors(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    shapes = {"x": (3, 4, 6), "w": (5, 6), "bias": (5,), "b": (5, 2), "c": (5, 3)}
    t = {name: torch.randn(shape, generator=g, dtype=dtype) for name, shape in shapes.items()}
    return t["x"].requires_grad_(), t["w"], t["bias"], t["b"].requires_grad_(), t["c"].requires_grad_()


def ours(x, w, bias, b, c):
    return column_linear(x, [Term(b, (1, 3), 2.0), Term(c, INDEX, 0.5)], weight=w, bias=bias)


def apart(x, w, bias, b, c):
    """Fewer rows than columns: one row at a time."""
    rows = [ours(row[None], w, bias, b, c) for row in x.reshape(-1, x.shape[-1])]
    return torch.cat(rows).reshape(*x.shape[:-1], -1)


def opaque(x, w, bias, b, c):
    return column_linear(x, [Term(b, (1, 3), 2.0), Term(c, INDEX, 0.5)], output=F.linear(x, w, bias))


def reference(x, w, bias, b, c):
    return F.linear(x, w, bias) + 2 * x[..., 1:3] @ b.T + 0.5 * x[..., INDEX] @ c.T


every = pytest.mark.parametrize("function", [ours, apart, opaque])


@every
def test_value_and_gradients_equal_the_dense_reference(function):
    x, w, bias, b, c = tensors()
    seed = torch.randn(3, 4, 5, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(function(x, w, bias, b, c), (x, b, c), seed)
    want = torch.autograd.grad(reference(x, w, bias, b, c), (x, b, c), seed)
    torch.testing.assert_close(function(x, w, bias, b, c), reference(x, w, bias, b, c), rtol=1e-14, atol=1e-14)
    for g, e in zip(got, want, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-13, atol=1e-13)  # sums of at most 60 products in float64


@every
def test_first_and_second_derivatives_pass_gradcheck(function):
    x, w, bias, b, c = tensors()

    def f(x, bias, b, c):
        return function(x, w, bias, b, c)

    arguments = (x, bias.requires_grad_(), b, c)
    assert torch.autograd.gradcheck(f, arguments)
    assert torch.autograd.gradgradcheck(f, arguments)


def test_a_weight_that_requires_a_gradient_gets_it():
    x, w, bias, b, c = tensors()
    w.requires_grad_()
    (got,) = torch.autograd.grad(ours(x, w, bias, b, c).square().sum(), w)
    (want,) = torch.autograd.grad(reference(x, w, bias, b, c).square().sum(), w)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-12)


def once(f, x):
    return f(x)


def reentrant(f, x):
    return checkpoint(f, x, use_reentrant=True)


def recomputed(f, x):
    return checkpoint(f, x, use_reentrant=False)


def over_examples(f, x):
    return vmap(f)(x)


def compiled(f, x):
    torch._dynamo.reset()
    return torch.compile(f, backend="aot_eager", fullgraph=True)(x)


SHAPES = {
    "few rows": ((2, 6), True),
    "rows": ((9, 6), False),
    "few, in threes": ((1, 3, 6), False),
    "threes": ((3, 4, 6), True),
}
BASES = ("plain", "opaque")
CASES = [(once, shape, base) for shape in SHAPES for base in BASES]
CASES += [(way, shape, "plain") for way in (reentrant, recomputed, over_examples) for shape in SHAPES]
CASES += [(compiled, "few rows", "opaque"), (compiled, "threes", "plain")]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(("way", "shape", "base"), CASES)
def test_what_comes_out_may_be_modified_in_place(way, shape, base):
    """As ``nn.ReLU(inplace=True)`` does; with fewer rows than columns and with more, of two and three axes."""
    (size, biased), (_, w, bias, b, c) = SHAPES[shape], tensors()
    bias = bias if biased else None
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()

    def call(x):
        terms = [Term(b, (1, 3), 2.0), Term(c, INDEX, 0.5)]
        given = {"weight": w, "bias": bias} if base == "plain" else {"output": F.linear(x, w, bias)}
        return F.relu(column_linear(x, terms, **given).mul_(2.0), inplace=True)

    want = 2 * F.relu(reference(x, w, bias, b, c))
    got = way(call, x)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)  # the same few products in another order
    seed = torch.randn(want.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(6))
    want = torch.autograd.grad(want, (x, b, c), seed)
    got.backward(seed)
    for one, expected in zip((x, b, c), want, strict=True):
        torch.testing.assert_close(one.grad, expected, rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        torch.testing.assert_close(call(x), got, rtol=1e-13, atol=1e-13)


@every
def test_vmap_of_values_and_gradients_over_stacked_factors(function):
    x, w, bias, b, c = (t.detach() for t in tensors())
    stacked = torch.randn(7, 5, 2, dtype=x.dtype, generator=torch.Generator().manual_seed(2))

    def loss(f):
        return lambda x, b: f(x, w, bias, b, c).pow(3).sum() + f(x, w, bias, b, c).sum()

    torch.testing.assert_close(
        vmap(loss(function), (None, 0))(x, stacked), vmap(loss(reference), (None, 0))(x, stacked)
    )
    got = vmap(grad(loss(function), (0, 1)), (None, 0))(x, stacked)
    want = vmap(grad(loss(reference), (0, 1)), (None, 0))(x, stacked)
    for g, e in zip(got, want, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-12, atol=1e-12)


def test_per_example_gradients_by_functional_call(mlp):
    from adapters import prepare

    model = prepare(mlp(), "r-cla", rank=3, target_modules=["0", "2"], modules_to_save=[], seed=1).model
    with torch.no_grad():
        for p in model.parameters():
            p.requires_grad and p.normal_(generator=torch.Generator().manual_seed(3))
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    x = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def loss(parameters, one):
        return functional_call(model, parameters, (one[None],)).square().sum()

    per_example = vmap(grad(loss), (None, 0))(trained, x)
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(per_example[name].sum(0), parameter.grad, rtol=1e-12, atol=1e-12)


# Dynamo itself instantiates autograd.Function while tracing one.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@every
def test_compiles_without_graph_breaks(function):
    x, w, bias, b, c = tensors()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(x, w, bias, b, c).square().sum(), (x, b, c))
    want = torch.autograd.grad(reference(x, w, bias, b, c).square().sum(), (x, b, c))
    for g, e in zip(got, want, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-12, atol=1e-12)


def test_only_the_selected_columns_are_saved():
    x, w, bias, b, _ = tensors(torch.float32)
    x = torch.randn(64, 6).requires_grad_()
    saved: set[tuple[int, int]] = set()
    frozen = torch.ones(5, 4)
    own = {t.untyped_storage().data_ptr() for t in (w, b, frozen)}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            saved.add((storage.data_ptr(), storage.nbytes()))
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = column_linear(x, [Term(b, (1, 3), 2.0), Term(frozen, (0, 4), 1.0)], weight=w, bias=bias)
    # x_S of the trained term alone: 64 rows, 2 columns, 4 bytes.
    assert sum(size for _, size in saved) == 64 * 2 * 4
    assert y.requires_grad


def test_the_selection_is_a_copy_that_does_not_keep_the_input_alive():
    x = torch.randn(8, 100)
    for columns in ((0, 2), torch.tensor([3, 1])):
        part = select_columns(x, columns)
        assert part.untyped_storage().nbytes() == 8 * 2 * 4


def test_neither_the_weight_nor_the_base_output_is_written_to():
    x, w, bias, b, c = tensors()
    base = F.linear(x, w, bias)
    kept = [t.detach().clone() for t in (x, w, bias, base)]
    column_linear(x, [Term(b, (1, 3), 2.0), Term(c, INDEX, 1.0)], output=base).square().sum().backward()
    ours(x, w, bias, b, c).square().sum().backward()
    for before, after in zip(kept, (x, w, bias, base), strict=True):
        assert torch.equal(before, after.detach())


def test_autocast_computes_in_bf16_and_returns_fp32_gradients():
    x, w, bias, b, c = tensors(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(x, w, bias, b, c)
    assert y.dtype == torch.bfloat16
    got = torch.autograd.grad(y.float().square().sum(), (x, b, c))
    want = torch.autograd.grad(reference(x, w, bias, b, c).square().sum(), (x, b, c))
    for g, e in zip(got, want, strict=True):
        assert g.dtype == torch.float32
        assert (g - e).norm() < 0.02 * e.norm()  # bf16 keeps 8 bits: 0.4 % an operation, a few operations deep


def test_fp32_factors_on_a_bf16_base_keep_fp32_gradients():
    x, w, bias, b, c = tensors(torch.float32)
    low = [t.detach().bfloat16() for t in (x, w, bias)]
    y = ours(*low, b, c)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    want = torch.autograd.grad(reference(x, w, bias, b, c).square().sum(), b)[0]
    assert b.grad.dtype == torch.float32
    assert (b.grad - want).norm() < 0.02 * want.norm()  # as above


def test_gradient_checkpointing_gives_the_same_gradients():
    x, w, bias, b, c = tensors()
    plain = torch.autograd.grad(ours(x, w, bias, b, c).square().sum(), (x, b, c))
    again = checkpoint(ours, x, w, bias, b, c, use_reentrant=False)
    for g, e in zip(torch.autograd.grad(again.square().sum(), (x, b, c)), plain, strict=True):
        assert torch.equal(g, e)


def test_inputs_without_gradients_and_single_vectors_work():
    _, w, bias, b, c = tensors()
    x = torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(ours(x, w, bias, b, c), reference(x, w, bias, b, c))
    ours(x, w, bias, b, c).sum().backward()
    torch.testing.assert_close(b.grad, 2 * x[1:3].expand(5, 2))


def test_an_empty_batch_gives_zero_gradients():
    _, w, bias, b, c = tensors()
    ours(torch.zeros(0, 6, dtype=torch.float64), w, bias, b, c).sum().backward()
    assert not b.grad.any()


def test_exactly_one_base_is_required():
    x, w, bias, b, c = tensors()
    for arguments in ({}, {"weight": w, "output": F.linear(x, w)}):
        with pytest.raises(ValueError, match="exactly one of weight and output"):
            column_linear(x, [Term(b, (1, 3), 1.0)], **arguments)


def test_a_trained_bias_of_the_base_gets_its_gradient():
    x, w, bias, b, c = tensors()
    bias = nn.Parameter(bias)
    (got,) = torch.autograd.grad(ours(x, w, bias, b, c).sum(), bias)
    assert torch.equal(got, torch.full((5,), 12.0, dtype=torch.float64))
