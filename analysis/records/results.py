"""Committed results: one JSON file a question, from which the report and its figures are built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.store import atomic_write_json

__all__ = ["frame_of", "table_of", "write_result"]


def write_result(
    path: str | Path,
    *,
    provenance: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    series: Mapping[str, Any] | None = None,
) -> Path:
    """Write one committed result file, from which the report and its figures are built.

    Args:
        path: ``report/results/<topic>.json``.
        provenance: from ``analysis.records.provenance.provenance``.
        values: numbers and strings by key, as the report's text names them.
        tables: name -> {"columns": [...], "rows": [[...], ...]}.
        series: name -> data of a figure.

    Raises:
        ValueError: if a table's row does not fit its columns.
    """
    for name, table in (tables or {}).items():
        width = len(table["columns"])
        for row in table["rows"]:
            if len(row) != width:
                raise ValueError(f"table {name!r} has {width} columns, got a row of {len(row)}")
    return atomic_write_json(
        path, {"provenance": provenance, "values": values or {}, "tables": tables or {}, "series": series or {}}
    )


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table_of(data: pd.DataFrame, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Return a data frame as the ``{"columns", "rows"}`` of a committed result, floats to six significant digits."""
    data = data if columns is None else data[list(columns)]
    rows = [[_cell(value) for value in row] for row in data.itertuples(index=False)]
    return {"columns": list(data.columns), "rows": rows}


def frame_of(table: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table of a committed result as a data frame.

    >>> frame_of({"columns": ["a"], "rows": [[1], [2]]})["a"].tolist()
    [1, 2]
    """
    return pd.DataFrame(table["rows"], columns=table["columns"])
