"""Updates of finished runs as files small enough to commit: the base's adapted matrices once, each update beside them.

``python -m analysis spectra FOLDER/METHOD/last --base FOLDER/base.safetensors`` reads them without the base model.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from analysis.measures import choose_checkpoint, run_updates
from analysis.records import (
    atomic_write_bytes,
    atomic_write_json,
    check_writable,
    frame_of,
    provenance,
    read_json,
    write_result,
)
from analysis.runs import LoadedRun
from analysis.spectra import LayerUpdate, WeightFiles, from_adapter, from_checkpoints

__all__ = ["exported_updates", "write_adapters"]

_COLUMNS = ("method", "seed", "checkpoint", "folder", "weights", "key")
_FACTOR = re.compile(r"\.(lora|beyond_column)_")


def write_adapters(paths: Iterable[str | Path], folder: str | Path, *, command: str = "") -> Path:
    """Write runs' updates at the last and, where it is another, the best checkpoint; heads are left out.

    A PEFT adapter stays one (``adapter_config.json``, ``adapter_model.safetensors``); of full fine-tuning the weights
    that adapters would adapt are written, at the last checkpoint only, for they take as much room as the base.
    ``base.safetensors`` holds those of the base model. Nothing is written before every run was found to fit.

    Args:
        paths: folders of runs of one base model, one a method.
        folder: gets base.safetensors, METHOD/last, METHOD/best and adapters.json, which lists them.
        command: the command that makes it again.

    Returns:
        The path of adapters.json.

    Raises:
        ValueError: if the runs have no common base, two are of one method, a model's weights are Conv1D, or the folder
            cannot be written to.
    """
    folder = check_writable(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as name:
        staging = Path(name)
        rows = _write_updates(paths, staging)
        files = [file for file in staging.rglob("*") if file.is_file()]
        index = write_result(
            staging / "adapters.json",
            provenance=provenance(command, sorted({row[1] for row in rows})),
            tables={"adapters": {"columns": list(_COLUMNS), "rows": rows}},
        )
        for file in (*files, index):  # only now is every run known to fit; the list of them comes last
            target = folder / file.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    return folder / "adapters.json"


def _write_updates(paths: Iterable[str | Path], folder: Path) -> list[list[Any]]:
    """Write every run's updates and the common base's matrices; return the rows of the list of them."""
    base: dict[str, Tensor] = {}
    rows: list[list[Any]] = []
    for path in tqdm(list(paths), desc="adapters", unit="run", leave=False, delay=2):
        places: dict[str, str] = {}
        for checkpoint, run in choose_checkpoint(path).chosen.items():
            config = run.record["config"]
            if any(row[0] == config["method"] and row[5] != run.record["key"] for row in rows):
                raise ValueError(f"two runs of {config['method']!r} would share a folder; give one run a method")
            if run.weights.name not in places:
                if places and not (run.weights / "adapter_config.json").is_file():
                    continue
                places[run.weights.name] = f"{config['method']}/{checkpoint}"
                base = _common_base(run, base)
                _write_update(run, folder / places[run.weights.name], names=list(base))
            where = places[run.weights.name]
            rows.append([config["method"], config["seed"], checkpoint, where, run.weights.name, run.record["key"]])
    _write_tensors(folder / "base.safetensors", base)
    return rows


def _common_base(run: LoadedRun, base: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the base's matrices that the run adapts; refuse others than ``base``, unless that is empty."""
    if any(type(module).__name__ == "Conv1D" for module in run.model.modules()):
        raise ValueError(f"run {run.folder.name!r} adapts Conv1D weights (GPT-2); export knows Linear ones")
    found = {f"{layer.name}.weight": layer.base.contiguous() for layer in run_updates(run)}
    base = base or found
    if found.keys() != base.keys() or not all(torch.equal(base[name], found[name]) for name in base):
        raise ValueError(f"run {run.folder.name!r} adapts other matrices, or another base, than the first")
    return base


def _write_update(run: LoadedRun, folder: Path, *, names: list[str]) -> None:
    config = run.weights / "adapter_config.json"
    if not config.is_file():
        weights = dict(run.model.named_parameters())
        _write_tensors(folder / "model.safetensors", {name: weights[name].detach().contiguous() for name in names})
        return
    settings: dict[str, Any] = {**read_json(config), "modules_to_save": None, "base_model_name_or_path": None}
    settings["target_modules"] = sorted(settings["target_modules"])
    files = WeightFiles(run.weights)
    kept = {name: files.read(name) for name in files.names if _FACTOR.search(name)}
    _write_tensors(folder / "adapter_model.safetensors", kept)
    atomic_write_json(folder / "adapter_config.json", settings)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    atomic_write_bytes(path, save(dict(tensors)))


def exported_updates(folder: str | Path) -> dict[tuple[str, str], list[LayerUpdate]]:
    """Read what `write_adapters` wrote.

    Returns:
        (method, ``"last"`` or ``"best"``) -> the update of every adapted matrix.

    Raises:
        ValueError: if a file is missing, truncated or does not fit the base.
    """
    folder = Path(folder)
    base = folder / "base.safetensors"
    found: dict[tuple[str, str], list[LayerUpdate]] = {}
    for entry in frame_of(read_json(folder / "adapters.json")["tables"]["adapters"]).itertuples():
        place = folder / str(entry.folder)
        adapted = (place / "adapter_config.json").is_file()
        updates = from_adapter(place, base) if adapted else from_checkpoints(base, place)
        found[str(entry.method), str(entry.checkpoint)] = list(updates)
    return found
