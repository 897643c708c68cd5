r"""Intruder dimensions: singular vectors of W0 + dW that look like none of W0's.

Source: Shuttleworth et al., *LoRA vs full fine-tuning: an illusion of equivalence*, arXiv:2410.21228: the j-th
singular vector :math:`u_j` of W0 + dW is an intruder when :math:`\max_i |\cos(u_j, u^0_i)| < \epsilon` over all
singular vectors of W0. The authors' code looks at left vectors, j < k = 10 and epsilon = 0.5, summed over matrices.

With :math:`W_0 = U_0 S_0 V_0^\top` known, W0 + dW in that basis is :math:`M = \operatorname{diag}(S_0) + L R^\top`,
of which a product costs O((p + r) r), and the singular vectors of M *are* the cosines. So after one SVD of W0
every adapter of that base is cheap, and no product of two bases is ever formed.

Matrices whose smaller side is at most 1024 are decomposed in float64, which turns vectors by so little that counts
are the same on every processor; larger ones in float32, twice as fast. Every cosine says how far rounding can move it.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from analysis.records import check_writable, replacing
from analysis.spectra.rounding import best_match, clusters, near, svd_error

__all__ = [
    "Basis",
    "BasisCache",
    "Cosines",
    "cosines",
    "count_intruders",
    "dense_cosines",
    "shared_bases",
]

Side = Literal["left", "right"]
_SMALL = 128
_DOUBLE = 1024  # smaller side up to which an SVD is computed in float64
_LANCZOS = 1e-10  # ARPACK's tolerance: the residual over the eigenvalue


@dataclass(frozen=True, kw_only=True, eq=False)
class Basis:
    """The thin SVD of a base weight, p = min(m, n).

    Attributes:
        left: U0, shape (m, p).
        values: S0, largest first, shape (p,).
        right: V0 transposed, shape (p, n).
    """

    left: Tensor
    values: Tensor
    right: Tensor

    @classmethod
    def of(cls, weight: Tensor, *, precision: torch.dtype | None = None) -> Basis:
        """Compute the SVD.

        Args:
            weight: shape (m, n).
            precision: ``torch.float32`` or ``torch.float64``; None takes float64 up to a smaller side of 1024 (and
                for float64 weights), float32 above. Everything that is computed in the basis has its precision.

        Raises:
            TypeError: if the weight is not floating point.
            ValueError: if it is not a finite matrix.
        """
        matrix = _matrix(weight, "base weight")
        matrix = matrix.to(_precision(matrix, precision))
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return cls(left=left, values=values, right=right)


class BasisCache:
    """Bases by the content of the weight, in memory and, if a folder is given, on disk.

    One base model serves all its adapters, seeds and checkpoints, so its SVDs are computed once.

    Args:
        folder: where bases are kept as safetensors (twice to four times the weights' size); None keeps them in memory
            only.
        in_memory: bases kept in memory; the oldest leaves first.
        precision: as in `Basis.of`.
    """

    def __init__(self, folder: str | Path | None = None, *, in_memory: int = 64, precision: torch.dtype | None = None):
        self.folder = None if folder is None else check_writable(folder)
        self.precision = precision
        self._kept: OrderedDict[str, Basis] = OrderedDict()
        self._in_memory = in_memory

    def get(self, weight: Tensor) -> Basis:
        """Return the weight's basis, computed at most once.

        Raises:
            TypeError: if the weight is not floating point.
            ValueError: if it is not a finite matrix, or a file on disk is damaged.
        """
        matrix = _matrix(weight, "base weight")
        digest = hashlib.blake2b(matrix.cpu().contiguous().view(torch.uint8).numpy().data, digest_size=16)
        bits = torch.finfo(_precision(matrix, self.precision)).bits
        key = f"{'x'.join(map(str, matrix.shape))}-{bits}-{digest.hexdigest()}"
        if key not in self._kept:
            self._kept[key] = self._read(key, matrix)
            while len(self._kept) > self._in_memory:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _read(self, key: str, matrix: Tensor) -> Basis:
        path = None if self.folder is None else self.folder / f"svd-{key}.safetensors"
        if path is not None and path.exists():
            try:
                return Basis(**load_file(path, device=str(matrix.device)))
            except (SafetensorError, TypeError) as error:
                raise ValueError(f"cached SVD {str(path)!r} is damaged ({error}); delete it") from None
        basis = Basis.of(matrix, precision=self.precision)
        if path is not None:
            parts = {"left": basis.left, "values": basis.values, "right": basis.right}
            with replacing(path) as new:
                save_file({name: part.contiguous() for name, part in parts.items()}, new)
        return basis


@functools.lru_cache(maxsize=1)
def shared_bases() -> BasisCache:
    """Return this process's bases of base models, in memory: runs of one base model share them."""
    return BasisCache(in_memory=256)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cosines:
    r"""How well each leading singular vector of W0 + dW is matched by one of W0.

    Attributes:
        values: singular values of W0 + dW, largest first, shape (k,).
        cosines: :math:`\max_i |\cos(u_j, u^0_i)|`, shape (k,); vectors of W0 with (nearly) equal singular values
            count as one subspace, since their choice in it is arbitrary (`analysis.spectra.rounding.best_match`).
        match: the i that attains it, in its subspace.
        gap: distance to the nearest other singular value over :math:`\sigma_j`. Where it is tiny, a small change
            rotates :math:`u_j` within its neighbours, and a low cosine need not mean an intruder.
        uncertainty: how far rounding can move each cosine (`analysis.spectra.rounding`), shape (k,); 1 where the vector
            is undefined at this precision, so that its cosine can be anything.
        side: ``"left"`` or ``"right"`` vectors.
        route: ``"operator"`` (diagonal + rank r), ``"small svd"`` (the same matrix, dense) or ``"full svd"``.
    """

    values: np.ndarray
    cosines: np.ndarray
    match: np.ndarray
    gap: np.ndarray
    uncertainty: np.ndarray
    side: Side
    route: str


def count_intruders(found: Cosines, *, epsilon: float = 0.5) -> int:
    """Return how many vectors have no match of cosine ``epsilon`` or more (strictly below, as the authors' code).

    Raises:
        ValueError: if ``epsilon`` is outside (0, 1].
    """
    _check_epsilon(epsilon)
    return int((found.cosines < epsilon).sum())


def _check_epsilon(epsilon: float) -> None:
    if not 0 < epsilon <= 1:
        raise ValueError(f"epsilon must lie in (0, 1], got {epsilon}")


def cosines(basis: Basis, left: Tensor, right: Tensor, *, count: int | None = 10, side: Side = "left") -> Cosines:
    r"""Match the leading singular vectors of W0 + left @ right with W0's, without forming W0 + dW.

    What of ``left`` and ``right`` lies outside W0's singular spaces (tall and wide matrices) is appended to the
    basis, so the result is exact: equal to the full SVD's up to rounding.

    Args:
        basis: W0's SVD.
        left: shape (m, r), the scale folded in.
        right: shape (r, n).
        count: k leading vectors; None takes all min(m, n).
        side: left or right singular vectors.

    Raises:
        TypeError: if a factor is not floating point.
        ValueError: if the shapes do not fit, ``count`` is above min(m, n), or the side is unknown.

    >>> base = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5]))
    >>> spike = torch.full((4, 1), 0.5)
    >>> found = cosines(Basis.of(base), 100 * spike, spike.T, count=2)
    >>> bool(np.isclose(found.cosines[0], 0.5, atol=0.02)), count_intruders(found, epsilon=0.6)
    (True, 1)
    """
    left, right = _matrix(left, "left"), _matrix(right, "right")
    rows, columns = len(basis.left), basis.right.shape[1]
    if left.shape[0] != rows or right.shape[1] != columns or left.shape[1] != right.shape[0]:
        raise ValueError(
            f"factors of shapes {tuple(left.shape)} and {tuple(right.shape)} do not fit a base of {(rows, columns)}"
        )
    size = len(basis.values)
    count = _check_count(count, size, side)
    lower, upper = _in_basis(basis.left, left), _in_basis(basis.right.T, right.T)
    # W0's own SVD, two projections of the factors and their product, each with an inner dimension of at most max(m, n)
    error = _base_error(basis) + 3 * svd_error((rows, columns), lower.dtype, float(lower.norm() * upper.norm()))
    if size <= _SMALL or left.shape[1] > size // 8 or count > size // 8:
        return _small_svd(basis, lower, upper, count, side, error)
    diagonal = basis.values.double().cpu().numpy()
    below, above = (part.double().cpu().numpy() for part in ((lower, upper) if side == "left" else (upper, lower)))
    try:
        values, vectors = _leading(diagonal, below, above, min(count + 1, size))
    except ArpackError:  # no convergence, or a zero matrix
        return _small_svd(basis, lower, upper, count, side, error)
    if clusters(values, near((rows, columns), torch.float64, values[0]))[-1] < len(values) - 1:
        return _small_svd(basis, lower, upper, count, side, error)  # Lanczos does not see equal values apart
    # Of M M^T: Lanczos' residual, and the rounding of the products; over sigma_j, since squares are at least
    # sigma_j (sigma_j - sigma_k) apart.
    with np.errstate(divide="ignore"):
        squares = _LANCZOS * values + svd_error((rows, columns), torch.float64, values[0] ** 2) / values
    return _matched(basis, vectors, values, count, side, "operator", error + squares[:count])


def _small_svd(basis: Basis, lower: Tensor, upper: Tensor, count: int, side: Side, error: float) -> Cosines:
    """Full SVD of diag + lower @ upper.T, in the basis' precision."""
    matrix = lower @ upper.T
    matrix.diagonal()[: len(basis.values)] += basis.values
    vectors, values, others = torch.linalg.svd(matrix, full_matrices=False)
    kept = vectors if side == "left" else others.T
    error += svd_error(matrix.shape, values.dtype, float(values[0]))
    return _matched(basis, kept.double().cpu().numpy(), values.double().cpu().numpy(), count, side, "small svd", error)


def _leading(diagonal: np.ndarray, lower: np.ndarray, upper: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading singular values and left vectors of diag + lower @ upper.T by Lanczos on M M^T."""
    size = len(diagonal)

    def multiply(vector: np.ndarray) -> np.ndarray:
        vector = vector.ravel()
        across = upper @ (lower.T @ vector)
        across[:size] += diagonal * vector[:size]
        back = lower @ (upper.T @ across)
        back[:size] += diagonal * across[:size]
        return back

    shape = (len(lower), len(lower))
    operator: Any = LinearOperator(shape, matvec=multiply, dtype=np.float64)  # type: ignore[call-overload]
    start = np.random.default_rng(0).standard_normal(len(lower))
    squares, vectors = eigsh(operator, k=count, which="LM", v0=start, ncv=min(len(lower), 4 * count), tol=_LANCZOS)
    order = np.argsort(-squares)
    return np.sqrt(np.maximum(squares[order], 0)), vectors[:, order]


def _in_basis(basis: Tensor, factor: Tensor) -> Tensor:
    """Coordinates of a factor's columns in an orthonormal basis, extended by what lies outside it."""
    factor = factor.to(basis)
    inside = basis.T @ factor
    if basis.shape[0] == basis.shape[1]:
        return inside
    rest = factor - basis @ inside
    rest -= basis @ (basis.T @ rest)
    return torch.cat([inside, torch.linalg.qr(rest, mode="r").R])


def dense_cosines(basis: Basis, tuned: Tensor, *, count: int | None = 10, side: Side = "left") -> Cosines:
    """Match the leading singular vectors of a dense tuned weight with W0's by a full SVD (the reference).

    Args:
        basis: W0's SVD.
        tuned: W0 + dW, shape (m, n), summed in the basis' precision where that is to count.
        count: as in `cosines`.
        side: as in `cosines`.

    Raises:
        TypeError: if ``tuned`` is not floating point.
        ValueError: if shapes differ or ``count`` is above min(m, n).
    """
    tuned = _matrix(tuned, "tuned weight").to(basis.left)
    if tuned.shape != (len(basis.left), basis.right.shape[1]):
        raise ValueError(
            f"tuned weight has shape {tuple(tuned.shape)}, base has {(len(basis.left), basis.right.shape[1])}"
        )
    size = len(basis.values)
    count = _check_count(count, size, side)
    vectors, values, others = torch.linalg.svd(tuned, full_matrices=False)
    kept = vectors if side == "left" else others.T
    inner = (basis.left if side == "left" else basis.right.T).T @ kept
    # the SVD, and one rounding of the sum W0 + dW
    error = svd_error(tuned.shape, values.dtype, float(values[0])) + svd_error((1,), values.dtype, float(tuned.norm()))
    return _matched(basis, inner.double().cpu().numpy(), values.double().cpu().numpy(), count, side, "full svd", error)


def _base_error(basis: Basis) -> float:
    shape = (len(basis.left), basis.right.shape[1])
    return svd_error(shape, basis.values.dtype, float(basis.values[0]))


def _matched(
    basis: Basis,
    vectors: np.ndarray,
    values: np.ndarray,
    count: int,
    side: Side,
    route: str,
    error: float | np.ndarray,
) -> Cosines:
    """Match vectors in W0's coordinates; ``error``: spectral norm of what they are off by, as a perturbation of M."""
    shape = (len(basis.left), basis.right.shape[1])
    size, dtype = min(shape), basis.values.dtype
    diagonal = basis.values.double().cpu().numpy()
    tolerances = (near(shape, dtype, values[0]), near(shape, dtype, diagonal[0]))
    whole = int(np.searchsorted(clusters(values, tolerances[0]), clusters(values, tolerances[0])[count - 1], "right"))
    whole = min(whole, vectors.shape[1])  # the last vector's company too
    error = error if np.ndim(error) == 0 else np.pad(np.asarray(error), (0, whole - count), "edge")
    found, match, moved = best_match(
        vectors[:size, :whole],
        values,
        diagonal,
        errors=(error, _base_error(basis)),
        tolerances=tolerances,
        square=shape[0] == shape[1],
    )
    # an inner product of two computed unit vectors
    moved = np.minimum(moved + svd_error(shape, dtype, 1.0), 1.0)[:count]
    padded = np.concatenate([[np.inf], values[: count + 1]])
    if len(values) <= count:
        padded = np.concatenate([padded, [-np.inf]])
    gap = np.minimum(padded[:-2] - padded[1:-1], padded[1:-1] - padded[2:])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = gap / values[:count]
    return Cosines(
        values=values[:count],
        cosines=found[:count],
        match=match[:count],
        gap=relative,
        uncertainty=moved,
        side=side,
        route=route,
    )


def _check_count(count: int | None, size: int, side: str) -> int:
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    if count is None:
        return size
    if not 1 <= count <= size:
        raise ValueError(f"count must lie between 1 and min(m, n) = {size}, got {count}")
    return count


def _precision(matrix: Tensor, asked: torch.dtype | None) -> torch.dtype:
    if asked not in (None, torch.float32, torch.float64):
        raise ValueError(f"precision must be torch.float32 or torch.float64, got {asked}")
    double = matrix.dtype == torch.float64 or min(matrix.shape) <= _DOUBLE
    return asked or (torch.float64 if double else torch.float32)


def _matrix(weight: Tensor, label: str) -> Tensor:
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"{label} must be a tensor, got {type(weight).__name__}")
    if not weight.is_floating_point():
        raise TypeError(f"{label} is {weight.dtype}, not floating point; dequantise it first")
    if weight.ndim != 2:
        raise ValueError(f"{label} must be a matrix, got shape {tuple(weight.shape)}")
    weight = weight.detach()
    weight = weight if weight.dtype == torch.float64 else weight.float()
    if not torch.isfinite(weight).all():
        raise ValueError(f"{label} holds NaN or infinity")
    return weight
