"""A finished run back in memory: its record, its model, its task."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from analysis.records import read_json
from analysis.runs.collect import record_paths
from analysis.runs.config import RunConfig
from analysis.tasks import Task, base_fingerprint, load_model, load_task, quiet_transformers
from theory.methods import get_method

__all__ = ["LoadedRun", "load_run"]


@dataclass(frozen=True)
class LoadedRun:
    """A finished run, back in memory; or anyone's trained model, told as one (`analysis.runs.load_models`).

    Attributes:
        record: its record; of anyone's model its key, title and configuration alone.
        model: the trained model in eval mode.
        task: its task, encoded.
        folder: its folder.
        weights: the folder that its weights were read from: ``adapter``, or a snapshot of ``checkpoints``.
        base_state: the state dict of the base model with the head it started from.
        data: where its data was read from; None for the bundled data or the hub.
        base: where its base model was read from; None for the bundled one.
        snapshots: folders of checkpoints, oldest first, where they are not the run's own.
        read: loads a model from one of ``snapshots``.
    """

    record: dict[str, Any]
    model: torch.nn.Module
    task: Task
    folder: Path
    weights: Path
    base_state: dict[str, torch.Tensor]
    data: str | None = None
    base: str | None = None
    snapshots: tuple[Path, ...] | None = None
    read: Callable[[Path], torch.nn.Module] | None = None

    @property
    def title(self) -> str:
        """The method's name; of anyone's model its folder's."""
        return self.record["title"] if "title" in self.record else get_method(self.record["config"]["method"]).name

    def checkpoints(self) -> list[Path]:
        """Return the folders of the run's snapshots, in the order of their steps."""
        if self.snapshots is not None:
            return list(self.snapshots)
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def model_at(self, snapshot: Path) -> torch.nn.Module:
        """Load the model at one of `checkpoints`."""
        if self.read is not None:
            return self.read(snapshot)
        return load_run(self.folder, data=self.data, model=self.base, checkpoint=snapshot.name).model


def load_run(
    path: str | Path,
    *,
    data: str | Path | None = None,
    model: str | Path | None = None,
    checkpoint: str | None = None,
) -> LoadedRun:
    """Load a finished run that kept its weights (``save_adapter`` or ``save_checkpoints``).

    Args:
        path: the run's folder (or its record).
        data: where the data is now; None takes where it was.
        model: where the base model is now; None takes where it was.
        checkpoint: name of a snapshot, such as ``"step-000070"``; None takes the final weights.

    Raises:
        ValueError: if the record is missing, corrupt or of a failed run, its weights were not kept, or it was trained
            on another bundled base model than this one.
    """
    folder = Path(path)
    folder = folder.parent if folder.name == "record.json" else folder
    if not (folder / "record.json").exists() and record_paths(folder):
        raise ValueError(f"{str(folder)!r} is a folder of runs; give one of them, {folder}/KEY")
    record = read_json(folder / "record.json")
    if record.get("status") != "done":
        raise ValueError(f"run {str(folder)!r} did not finish: {record.get('failure', {}).get('message', 'no reason')}")
    weights = folder / "adapter" if checkpoint is None else folder / "checkpoints" / checkpoint
    if not weights.is_dir():
        raise ValueError(f"run {str(folder)!r} kept no weights in {weights.name!r}; run it with --save-adapter")
    paths = read_json(folder / "paths.json") if (folder / "paths.json").exists() else {}
    settings = {**record["config"], "data": str(data) if data else paths.get("data")}
    settings["model"] = str(model) if model else paths.get("model")
    settings["rank"] = settings["rank"] or 1
    config = RunConfig.from_mapping(settings)
    if config.model is None:
        _check_base(folder, record["config"].get("model"))
    task = load_task(config.task, data=config.data, model=config.model, seed=config.seed, options=config.options)
    base = load_model(task, seed=config.seed)
    dense = get_method(config.method).trains == "weight"
    state = {name: value.clone() if dense else value for name, value in base.state_dict().items()}
    return LoadedRun(
        record=record,
        model=_load_weights(base, weights, dense=dense).eval(),
        task=dataclasses.replace(task),
        folder=folder,
        weights=weights,
        base_state=state,
        data=config.data,
        base=config.model,
    )


def _check_base(folder: Path, trained_on: Any) -> None:
    """Refuse a run of the bundled task whose W0 is not the one at hand: its update was learned on other weights."""
    stated = trained_on["fingerprint"] if trained_on else "none stated, from before W0 was committed"
    here = base_fingerprint()
    if stated != here:
        raise ValueError(
            f"run {str(folder)!r} was trained on another base model (fingerprint {stated}; the bundled one is {here}); "
            "train it again"
        )


def _load_weights(base: PreTrainedModel, folder: Path, *, dense: bool) -> torch.nn.Module:
    if dense:
        with quiet_transformers():  # save_pretrained may rename weights on the way out; only its own reader knows how
            read: Any = type(base).from_pretrained  # with loading info it returns a pair, which its type leaves out
            loaded, found = read(str(folder), output_loading_info=True)
        if found["missing_keys"]:
            raise ValueError(f"weights {str(folder)!r} lack {sorted(found['missing_keys'])[0]!r}")
        loaded.missing_keys = getattr(base, "missing_keys", [])  # of the base: a new pooler belongs to the head
        return loaded

    with warnings.catch_warnings():
        # PEFT up to 0.21 reads the model's attribute by the name that transformers 5 deprecates.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel.from_pretrained(base, str(folder))
