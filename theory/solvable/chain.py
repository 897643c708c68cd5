r"""A chain of links on one linear layer, solved exactly: the chain rule of information, link by link.

Link j fits B_j on features A_j x to what the merged links left over, B_j = T_j (Y - sum_{l<j} U_l B_l) + E_j, as
CoLA-like methods do (arXiv:2401.04151, arXiv:2410.08305, arXiv:2606.13767). All of it is Gaussian, so

    I(B_1..B_k; S) = sum_j I(B_j; S | B_1..B_{j-1})

can be checked term by term, and the merged update sum_j B_j A_j compared: it is a function of the links, so it
carries no more information, and less as soon as windows wrap around and are trained twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.arguments import Count, Matrix, NonNegative, Positive, checked
from theory.array_checks import check_matrix
from theory.checks import check_integer, check_number
from theory.solvable.gaussian import GaussianModel

__all__ = ["GaussianChain", "circulant_sketches", "gaussian_chain"]

Array = NDArray[np.float64]


@checked
def circulant_sketches(*, in_features: Count, rank: Count, links: Count) -> list[Array]:
    """Return the column selectors of c3LA: link j selects columns j r .. (j+1) r - 1; the last block may be short.

    After ceil(m / r) links the windows start again from the first.

    Raises:
        ValueError: if the rank is above the number of columns.

    >>> [sketch.argmax(1).tolist() for sketch in circulant_sketches(in_features=5, rank=2, links=4)]
    [[0, 1], [2, 3], [4], [0, 1]]
    """
    m = check_integer("in_features", in_features)
    r = check_integer("rank", rank, maximum=m)
    starts = range(0, m, r)
    return [np.eye(m)[starts[j % len(starts)] :][:r] for j in range(check_integer("links", links))]


@dataclass(frozen=True, kw_only=True)
class GaussianChain:
    """A trained chain.

    Attributes:
        model: all links stacked, as one ``GaussianModel`` (its weights are B_1..B_k; its gap that of the merged layer).
        sketches: A_1..A_k.
        weight_std: noise on every entry of every B_j.
    """

    model: GaussianModel
    sketches: list[Array]
    weight_std: float

    def link_informations(self) -> Array:
        r"""Return I(B_j; S | B_1..B_{j-1}) per link, in nats.

        Given the earlier links and S, B_j has covariance weight_std^2 I; given the earlier links alone, the Schur
        complement of the stacked covariance. Computed block by block, without using the total.
        """
        if self.weight_std == 0:
            return np.full(len(self.sketches), math.inf)
        covariance, start, terms = self.model.covariance, 0, []
        for sketch in self.sketches:
            stop = start + len(sketch)
            earlier, across = covariance[:start, :start], covariance[:start, start:stop]
            schur = covariance[start:stop, start:stop] - across.T @ np.linalg.solve(earlier, across)
            terms.append(np.linalg.slogdet(schur)[1] - 2 * len(sketch) * math.log(self.weight_std))
            start = stop
        return self.model.outputs / 2 * np.array(terms)

    def merged_information(self) -> float:
        r"""Return I(sum_j B_j A_j; S) in nats, on the span of the rows of A_1..A_k."""
        if self.weight_std == 0:
            return math.inf
        stacked = np.vstack(self.sketches)
        _, values, basis = np.linalg.svd(stacked, full_matrices=False)
        projected = basis[values > values[0] * 1e-10] @ stacked.T
        both, noise = (
            np.linalg.slogdet(projected @ c @ projected.T)[1]
            for c in (self.model.covariance, self.model.noise_covariance)
        )
        return float(self.model.outputs / 2 * (both - noise))


@checked
def gaussian_chain(
    inputs: Matrix,
    coefficients: Matrix,
    sketches: Sequence[Matrix],
    *,
    label_std: Positive = 1.0,
    weight_std: NonNegative,
) -> GaussianChain:
    """Train a chain of links by noisy least squares, each on the residual of the merged ones before it.

    Args:
        inputs: n x m.
        coefficients: what the update should become, p x m.
        sketches: A_j per link, r_j x m; column selectors for c3LA, random matrices for RAC-LoRA.
        label_std: s.
        weight_std: noise on every entry of every B_j; the next link sees it.

    Raises:
        ValueError: if there is no link, shapes do not fit, or a link's features are singular.

    >>> windows = circulant_sketches(in_features=4, rank=2, links=2)
    >>> chain = gaussian_chain(np.eye(4), np.ones((1, 4)), windows, weight_std=1.0)
    >>> chain.link_informations().round(6).tolist(), round(chain.model.information(), 6)
    ([0.693147, 0.693147], 1.386294)
    """
    x = check_matrix("inputs", inputs, shape=(None, None))
    target = check_matrix("coefficients", coefficients, shape=(None, x.shape[1]))
    frozen = [check_matrix(f"sketches[{j}]", a, shape=(None, x.shape[1])) for j, a in enumerate(sketches)]
    if not frozen:
        raise ValueError("sketches must hold at least one link, got none")
    s, tau = check_number("label_std", label_std, positive=True), check_number("weight_std", weight_std)
    stacked = x @ np.vstack(frozen).T
    total, start = stacked.shape[1], 0
    from_targets, from_noise = np.zeros((total, len(x))), np.eye(total)
    for j, sketch in enumerate(frozen):
        stop = start + len(sketch)
        features = stacked[:, start:stop]
        gram = features.T @ features
        if np.linalg.matrix_rank(gram, hermitian=True) < len(gram):
            raise ValueError(f"sketches[{j}] must keep the features of full column rank, got a singular Gram matrix")
        solve = np.linalg.solve(gram, features.T)
        from_targets[start:stop] = solve @ (np.eye(len(x)) - stacked[:, :start] @ from_targets[:start])
        from_noise[start:stop] -= solve @ stacked[:, :start] @ from_noise[:start]
        start = stop
    model = GaussianModel(
        features=stacked,
        estimator=from_targets,
        noise_covariance=tau**2 * from_noise @ from_noise.T,
        means=x @ target.T,
        label_std=s,
    )
    return GaussianChain(model=model, sketches=frozen, weight_std=tau)
