"""The streaming benchmark: its sparse files are checkpoints, and it reads every tensor."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from analysis.benchmarks import streaming
from analysis.benchmarks.adapter_cases import LLAMA_QUICK, base_model
from analysis.benchmarks.streaming import run, tensor_shapes, write_pair, write_sparse
from analysis.records import read_json
from analysis.spectra import from_checkpoints


def test_shapes_are_those_of_the_model_itself():
    state = base_model(LLAMA_QUICK).state_dict()
    assert tensor_shapes(LLAMA_QUICK) == {name: tuple(value.shape) for name, value in state.items()}


def test_a_sparse_checkpoint_reads_as_zeros_and_the_given_contents(tmp_path):
    shapes = {"a": (3, 4), "b": (5,), "c": (2, 2)}
    content = torch.randn(2, 2).bfloat16()
    size = write_sparse(tmp_path / "made", shapes, {"c": content}, shard_bytes=40)
    files = sorted((tmp_path / "made").iterdir())
    assert len(files) == 2
    assert size == sum(path.stat().st_size for path in files)
    read = {name: value for path in files for name, value in load_file(path).items()}
    assert {name: tuple(value.shape) for name, value in read.items()} == shapes
    assert not read["a"].any()
    assert not read["b"].any()
    assert torch.equal(read["c"], content)


def test_only_the_changed_matrices_come_back(tmp_path):
    write_pair(tmp_path, LLAMA_QUICK)
    names = [layer.name for layer in from_checkpoints(tmp_path / "base", tmp_path / "tuned")]
    assert names == [f"model.layers.{i}.self_attn.{part}_proj" for i in range(2) for part in "qv"]


def test_the_time_of_the_stream_leaves_out_what_is_computed_between_its_matrices(tmp_path, monkeypatch):
    write_pair(tmp_path, LLAMA_QUICK)
    # A clock that goes on by one at each reading: four matrices, the end of the stream, and all vectors at once.
    readings = itertools.count()
    monkeypatch.setattr(streaming, "time", SimpleNamespace(process_time=lambda: next(readings)))
    found = streaming.measure(tmp_path / "base", tmp_path / "tuned")
    assert found["stream_seconds"] == 4 + 1 + 1
    assert found["seconds"] == 2 * found["stream_seconds"]


def test_the_quick_run_reads_every_tensor_and_writes_its_result(tmp_path):
    found = run(results=tmp_path / "bench_streaming.json", quick=True)["values"]
    assert found["tensors"] == len(tensor_shapes(LLAMA_QUICK)) == 21
    assert found["matrices"] == 2 * 7 + 2
    assert found["changed"] == 4
    assert found["stream_seconds"] <= found["seconds"]
    # Both files are smaller than Python's own noise here; a copy of torch held twice would not be.
    assert 0 <= found["peak_bytes"] < 300 * 2**20
    written = read_json(tmp_path / "bench_streaming.json")
    assert written["values"]["peak_over_largest"] == pytest.approx(found["peak_over_largest"])
    assert written["provenance"]["command"] == "python -m analysis bench streaming"
