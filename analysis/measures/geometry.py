"""What landscapes, curvature and spectra say of one finished run: candidate measures of generalization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from adapters import target_names
from adapters.layer import layer_shape
from analysis.geometry import (
    expected_rise,
    hessian,
    hutchinson,
    mean_rise,
    model_state,
    top_eigenvalues,
    worst_rise,
)
from analysis.measures.intruders import count_both
from analysis.measures.registry import GEOMETRY_SETTINGS
from analysis.runs import LoadedRun
from analysis.spectra import (
    BasisCache,
    LayerUpdate,
    from_model,
    intruder_counts,
    shared_bases,
    spectrum_table,
)

__all__ = [
    "adapted_weights",
    "checkpoint_states",
    "geometry_of_model",
    "geometry_of_run",
    "run_updates",
    "take",
    "training_batch",
]


def take(run: LoadedRun, settings: Mapping[str, Any]) -> dict[str, float]:
    """Take what the instrument ``geometry`` measures."""
    return geometry_of_run(run, cache=shared_bases(), settings=settings)


def training_batch(run: LoadedRun, *, examples: int) -> dict[str, Any]:
    """Return the first training examples of a run as one batch (the split is already in random order)."""
    chosen = [run.task.train[i] for i in range(min(examples, len(run.task.train)))]
    return dict(run.task.collate(chosen))


def adapted_weights(model: nn.Module, record: dict[str, Any]) -> list[str] | None:
    """Name the weights that adapters of this run's configuration would adapt, for a model without adapters.

    Returns:
        Parameter names for full fine-tuning; None for a model with adapters, whose spaces know them.

    Raises:
        ValueError: if the model's type has no default targets and the configuration names none.
    """
    if hasattr(model, "peft_config"):
        return None
    names = target_names(model, record["config"].get("target_modules") or None)
    return [f"{name}.weight" for name in names if layer_shape(model.get_submodule(name)) is not None]


def run_updates(run: LoadedRun) -> list[LayerUpdate]:
    """Return the updates of a run's adapted weights; for full fine-tuning of the weights adapters would adapt.

    The same matrices for every method, so that sums over matrices compare like with like.
    """
    names = adapted_weights(run.model, run.record)
    kept = None if names is None else {name.removesuffix(".weight") for name in names}
    return [layer for layer in from_model(run.model, run.base_state) if kept is None or layer.name in kept]


def geometry_of_run(
    run: LoadedRun, *, cache: BasisCache | None = None, settings: Mapping[str, Any] = GEOMETRY_SETTINGS
) -> dict[str, float]:
    r"""Measure sharpness, curvature and spectra of one run, on the training loss.

    Everything is about the adapted matrices alone. Merged space is W0 + dW for every method. Adapter space is
    the parameters that the method trains: both factors or B alone; for chains the live link's; for full
    fine-tuning the matrices themselves.

    Args:
        run: from `analysis.runs.finetune.load_run`.
        cache: bases of W0, shared by all runs of one base model.
        settings: sizes and radii, as in `analysis.measures.registry.GEOMETRY_SETTINGS`; runs are comparable when theirs
            are equal.

    Returns:
        For each space S in (adapter, merged): sharpness_worst_S, sharpness_mean_S (rise of the loss at 5 % of the
        space's norm), hessian_top_S, hessian_top_S_residual, hessian_trace_S, hessian_trace_S_error; then
        sharpness_expected_merged (row-scaled noise, Flat-LoRA), intruders_authors (k = 10, epsilon = 0.5, left),
        intruders_paper (all left vectors, epsilon = 0.5), intruders_mean_share (all vectors, averaged over epsilon in
        (0, 1]), each with _low and _high (what rounding leaves open); effective_rank, stable_rank, frobenius_ratio
        (means over matrices).
    """
    batch = training_batch(run, examples=settings["examples"])
    small = training_batch(run, examples=settings["curvature_examples"])
    names = adapted_weights(run.model, run.record)
    found: dict[str, float] = {}
    for label in ("adapter", "merged"):
        space: dict[str, Any] = {"space": label, "names": names}
        radius, seed = settings["relative_radius"], settings["seed"]
        worst = worst_rise(
            run.model, batch, relative_radius=radius, ascent_steps=settings["ascent_steps"], seed=seed, **space
        )
        mean = mean_rise(run.model, batch, relative_radius=radius, samples=settings["samples"], seed=seed, **space)
        operator = hessian(run.model, small, **space)
        top = top_eigenvalues(operator, count=1, tolerance=0.01, max_products=40, subspace=7, seed=seed)
        trace = hutchinson(operator, probes=settings["trace_probes"], seed=seed)
        found |= {
            f"sharpness_worst_{label}": worst.value,
            f"sharpness_mean_{label}": mean.value,
            f"hessian_top_{label}": float(top.values[0]) if len(top.values) else float("nan"),
            f"hessian_top_{label}_residual": float(top.residuals[0]) if len(top.values) else float("nan"),
            f"hessian_trace_{label}": trace.value,
            f"hessian_trace_{label}_error": trace.standard_error,
        }
    noise = expected_rise(
        run.model,
        batch,
        sigma=settings["sigma"],
        samples=settings["samples"],
        space="merged",
        names=names,
        seed=settings["seed"],
    )
    return found | {"sharpness_expected_merged": noise.value} | spectra_of_run(run, cache=cache, settings=settings)


def geometry_of_model(run: LoadedRun, *, examples: int | None = None) -> dict[str, float]:
    """Measure sharpness, curvature and spectra of one model, as `geometry_of_run` does with the shipped settings.

    Args:
        run: a run, or anyone's model (`analysis.runs.load_models`).
        examples: training examples of sharpness, and half as many of curvature; None takes the settings'.

    Raises:
        ValueError: if ``examples`` is below 2.
    """
    if examples is not None and examples < 2:
        raise ValueError(f"examples must be at least 2, got {examples}")
    sizes = {} if examples is None else {"examples": examples, "curvature_examples": examples // 2}
    return geometry_of_run(run, settings={**GEOMETRY_SETTINGS, **sizes})


def spectra_of_run(
    run: LoadedRun, *, cache: BasisCache | None = None, settings: Mapping[str, Any] = GEOMETRY_SETTINGS
) -> dict[str, float]:
    """Return the part of `geometry_of_run` that needs weights alone."""
    cache = cache if cache is not None else BasisCache()
    updates = run_updates(run)
    counts, everything = count_both(
        updates, epsilon=settings["intruder_epsilon"], count=settings["intruder_count"], cache=cache
    )
    table = spectrum_table(updates, cache=cache)
    found = {f"intruders_{name}": float(value) for name, value in counts.items()}
    curve = intruder_counts(everything, np.linspace(0.01, 1.0, 100))
    shares = {f"_{end}": float(curve[f"intruders_{end}"].mean()) / max(len(everything), 1) for end in ("low", "high")}
    return found | {
        "intruders_mean_share": float(curve["share"].mean()),
        **{f"intruders_mean_share{end}": share for end, share in shares.items()},
        "effective_rank": float(table["effective_rank_update"].mean()),
        "stable_rank": float(table["stable_rank_update"].mean()),
        "frobenius_ratio": float(table["frobenius_ratio"].mean()),
    }


def checkpoint_states(run: LoadedRun, *, space: str = "merged") -> list[dict[str, Tensor]]:
    """Return where each of a run's checkpoints stands in a parameter space, oldest first, the run itself last.

    In adapter space the links of a chain are different parameters that share their names, so the path of a chain
    means something in merged space alone. Each state holds what else training changed too, so that its loss is its own.

    Args:
        run: loaded with its final weights; it kept checkpoints (``save_checkpoints``).
        space: as in `analysis.geometry.landscape.plane`.

    Raises:
        ValueError: if the run kept no checkpoints.
    """
    snapshots = run.checkpoints()
    if not snapshots:
        raise ValueError(f"run {run.folder.name!r} kept no checkpoints; run it with save_checkpoints")
    names = adapted_weights(run.model, run.record) if space != "full" else None
    states = [model_state(run.model_at(snapshot), space, names=names) for snapshot in snapshots]  # type: ignore[arg-type]
    return [*states, model_state(run.model, space, names=names)]  # type: ignore[arg-type]
