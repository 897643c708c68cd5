"""Rows read are records in the file, or the reader says at which line they are not."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from analysis.tasks.files import read_delimited, read_json_rows, read_text

MARKS = ["", "", "", '"', "", "", "", "", "", ""]
LONE_QUOTES = "text\tlabel\n" + "".join(f"{MARKS[i % 10]}word {i}\t{i % 2}\n" for i in range(40))


def test_a_lone_quotation_mark_swallows_no_row_between_tabs(tmp_path: Path, write):
    table = read_delimited(write(tmp_path / "a.tsv", LONE_QUOTES))
    assert [row["text"] for row in table.rows][:4] == ["word 0", "word 1", "word 2", '"word 3']
    assert len(table.rows) == 40


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ('"word 3,1\nword 4,0\n"word 5,1\n', "record at line 2 of '.*' is not quoted as it should be"),
        ('word 3,1\n"word 4,0\n', "record at line 3 of"),
        ("word 3\n", "line 2 of '.*' has 1 fields, expected 2"),
        ("word 3,1\nword 4,0,1\n", r"line 3 of '.*' has 3 fields, expected 2 \(separator ','"),
    ],
)
def test_a_record_that_is_none_is_named_by_its_line(tail: str, message: str, tmp_path: Path, write):
    with pytest.raises(ValueError, match=message):
        read_delimited(write(tmp_path / "a.csv", f"text,label\n{tail}"))


def test_a_field_that_swallowed_rows_between_two_marks_is_doubted(tmp_path: Path, write):
    swallowed = read_delimited(write(tmp_path / "a.csv", 'text,label\n"5 inches,1\na,0\nof 7",0\n'))
    assert (len(swallowed.rows), "lines 2-4 looks like rows" in swallowed.doubts[0]) == (1, True)
    assert not read_delimited(write(tmp_path / "b.csv", 'text,label\n"two\nlines",1\n')).doubts


def test_quotes_that_a_program_wrote_between_tabs_are_doubted_and_undone_on_request(tmp_path: Path, write):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"he said ""no"""\t1\nplain\t0\n')
    assert "1 rows have fields in quotation marks" in read_delimited(path).doubts[0]
    assert read_delimited(path, quoting="double").rows[0]["text"] == 'he said "no"'
    assert not read_delimited(write(tmp_path / "b.tsv", 'text\tlabel\n"Stay," she said "now"\t1\n')).doubts


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compression_is_found(compress, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(compress(b"text,label\na,1\n"))
    assert read_delimited(path).rows == [{"text": "a", "label": "1"}]
    path.write_bytes(compress(b"text,label\na,1\n" * 99)[:-9])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        read_delimited(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_found_and_no_part_of_the_header(encoding: str, tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("text,label\ncafé,1\n".encode(encoding))
    assert read_delimited(tmp_path / "a.csv").rows == [{"text": "café", "label": "1"}]
    with pytest.raises(ValueError, match=r"byte-order mark of .* but encoding is 'latin-1'"):
        read_text(tmp_path / "a.csv", "latin-1")


def test_another_encoding_is_asked_for_by_name(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("text,label\na,1\ncafé,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"is not utf-8 \(byte 18, line 3\); give its --encoding"):
        read_delimited(tmp_path / "a.csv")
    assert read_delimited(tmp_path / "a.csv", encoding="latin-1").rows[1]["text"] == "café"


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_separator_is_found_by_the_columns_and_said(separator: str, tmp_path: Path, write):
    path = write(tmp_path / "a.csv", f"text{separator}label\na, b{separator}1\n")
    table = read_delimited(path, wanted=["text", "label"])
    assert table.rows == [{"text": "a, b", "label": "1"}]
    assert table.remarks == (f"fields are separated by {separator!r}",)


def test_blank_lines_and_old_line_ends_are_no_rows(tmp_path: Path):
    (tmp_path / "a.tsv").write_bytes(b"text\tlabel\r\na\t1\r\n\r\nb\t0\r\n")
    table = read_delimited(tmp_path / "a.tsv")
    assert ([row["text"] for row in table.rows], table.remarks) == (
        ["a", "b"],
        ("1 blank lines left out, the first at line 3",),
    )
    (tmp_path / "b.tsv").write_bytes(b"text\tlabel\ra\t1\rb\t0\r")
    assert len(read_delimited(tmp_path / "b.tsv").rows) == 2


def test_a_column_named_twice_is_refused(tmp_path: Path, write):
    with pytest.raises(ValueError, match="names column 'text' more than once"):
        read_delimited(write(tmp_path / "a.csv", "text,text\na,1\n"))


def test_whatever_letter_a_text_has_it_is_one_row_between_tabs(tmp_path: Path):
    letters = [chr(code) for code in range(1, 0x3000) if chr(code) not in "\t\r\n"]
    (tmp_path / "a.tsv").write_bytes("".join(f"{text}\t1\n" for text in ["text", *letters]).encode())
    assert [row["text"] for row in read_delimited(tmp_path / "a.tsv").rows] == letters


def test_json_is_lines_or_an_array_and_a_line_that_is_none_is_named(tmp_path: Path, write):
    lines = read_json_rows(write(tmp_path / "a.jsonl", '{"q": "a", "y": 1}\n\n{"q": "b"}\n'))
    assert lines.rows == [{"q": "a", "y": 1}, {"q": "b", "y": None}]
    assert read_json_rows(write(tmp_path / "a.json", '[{"q": "a", "y": 1}]')).rows == [{"q": "a", "y": 1}]
    with pytest.raises(ValueError, match=r"line 2 of '.*bad\.jsonl' is no JSON"):
        read_json_rows(write(tmp_path / "bad.jsonl", '{"q": "a"}\n{"q": \n'))
    with pytest.raises(ValueError, match=r"line 1 of '.*' is no JSON object but int"):
        read_json_rows(write(tmp_path / "int.jsonl", "3\n"))
