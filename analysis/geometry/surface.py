"""A measured landscape: values, axes, and everything a reader must know to trust it; on disk and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from analysis.records import atomic_write_json, read_json, replacing

__all__ = ["Landscape"]

_ARRAYS = ("values", "x", "y", "path")


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape:
    r"""Losses :math:`L(\theta + x d_1 + y d_2)` on a grid, or along a line.

    Attributes:
        values: float64, shape (len(y), len(x)), or (len(x),) for a line; NaN where the model gave NaN.
        x, y: coordinates, in units of the directions (a distance is a coordinate times ``direction_norms``);
            ``y`` is empty for a line.
        center_loss: the unmoved model's own loss.
        space, normalization, directions: how the plane was chosen.
        direction_norms: Euclidean norm of each direction.
        center_norm: Euclidean norm of the centre in the same space.
        direction_cosine: cosine between the two directions (NaN for a line).
        method, evaluations, error, note: see `analysis.geometry.points.Evaluated`.
        path: coordinates of checkpoints on the plane, shape (checkpoints, 2), or of a line's two ends, shape (2, 1);
            empty without.
        path_losses: each checkpoint's own loss, with all of its state; the plane passes by it at a distance.
        path_distances: Euclidean distance of each checkpoint from the plane.
        fixed: what training changed and the landscape does not move, by name: it stays as the model has it.
        buffers: ``"moved"`` or ``"recalibrated"``, see `analysis.geometry.points.Evaluation`.
        explained: share of the checkpoints' variance along each direction; empty without.
        seed: seed of random directions.
        title: a label for figures.
    """

    values: np.ndarray
    x: np.ndarray
    y: np.ndarray = field(default_factory=lambda: np.zeros(0))
    center_loss: float
    space: str
    normalization: str
    directions: str
    direction_norms: tuple[float, ...]
    center_norm: float
    direction_cosine: float = float("nan")
    method: str
    evaluations: int
    error: float = float("nan")
    note: str = ""
    path: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    path_losses: tuple[float, ...] = ()
    path_distances: tuple[float, ...] = ()
    explained: tuple[float, ...] = ()
    fixed: tuple[str, ...] = ()
    buffers: str = "moved"
    seed: int | None = None
    title: str = ""

    @property
    def is_line(self) -> bool:
        """Whether the landscape has one direction only."""
        return self.values.ndim == 1

    def rise(self, radius: float | None = None) -> dict[str, float]:
        r"""Return how far the loss rises on the plane within a radius, in the coordinates' units.

        Over the grid points with :math:`0 < \sqrt{x^2 + y^2} \le \rho`:
        worst = :math:`\max L - L(\theta)`, mean = :math:`\overline{L} - L(\theta)`. A slice of two directions
        says little about the whole space; `analysis.geometry.sharpness` looks at all directions.

        Args:
            radius: rho; None takes the smaller half-width of the grid.

        Returns:
            ``{"radius", "worst", "mean", "points"}``; NaN if a loss within the radius is NaN.

        Raises:
            ValueError: if no grid point lies within the radius.
        """
        radius = min(np.abs(axis).max() for axis in (self.x, self.y) if len(axis)) if radius is None else radius
        distance = np.abs(self.x) if self.is_line else np.hypot(self.x[None, :], self.y[:, None])
        inside = self.values[(distance > 0) & (distance <= radius * (1 + 1e-12))]
        if inside.size == 0:
            raise ValueError(
                f"no grid point lies within radius {radius}; the grid's step is {np.diff(self.x).min():.3g}"
            )
        rises = inside - self.center_loss
        return {
            "radius": float(radius),
            "worst": float(rises.max()),
            "mean": float(rises.mean()),
            "points": float(inside.size),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per point with columns x, (y,) loss and rise."""
        if self.is_line:
            columns = {"x": self.x, "loss": self.values}
        else:
            x, y = np.meshgrid(self.x, self.y)
            columns = {"x": x.ravel(), "y": y.ravel(), "loss": self.values.ravel()}
        frame = pd.DataFrame(columns)
        frame["rise"] = frame["loss"] - self.center_loss
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists and numbers, as result files hold it."""
        record = asdict(self)
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in record.items()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Landscape:
        """Build a landscape from `to_dict`'s record (or what JSON kept of it)."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in record.items() if key in known}
        for key in _ARRAYS:
            if key in values:
                values[key] = np.asarray(values[key], dtype=np.float64)
        path = np.asarray(values.get("path", []), dtype=np.float64)
        values["path"] = path if path.ndim == 2 and len(path) else path.reshape(-1, 2)
        for key in ("center_loss", "center_norm", "direction_cosine", "error"):
            values[key] = float(values.get(key, "nan"))
        for key in ("direction_norms", "explained", "path_losses", "path_distances"):
            values[key] = tuple(float(item) for item in values.get(key, ()))
        values["fixed"] = tuple(values.get("fixed", ()))
        return cls(**values)

    def save(self, path: str | Path) -> Path:
        """Write ``<path>.safetensors`` (arrays) and ``<path>.json`` (the rest), each whole or not at all.

        Raises:
            ValueError: if the folder cannot be written to.
        """
        path = Path(path)
        record = asdict(self)
        arrays = {key: np.ascontiguousarray(record.pop(key)) for key in _ARRAYS}
        target = path.with_name(path.name + ".safetensors")
        with replacing(target) as new:
            save_file(arrays, new)
        atomic_write_json(path.with_name(path.name + ".json"), record)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Landscape:
        """Read what `save` wrote.

        Raises:
            ValueError: if a file is missing, truncated, or not a landscape.
        """
        path = Path(path)
        path = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
        record = read_json(path.with_name(path.name + ".json"))
        source = path.with_name(path.name + ".safetensors")
        try:
            arrays = load_file(source)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"landscape {str(source)!r} is missing or truncated: {error}") from None
        try:
            return cls.from_dict({**record, **arrays})
        except TypeError as error:
            raise ValueError(f"{str(path)!r} is not a landscape: {error}") from None
