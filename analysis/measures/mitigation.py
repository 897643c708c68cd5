r"""Intruder dimensions scaled down, and what that does to the loss, to the held-out loss and to the counts.

Source: Shuttleworth et al., arXiv:2410.21228, section 5: an intruder u_j of W = W0 + dW with singular value
:math:`\sigma_j` and right vector :math:`v_j` is scaled by :math:`\lambda`,
:math:`W + (\lambda - 1) \sigma_j u_j v_j^\top`. PEFT's `reduce_intruder_dimension` does the same and then
cuts dW to the adapter's rank; here W keeps what the formula says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from adapters import updates
from analysis.geometry import Objective, parameter_space
from analysis.runs import LoadedRun
from analysis.spectra import BasisCache, LayerUpdate, intruder_counts, intruder_dimensions, shared_bases

__all__ = ["mitigate", "mitigation_table"]


def mitigate(
    layer: LayerUpdate, *, scale: float, epsilon: float = 0.5, count: int = 10, cache: BasisCache | None = None
) -> LayerUpdate:
    """Return the update whose intruders are scaled; the same object where there is none.

    Args:
        layer: W0 and dW.
        scale: lambda; 1 changes nothing, 0 takes the intruders out.
        epsilon: cosine below which a left vector is an intruder.
        count: leading vectors looked at (the authors' convention).
        cache: bases of W0.

    Raises:
        ValueError: if ``scale`` is negative, or as `analysis.spectra.intruder_dimensions`.
    """
    if not scale >= 0:
        raise ValueError(f"scale must be at least 0, got {scale}")
    vectors = intruder_dimensions([layer], count=count, cache=cache)
    chosen = vectors.loc[vectors["cosine"] < epsilon, "index"].tolist()
    if not chosen:
        return layer
    wide = torch.promote_types(layer.update.dtype, torch.float32)
    left, values, right = torch.linalg.svd(layer.tuned.double(), full_matrices=False)
    change = (left[:, chosen] * values[chosen]) @ right[chosen] * (scale - 1)
    return replace(layer, left=None, right=None, delta=(layer.update.double() + change).to(wide))


@torch.no_grad()
def mitigation_table(
    run: LoadedRun,
    *,
    scales: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.0),
    epsilon: float = 0.5,
    count: int = 10,
    examples: int = 200,
) -> pd.DataFrame:
    """Scale the intruders of an adapted model, and measure loss, held-out loss and intruders again.

    Args:
        run: a run with an adapter, or anyone's model with one (`analysis.runs.load_models`).
        scales: lambdas, in the table's order.
        epsilon: as in `mitigate`.
        count: as in `mitigate`.
        examples: of each of the training and the held-out split.

    Returns:
        One row per scale: scale, loss and heldout_loss (nats), intruders (over all matrices), matrices (that had some).

    Raises:
        ValueError: if the model has no adapter, or a scale is negative.
    """
    space = parameter_space(run.model, "merged")
    items = [item for item in updates(run.model, base=run.base_state) if item.base.ndim == 2]
    objectives = [
        Objective(run.model, dict(run.task.collate([rows[i] for i in range(min(examples, len(rows)))])), space=space)
        for rows in (run.task.train, run.task.heldout)
    ]
    rows = []
    for scale in tqdm(scales, desc="mitigation", leave=False, delay=2):
        moved: dict[str, Tensor] = {}
        touched, vectors = 0, []
        for item in items:
            base, update = (tensor.T if item.transposed else tensor for tensor in (item.base, item.update))
            layer = LayerUpdate(name=item.name, base=base, delta=update)
            better = mitigate(layer, scale=scale, epsilon=epsilon, count=count, cache=shared_bases())
            touched += better is not layer
            vectors.append(intruder_dimensions([better], count=count, cache=shared_bases()))
            change = better.update - layer.update
            moved[item.place] = change.T if item.transposed else change
        state = space.move({name: moved.get(name, torch.zeros_like(value)) for name, value in space.start.items()})
        counted = intruder_counts(pd.concat(vectors, ignore_index=True), [epsilon])["intruders"].iloc[0]
        losses = [objective(state) for objective in objectives]
        rows.append([scale, *losses, int(counted), touched])
    return pd.DataFrame(rows, columns=["scale", "loss", "heldout_loss", "intruders", "matrices"])
