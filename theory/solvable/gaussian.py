r"""Gaussian models of fine-tuning in which every quantity of a generalization bound has a closed form.

Fixed design: example i has known features u_i (R numbers; for an adapter u_i = A x_i) and a random target
y_i = m_i + s N(0, I_p). Fine-tuning learns B (p x R, kept here as R x p) by B = T Y + E: a linear map of the targets,
plus noise with covariance C_E per output, which keeps I(B;S) finite. With S = (y_1..y_n) everything is jointly
Gaussian. The loss is |y - B u|^2, and the gap is against fresh targets at the same u_i. Mean estimation is the special
case u_i = 1, where the fresh targets are i.i.d. examples.

Squared loss is not sub-Gaussian under Gaussian data, so the sub-Gaussian forms of the bounds do not apply; the
bounds here use the exact cumulant generating function of the loss instead (``theory.information.variational``). The
loss is unbounded too: for the CMI family see ``theory.solvable.finite``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.arguments import Matrix, Several, checked
from theory.array_checks import check_matrix
from theory.checks import check_integer
from theory.information import chi_square_gap, dual_gap

__all__ = ["GaussianModel", "Simulation"]

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
        result: int = self.means.shape[1]
        return result

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
            result: Array = -self.outputs / 2 * np.log1p(-np.clip(share, 0.0, 1.0))
            return result

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

    def _reference_energy(self, reference: ArrayLike | None) -> Array:
        """Return U (E[B] - reference), n x p; the reference is E[B] itself if left out."""
        mean = self.estimator @ self.means
        return self.features @ (
            mean - (mean if reference is None else check_matrix("reference", reference, shape=mean.shape))
        )

    @checked
    def excess_individual_sample(self, *, reference: Matrix | None = None) -> float:
        r"""Return the individual-sample bound on the excess loss over fixed weights, which has the same gap.

        Fixed weights B0 have no gap, so |y - B u|^2 - |y - B0 u|^2 may stand for the loss. Of its deviation only
        2 (y_i - m_i)'(B - B0) u_i is left; with v = u_i' Cov u_i, c = |(E B - B0) u_i|^2 and w = 4 lambda^2 s^2 v,

            ln E exp(lambda g) = -(p/2) ln(1 - w) + 2 lambda^2 s^2 c / (1 - w) .

        In mean estimation it is asymptotically exact, where bounds on the loss itself lose the rate; that the
        generalization error rather than the loss should be bounded is the point of arXiv:2305.00876.

        Args:
            reference: B0, R x p, fixed before the data: zeros for W0 itself; E[B], which is the best, if left out.
        """
        spread = np.einsum("ij,jk,ik->i", self.features, self.covariance, self.features)
        centre = (self._reference_energy(reference) ** 2).sum(1)
        bounds = [
            self._excess(float(information), np.array([v]), np.array([c]), 1)
            for information, v, c in zip(self.individual_informations(), spread, centre, strict=True)
        ]
        return float(np.mean(bounds))

    @checked
    def excess_xu_raginsky(self, *, reference: Matrix | None = None) -> float:
        """Return the same with I(B;S) for all examples at once; the determinant replaces the scalar."""
        values, vectors = np.linalg.eigh(self.features @ self.covariance @ self.features.T)
        energy = ((vectors.T @ self._reference_energy(reference)) ** 2).sum(1)
        return self._excess(self.information(), np.maximum(values, 0.0), energy, self.num_examples)

    def _excess(self, information: float, spread: Array, energy: Array, count: int) -> float:
        scale, p, top = self.label_std / count, self.outputs, float(spread.max())

        def cumulant(lam: float) -> float:
            power = (lam * scale) ** 2
            left = 1 - 4 * power * spread
            if left.min() <= 0:
                return math.inf
            return float(-p / 2 * np.log1p(-4 * power * spread).sum() + 2 * power * (energy / left).sum())

        variance = 4 * scale**2 * float(p * spread.sum() + energy.sum())
        upper = 1 / (2 * scale * math.sqrt(top)) if top > 0 else math.inf
        return dual_gap(information, cumulant, variance=variance, upper=upper)

    @checked
    def simulate(self, *, repeats: Several, rng: np.random.Generator) -> Simulation:
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
