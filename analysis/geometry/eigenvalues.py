"""Extreme eigenvalues of a curvature, each with its residual, within a budget of products; of each mini-batch too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import nn

from analysis.geometry.curvature import hessian
from analysis.geometry.objective import Data, Loss, Objective
from analysis.geometry.spaces import SpaceName

__all__ = ["Eigenvalues", "batch_eigenvalues", "top_eigenvalues"]


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
