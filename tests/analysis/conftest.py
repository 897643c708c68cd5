"""Fixtures of the analysis tests: a cache of models, small files in publishers' formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of base models of its own; the bundled one is read from the package."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEYOND_LORA_CACHE", str(folder))
        yield folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as sweeps run it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trec_folder(tmp_path: Path) -> Path:
    """Invented questions in TREC's own format: latin-1, LABEL:fine and the text."""
    folder = tmp_path / "trec"
    folder.mkdir()
    lines = [
        "NUM:dist How far is the café from the river ?",
        "LOC:city What town has the oldest clock ?",
        "HUM:ind Who wrote the shortest poem ?",
        "DESC:def What is a ``quark'' ?",
    ]
    (folder / "train_5500.label").write_bytes("\n".join(lines * 6).encode("latin-1") + b"\n")
    (folder / "TREC_10.label").write_bytes("\n".join(lines[::-1] * 3).encode("latin-1") + b"\n")
    return folder


@pytest.fixture
def write() -> Callable[[Path, str], Path]:
    """Write a text file, its folder included, and return its path."""

    def to(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return to
