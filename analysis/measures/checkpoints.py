"""The checkpoint of lowest held-out loss of a finished run."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.measures.geometry import spectra_of_run
from analysis.runs import LoadedRun, load_run
from analysis.spectra import shared_bases
from analysis.tasks import evaluate, forward_error, lowest, mean_error

__all__ = ["CheckpointChoice", "Chosen", "choose_checkpoint", "take"]


Chosen = dict[str, "LoadedRun"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckpointChoice:
    """The checkpoint of lowest held-out loss, and how clear that choice is.

    Attributes:
        chosen: ``{"last": run, "best": run}``; the same object twice where the last is the best.
        margin: second lowest held-out loss minus the lowest, in nats (squared units for regression); inf if there was
            one candidate.
        doubtful: whether rounding in a forward pass of these very weights can reverse the two. Training anew rounds in
            every step and amplifies it: that is another run, which this does not speak of.
    """

    chosen: Chosen
    margin: float
    doubtful: bool


def take(run: LoadedRun, settings: Mapping[str, Any]) -> dict[str, float] | None:
    """Take what the instrument ``best`` measures: intruders at the checkpoint of lowest held-out loss.

    That is the paper's choice, for geometry alone. None where no snapshots were kept.
    """
    if not run.checkpoints():
        return None
    choice = choose_checkpoint(run.folder, data=run.data, model=run.base, last=run)
    found = spectra_of_run(choice.chosen["best"], cache=shared_bases(), settings=settings)
    ends = ("", "_low", "_high")
    kept = {f"{name}{end}": found[f"{name}{end}"] for name in ("intruders_authors", "intruders_paper") for end in ends}
    return kept | {"choice_margin": choice.margin, "choice_doubtful": float(choice.doubtful)}


def choose_checkpoint(
    path: str | Path, *, data: str | None = None, model: str | None = None, last: LoadedRun | None = None
) -> CheckpointChoice:
    """Compare a run's checkpoints by held-out loss, in float64, so that rounding cannot reverse close ones.

    The start, before any step, is no candidate. A loss that is not finite never wins over one that is.

    Args:
        path: the run's folder.
        data: where the run's data is now; None takes where it was.
        model: where its base model is now; None takes where it was.
        last: the run at its last checkpoint, where it is loaded already.

    Returns:
        The runs, the margin of the choice, and whether rounding leaves it open.
    """
    last = best = last or load_run(path, data=data, model=model)
    others = [int(snapshot.name.removeprefix("step-")) for snapshot in last.checkpoints()]
    # neither the start, nor what the run itself ended with
    others = [step for step in others if step not in (0, last.record["selection"]["step"])]
    if not others:
        return CheckpointChoice(chosen={"last": last, "best": last}, margin=math.inf, doubtful=False)
    losses = [_heldout_loss(last)]
    for step in others:
        run = load_run(path, data=data, model=model, checkpoint=f"step-{step:06d}")
        loss = _heldout_loss(run)
        if loss[0] < min((value for value, _ in losses if not math.isnan(value)), default=math.inf):
            best = run
        losses.append(loss)
    margin, doubtful = lowest(*zip(*losses, strict=True))
    return CheckpointChoice(chosen={"last": last, "best": best}, margin=margin, doubtful=doubtful)


def _heldout_loss(run: LoadedRun) -> tuple[float, float]:
    """Return a run's mean held-out loss, computed in float64, and how far rounding can move it."""
    wide = copy.deepcopy(run.model).to(torch.float64)
    outputs = evaluate(wide, run.task, run.task.heldout)
    off = forward_error(wide, outputs.largest_logit)
    error = mean_error(outputs.losses, off, squared=run.task.kind == "regression")
    return float(np.average(outputs.losses, weights=outputs.weights)), error
