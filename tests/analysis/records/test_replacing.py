"""Files and folders appear whole or not at all."""

import os
import stat

import pytest

from analysis.records import atomic_write_bytes, replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stop_half_way(place, write):
    with replacing(place) as new:
        write(new)
        raise KeyboardInterrupt


def test_a_file_appears_whole_with_the_usual_rights(tmp_path):
    plain, place = tmp_path / "plain", tmp_path / "deep" / "a.txt"
    plain.write_text("")
    with replacing(place) as new:
        new.write_text("first")
        assert new.suffix == ".txt"
        assert not place.exists()
    assert place.read_text() == "first"
    assert names(place.parent) == ["a.txt"]
    assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_what_was_there_stays_until_the_new_is_whole(tmp_path):
    place = atomic_write_bytes(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(place, lambda new: new.write_text("half"))
    assert (place.read_bytes(), names(tmp_path)) == (b"old", ["a"])
    with replacing(place) as new:
        new.write_text("new")
        assert place.read_bytes() == b"old"
    assert (place.read_bytes(), names(tmp_path)) == (b"new", ["a"])


def test_a_folder_replaces_a_folder(tmp_path):
    place = tmp_path / "step-1"
    for content in ("old", "new"):
        with replacing(place) as new:
            new.mkdir()
            (new / content).touch()
        assert names(place) == [content]
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(place, lambda new: new.mkdir())
    assert (names(place), names(tmp_path)) == (["new"], ["step-1"])


@pytest.mark.parametrize("when", ["before the rename", "at the rename"])
def test_what_another_process_put_there_meanwhile_can_stay(tmp_path, monkeypatch, when):
    place, rename = tmp_path / "model", os.replace

    def other():
        place.mkdir()
        (place / "theirs").touch()

    def late(self, target):
        other()
        rename(self, target)

    if when == "at the rename":
        monkeypatch.setattr("pathlib.Path.replace", late)
    with replacing(place, keep=True) as new:
        new.mkdir()
        (new / "ours").touch()
        if when == "before the rename":
            other()
    assert (names(place), names(tmp_path)) == (["theirs"], ["model"])


def test_a_block_that_writes_nothing_is_an_error_and_the_old_stays(tmp_path):
    place = atomic_write_bytes(tmp_path / "a", b"old")
    with pytest.raises(FileNotFoundError), replacing(place):
        pass
    assert (place.read_bytes(), names(tmp_path)) == (b"old", ["a"])
    with pytest.raises(ValueError, match="cannot be written to"), replacing(place / "b"):
        pass
