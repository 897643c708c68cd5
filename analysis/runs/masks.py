"""Supersample runs: the loss arrays that the conditional-mutual-information bounds take.

Setting of Steinke and Zakynthinou, arXiv:2001.09122: n rows of two training examples, a fair bit per row says
which of the two is trained on, and after training the losses of both are recorded. Repeated over masks
(and supersamples) this gives the arrays that ``theory.information.cmi.estimate`` reads. Rows are drawn from the
training split; the held-out examples are not touched.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from analysis.records import RunFailure, config_key, read_json, replacing
from analysis.runs.config import RunConfig
from analysis.runs.finetune import check_links, prepare_run
from analysis.runs.packing import packed_task
from analysis.runs.sweep import sweep
from analysis.runs.trainer import make_trainer
from analysis.tasks import evaluate, load_task

__all__ = [
    "collect_masks",
    "draw",
    "mask_cell",
    "mask_cells",
    "mask_grid",
    "mask_key",
    "read_masks",
    "sweep_masks",
    "write_masks",
]

_OWN = ("rows", "mask", "supersample")


def draw(pool: int, *, rows: int, mask: int, supersample: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Draw a supersample and one mask.

    Args:
        pool: number of examples to draw from.
        rows: n; 2 n different examples are drawn.
        mask: number of the mask.
        supersample: number of the supersample; masks of one supersample share its rows.
        seed: seed of all of them.

    Returns:
        Indices into the pool, shape (n, 2), and fair bits, shape (n,): True trains on the second column.

    Raises:
        ValueError: if ``rows`` is below 2 or 2 rows exceed the pool.

    >>> pairs, bits = draw(10, rows=3, mask=0, supersample=0, seed=0)
    >>> pairs.shape, bits.shape, len(set(pairs.ravel().tolist()))
    ((3, 2), (3,), 6)
    """
    if rows < 2 or 2 * rows > pool:
        raise ValueError(f"rows must lie in 2..{pool // 2} (2 rows of {pool} training examples), got {rows}")
    pairs = np.random.default_rng([seed, 5, supersample]).permutation(pool)[: 2 * rows].reshape(rows, 2)
    bits = np.random.default_rng([seed, 6, supersample, mask]).random(rows) < 0.5
    return pairs, bits


def mask_cells(values: Mapping[str, Any], *, rows: int, masks: int, supersamples: int = 1) -> list[dict[str, Any]]:
    """Return one cell per mask and supersample over a run configuration.

    Raises:
        ValueError: if a count is below 1.
    """
    for name, count in (("masks", masks), ("supersamples", supersamples)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    return [
        {**values, "rows": rows, "mask": mask, "supersample": supersample}
        for supersample in range(supersamples)
        for mask in range(masks)
    ]


def mask_grid(
    configurations: Sequence[Mapping[str, Any]],
    *,
    rows: int,
    masks: int,
    supersamples: int = 1,
    estimated: bool = False,
) -> list[list[dict[str, Any]]]:
    """Return the cells of every configuration, refused before anything is trained where they cannot work.

    Args:
        configurations: values of a :class:`RunConfig`, all of one task.
        rows: n.
        masks: runs per supersample and configuration.
        supersamples: drawn anew.
        estimated: whether bounds are to be estimated from the losses.

    Raises:
        ValueError: if the task is too small for the rows, a chain has more links than steps, a count is below 1, or
            bounds are to be estimated from fewer than two masks or without a 0-1 loss.
    """
    config = RunConfig.from_mapping(configurations[0]).resolve()
    task = load_task(config.task, data=config.data, model=config.model, seed=config.seed, options=config.options)
    if not 2 <= rows <= len(task.train) // 2:
        raise ValueError(f"rows must lie in 2..{len(task.train) // 2} for this task, got {rows}")
    for values in configurations:
        check_links(RunConfig.from_mapping(values).resolve(), rows)
    if estimated and (task.kind == "regression" or masks * supersamples < 2):
        raise ValueError("estimates need a task with 0-1 loss and at least two masks")
    return [mask_cells(values, rows=rows, masks=masks, supersamples=supersamples) for values in configurations]


def sweep_masks(
    groups: Sequence[Sequence[Mapping[str, Any]]], *, folder: str | Path, **options: Any
) -> list[dict[str, NDArray]]:
    """Compute every cell that is not recorded yet, and stack the losses of each configuration.

    Args:
        groups: from :func:`mask_grid`.
        folder: where records go.
        **options: of :func:`analysis.runs.sweep.sweep`: where it runs.

    Returns:
        As :func:`collect_masks`, one per configuration.

    Raises:
        RunFailure: if a run failed.
    """
    cells = [cell for group in groups for cell in group]
    report = sweep(cells, mask_cell, folder=folder, key=mask_key, **options)
    if report.failed:
        raise RunFailure(f"{len(report.failed)} of {report.total} runs failed; see {folder}/{report.failed[0]}")
    return [collect_masks(group, folder=folder) for group in groups]


def _split(cell: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    own = {name: int(cell[name]) for name in _OWN}
    return {key: value for key, value in cell.items() if key not in _OWN}, own


def mask_key(cell: Mapping[str, Any]) -> str:
    """Name a cell by its run configuration and its mask."""
    values, own = _split(cell)
    return config_key({"run": RunConfig.from_mapping(values).key(), **own})


def mask_cell(cell: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train on the chosen half of a supersample and record the losses of both halves.

    Args:
        cell: a run configuration with ``rows``, ``mask`` and ``supersample``.
        folder: the cell's folder.

    Returns:
        The record's content: ``bits`` (n), and per example (n x 2) ``zero_one``, ``loss`` (clipped and divided
        by its range, so in [0, 1]), ``predictions`` and ``labels``.
    """
    values, own = _split(cell)
    config = RunConfig.from_mapping(values).resolve()
    task = load_task(config.task, data=config.data, model=config.model, seed=config.seed, options=config.options)
    pairs, bits = draw(len(task.train), **own, seed=config.seed)
    chosen = pairs[np.arange(len(pairs)), bits.astype(int)]
    halves = dataclasses.replace(task, train=[task.train[i] for i in chosen.tolist()])
    prepared, _ = prepare_run(config, halves)
    trained = packed_task(halves, length=config.options.max_length or 128) if config.packing else halves
    trainer = make_trainer(prepared, config, trained, folder=folder, callbacks=[], progress=False, report_to="none")
    trainer.train()
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    outputs = evaluate(prepared.model, task, [task.train[i] for i in pairs.ravel().tolist()])
    return {
        "config": {**config.as_record(), **own},
        "range": task.max_loss,
        "bits": bits.astype(int),
        "zero_one": outputs.errors.reshape(pairs.shape),
        "loss": (outputs.clipped / task.max_loss).reshape(pairs.shape),
        "predictions": outputs.predictions.reshape(pairs.shape),
        "labels": outputs.labels.reshape(pairs.shape),
    }


def collect_masks(cells: Sequence[Mapping[str, Any]], *, folder: str | Path) -> dict[str, NDArray]:
    """Stack the records of finished cells, in the cells' order.

    Returns:
        ``masks`` (runs, n) bool; ``zero_one``, ``loss``, ``predictions``, ``labels`` (runs, n, 2);
        ``supersample`` (runs,).

    Raises:
        ValueError: if a cell is not finished.
    """
    records = []
    for cell in cells:
        path = Path(folder) / mask_key(cell) / "record.json"
        record = read_json(path)
        if record["status"] != "done":
            raise ValueError(f"run {str(path.parent)!r} failed: {record['failure']['message']}")
        records.append(record)
    arrays: dict[str, NDArray] = {
        name: np.array([record[name] for record in records], dtype=np.float64) for name in ("zero_one", "loss")
    }
    for name in ("predictions", "labels"):
        values = [[[float(value) for value in pair] for pair in record[name]] for record in records]
        arrays[name] = np.array(values)
    arrays["masks"] = np.array([record["bits"] for record in records], dtype=bool)
    arrays["supersample"] = np.array([cell["supersample"] for cell in cells])
    return arrays


def write_masks(arrays: Mapping[str, NDArray], path: str | Path) -> Path:
    """Write the arrays as safetensors, whole or not at all."""
    with replacing(path) as new:
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, new)
    return Path(path)


def read_masks(path: str | Path) -> dict[str, NDArray]:
    """Read what :func:`write_masks` wrote.

    Raises:
        ValueError: if the file is missing or no safetensors file.
    """
    try:
        return load_file(str(path))
    except FileNotFoundError:
        raise ValueError(f"no loss arrays at {str(path)!r}") from None
    except SafetensorError as error:
        raise ValueError(f"loss arrays {str(path)!r} are corrupt ({error})") from None
