r"""Gaussian models of fine-tuning in which every quantity of a generalization bound has a closed form.

Fixed design: example i has known features u_i (R numbers; for an adapter u_i = A x_i) and a random target
y_i = m_i + s N(0, I_p). Fine-tuning learns B (p x R, kept here as R x p) by B = T Y + E: a linear map of the targets,
plus noise with covariance C_E per output, which keeps I(B;S) finite. With S = (y_1..y_n) everything is jointly
Gaussian. The loss is |y - B u|^2, and the gap is against fresh targets at the same u_i. Mean estimation is the special
case u_i = 1, where the fresh targets are i.i.d. examples.

Squared loss is not sub-Gaussian under Gaussian data, so the sub-Gaussian forms of the bounds do not apply; the
bounds here use the exact cumulant generating function of the loss instead (``theory.variational``). The loss is
unbounded too: for the CMI family see ``theory.exact_finite``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.array_checks import check_matrix
from theory.checks import check_integer, check_number
from theory.variational import chi_square_gap, dual_gap

__all__ = [
    "GaussianModel",
    "Simulation",
    "column_regression",
    "gaussian_mean",
    "linear_regression",
    "sketched_regression",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Monte Carlo runs: per run the training and the test loss, and what was drawn and learned.

    Attributes:
        train: mean training loss per run.
        test: mean loss on fresh targets per run.
        targets: runs x n x p.
        weights: runs x R x p.
    """

    train: Array
    test: Array
    targets: Array
    weights: Array

    @property
    def gap(self) -> tuple[float, float]:
        """Mean of test minus train, and its standard error."""
        difference = self.test - self.train
        return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


@dataclass(frozen=True, kw_only=True)
class GaussianModel:
    """B = T Y + E on features U, see the module's head.

    Attributes:
        features: U, n x R.
        estimator: T, R x n.
        noise_covariance: C_E, R x R, of each output's column of E; zero makes I(B;S) infinite.
        means: m, n x p.
        label_std: s, above zero.
    """

    features: Array
    estimator: Array
    noise_covariance: Array
    means: Array
    label_std: float

    @property
    def num_examples(self) -> int:
        """Return n."""
        return len(self.features)

    @property
    def outputs(self) -> int:
        """Return p."""
        return self.means.shape[1]

    @property
    def covariance(self) -> Array:
        """Return the covariance of each output's column of B: s^2 T T' + C_E."""
        return self.label_std**2 * self.estimator @ self.estimator.T + self.noise_covariance

    @property
    def bias(self) -> Array:
        """Return m - U E[B], n x p: what the features cannot express, or ridge holds back."""
        return self.means - self.features @ (self.estimator @ self.means)

    def information(self) -> float:
        r"""Return I(B;S) = (p/2) ln det(s^2 T T' + C_E) / det C_E, in nats; infinite if C_E is singular."""
        sign, conditional = np.linalg.slogdet(self.noise_covariance)
        if sign <= 0 or not math.isfinite(conditional):
            return math.inf
        return float(self.outputs / 2 * (np.linalg.slogdet(self.covariance)[1] - conditional))

    def individual_informations(self) -> Array:
        r"""Return I(B;Z_i) = -(p/2) ln(1 - s^2 t_i' (s^2 T T' + C_E)^-1 t_i) in nats, t_i the columns of T."""
        solved = np.linalg.solve(self.covariance, self.estimator)
        share = self.label_std**2 * (self.estimator * solved).sum(0)
        with np.errstate(divide="ignore"):
            return -self.outputs / 2 * np.log1p(-np.clip(share, 0.0, 1.0))

    def gap(self) -> float:
        r"""Return E[test loss - training loss] = (2 s^2 p / n) tr(U T): the covariance of a fit with its own target."""
        return float(
            2 * self.label_std**2 * self.outputs / self.num_examples * np.einsum("ij,ji", self.features, self.estimator)
        )

    def test_risk(self) -> float:
        r"""Return E mean_i |y_i' - B u_i|^2 = p s^2 + p mean u_i' Cov u_i + mean |bias_i|^2."""
        spread = np.einsum("ij,jk,ik->i", self.features, self.covariance, self.features)
        return float(self.outputs * (self.label_std**2 + spread.mean()) + (self.bias**2).sum(1).mean())

    def xu_raginsky(self) -> float:
        r"""Return Xu and Raginsky's bound (arXiv:1705.07809) with the exact law of the squared loss.

        Their function, risk minus training risk at a fixed B, has for independent S, with x = 2 s^2 lambda / n,

            ln E exp(lambda (R(B) - R_S(B))) = (n p / 2)(x - ln(1+x)) + k |m - U B|^2,  k = (lambda/n) x / (1+x) ,

        and the mean over the Gaussian B is a determinant, finite while 2 k < 1 / |U Cov U'|. A sub-Gaussian constant
        that holds for every B, which their Theorem 1 assumes, does not exist.
        """
        n, p, s2 = self.num_examples, self.outputs, self.label_std**2
        values, vectors = np.linalg.eigh(self.features @ self.covariance @ self.features.T)
        values = np.maximum(values, 0.0)
        energy = ((vectors.T @ self.bias) ** 2).sum(1)
        # k grows with lambda; 2 k top < 1 solved for lambda as a quadratic: (2 s2 / n) top (2 l^2 / n) < 1 + 2 s2 l / n
        top = float(values.max())
        quadratic = 4 * s2 * top / n**2
        upper = (s2 / n + math.sqrt((s2 / n) ** 2 + quadratic)) / quadratic if quadratic > 0 else math.inf

        def cumulant(lam: float) -> float:
            x = 2 * s2 * lam / n
            k = lam / n * x / (1 + x)
            left = 1 - 2 * k * values
            if left.min() <= 0:
                return math.inf
            return float(n * p / 2 * (x - math.log1p(x)) - p / 2 * np.log(left).sum() + k * (energy / left).sum())

        variance = 2 * p * s2**2 / n + 4 * s2 / n**2 * (p * values.sum() + energy.sum())
        return dual_gap(self.information(), cumulant, variance=float(variance), upper=upper)

    def individual_sample(self) -> float:
        r"""Return the bound of Bu, Zou, Veeravalli (arXiv:1901.04609): the mean over i of ``chi_square_gap``.

        With B independent of Z_i the residual y_i - B u_i is N(bias_i, (s^2 + u_i' Cov u_i) I_p).
        """
        spread = np.einsum("ij,jk,ik->i", self.features, self.covariance, self.features) + self.label_std**2
        centre = (self.bias**2).sum(1)
        return float(
            np.mean(
                [
                    chi_square_gap(
                        float(information), variance=float(c), dimension=self.outputs, noncentrality=float(b)
                    )
                    for information, c, b in zip(self.individual_informations(), spread, centre, strict=True)
                ]
            )
        )

    def simulate(self, *, repeats: int, rng: np.random.Generator) -> Simulation:
        """Draw targets, learn, and test on fresh targets, ``repeats`` times.

        Raises:
            ValueError: if ``repeats`` is below 2.
        """
        check_integer("repeats", repeats, minimum=2)
        shape = (repeats, *self.means.shape)
        targets = self.means + self.label_std * rng.normal(size=shape)
        fresh = self.means + self.label_std * rng.normal(size=shape)
        values, vectors = np.linalg.eigh(self.noise_covariance)
        noise = rng.normal(size=(repeats, len(values), self.outputs))
        weights = self.estimator @ targets + (vectors * np.sqrt(np.maximum(values, 0.0))) @ noise
        fit = self.features @ weights
        train, test = (((y - fit) ** 2).sum(2).mean(1) for y in (targets, fresh))
        return Simulation(train=train, test=test, targets=targets, weights=weights)


def linear_regression(
    features: ArrayLike, means: ArrayLike, *, label_std: float = 1.0, weight_std: float, ridge: float = 0.0
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


def gaussian_mean(*, num_examples: int, dimension: int = 1, data_std: float = 1.0, weight_std: float) -> GaussianModel:
    r"""Return mean estimation: Z ~ N(0, s^2 I_d), W = sample mean + N(0, weight_std^2 I_d), loss |w - z|^2.

    I(W;S) = (d/2) ln(1 + s^2 / (n weight_std^2)), gap = 2 s^2 d / n; without noise I(W;Z_i) = (d/2) ln(n/(n-1)).

    Raises:
        ValueError: if a number is out of its range.

    >>> gaussian_mean(num_examples=10, data_std=1.0, weight_std=0.5).gap()
    0.2
    """
    n, d = check_integer("num_examples", num_examples), check_integer("dimension", dimension)
    return linear_regression(np.ones((n, 1)), np.zeros((n, d)), label_std=data_std, weight_std=weight_std)


def sketched_regression(
    inputs: ArrayLike, coefficients: ArrayLike, sketch: ArrayLike, *, label_std: float = 1.0, weight_std: float
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


def column_regression(
    inputs: ArrayLike, coefficients: ArrayLike, columns: ArrayLike, *, label_std: float = 1.0, weight_std: float
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
