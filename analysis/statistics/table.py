"""One row per measure: every agreement statistic with its interval, its null and its corrected p-value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from analysis.statistics.agreement import (
    DesignPairs,
    design_pairs,
    granulated_tau,
    kendall_tau,
    partial_tau,
    sign_error,
    tied_share,
)
from analysis.statistics.conditional_mi import Strata, conditional_mutual_information, conditioning_strata
from analysis.statistics.crossed import crossed, crossed_tau
from analysis.statistics.pairs import check_design, dense_ranks
from analysis.statistics.resampling import (
    adjust_p_values,
    bootstrap_weights,
    cluster_permutations,
    interval,
    permutation_p_value,
)

__all__ = ["Comparison", "agreement_table", "family_differences"]

Numbers = NDArray[np.float64] | NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared with what, and how carefully.

    Attributes:
        target: column of the measured generalization error.
        axes: hyper-parameters that vary: groups of granulated tau, environments, conditioning sets.
        fixed: columns always held fixed as well (seed, task).
        nested: hyper-parameter -> the axis it belongs to, see ``analysis.statistics.agreement.granulated_tau``.
        cluster: columns whose joint value names a cluster of dependent runs (all axes by default, plus task).
        strata: columns that a permutation never crosses.
        controls: columns whose influence the partial versions take out.
        permutations: shuffles for p-values.
        cmi_replicates: bootstrap samples (of configurations) and shuffles of the conditional mutual information, a
            minimum over conditioning sets, which has no jackknife and costs more.
        confidence: of the intervals.
        seed: of both resamplings.
        margin: difference of tau-b below which two measures count as equivalent, stated beforehand; None for none.
    """

    target: str
    axes: tuple[str, ...]
    fixed: tuple[str, ...] = ("seed",)
    nested: tuple[tuple[str, str], ...] = ()
    cluster: tuple[str, ...] | None = None
    strata: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    permutations: int = 999
    cmi_replicates: int = 100
    confidence: float = 0.95
    seed: int = 0
    margin: float | None = None


def _labels(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.intp]:
    if not columns:
        return np.zeros(len(frame), dtype=np.intp)
    result: NDArray[np.intp] = pd.MultiIndex.from_frame(frame[list(columns)]).factorize()[0]
    return result


def _clusters(frame: pd.DataFrame, comparison: Comparison) -> NDArray[np.intp]:
    default = tuple(column for column in (*comparison.axes, *comparison.fixed) if column != "seed")
    return _labels(frame, default if comparison.cluster is None else comparison.cluster)


def _ways(frame: pd.DataFrame, clusters: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    """The ways in which runs are drawn: by configuration, and by seed where there are several."""
    seeds = pd.factorize(frame["seed"])[0] if "seed" in frame else np.zeros(len(frame), dtype=np.intp)
    return {"configuration": clusters} | ({"seed": seeds} if seeds.max() > 0 else {})


def agreement_table(
    frame: pd.DataFrame, *, measures: Sequence[str], comparison: Comparison, progress: bool = True
) -> pd.DataFrame:
    """Compare measures with the measured generalization error, every way at once.

    A measure missing in some runs is judged on the runs that have it; ``runs`` says how many.

    Args:
        frame: one row per run: measures, target, axes, fixed and control columns.
        measures: columns to judge.
        comparison: what to compare them with.
        progress: show a progress bar.

    Returns:
        A data frame indexed by measure, best tau-b first. ``runs``, ``clusters``, ``ties`` (share of pairs tied
        in the measure), ``tau_b`` with ``tau_b_low`` and ``tau_b_high``, ``tau_a``, ``p`` (two-sided
        permutation), ``q`` (Benjamini-Hochberg over the measures), ``p_holm``; intervals draw configurations and, where
        there are several, seeds (`analysis.statistics.crossed`); ``granulated`` (Psi) with
        interval and ``granulated_p``, ``psi_<axis>``; ``sign_error`` (mean over environments),
        ``robust_sign_error`` (worst) with its null's mean ``robust_sign_error_null`` (a worst case of
        many is above 1/2 by chance), the share of shuffles as good ``robust_sign_error_p``, and
        ``worst_environment``; ``cmi`` (K of arXiv:1912.02178)
        with interval, ``cmi_given``, its null's mean ``cmi_null`` and ``cmi_p``; ``cmi_pgdl`` (NaN unless the
        design is a full grid); ``partial_tau`` given all controls, with interval, and ``partial_<control>``.

    Raises:
        ValueError: if a column is missing, the target or the design has missing values, or there are fewer
            than three runs.
    """
    columns = list(dict.fromkeys([*comparison.axes, *comparison.fixed, comparison.target]))
    check_design(frame, columns)
    missing = [name for name in (*measures, *comparison.controls) if name not in frame.columns]
    if missing or not measures:
        raise ValueError(f"the runs have no column {', '.join(map(repr, missing)) or '(no measure was given)'}")
    rows: dict[str, dict[str, object]] = {}
    with tqdm(total=len(measures), desc="agreement", disable=not progress) as bar:
        for names, complete in _by_pattern(frame, list(measures), list(comparison.controls)):
            rows |= _judge(frame.loc[complete].reset_index(drop=True), names, comparison, bar)
    table = pd.DataFrame.from_dict({name: rows[name] for name in measures}, orient="index")
    table.index.name = "measure"
    table.insert(table.columns.get_loc("p") + 1, "q", adjust_p_values(table["p"]))
    table.insert(table.columns.get_loc("q") + 1, "p_holm", adjust_p_values(table["p"], method="holm"))
    return table.sort_values("tau_b", ascending=False, kind="stable")


def _by_pattern(
    frame: pd.DataFrame, measures: list[str], controls: list[str]
) -> list[tuple[list[str], NDArray[np.bool_]]]:
    """Group measures that are known for the same runs."""
    groups: dict[bytes, list[str]] = {}
    for name in measures:
        known = frame[[name, *controls]].notna().all(axis=1).to_numpy()
        if known.sum() < 3:
            raise ValueError(f"measure {name!r} is known for {int(known.sum())} runs; at least three are needed")
        groups.setdefault(known.tobytes(), []).append(name)
    return [(names, np.frombuffer(key, dtype=bool)) for key, names in groups.items()]


def _judge(frame: pd.DataFrame, names: list[str], comparison: Comparison, bar: tqdm) -> dict[str, dict[str, object]]:
    values = dense_ranks(frame[names].to_numpy(dtype=np.float64))
    target = dense_ranks(frame[comparison.target].to_numpy(dtype=np.float64))
    clusters = _clusters(frame, comparison)
    strata = _labels(frame, comparison.strata)
    weights = bootstrap_weights(clusters, replicates=max(comparison.cmi_replicates, 1), seed=comparison.seed)
    ways = _ways(frame, clusters)
    shuffles = np.array(
        list(cluster_permutations(clusters, replicates=comparison.permutations, seed=comparison.seed, strata=strata))
    )

    pairs = design_pairs(frame, axes=comparison.axes, fixed=comparison.fixed, nested=dict(comparison.nested))

    def ends(statistic: Callable[..., Floats]) -> tuple[Floats, Floats]:
        found = crossed(lambda weights: statistic(weights=weights), ways)
        low, high = found.interval(confidence=comparison.confidence)
        return np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0)  # where every tau lies

    def null_p(statistic: Callable[..., Floats], observed: Floats) -> Floats:
        return permutation_p_value(observed, np.array([statistic(target=target[index]) for index in shuffles]))

    def tau(target: Numbers = target, weights: Floats | None = None) -> Floats:
        return kendall_tau(values, target, weights=weights)

    def granulated(target: Numbers = target, weights: Floats | None = None) -> dict[str, Floats]:
        return granulated_tau(values, target, frame, axes=comparison.axes, weights=weights, prepared=pairs)

    def psi(target: Numbers = target, weights: Floats | None = None) -> Floats:
        return granulated(target=target, weights=weights)["mean"]

    columns: dict[str, Floats] = {
        "runs": np.full(len(names), len(frame)),
        "clusters": np.full(len(names), len(np.unique(clusters))),
        "ties": tied_share(values),
        "tau_b": tau(),
    }
    columns["tau_b_low"], columns["tau_b_high"] = ends(tau)
    columns["tau_a"] = kendall_tau(values, target, variant="a")
    columns["p"] = null_p(tau, columns["tau_b"])
    by_axis = granulated()
    columns["granulated"] = by_axis.pop("mean")
    columns["granulated_low"], columns["granulated_high"] = ends(psi)
    columns["granulated_p"] = null_p(psi, columns["granulated"])
    columns |= {f"psi_{axis}": value for axis, value in by_axis.items()}
    columns |= _sign_error_columns(values, target, frame, comparison.axes, pairs, shuffles)
    if comparison.controls:
        controls = dense_ranks(frame[list(comparison.controls)].to_numpy(dtype=np.float64))

        def partial(weights: Floats | None = None) -> Floats:
            return partial_tau(values, target, controls, weights=weights)

        columns["partial_tau"] = partial()
        columns["partial_tau_low"], columns["partial_tau_high"] = ends(partial)
        for position, control in enumerate(comparison.controls):
            columns[f"partial_{control}"] = partial_tau(values, target, controls[:, position])
    rows = {name: {key: value[k] for key, value in columns.items()} for k, name in enumerate(names)}
    conditioning = conditioning_strata(frame, axes=comparison.axes)
    for k, name in enumerate(names):
        rows[name] |= _cmi_row(values[:, k], target, frame, comparison, conditioning, weights, shuffles)
        bar.update()
    return rows


def _sign_error_columns(
    values: Numbers,
    target: Numbers,
    frame: pd.DataFrame,
    axes: tuple[str, ...],
    prepared: DesignPairs,
    shuffles: Numbers,
) -> dict[str, Floats]:
    def errors(target: Numbers) -> tuple[Floats, tuple[object, ...]]:
        return sign_error(values, target, frame, axes=axes, prepared=prepared)

    observed, labels = errors(target)
    worst = observed.argmax(axis=0)
    null = np.array([errors(target[index])[0].max(axis=0) for index in shuffles])
    # Equal up to rounding counts as reached.
    reached = (null <= observed.max(axis=0) + 1e-12).sum(axis=0)
    return {
        "sign_error": observed.mean(axis=0),
        "robust_sign_error": observed.max(axis=0),
        "robust_sign_error_null": null.mean(axis=0),
        "robust_sign_error_p": (1 + reached) / (1 + len(null)),
        "worst_environment": np.array([" ".join(map(str, labels[k])) for k in worst], dtype=object),
    }


def _cmi_row(
    measure: Numbers,
    target: Numbers,
    frame: pd.DataFrame,
    comparison: Comparison,
    strata: Strata,
    weights: Floats,
    shuffles: Numbers,
) -> dict[str, object]:
    axes, count = comparison.axes, comparison.cmi_replicates

    def criterion(target: Numbers = target, weights: Floats | None = None) -> pd.Series:
        return conditional_mutual_information(measure, target, frame, axes=axes, weights=weights, strata=strata)

    observed = criterion()
    nothing = np.full(1, np.nan)
    samples = np.array([criterion(weights=row).min() for row in weights[:count]]) if count else nothing
    null = np.array([criterion(target[index]).min() for index in shuffles[:count]]) if count else nothing
    low, high = interval(samples, confidence=comparison.confidence)
    return {
        "cmi": observed.min(),
        "cmi_low": low.item(),
        "cmi_high": high.item(),
        "cmi_given": observed.idxmin() if observed.notna().any() else "none",
        "cmi_null": null.mean(),
        "cmi_p": permutation_p_value(observed.min(), null).item() if count else np.nan,
        "cmi_pgdl": _pgdl(measure, target, frame, axes),
    }


def _pgdl(measure: Numbers, target: Numbers, frame: pd.DataFrame, axes: tuple[str, ...]) -> float:
    """The PGDL score, which only a full grid of at least two axes has."""
    levels = [frame[axis].nunique() for axis in axes]
    seen = min(
        (len(frame[list(pair)].drop_duplicates()) / (a * b) for pair, a, b in _axis_pairs(axes, levels)), default=0
    )
    if seen < 1:
        return float("nan")
    result: float = conditional_mutual_information(measure, target, frame, axes=axes, convention="pgdl").min()
    return result


def _axis_pairs(axes: tuple[str, ...], levels: list[int]) -> list[tuple[tuple[str, str], int, int]]:
    return [((axes[i], axes[j]), levels[i], levels[j]) for i in range(len(axes)) for j in range(i)]


def family_differences(
    frame: pd.DataFrame, *, champion: str, rivals: Sequence[str], comparison: Comparison
) -> pd.DataFrame:
    """Is one measure's tau-b larger than its rivals'? Both with one interval, over configurations and seeds.

    Args:
        frame: one row per run, with a column ``seed``.
        champion: the measure whose superiority is claimed.
        rivals: measures that it is claimed to beat, a family fixed beforehand.
        comparison: target, clusters (configurations), level (what its confidence leaves) and margin.

    Returns:
        Indexed by rival: ``runs`` that know both, both taus, their ``difference`` with ``standard_error``, ``degrees``
        of freedom, ``low`` and ``high`` (`analysis.statistics.crossed`; each rival alone); one-sided p-values
        ``p_champion`` and ``p_rival`` of the other side, ``p_champion_holm`` and ``p_rival_holm`` corrected over the
        family, ``p_equivalent`` where a margin was stated; ``verdict`` (``"champion"`` or ``"rival"`` where the
        corrected p-value is at most half of the level, ``"equivalent"``, or ``"undecided"``), and ``edge``: how near
        the nearer of the two corrected p-values is to where the verdict tips.

    Raises:
        ValueError: if fewer than three runs know both measures, or they share one seed or configuration.
    """
    rows: dict[str, dict[str, object]] = {}
    for rival in rivals:
        known = frame.dropna(subset=[champion, rival, comparison.target]).reset_index(drop=True)
        if len(known) < 3:
            raise ValueError(f"{len(known)} runs know both {champion!r} and {rival!r}; at least three are needed")
        ways = {"configuration": _clusters(known, comparison), "seed": known["seed"].to_numpy()}
        both, target = known[[champion, rival]].to_numpy(dtype=np.float64), known[comparison.target].to_numpy(float)
        tau, above = crossed_tau(both, target, ways)
        low, high = above.interval(confidence=comparison.confidence)
        rows[rival] = {
            "runs": len(known),
            "tau_champion": tau.value[0],
            "tau_rival": tau.value[1],
            "difference": above.value.item(),
            "standard_error": above.standard_error.item(),
            "degrees": above.degrees.item(),
            "low": low.item(),
            "high": high.item(),
            "p_champion": above.p_above().item(),
            "p_rival": above.p_below().item(),
        }
        if comparison.margin is not None:
            rows[rival]["p_equivalent"] = above.p_equivalent(comparison.margin).item()
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "rival"
    return _with_verdicts(table, level=1 - comparison.confidence)


def _with_verdicts(table: pd.DataFrame, *, level: float) -> pd.DataFrame:
    corrected = {side: adjust_p_values(table[f"p_{side}"], method="holm") for side in ("champion", "rival")}
    wins = {side: p_values <= level / 2 for side, p_values in corrected.items()}
    near = table["p_equivalent"] <= level if "p_equivalent" in table else np.zeros(len(table), dtype=bool)
    verdict = np.select([wins["champion"], wins["rival"], near], ["champion", "rival", "equivalent"], "undecided")
    edge = np.min([np.abs(p_values - level / 2) for p_values in corrected.values()], axis=0)
    return table.assign(
        p_champion_holm=corrected["champion"], p_rival_holm=corrected["rival"], verdict=verdict, edge=edge
    )
