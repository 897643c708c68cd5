r"""Estimates of information bounds from repeated training runs on random halves of a supersample.

Fix or draw n rows of two examples; in every run a fair bit per row says which of the two is trained on (``masks``),
and both losses of every row are recorded after training (``losses``). The plug-in estimate of an information between
what is observed and the bit is biased upwards by about (symbols - 1) / (2 samples) nats, and a square root makes
that large: with 30 runs per row ld-MI reads 0.26 at zero information. So three things are done here:

* rows are pooled (by default): (D_I, U_I) for a random row I. The bounds hold for the pooled law of any algorithm,
  because the gap is E[(1 - 2 U_I) D_I]; it is at most the mean of the rows' informations, and equals it when rows are
  exchangeable.
* the zero-information null is shown: the same estimate with bits drawn anew, independent of everything.
* the interval is a basic bootstrap over runs, 2 theta - quantile, which also moves against the bias.

With a fixed supersample everything is conditional on it (the gap is then that of this supersample); drawn anew in
every run, the estimates are those of the unconditional informations, which are smaller. Losses lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.arguments import Count, Fractions, Integer, Integers, Probability, Several, checked
from theory.checks import check_choice, check_integer
from theory.information import inequalities as bound_of
from theory.information.plug_in import Correction, coded, count_tables, joint_information, resampled_information

__all__ = ["QUANTITIES", "Estimate", "draw_masks", "estimate", "estimate_all"]

QUANTITIES = (
    "cmi",
    "f-cmi",
    "e-cmi",
    "single-loss",
    "ld-mi",
    "ld-mi-binary",
    "ld-mi-magnitude",
    "fast-rate",
    "interpolating",
)
"""What ``estimate`` knows: "cmi" is the n-point e-CMI, all losses against all bits at once."""

_MOST_SYMBOLS = 4096
Masks = Annotated[ArrayLike, Integers(0, 1, booleans=True)]
Symbols = Annotated[ArrayLike, Integers(-(2**63))]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimated information and the bound on the gap that it gives. Estimates of bounds, not guarantees.

    Attributes:
        quantity: which one.
        information: nats; the mean over rows unless pooled; for "cmi" that of all rows together.
        low, high: bootstrap interval of the information over runs.
        null: mean estimate at zero information (fresh bits): the floor that bias alone reaches.
        bound: bound on the gap (held-out minus training risk) at ``information``, with the slack of rounding losses.
        bound_low, bound_high, bound_null: the same at ``low``, ``high`` and ``null``.
        gap, gap_low, gap_high: measured gap and its bootstrap interval over runs.
        train_risk, heldout_risk: mean losses.
        runs, rows: numbers of both.
        pooled: whether rows were pooled.
        confidence: of both intervals.
    """

    quantity: str
    information: float
    low: float
    high: float
    null: float
    bound: float
    bound_low: float
    bound_high: float
    bound_null: float
    gap: float
    gap_low: float
    gap_high: float
    train_risk: float
    heldout_risk: float
    runs: int
    rows: int
    pooled: bool
    confidence: float


@checked
def draw_masks(runs: Count, rows: Count, *, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return fair bits, runs x rows; True means that the row's second example is trained on.

    >>> draw_masks(2, 3, rng=np.random.default_rng(0)).shape
    (2, 3)
    """
    return rng.random((check_integer("runs", runs), check_integer("rows", rows))) < 0.5


def _interval(value: float, draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return 2 * value - float(high), 2 * value - float(low)


def _checked(
    losses: ArrayLike, masks: Masks, levels: int | None
) -> tuple[NDArray[np.float64], NDArray[np.intp], float]:
    values = np.asarray(losses, dtype=np.float64)
    bits = np.asarray(masks)
    if values.ndim != 3 or values.shape[2] != 2 or values.size == 0:
        raise ValueError(f"losses must be of shape runs x rows x 2, not empty, got {values.shape}")
    if bits.shape != values.shape[:2]:
        raise ValueError(f"masks must be of shape runs x rows, {values.shape[:2]}, got {bits.shape}")
    if bits.dtype != np.bool_ and not np.isin(bits, (0, 1)).all():
        raise ValueError(f"masks must hold booleans or zeros and ones, got values of type {bits.dtype}")
    if len(values) < 2:
        raise ValueError(f"losses must come from at least 2 runs, got {len(values)}")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError(f"losses must be finite and lie in [0, 1], got values from {values.min()} to {values.max()}")
    slack = 0.0
    if levels is not None:
        steps = check_integer("levels", levels, minimum=2) - 1
        rounded = np.round(values * steps) / steps
        slack = 0.0 if np.array_equal(rounded, values) else 1.0 / steps
        values = rounded
    return values, bits.astype(np.intp), slack


def _information(
    quantity: str,
    seen: NDArray[np.intp],
    bits: NDArray[np.intp],
    weights: NDArray[np.float64],
    *,
    pooled: bool,
    correction: Correction,
) -> NDArray[np.float64]:
    """Return the information between what is seen and the bits, in nats, under each row of weights of the runs."""
    if quantity == "cmi":
        return joint_information(coded(seen), coded(bits), weights, correction=correction)
    against = np.concatenate([bits, 1 - bits], 1) if quantity == "single-loss" else bits
    return resampled_information(count_tables(seen, against, pooled=pooled), weights, correction=correction)


def _gap_bound(
    quantity: str, value: float, *, train_risk: float, rows: int, magnitudes: NDArray[np.float64], slack: float
) -> float:
    if quantity == "cmi":
        found = bound_of.cmi(value, num_examples=rows)
    elif quantity in ("e-cmi", "f-cmi"):
        found = bound_of.e_cmi(train_risk, value)
    elif quantity == "single-loss":
        found = bound_of.single_loss(value)
    elif quantity == "fast-rate":
        found = bound_of.fast_rate(train_risk, value)
    elif quantity == "interpolating":
        found = bound_of.interpolating(value)
    elif quantity == "ld-mi-magnitude":
        sizes, many = np.unique(magnitudes, return_counts=True)
        found = bound_of.ld_mi(value, form="magnitude", magnitudes=sizes, weights=many / many.sum())
    else:
        found = bound_of.ld_mi(value, form="root" if quantity == "ld-mi" else "binary")
    return float(found.value) - (train_risk if found.of == "risk" else 0.0) + slack


@checked
def estimate(
    losses: Fractions,
    masks: Masks,
    *,
    quantity: str = "ld-mi",
    predictions: Symbols | None = None,
    labels: Symbols | None = None,
    levels: Several | None = None,
    pooled: bool = True,
    correction: Correction = "none",
    resamples: Annotated[int, Integer(20)] = 200,
    confidence: Probability = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Estimate one information from masked runs, with its null, its interval and the bound that it gives.

    Args:
        losses: runs x rows x 2, in [0, 1].
        masks: runs x rows, True where the row's second example was trained on; fair and independent.
        quantity: one of ``QUANTITIES``. "f-cmi" and "e-cmi" give the binary-kl bound of arXiv:2210.06422, "cmi"
            the root of arXiv:2001.09122 from all rows at once (its plug-in saturates at ln runs: see the null),
            "single-loss" a loss of either column against "it was held out" (no exchangeable columns needed),
            "interpolating" the equality of arXiv:2302.02432 for 0-1 loss and zero training error.
        predictions: runs x rows x 2 integers; for "f-cmi".
        labels: the same shape; for "f-cmi", because a loss is a function of both.
        levels: round losses to so many equally spaced values; the bound then grows by 1 / (levels - 1).
        pooled: one law for all rows, or a separate estimate per row; the bound is then taken at the mean.
        correction: as in ``plug_in``.
        resamples: bootstrap samples over runs; a tenth of it, at least 20, for the null.
        confidence: of the intervals.
        rng: randomness of bootstrap and null.

    Raises:
        ValueError: if an argument is out of its range, or losses take more than 4096 values (give ``levels``).

    >>> rng = np.random.default_rng(0)
    >>> masks = draw_masks(50, 20, rng=rng)
    >>> losses = np.stack([masks, ~masks], -1) * (rng.random((50, 20, 1)) < 0.2)
    >>> result = estimate(losses, masks, quantity="interpolating", rng=rng)
    >>> result.train_risk, abs(result.bound - result.heldout_risk) < 0.01
    (0.0, True)
    """
    check_choice("quantity", quantity, QUANTITIES)
    values, bits, slack = _checked(losses, masks, levels)
    runs, rows = bits.shape
    train = np.take_along_axis(values, bits[..., None], 2)[..., 0]
    heldout = np.take_along_axis(values, 1 - bits[..., None], 2)[..., 0]
    train_risk, heldout_risk = min(max(float(train.mean()), 0.0), 1.0), float(heldout.mean())
    if quantity == "interpolating" and (train_risk > 0 or not np.isin(values, (0, 1)).all()):
        raise ValueError(
            f"losses must be 0 or 1 with no training error for 'interpolating', got {train_risk} in training"
        )
    magnitudes = np.abs(values[..., 1] - values[..., 0]).ravel()

    seen = _observed(quantity, values, predictions, labels)
    measure = partial(_information, quantity, seen, pooled=pooled, correction=correction)
    once = np.ones((1, runs))
    point = float(measure(bits, once)[0])
    weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples).astype(np.float64)
    low, high = _interval(point, measure(bits, weights), confidence)
    fresh = (draw_masks(runs, rows, rng=rng).astype(np.intp) for _ in range(max(20, resamples // 10)))
    floors = [measure(masks, once)[0] for masks in fresh]
    per_run = (heldout - train).mean(1)
    gap_low, gap_high = _interval(float(per_run.mean()), weights @ per_run / runs, confidence)
    ends = {"": point, "_low": max(low, 0.0), "_high": max(high, 0.0), "_null": float(np.mean(floors))}
    bounds = {
        f"bound{end}": _gap_bound(quantity, value, train_risk=train_risk, rows=rows, magnitudes=magnitudes, slack=slack)
        for end, value in ends.items()
    }
    return Estimate(
        quantity=quantity,
        information=point,
        low=ends["_low"],
        high=ends["_high"],
        null=ends["_null"],
        gap=float(per_run.mean()),
        gap_low=gap_low,
        gap_high=gap_high,
        train_risk=train_risk,
        heldout_risk=heldout_risk,
        runs=runs,
        rows=rows,
        pooled=pooled or quantity == "cmi",
        confidence=confidence,
        **bounds,
    )


def _observed(
    quantity: str, values: NDArray[np.float64], predictions: Symbols | None, labels: Symbols | None
) -> NDArray[np.intp]:
    """Return the symbol that stands against the bit, runs x rows; twice the rows for a single loss (both columns)."""
    if quantity == "f-cmi":
        arrays = []
        for name, given in (("predictions", predictions), ("labels", labels)):
            array = np.asarray(given)
            if given is None or array.shape != values.shape or not np.issubdtype(array.dtype, np.integer):
                raise ValueError(
                    f"{name} must be integers of shape {values.shape} for 'f-cmi', got {array.dtype}{array.shape}"
                )
            arrays.append(array)
        return coded(np.concatenate(arrays, -1))
    if quantity in ("cmi", "e-cmi"):
        symbols = coded(values)
    elif quantity == "single-loss":
        symbols = coded(np.concatenate([values[..., :1], values[..., 1:]], 1))
    else:
        symbols = coded((values[..., 1:] - values[..., :1]).round(12))
    if symbols.max() >= _MOST_SYMBOLS:
        raise ValueError(f"losses must take at most {_MOST_SYMBOLS} distinct values, got more; round them with levels")
    return symbols


@checked
def estimate_all(
    losses: Fractions,
    masks: Masks,
    *,
    rng: np.random.Generator,
    predictions: Symbols | None = None,
    labels: Symbols | None = None,
    levels: Several | None = None,
    quantities: Sequence[str] | None = None,
    pooled: bool = True,
    correction: Correction = "none",
) -> list[Estimate]:
    """Estimate every quantity that the data allow: "f-cmi" with predictions, "interpolating" at zero training error.

    Raises:
        ValueError: as ``estimate`` does.
    """
    values, bits, _ = _checked(losses, masks, levels)
    train = np.take_along_axis(values, bits[..., None], 2)
    allowed = {
        "f-cmi": predictions is not None,
        "interpolating": not train.any() and bool(np.isin(values, (0, 1)).all()),
    }
    chosen = [q for q in QUANTITIES if allowed.get(q, True)] if quantities is None else list(quantities)
    return [
        estimate(
            losses,
            masks,
            quantity=quantity,
            predictions=predictions,
            labels=labels,
            levels=levels,
            pooled=pooled,
            correction=correction,
            rng=rng,
        )
        for quantity in chosen
    ]
