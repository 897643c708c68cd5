"""What the tests of figures read off axes: the numbers that were drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer


@pytest.fixture(autouse=True)
def agg() -> Iterator[None]:
    """Draw on no screen."""
    mpl.use("Agg")
    yield
    mpl.pyplot.close("all")


@pytest.fixture
def points() -> Callable[[Axes], dict[str, list[tuple[float, float]]]]:
    """Axes -> label of each labelled line -> its points."""

    def of(ax: Axes) -> dict[str, list[tuple[float, float]]]:
        return {
            str(line.get_label()): [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
            for line in ax.get_lines()
            if not str(line.get_label()).startswith("_")
        }

    return of


@pytest.fixture
def bars() -> Callable[[Axes], list[dict[str, Any]]]:
    """Axes -> each errorbar's points, colour, marker, and the two ends of every bar (along the axis that has it)."""

    def of(ax: Axes) -> list[dict[str, Any]]:
        found = []
        for container in (c for c in ax.containers if isinstance(c, ErrorbarContainer)):
            line, _, collections = container.lines
            segments = [np.asarray(s, dtype=float).tolist() for c in collections for s in c.get_segments()]
            drawn: dict[str, Any] = {"segments": segments}
            if line is not None:
                data = [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
                drawn |= {"points": data, "color": to_hex(line.get_color()), "marker": line.get_marker()}
            found.append(drawn | {"label": container.get_label()})
        return found

    return of


@pytest.fixture
def words() -> Callable[[Axes], dict[str, Any]]:
    """Axes -> labels of axes, of y ticks, of the legend, scales, and whether y runs downwards."""

    def of(ax: Axes) -> dict[str, Any]:
        legend = ax.get_legend() or next(iter(ax.figure.legends), None)
        return {
            "x": ax.get_xlabel(),
            "y": ax.get_ylabel(),
            "rows": [label.get_text() for label in ax.get_yticklabels()],
            "legend": [text.get_text() for text in legend.get_texts()] if legend else None,
            "scales": (ax.get_xscale(), ax.get_yscale()),
            "down": bool(ax.yaxis_inverted()),
        }

    return of
