r"""Models with a bounded loss that are small enough to enumerate: the truth for the CMI family.

A finite alphabet of examples, a finite class of hypotheses, and an algorithm that draws a hypothesis from the Gibbs
distribution exp(-b n R_S(w)) over the class (b infinite: empirical risk minimisation, ties drawn at random). Then
I(W;S), CMI, f-CMI, e-CMI and ld-MI are finite sums, and so are the risks. ``enumerate_model`` sums over all
supersamples and all masks; ``coin_model`` sums over counts for the class of two constant predictors of a coin, up to
hundreds of examples. Everything is in nats; the loss lies in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, gammaln, logsumexp, xlog1py, xlogy

from theory.arguments import Count, Extended, Fractions, Integers, Matrix, Probability, checked
from theory.array_checks import check_matrix
from theory.checks import check_integer, check_number
from theory.information import inequalities as information

__all__ = ["FiniteTruth", "coin_model", "coin_posterior", "enumerate_model", "table_information"]

Array = NDArray[np.float64]
_MOST_STATES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class FiniteTruth:
    """Exact values for one model. Informations are in nats, per row where a row is named.

    Attributes:
        num_examples: n.
        train_risk: E R_S(W).
        risk: E R(W).
        sample: I(W; S).
        individual: I(W; Z_i).
        cmi: I(W; U | Z~).
        f_cmi: I(predictions of row i; U_i | Z~).
        f_cmi_root: E over Z~ of sqrt(2 I^{Z~}(predictions of row i; U_i)), the disintegrated f-CMI bound itself.
        e_cmi: I(losses of row i; U_i | Z~).
        pair: I(losses of row i; U_i), unconditional.
        ld_mi: I(loss difference of row i; U_i).
        single: I(L_i0; U_i).
        magnitudes: support of |D_i|.
        magnitude_weights: its probabilities.
        hypotheses: size of the class.
    """

    num_examples: int
    train_risk: float
    risk: float
    sample: float
    individual: float
    cmi: float
    f_cmi: float
    f_cmi_root: float
    e_cmi: float
    pair: float
    ld_mi: float
    single: float
    magnitudes: Array
    magnitude_weights: Array
    hypotheses: int

    @property
    def gap(self) -> float:
        """Return E[R(W) - R_S(W)]."""
        return self.risk - self.train_risk

    def bounds(self) -> dict[str, float]:
        """Return every bound on the gap by name, each evaluated at its exact information."""
        n, train = self.num_examples, min(max(self.train_risk, 0.0), 1.0)
        found = {
            "bits": information.xu_raginsky(math.log(self.hypotheses), num_examples=n),
            "xu-raginsky": information.xu_raginsky(self.sample, num_examples=n),
            "individual": information.individual_sample(self.individual),
            "cmi": information.cmi(self.cmi, num_examples=n),
            "f-cmi": None,
            "e-cmi": information.e_cmi(train, self.e_cmi),
            "single-loss": information.single_loss(self.single),
            "fast-rate": information.fast_rate(train, self.ld_mi),
            "ld-mi": information.ld_mi(self.ld_mi),
            "ld-mi-binary": information.ld_mi(self.ld_mi, form="binary"),
            "ld-mi-magnitude": information.ld_mi(
                self.ld_mi, form="magnitude", magnitudes=self.magnitudes, weights=self.magnitude_weights
            ),
        }
        return {
            name: self.f_cmi_root if one is None else float(one.value) - (train if one.of == "risk" else 0.0)
            for name, one in found.items()
        }


@checked
def table_information(joint: Matrix) -> float:
    """Return the mutual information of a joint table of probabilities (or counts), in nats.

    >>> round(table_information([[0.5, 0.0], [0.0, 0.5]]), 6)
    0.693147
    """
    table = check_matrix("joint", joint, shape=(None, None))
    if (table < 0).any() or table.sum() <= 0:
        raise ValueError(f"joint must hold nonnegative numbers with a positive sum, got {joint!r}")
    table = table / table.sum()
    return float(max(entr(table.sum(0)).sum() + entr(table.sum(1)).sum() - entr(table).sum(), 0.0))


def _gibbs(total_losses: Array, inverse_temperature: float) -> Array:
    """Return P(w | s) over the last axis, from the summed loss of each hypothesis on the sample."""
    low = total_losses - total_losses.min(-1, keepdims=True)
    if math.isinf(inverse_temperature):
        weights = (low < 1e-12).astype(np.float64)
    else:
        weights = np.exp(-inverse_temperature * low)
    result: Array = weights / weights.sum(-1, keepdims=True)
    return result


def _conditional(tables: Array, weights: Array) -> tuple[float, float]:
    """Return E I and E sqrt(2 I) over a weighted stack of joint tables P(symbol, u), shape (stack, symbols, 2)."""
    values = entr(tables.sum(1)).sum(-1) + entr(tables.sum(2)).sum(-1) - entr(tables).sum((1, 2))
    values = np.maximum(values, 0.0)
    return float(weights @ values), float(weights @ np.sqrt(2 * values))


def _checked_model(
    losses: ArrayLike, probabilities: ArrayLike, predictions: ArrayLike | None
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Return losses, probabilities and predictions as arrays; the hypothesis itself where none are given."""
    table = check_matrix("losses", losses, shape=(None, None))
    pmf = check_matrix("probabilities", probabilities, shape=(table.shape[1],))
    if table.min() < 0 or table.max() > 1:
        raise ValueError(f"losses must lie in [0, 1], got values from {table.min()} to {table.max()}")
    if pmf.min() < 0 or abs(pmf.sum() - 1) > 1e-9:
        raise ValueError(f"probabilities must be nonnegative and sum to 1, got {pmf.tolist()}")
    hypotheses, size = table.shape
    said = np.arange(hypotheses)[:, None] * np.ones((1, size), int) if predictions is None else np.asarray(predictions)
    if said.shape != table.shape:
        raise ValueError(f"predictions must have the shape of losses, {table.shape}, got {said.shape}")
    return table, pmf, said


def _by_symbol(row: Array, symbols: NDArray[np.float64] | NDArray[np.intp]) -> Array:
    """Sum supersamples x hypotheses x U_0 over hypotheses that show the same symbol on row 0, per supersample."""
    flat = symbols.reshape(-1, symbols.shape[-1])
    codes = np.unique(flat, axis=0, return_inverse=True)[1].reshape(symbols.shape[:2])
    return np.stack([(row * (codes == c)[:, :, None]).sum(1) for c in range(codes.max() + 1)], 1)


@checked
def enumerate_model(
    losses: Fractions,
    probabilities: Fractions,
    *,
    num_examples: Count,
    inverse_temperature: Extended = math.inf,
    predictions: Annotated[ArrayLike, Integers(-(2**63))] | None = None,
) -> FiniteTruth:
    r"""Compute every information and both risks of a finite model by summing over all supersamples and masks.

    Args:
        losses: loss of each hypothesis (rows) on each example of the alphabet (columns), in [0, 1].
        probabilities: of the alphabet, summing to one.
        num_examples: n; alphabet^(2 n) * 2^n * hypotheses must stay below twenty million.
        inverse_temperature: b; infinity is empirical risk minimisation.
        predictions: what each hypothesis says on each example, for f-CMI; the hypothesis itself if left out.

    Raises:
        ValueError: if shapes do not fit, a number is out of its range, or the model is too large to enumerate.

    >>> truth = enumerate_model([[0, 1], [1, 0]], [0.5, 0.5], num_examples=1)
    >>> truth.gap, round(truth.sample, 6), round(truth.cmi, 6)
    (0.5, 0.693147, 0.346574)
    """
    table, pmf, said = _checked_model(losses, probabilities, predictions)
    n = check_integer("num_examples", num_examples)
    beta = check_number("inverse_temperature", inverse_temperature, finite=False)
    hypotheses, size = table.shape
    states = size ** (2 * n) * 2**n * hypotheses
    if states > _MOST_STATES:
        raise ValueError(f"num_examples must keep the {states} states below {_MOST_STATES}, got {n}")

    samples = np.array(list(product(range(size), repeat=n)))
    weight = pmf[samples].prod(1)
    kernel = _gibbs(table[:, samples].sum(-1).T, beta)
    marginal = weight @ kernel
    by_first = np.array([(weight * (samples[:, 0] == z)) @ kernel for z in range(size)])

    pairs = np.array(list(product(range(size), repeat=2 * n))).reshape(-1, n, 2)
    chance = pmf[pairs].prod((1, 2))
    masks = np.array(list(product(range(2), repeat=n)))
    places = size ** np.arange(n)[::-1]
    chosen = np.stack([np.take_along_axis(pairs, m[None, :, None], 2)[:, :, 0] @ places for m in masks], 1)
    given = kernel[chosen]  # supersamples x masks x hypotheses
    cmi = chance @ (entr(given.mean(1)).sum(-1) - entr(given).sum(-1).mean(1))
    row = np.stack([given[:, masks[:, 0] == u].mean(1) / 2 for u in (0, 1)], -1)  # supersamples x hypotheses x U_0

    seen = table[:, pairs[:, 0]].transpose(1, 0, 2).round(12)
    difference = _by_symbol(row, (seen[:, :, 1:] - seen[:, :, :1]).round(12))
    loss_pairs, first = _by_symbol(row, seen), _by_symbol(row, seen[:, :, :1])
    f_cmi, f_root = _conditional(_by_symbol(row, said[:, pairs[:, 0]].transpose(1, 0, 2)), chance)
    sizes, where = np.unique(np.abs(seen[:, :, 1] - seen[:, :, 0]).round(12), return_inverse=True)
    mass = chance[:, None] * row.sum(-1)
    return FiniteTruth(
        num_examples=n,
        train_risk=float(weight @ (kernel * table[:, samples].mean(-1).T).sum(1)),
        risk=float(marginal @ table @ pmf),
        sample=max(float(entr(marginal).sum() - weight @ entr(kernel).sum(1)), 0.0),
        individual=table_information(by_first),
        cmi=max(float(cmi), 0.0),
        f_cmi=f_cmi,
        f_cmi_root=f_root,
        e_cmi=_conditional(loss_pairs, chance)[0],
        pair=table_information(np.tensordot(chance, loss_pairs, 1)),
        ld_mi=table_information(np.tensordot(chance, difference, 1)),
        single=table_information(np.tensordot(chance, first, 1)),
        magnitudes=sizes,
        magnitude_weights=np.bincount(where.ravel(), weights=mass.ravel()).astype(np.float64),
        hypotheses=hypotheses,
    )


@checked
def coin_posterior(num_examples: Count, *, inverse_temperature: Extended = math.inf) -> Array:
    """Return P(W = 1 | k ones among n) for k = 0..n: the Gibbs draw between "always 0" and "always 1", 0-1 loss.

    >>> coin_posterior(2).tolist()
    [0.0, 0.5, 1.0]
    """
    n = check_integer("num_examples", num_examples)
    beta = check_number("inverse_temperature", inverse_temperature, finite=False)
    ones = np.arange(n + 1, dtype=np.float64)
    return _gibbs(np.stack([ones, n - ones], -1), beta)[:, 1]


def _binomial(count: int, p: float) -> Array:
    """Return P(k ones among ``count``) for k = 0..count."""
    k = np.arange(count + 1)
    log = gammaln(count + 1) - gammaln(k + 1) - gammaln(count - k + 1) + xlogy(k, p) + xlog1py(count - k, -p)
    return np.exp(log - logsumexp(log))


def _trinomial(count: int, p: float) -> list[Array]:
    """Return P(c rows (1, 1), m mixed rows) among ``count`` rows, as one array over c per m."""
    out = []
    for m in range(count + 1):
        c = np.arange(count - m + 1)
        log = gammaln(count + 1) - gammaln(m + 1) - gammaln(c + 1) - gammaln(count - m - c + 1)
        log += xlogy(m, 2 * p * (1 - p)) + xlogy(2 * c, p) + xlog1py(2 * (count - m - c), -p)
        out.append(np.exp(log))
    return out


def _binary_entropy(q: ArrayLike) -> Array:
    q = np.clip(q, 0.0, 1.0)
    return entr(q) + entr(1 - q)


def _averages(values: Array) -> list[Array]:
    """Return the rows g(., m) for m = 0..n of the recursion over mixed rows; row m has n - m + 1 entries."""
    rows = [values]
    for _ in range(len(values) - 1):
        rows.append((rows[-1][:-1] + rows[-1][1:]) / 2)
    return rows


def _coin_cmi(ones: Array, p: float) -> tuple[float, float, float]:
    """Return CMI, f-CMI and E sqrt(2 f-CMI) from P(W = 1 | k ones among n)."""
    n = len(ones) - 1
    means, entropies = _averages(ones), _averages(_binary_entropy(ones))
    cmi = 0.0
    for m, w in enumerate(_trinomial(n, p)):
        cmi += float(w @ (_binary_entropy(means[m][: len(w)]) - entropies[m][: len(w)]))
    mixed = 2 * p * (1 - p)
    f_cmi = f_root = 0.0
    for m, w in enumerate(_trinomial(n - 1, p)):
        high, low = means[m][1 : len(w) + 1], means[m][: len(w)]
        value = _binary_entropy((high + low) / 2) - (_binary_entropy(high) + _binary_entropy(low)) / 2
        f_cmi += mixed * float(w @ np.maximum(value, 0.0))
        f_root += mixed * float(w @ np.sqrt(2 * np.maximum(value, 0.0)))
    return cmi, f_cmi, f_root


def _coin_losses(one_in: float, zero_in: float, p: float) -> tuple[float, float]:
    """Return I(loss difference; U) and I(L_00; U) of a row; P(W = 1) is ``one_in`` if it trained on a one."""
    # A mixed row: the held-out example is the wrong one with probability (1 + one_in - zero_in) / 2.
    held_out = (1 + one_in - zero_in) / 2
    difference = 2 * p * (1 - p) * (math.log(2) - float(_binary_entropy(held_out)))
    # L_00 = 1[W != z]: a (1,1) or (0,0) row is the same under both bits; a mixed row trains on z or on 1 - z.
    kept = p * p * (1 - one_in) + (1 - p) ** 2 * zero_in + p * (1 - p) * (1 - one_in + zero_in)
    left = p * p * (1 - one_in) + (1 - p) ** 2 * zero_in + p * (1 - p) * (1 - zero_in + one_in)
    single = float(_binary_entropy((kept + left) / 2) - (_binary_entropy(kept) + _binary_entropy(left)) / 2)
    return difference, single


@checked
def coin_model(
    *, num_examples: Count, probability: Probability = 0.5, inverse_temperature: Extended = math.inf
) -> FiniteTruth:
    r"""Compute the same for coin flips and the two constant predictors, by sums over counts, to hundreds of examples.

    Z = 1 with the given probability, hypotheses "always 0" and "always 1", 0-1 loss. Only a mixed row, {0, 1} in one
    order or the other, ties its bit to the sample. With c rows (1, 1) and m mixed ones the sample has c + Bin(m, 1/2)
    ones, and averages over that binomial obey g(c, m) = (g(c, m-1) + g(c+1, m-1)) / 2.

    Args:
        num_examples: n.
        probability: P(Z = 1), strictly inside (0, 1).
        inverse_temperature: b; 0 ignores the data, infinity takes the majority.

    Raises:
        ValueError: if a number is out of its range.

    >>> truth = coin_model(num_examples=1)
    >>> truth.gap, round(truth.cmi, 6)
    (0.5, 0.346574)
    """
    n = check_integer("num_examples", num_examples)
    p = check_number("probability", probability, positive=True)
    if p >= 1:
        raise ValueError(f"probability must lie strictly between 0 and 1, got {p}")
    ones = coin_posterior(n, inverse_temperature=inverse_temperature)

    counts, mixed = _binomial(n, p), 2 * p * (1 - p)
    learned = float(counts @ ones)
    k = np.arange(n + 1)
    train = float(counts @ (ones * (n - k) + (1 - ones) * k)) / n
    rest = _binomial(n - 1, p)
    one_in, zero_in = float(rest @ ones[1:]), float(rest @ ones[:-1])
    cmi, f_cmi, f_root = _coin_cmi(ones, p)
    ld, single = _coin_losses(one_in, zero_in, p)
    return FiniteTruth(
        num_examples=n,
        train_risk=train,
        risk=learned * (1 - p) + (1 - learned) * p,
        sample=max(float(_binary_entropy(learned) - counts @ _binary_entropy(ones)), 0.0),
        individual=max(
            float(_binary_entropy(learned) - p * _binary_entropy(one_in) - (1 - p) * _binary_entropy(zero_in)), 0.0
        ),
        cmi=max(cmi, 0.0),
        f_cmi=f_cmi,
        f_cmi_root=f_root,
        e_cmi=f_cmi,
        pair=max(ld, 0.0),
        ld_mi=max(ld, 0.0),
        single=max(single, 0.0),
        magnitudes=np.array([0.0, 1.0]),
        magnitude_weights=np.array([1 - mixed, mixed]),
        hypotheses=2,
    )
