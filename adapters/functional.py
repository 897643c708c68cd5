r"""The core: a linear layer whose columns S are trained, in one autograd Function that saves only :math:`x_S`.

.. math::  y = x W^\top + b + \sum_t s_t\, x_{S_t} B_t^\top, \qquad
           dB_t = s_t\, g^\top x_{S_t}, \qquad dx = g W,\; dx_{S_t} \mathrel{+}= s_t\, g B_t

W is never written to, and of x only the selected columns are kept (a copy: a view would keep all of x alive).
Two ways to the same numbers. *Apart*: thin products are added to y and to dx; for a contiguous window the selection
is a narrow and the backward an ``addmm_`` into a slice of dx. They are few operations but they read and write all of
y and dx again. *Folded*, in fp32 and fp64 when x has at least as many rows as W has columns: a transient copy of W
with the terms added to its columns, made anew in the backward, so that forward and dx cost one product as in the
frozen layer. In bf16 and fp16 folding would round the terms away, so there they stay apart.

Each :math:`x_{S_t}` is an output of the Function, so that second derivatives flow through it.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Term", "column_linear", "select_columns"]


class Term(NamedTuple):
    """One summand ``scale * x[..., S] @ factor.T``.

    Attributes:
        factor: B, shape (out_features, columns).
        columns: S, either ``(start, stop)`` for a contiguous window or an int64 tensor of column numbers.
        scale: the factor s (alpha / rank).
    """

    factor: Tensor
    columns: tuple[int, int] | Tensor
    scale: float


def select_columns(x: Tensor, columns: tuple[int, int] | Tensor) -> Tensor:
    """Return a copy of ``x[..., S]``: narrow and copy for a window, ``index_select`` otherwise.

    Args:
        x: shape (..., in_features).
        columns: as in `Term`.

    >>> select_columns(torch.arange(4.0), (1, 3))
    tensor([1., 2.])
    """
    if isinstance(columns, tuple):
        return x[..., columns[0] : columns[1]].clone(memory_format=torch.contiguous_format)
    return x.index_select(-1, columns)


def column_linear(
    x: Tensor,
    terms: list[Term],
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    output: Tensor | None = None,
) -> Tensor:
    """Return ``x W^T + b`` (or ``output``, when the base is opaque) plus all terms.

    Args:
        x: shape (..., in_features).
        terms: the column updates.
        weight: frozen W, shape (out_features, in_features); give this or ``output``.
        bias: shape (out_features,); trains as usual if it requires a gradient.
        output: the base layer's own output, for quantised or hooked bases; it is not written to.

    Returns:
        Tensor of shape (..., out_features). Under autocast all factors take the autocast type, otherwise
        factors are cast to the type of ``x`` (their own gradients come back in their own type).

    Raises:
        ValueError: if not exactly one of ``weight`` and ``output`` is given.

    >>> x, w, b = torch.ones(1, 2), torch.eye(2), torch.ones(2, 1)
    >>> column_linear(x, [Term(b, (0, 1), 2.0)], weight=w)
    tensor([[3., 3.]])
    """
    if (weight is None) == (output is None):
        raise ValueError("exactly one of weight and output must be given")
    if not terms:
        return F.linear(x, cast(Tensor, weight), bias) if output is None else output
    kind = x.device.type
    autocasts = torch.amp.is_autocast_available(kind)  # tensors on meta, which are shapes alone, know no autocast
    if output is not None:
        dtype = output.dtype
        x = x.to(dtype)
    elif autocasts and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x = x.to(dtype)
        weight, bias = (None if t is None else t.to(dtype) for t in (weight, bias))
    else:
        dtype = x.dtype
    if weight is not None and weight.requires_grad:  # a perturbed or trained W: autograd carries its gradient
        output, weight, bias = F.linear(x, weight, bias), None, None
    factors = [term.factor.to(dtype) for term in terms]
    layout = tuple((*_window(term.columns), term.scale) for term in terms)
    indices = [term.columns for term in terms if not isinstance(term.columns, tuple)]
    # Outside transforms the tensors created here are written to in place; a batched factor must not be added in
    # place to an unbatched tensor. Dynamo functionalises, and must not trace into the query.
    in_place = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is None
    rows = math.prod(x.shape[:-1])
    fold = in_place and weight is not None and rows >= x.shape[-1] and dtype in (torch.float32, torch.float64)
    with torch.autocast(kind, enabled=False) if autocasts else nullcontext():
        return _ColumnLinear.apply(layout, in_place, fold, x, weight, bias, output, *factors, *indices)[0]


def _window(columns) -> tuple[int, int]:
    return columns if isinstance(columns, tuple) else (-1, -1)


def _zip_terms(layout, tensors):
    """Yield (factor, columns, scale) of each term from the flat argument list."""
    indices = iter(tensors[len(layout) :])
    for factor, (start, stop, scale) in zip(tensors, layout, strict=False):
        yield factor, (start, stop) if start >= 0 else next(indices), scale


def _own(y: Tensor, shape: torch.Size | None = None) -> Tensor:
    """Return ``y``, which nothing else holds, as no view: autograd lets nobody write to a view that a Function returns.

    `torch.nn.functional.linear` too returns one, of three axes with a bias.
    """
    return torch.ops.aten._unsafe_view(y, y.shape if shape is None else shape)


def _folded(weight: Tensor, layout, tensors) -> Tensor:
    """Return a copy of W with every term added to its columns."""
    weight = weight.clone()
    for factor, columns, scale in _zip_terms(layout, tensors):
        if isinstance(columns, tuple):
            weight[:, columns[0] : columns[1]].add_(factor, alpha=scale)
        else:
            weight.index_add_(1, columns, factor, alpha=scale)
    return weight


def _scatter(dx: Tensor, part: Tensor, columns, in_place: bool) -> Tensor:
    """Add ``part`` to the columns of ``dx``."""
    if not isinstance(columns, tuple):
        return dx.index_add_(1, columns, part) if in_place else dx.index_add(1, columns, part)
    if in_place:
        dx[:, columns[0] : columns[1]].add_(part)
        return dx
    return dx + F.pad(part, (columns[0], dx.shape[1] - columns[1]))


class _ColumnLinear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(layout, in_place, fold, x, weight, bias, output, *tensors):
        if fold:
            selected = [
                select_columns(x, columns) if factor.requires_grad else x.new_empty(0)
                for factor, columns, _ in _zip_terms(layout, tensors)
            ]
            return (_own(F.linear(x, _folded(weight, layout, tensors), bias)), *selected)
        base = F.linear(x, weight, bias) if output is None else output
        flat = base.reshape(-1, base.shape[-1])
        owned = in_place and output is None
        selected = []
        for factor, columns, scale in _zip_terms(layout, tensors):
            part = select_columns(x, columns)
            left, right = part.reshape(-1, part.shape[-1]), factor.t()
            flat = flat.addmm_(left, right, alpha=scale) if owned else torch.addmm(flat, left, right, alpha=scale)
            owned = in_place
            selected.append(part)
        return (_own(flat, base.shape), *selected)

    @staticmethod
    def setup_context(ctx, inputs, outputs):
        layout, in_place, fold, x, weight, _, _, *tensors = inputs
        trained = [tensor.requires_grad for tensor in tensors[: len(layout)]]
        ctx.layout, ctx.in_place, ctx.fold, ctx.trained, ctx.x_shape = layout, in_place, fold, trained, x.shape
        ctx.set_materialize_grads(False)
        kept = [part if wanted else None for part, wanted in zip(outputs[1:], trained, strict=True)]
        ctx.save_for_backward(weight, *kept, *tensors)

    @staticmethod
    def backward(ctx, grad, *grad_selected):
        count = len(ctx.layout)
        weight, *rest = ctx.saved_tensors
        selected, tensors = rest[:count], rest[count:]
        needs_x, _, needs_bias, needs_output = ctx.needs_input_grad[3:7]
        dbias = doutput = flat = None
        dx: Any = None
        fold = ctx.fold and not torch.is_grad_enabled()  # second derivatives take the thin products
        if grad is not None:
            flat = grad.reshape(-1, grad.shape[-1])
            dbias = flat.sum(0) if needs_bias else None
            doutput = grad if needs_output else None
        if needs_x:
            if flat is not None and weight is not None:
                dx = flat @ (_folded(weight, ctx.layout, tensors) if fold else weight)
            else:
                dx = tensors[0].new_zeros(math.prod(ctx.x_shape[:-1]), ctx.x_shape[-1])
        dfactors = []
        for i, (factor, columns, scale) in enumerate(_zip_terms(ctx.layout, tensors)):
            dfactor = None
            if flat is not None:
                if ctx.trained[i]:
                    # x_S^T g rather than g^T x_S: the same product, a third faster in BLAS for a narrow x_S.
                    dfactor = (scale * (selected[i].reshape(-1, selected[i].shape[-1]).t() @ flat)).t()
                if fold or not needs_x:
                    pass
                elif isinstance(columns, tuple) and ctx.in_place:
                    dx[:, columns[0] : columns[1]].addmm_(flat, factor, alpha=scale)
                else:
                    dx = _scatter(dx, scale * (flat @ factor), columns, ctx.in_place)
            if grad_selected[i] is not None and needs_x:
                part = grad_selected[i].reshape(-1, grad_selected[i].shape[-1])
                dx = _scatter(dx, part, columns, ctx.in_place)
            dfactors.append(dfactor)
        dx = None if dx is None else dx.reshape(ctx.x_shape)
        return (None, None, None, dx, None, dbias, doutput, *dfactors, *(None for _ in tensors[count:]))
