r"""Hessian and Gauss-Newton products over an adapter's parameters (or any subset), and their top eigenvalues.

The gradient's graph is kept, so that one product is one backward pass:
:math:`H v = \nabla_\theta \langle \nabla_\theta L, v \rangle` (Pearlmutter, 1994). Fused attention kernels have no
second derivative, so the graph is built on the MATH kernel, whatever the user's default.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.geometry.objective import Data, Forward, Loss, Objective, agree, evaluation_mode, objective_at
from analysis.geometry.spaces import SpaceName

__all__ = ["Curvature", "Eigenvalues", "batch_eigenvalues", "gauss_newton", "hessian", "top_eigenvalues"]

Outputs = Callable[[Forward, Any], Tensor]
Criterion = Callable[[Tensor, Any], Tensor]


class Curvature(LinearOperator):
    r"""A symmetric matrix known by its products with vectors; a scipy ``LinearOperator`` in float64.

    Products are computed in the parameters' own precision. With one batch, or ``retain=True``, the graphs are
    kept between products; otherwise each product builds them anew, batch by batch.

    Attributes:
        kind: ``"hessian"`` or ``"gauss-newton"``.
        shapes: parameter name -> shape, in the order of the vector's entries.
        products: matrix-vector products so far.
    """

    def __init__(
        self,
        kind: str,
        objective: Objective,
        parameters: Mapping[str, Tensor],
        build: Callable[[Mapping[str, Tensor], Any], Callable[[list[Tensor]], list[Tensor]]],
        *,
        retain: bool | None,
    ):
        self.kind = kind
        self.shapes = {name: tuple(value.shape) for name, value in parameters.items()}
        self.products = 0
        self._objective = objective
        self._leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        self._build = build
        self._weights = [objective.weight(batch) for batch in objective.batches]
        self._retain = len(self._weights) == 1 if retain is None else retain
        self._kept: list[Callable[[list[Tensor]], list[Tensor]]] = []
        size = sum(math.prod(shape) for shape in self.shapes.values())
        super().__init__(dtype=np.dtype(np.float64), shape=(size, size))  # type: ignore[call-arg]

    def split(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Cut a flat vector (an eigenvector) into one array per parameter."""
        pieces, place = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            pieces[name] = np.asarray(vector[place : place + size]).reshape(shape)
            place += size
        return pieces

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        vector = [
            torch.as_tensor(part, dtype=leaf.dtype, device=leaf.device)
            for part, leaf in zip(self.split(np.ravel(x)).values(), self._leaves.values(), strict=True)
        ]
        self.products += 1
        total = np.zeros(self.shape[0])
        for weight, product in zip(self._weights, self._products(), strict=True):
            parts = [part.double().reshape(-1) for part in product(vector)]
            total += weight * torch.cat(parts).cpu().numpy()
        return total / sum(self._weights)

    def _adjoint(self) -> Curvature:
        return self

    def _products(self) -> Iterable[Callable[[list[Tensor]], list[Tensor]]]:
        if self._kept:
            yield from self._kept
            return
        with evaluation_mode(self._objective.model):
            for batch in self._objective.batches:
                with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                    product = self._build(self._leaves, batch)
                if self._retain:
                    self._kept.append(product)
                else:
                    yield product
        yield from self._kept

    def dense(self) -> np.ndarray:
        """Return the matrix itself, one product per column; for small models and tests."""
        return np.stack([self.matvec(column) for column in np.eye(self.shape[0])], axis=1)


def _differentiate(outputs: Tensor, leaves: Iterable[Tensor], **options: Any) -> list[Tensor]:
    leaves = list(leaves)
    if not outputs.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    parts = torch.autograd.grad(outputs, leaves, allow_unused=True, **options)
    return [torch.zeros_like(leaf) if part is None else part for part, leaf in zip(parts, leaves, strict=True)]


def _inner(first: Iterable[Tensor], second: Iterable[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def hessian(
    model: nn.Module,
    data: Data,
    *,
    loss: Loss | None = None,
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
    retain: bool | None = None,
) -> Curvature:
    r"""Return the Hessian :math:`\nabla^2 L(\theta)` of the mean loss as an operator.

    Args:
        model: any torch module; evaluation mode inside, never changed.
        data: as in `analysis.geometry.landscape.plane`.
        loss: as there.
        space: whose parameters; ``"adapter"``, ``"merged"`` or ``"full"``.
        names: restrict to these parameters (one module's block, for example).
        retain: keep the graphs of all batches between products (fast, takes memory); None keeps a single batch's.

    Raises:
        TypeError: if a parameter is not floating point.
        ValueError: if the space is empty or the data are not fixed batches.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> hessian(model, (x, torch.zeros(2, 1))).dense().tolist()
    [[1.0, 0.0], [0.0, 4.0]]
    """
    objective, moved, _ = objective_at(model, data, loss=loss, space=space, names=names)

    def build(leaves: Mapping[str, Tensor], batch: Any) -> Callable[[list[Tensor]], list[Tensor]]:
        loss = objective.batch_loss({**moved.rest, **leaves}, batch)
        gradient = _differentiate(loss, leaves.values(), create_graph=True)

        def product(vector: list[Tensor]) -> list[Tensor]:
            return _differentiate(_inner(gradient, vector), leaves.values(), retain_graph=True)

        return product

    return Curvature("hessian", objective, moved.start, build, retain=retain)


def gauss_newton(
    model: nn.Module,
    data: Data,
    *,
    outputs: Outputs | None = None,
    criterion: Criterion | None = None,
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
    retain: bool | None = None,
) -> Curvature:
    r"""Return the generalized Gauss-Newton matrix :math:`J^\top \nabla^2_z \ell\, J` of the mean loss.

    Source: Schraudolph, 2002. It is positive semi-definite for a convex criterion, equals the Fisher matrix for
    cross-entropy, and the Hessian where the outputs are linear in the parameters. :math:`J v` is the derivative
    of :math:`\langle J^\top u, v \rangle` in u, so no forward-mode derivatives are needed.

    Args:
        model: any torch module.
        data: as in `analysis.geometry.landscape.plane`.
        outputs: ``outputs(forward, batch) -> z``; None takes the output's logits (a pair's plain output).
        criterion: ``criterion(z, batch) -> mean loss``; None is cross-entropy for integer labels (of classes in the
            last dimension, shifted by one or not, or in the second), else the squared error: which is the model's loss.
        space: as in `hessian`.
        names: as in `hessian`.
        retain: as in `hessian`.

    Raises:
        TypeError: as `hessian`.
        ValueError: as `hessian`; and without ``criterion``, if neither of those is the model's loss.
    """
    objective, moved, _ = objective_at(model, data, space=space, names=names)
    measure = criterion if criterion is not None else _criterion_of(objective, outputs or _logits)

    def build(leaves: Mapping[str, Tensor], batch: Any) -> Callable[[list[Tensor]], list[Tensor]]:
        z = (outputs or _logits)(objective.forward({**moved.rest, **leaves}), batch)
        free = z.detach().requires_grad_()
        loss = measure(free, batch)
        (slope,) = _differentiate(loss, [free], create_graph=True)
        dummy = torch.zeros_like(z).requires_grad_()
        pulled = _differentiate((z * dummy).sum(), leaves.values(), create_graph=True)

        def product(vector: list[Tensor]) -> list[Tensor]:
            (pushed,) = _differentiate(_inner(pulled, vector), [dummy], retain_graph=True)
            (curved,) = _differentiate((slope * pushed).sum(), [free], retain_graph=True)
            return _differentiate((z * curved).sum(), leaves.values(), retain_graph=True)

        return product

    return Curvature("gauss-newton", objective, moved.start, build, retain=retain)


def _logits(forward: Forward, batch: Any) -> Tensor:
    result = forward(**batch) if isinstance(batch, Mapping) else forward(batch[0])
    return cast(Tensor, getattr(result, "logits", result))


def _labels(batch: Any) -> Tensor:
    return batch["labels"] if isinstance(batch, Mapping) else batch[1]


def _classes_last(z: Tensor, batch: Any) -> Tensor:
    labels = _labels(batch)
    return F.cross_entropy(z.reshape(-1, z.shape[-1]), labels.reshape(-1))


def _shifted(z: Tensor, batch: Any) -> Tensor:
    labels = _labels(batch)[..., 1:]
    return F.cross_entropy(z[..., :-1, :].reshape(-1, z.shape[-1]), labels.reshape(-1))


def _classes_second(z: Tensor, batch: Any) -> Tensor:
    return F.cross_entropy(z, _labels(batch))


def _squared(z: Tensor, batch: Any) -> Tensor:
    return F.mse_loss(z, _labels(batch))


def _squared_flat(z: Tensor, batch: Any) -> Tensor:
    return F.mse_loss(z.squeeze(), _labels(batch).squeeze())  # as transformers do with one output


@torch.no_grad()
def _criterion_of(objective: Objective, outputs: Outputs) -> Criterion:
    """Find the loss of the outputs that is the model's own, on the first batch: never by shapes or names alone."""
    batch = next(iter(objective.batches))
    with evaluation_mode(objective.model):
        z, own = outputs(objective.forward({}), batch), objective.batch_loss({}, batch)
    floating = _labels(batch).is_floating_point()
    tried = []
    for criterion in (_squared, _squared_flat) if floating else (_classes_second, _classes_last, _shifted):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # shapes that broadcast were warned about with the loss itself
                value = float(criterion(z, batch))
        except (RuntimeError, ValueError, IndexError):  # labels of another shape, or of more classes
            continue
        if agree(value, float(own), dtype=own.dtype):
            return criterion
        tried.append(f"{value:.6g}")
    kind, found = "squared error" if floating else "cross-entropy", " or ".join(tried) or "undefined"
    raise ValueError(
        f"the model's loss on the first batch is {float(own):.6g}, the {kind} of its outputs {found}; "
        "give criterion=function(z, batch)"
    )


@dataclass(frozen=True, kw_only=True)
class Eigenvalues:
    r"""Extreme eigenvalues, each with the residual that says how far to trust it.

    Attributes:
        values: largest first.
        residuals: :math:`\|H v - \lambda v\|`; some eigenvalue of H lies within it of :math:`\lambda`.
        vectors: unit eigenvectors as columns, shape (parameters, k).
        products: matrix-vector products spent, the residuals' included.
        converged: whether ARPACK met its tolerance; if not, the values are what it had.
    """

    values: np.ndarray
    residuals: np.ndarray
    vectors: np.ndarray
    products: int
    converged: bool


def top_eigenvalues(
    operator: LinearOperator,
    *,
    count: int = 5,
    which: Literal["largest", "magnitude", "smallest"] = "largest",
    tolerance: float = 1e-4,
    max_products: int | None = None,
    subspace: int | None = None,
    seed: int = 0,
) -> Eigenvalues:
    r"""Return the top eigenvalues of a symmetric operator by implicitly restarted Lanczos, with residuals.

    Args:
        operator: a `Curvature`, or any symmetric scipy operator.
        count: k, at least 1 and at most the dimension.
        which: ``"largest"`` (algebraic), ``"magnitude"`` or ``"smallest"`` (algebraic; negative curvature).
        tolerance: ARPACK's, relative to each eigenvalue.
        max_products: never spend more than this many products, the residuals' included; None is ARPACK's own limit.
        subspace: Lanczos vectors kept, above ``count``; None is max(2 k + 1, 20). Fewer spend fewer products on
            a well-separated eigenvalue.
        seed: of the starting vector.

    Raises:
        ValueError: if ``count`` is below 1 or above the dimension, ``which`` is unknown, or ``max_products`` does not
            reach for one Lanczos run of ``count`` eigenvalues.
    """
    codes: dict[str, Any] = {"largest": "LA", "magnitude": "LM", "smallest": "SA"}
    if which not in codes:
        raise ValueError(f"unknown which={which!r}; accepted: {', '.join(codes)}")
    size = operator.shape[0]
    if not 1 <= count <= size:
        raise ValueError(f"count must lie between 1 and the dimension {size}, got {count}")
    spent = 0

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal spent
        spent += 1
        return operator.matvec(vector)

    dense = size <= max(8, 2 * count)
    enough = size + count if dense else 2 * count + 4
    if max_products is not None and max_products < enough:
        raise ValueError(f"max_products must be at least {enough} for {count} eigenvalues, got {max_products}")
    if dense:
        values, vectors, converged = *_dense_eigenvalues(multiply, size, count, which), True
    else:
        lanczos = min(size, max(count + 2, subspace or max(2 * count + 1, 20)))
        limit = None
        if max_products is not None:
            # ARPACK takes ncv products and up to ncv - k for each iteration; the residuals take k
            lanczos = min(lanczos, max_products // 2)
            limit = min(max_products // lanczos, (max_products - count - lanczos) // (lanczos - count))
        start = np.random.default_rng(seed).standard_normal(size)
        options = {"k": count, "which": codes[which], "tol": tolerance, "ncv": lanczos, "maxiter": limit}
        values, vectors, converged = _lanczos_eigenvalues(multiply, start, options)
    order = np.argsort(-values)
    values, vectors = values[order], vectors[:, order]
    residuals = np.array(
        [np.linalg.norm(multiply(vectors[:, j]) - values[j] * vectors[:, j]) for j in range(len(values))]
    )
    return Eigenvalues(values=values, residuals=residuals, vectors=vectors, products=spent, converged=converged)


def _dense_eigenvalues(
    multiply: Callable[[np.ndarray], np.ndarray], size: int, count: int, which: str
) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.stack([multiply(column) for column in np.eye(size)], axis=1)
    if not np.isfinite(matrix).all():
        return np.full(count, np.nan), np.eye(size, count)
    values, vectors = np.linalg.eigh(_symmetric(matrix))
    order = np.argsort(-np.abs(values) if which == "magnitude" else values if which == "smallest" else -values)
    return values[order[:count]], vectors[:, order[:count]]


def _lanczos_eigenvalues(
    multiply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, options: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Run ARPACK; a matrix that sends the random start to zero is zero, one that sends it to NaN has NaN."""
    met: list[np.ndarray] = []

    def watched(vector: np.ndarray) -> np.ndarray:
        image = multiply(vector)
        if not met:
            met.append(image)
            if not np.isfinite(image).all() or not image.any():
                raise _Degenerate
        return image

    operator: Any = LinearOperator((len(start), len(start)), matvec=watched, dtype=np.float64)
    try:
        return *eigsh(operator, v0=start, **options), True
    except ArpackNoConvergence as error:
        return error.eigenvalues, error.eigenvectors, False
    except _Degenerate:
        zero = bool(np.isfinite(met[0]).all())
        return np.full(options["k"], 0.0 if zero else np.nan), np.eye(len(start), options["k"]), zero


class _Degenerate(Exception):
    """The first product already says what the matrix is."""


def batch_eigenvalues(
    model: nn.Module,
    data: Data,
    *,
    loss: Loss | None = None,
    space: SpaceName = "adapter",
    names: Iterable[str] | None = None,
    count: int = 1,
    max_products: int | None = None,
    seed: int = 0,
) -> list[Eigenvalues]:
    """Return the top Hessian eigenvalues of each mini-batch's own loss, in the data's order.

    Their spread says how much of a whole loader's curvature one batch shows.

    Args:
        model: any torch module.
        data: as in `analysis.geometry.landscape.plane`.
        loss: as there.
        space: as in `hessian`.
        names: as in `hessian`.
        count: as in `top_eigenvalues`, of each batch.
        max_products: as in `top_eigenvalues`, of each batch.
        seed: of the starting vectors.

    Raises:
        TypeError, ValueError: as `hessian` and `top_eigenvalues`.
    """
    names = None if names is None else list(names)
    found = []
    for batch in Objective(model, data, loss=loss).batches:
        operator = hessian(model, [batch], loss=loss, space=space, names=names)
        found.append(top_eigenvalues(operator, count=count, max_products=max_products, seed=seed))
    return found


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
