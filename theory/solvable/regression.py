"""Solvable models of fine-tuning: mean estimation, and one linear layer adapted by cLA or asymmetric LoRA.

Each returns a ``theory.solvable.gaussian.GaussianModel``, whose methods are the closed forms and the bounds. Training
both factors of LoRA is not Gaussian and is not covered.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from theory.arguments import Count, Integers, Matrix, NonNegative, Positive, checked
from theory.array_checks import check_matrix
from theory.checks import check_integer, check_number
from theory.solvable.gaussian import GaussianModel

__all__ = ["column_regression", "gaussian_mean", "linear_regression", "sketched_regression"]


@checked
def linear_regression(
    features: Matrix, means: Matrix, *, label_std: Positive = 1.0, weight_std: NonNegative, ridge: NonNegative = 0.0
) -> GaussianModel:
    r"""Return least squares on given features, T = (U'U + ridge I)^-1 U', plus N(0, weight_std^2) on every weight.

    Without ridge the gap is 2 s^2 p R / n whatever the features: it counts trained numbers, as Table 1 of
    arXiv:2606.13767 does, while the information depends on the features' scale against the noise.

    Args:
        features: U, n x R with R <= n, of full rank unless ``ridge`` is positive.
        means: expected targets, n x p (what is left to learn after W0).
        label_std: s.
        weight_std: noise on each weight; 0 is allowed and gives infinite information.
        ridge: at least zero.

    Raises:
        ValueError: if shapes do not fit, a number is out of its range or the features are singular.

    >>> round(linear_regression(np.eye(4), np.zeros((4, 2)), weight_std=1.0).information(), 6)
    2.772589
    """
    u = check_matrix("features", features, shape=(None, None))
    m = check_matrix("means", means, shape=(len(u), None))
    s, tau = check_number("label_std", label_std, positive=True), check_number("weight_std", weight_std)
    gram = u.T @ u + check_number("ridge", ridge) * np.eye(u.shape[1])
    if np.linalg.matrix_rank(gram, hermitian=True) < len(gram):
        raise ValueError(
            f"features must have full column rank when ridge is 0, got shape {u.shape} and a singular Gram"
        )
    return GaussianModel(
        features=u,
        estimator=np.linalg.solve(gram, u.T).astype(np.float64),
        noise_covariance=tau**2 * np.eye(len(gram)),
        means=m,
        label_std=s,
    )


@checked
def gaussian_mean(
    *, num_examples: Count, dimension: Count = 1, data_std: Positive = 1.0, weight_std: NonNegative
) -> GaussianModel:
    r"""Return mean estimation: Z ~ N(0, s^2 I_d), W = sample mean + N(0, weight_std^2 I_d), loss |w - z|^2.

    I(W;S) = (d/2) ln(1 + s^2 / (n weight_std^2)), gap = 2 s^2 d / n; without noise I(W;Z_i) = (d/2) ln(n/(n-1)).

    Raises:
        ValueError: if a number is out of its range.

    >>> gaussian_mean(num_examples=10, data_std=1.0, weight_std=0.5).gap()
    0.2
    """
    n, d = check_integer("num_examples", num_examples), check_integer("dimension", dimension)
    return linear_regression(np.ones((n, 1)), np.zeros((n, d)), label_std=data_std, weight_std=weight_std)


@checked
def sketched_regression(
    inputs: Matrix, coefficients: Matrix, sketch: Matrix, *, label_std: Positive = 1.0, weight_std: NonNegative
) -> GaussianModel:
    """Return asymmetric LoRA (A frozen, B trained; arXiv:2402.16842) on one linear layer: features A x.

    Args:
        inputs: n x m.
        coefficients: what the update should become, p x m.
        sketch: A, R x m.
        label_std: s.
        weight_std: noise on every entry of B.
    """
    x = check_matrix("inputs", inputs, shape=(None, None))
    target = check_matrix("coefficients", coefficients, shape=(None, x.shape[1]))
    a = check_matrix("sketch", sketch, shape=(None, x.shape[1]))
    return linear_regression(x @ a.T, x @ target.T, label_std=label_std, weight_std=weight_std)


@checked
def column_regression(
    inputs: Matrix,
    coefficients: Matrix,
    columns: Annotated[ArrayLike, Integers()],
    *,
    label_std: Positive = 1.0,
    weight_std: NonNegative,
) -> GaussianModel:
    """Return cheap LoRA (arXiv:2606.13767) on one linear layer: only the given columns of the update are trained.

    It is ``sketched_regression`` with A a column selector.

    Raises:
        ValueError: if columns repeat or are out of range.

    >>> model = column_regression(np.eye(4), np.ones((1, 4)), [0, 1], weight_std=1.0)
    >>> model.gap(), model.bias.ravel().tolist()
    (1.0, [0.0, 0.0, 1.0, 1.0])
    """
    x = check_matrix("inputs", inputs, shape=(None, None))
    chosen = np.asarray(columns)
    valid = chosen.ndim == 1 and chosen.size > 0 and np.issubdtype(chosen.dtype, np.integer)
    if not valid or len(set(chosen.tolist())) < chosen.size or chosen.min() < 0 or chosen.max() >= x.shape[1]:
        raise ValueError(f"columns must be distinct integers in [0, {x.shape[1] - 1}], at least one, got {columns!r}")
    return sketched_regression(x, coefficients, np.eye(x.shape[1])[chosen], label_std=label_std, weight_std=weight_std)
