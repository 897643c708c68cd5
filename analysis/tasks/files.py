"""Text files as they are written: compression and byte-order marks are found, separators and quoting are declared.

Every record of a file becomes a row, or the reader says at which line it does not.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["COMPRESSED", "Quoting", "Table", "find_file", "read_delimited", "read_json_rows", "read_text"]

Quoting = Literal["double", "none"]

COMPRESSED: tuple[str, ...] = (".gz", ".bz2", ".xz")

_OPENERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = (",", "\t", ";", "|")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of named columns.

    Attributes:
        where: the file's name, for messages.
        columns: names, in the file's order.
        rows: one mapping per record.
        classes: names of the classes of columns that hold their indices, by column.
        remarks: what was found on the way in: an encoding, a separator, compression.
        doubts: what looks misread; ``strict`` refuses it.
    """

    where: str
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def find_file(folder: Path, *names: str) -> Path:
    """Return the first of these files that a folder holds, plain or compressed.

    Raises:
        ValueError: if it holds none.
    """
    for name in names:
        for suffix in ("", *COMPRESSED):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise ValueError(f"folder {str(folder)!r} holds none of {', '.join(names)} (nor with {', '.join(COMPRESSED)})")


def read_bytes(path: Path) -> bytes:
    """Read a file, decompressed where its first bytes say gzip, bzip2 or xz.

    Raises:
        ValueError: if it is empty, or its compression is corrupt.
    """
    raw = path.read_bytes()
    for mark, decompress in _OPENERS.items():
        if raw.startswith(mark):
            try:
                raw = decompress(raw)
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise ValueError(f"file {str(path)!r} is corrupt or truncated ({error})") from None
            break
    if not raw:
        raise ValueError(f"file {str(path)!r} is empty")
    return raw


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read a text file; a byte-order mark is found and taken off.

    Args:
        path: of the file, which may be compressed.
        encoding: of its text. Where that is UTF-8 and a byte-order mark says UTF-16 or UTF-32, the mark decides.

    Raises:
        ValueError: if the encoding is unknown, is not the file's, or contradicts its byte-order mark.
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; accepted: utf-8, latin-1, cp1252, utf-16, ...") from None
    raw = read_bytes(path)
    found = next((found for mark, found in _MARKS if raw.startswith(mark)), None)
    if found is not None and name in ("utf-8", "utf-8-sig"):
        name = found
    elif found is not None and not name.startswith(found.removesuffix("-sig")):
        raise ValueError(f"file {str(path)!r} begins with the byte-order mark of {found}, but encoding is {encoding!r}")
    try:
        text = raw.decode(name)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"file {str(path)!r} is not {encoding} (byte {error.start}, line {line}); "
            "give its --encoding, for example latin-1, or convert it"
        ) from None
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise ValueError(f"file {str(path)!r} is empty")
    return text


def read_delimited(
    path: Path,
    *,
    separator: str | None = None,
    quoting: Quoting | None = None,
    encoding: str = "utf-8",
    columns: tuple[str, ...] | None = None,
    wanted: Iterable[str] = (),
    more_fields: bool = False,
) -> Table:
    """Read a file of separated fields, one record a row.

    Args:
        path: of the file, which may be compressed.
        separator: between fields. None takes the one by which the header holds the wanted columns, and tries that of
            the file's ending (tab for .tsv, else a comma) first.
        quoting: "double": a field in double quotation marks may hold separators, line breaks and doubled marks;
            "none": a mark is a letter like any other. None takes "none" where fields are separated by tabs.
        encoding: of the file's text.
        columns: names of the columns of a file without a header.
        wanted: columns that are needed.
        more_fields: whether a row may have more fields than there are columns; they are left out.

    Raises:
        ValueError: if the file is empty, a column's name comes twice, a row has too few or too many fields, or a
            quotation mark is left open; the message names the line.
    """
    text = read_text(path, encoding)
    usual = "\t" if ".tsv" in path.suffixes else ","
    found = separator or _separator(re.split(r"[\r\n]", text, maxsplit=1)[0], usual, frozenset(wanted))
    quoting = quoting or ("none" if found == "\t" else "double")
    records = _unquoted(text, found) if quoting == "none" else _quoted(text, found, path)
    remarks, doubts = [], []
    if found != usual and separator is None:
        remarks.append(f"fields are separated by {found!r}")
    rows: list[dict[str, str]] = []
    blank, wrapped, spread = [], 0, []
    header = columns
    for line, last, cells in records:
        if not cells or cells == [""]:
            blank.append(line)
        elif header is None:
            header = tuple(cells)
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise ValueError(f"the header of {str(path)!r} names column {twice[0]!r} more than once")
        else:
            if len(cells) < len(header) or (len(cells) > len(header) and not more_fields):
                raise ValueError(
                    f"line {line} of {str(path)!r} has {len(cells)} fields, expected {len(header)} "
                    f"(separator {found!r}, quoting {quoting})"
                )
            rows.append(dict(zip(header, cells, strict=False)))
            wrapped += quoting == "none" and _written_quoted(cells)
            if last > line and any(_holds_records(cell, found, len(header)) for cell in cells):
                spread.append(f"{line}-{last}")
    if blank:
        remarks.append(f"{len(blank)} blank lines left out, the first at line {blank[0]}")
    if wrapped and quoting == "none":
        doubts.append(f"{wrapped} rows have fields in quotation marks, kept as letters; --quoting double undoes it")
    if spread:
        doubts.append(f"a quoted field of lines {spread[0]} looks like rows of its own ({len(spread)} such fields)")
    assert header is not None
    return Table(where=path.name, columns=header, rows=rows, remarks=tuple(remarks), doubts=tuple(doubts))


def _separator(header: str, usual: str, wanted: frozenset[str]) -> str:
    for separator in (usual, *(other for other in _SEPARATORS if other != usual)):
        if wanted and wanted <= {name.strip('"') for name in header.split(separator)}:
            return separator
    return usual


def _unquoted(text: str, separator: str) -> Iterator[tuple[int, int, list[str]]]:
    text = text.replace("\r\n", "\n")
    lines = text.split("\n" if "\n" in text else "\r")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield number, number, line.split(separator)


def _quoted(text: str, separator: str, path: Path) -> Iterator[tuple[int, int, list[str]]]:
    limit = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, reader.line_num, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"the record at line {line} of {str(path)!r} is not quoted as it should be: {error} "
            f"(seen at line {reader.line_num}); give --quoting none if its quotation marks are text"
        ) from None
    finally:
        csv.field_size_limit(limit)


def _written_quoted(cells: Sequence[str]) -> bool:
    """Whether fields that were read as they stand were written by a program that quotes."""
    inner = [cell[1:-1] for cell in cells if len(cell) > 1 and cell[0] == cell[-1] == '"']
    doubled = any('"' in cell and '"' not in cell.replace('""', "") for cell in inner)
    return doubled or len(inner) == len(cells)


def _holds_records(cell: str, separator: str, width: int) -> bool:
    """Whether a line within a field has as many separators as a record of its own (or as its end)."""
    return any(line.count(separator) >= width - 1 for line in cell.splitlines()[1:])


def read_json_rows(path: Path, encoding: str = "utf-8") -> Table:
    """Read JSON lines, or one JSON array of objects; a key that some objects lack is null there.

    Raises:
        ValueError: if a line is no JSON object; the message names it.
    """
    text = read_text(path, encoding)
    rows: list[dict[str, Any]] = []
    if text.lstrip().startswith("["):
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"file {str(path)!r} is no JSON ({error})") from None
        numbered = [(f"object {number}", item) for number, item in enumerate(parsed, start=1)]
    else:
        numbered = [(f"line {n}", _parsed(line, n, path)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    for place, item in numbered:
        if not isinstance(item, dict):
            raise ValueError(f"{place} of {str(path)!r} is no JSON object but {type(item).__name__}")
        rows.append(item)
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    return Table(where=path.name, columns=columns, rows=[{key: row.get(key) for key in columns} for row in rows])


def _parsed(line: str, number: int, path: Path) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} of {str(path)!r} is no JSON ({error.msg})") from None
