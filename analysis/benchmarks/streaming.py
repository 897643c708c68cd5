"""Two checkpoints of Llama-3-8B's shapes compared tensor by tensor: peak memory and CPU seconds, in a fresh process.

The checkpoints are sparse files: a header written by hand, holes (zeros) for all tensors but the few that differ.
They take megabytes of disk, but are read, mapped and compared like any others. Where temporary files live in memory
(a tmpfs), reading a hole fills it: point ``TMPDIR`` at a disk.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.benchmarks import harness
from analysis.benchmarks.adapter_cases import LLAMA_8B, LLAMA_QUICK, Setting
from analysis.runs import PeakMemory
from analysis.spectra import LayerUpdate, WeightFiles, from_checkpoints, intruder_dimensions, intruder_total

__all__ = ["measure", "run", "tensor_shapes", "write_pair", "write_sparse"]

_SHARD = 5 * 10**9
_CHANGED_LAYERS = 2


def tensor_shapes(setting: Setting) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of a Llama checkpoint, vectors included.

    >>> shapes = tensor_shapes(LLAMA_8B)
    >>> len(shapes), sum(torch.Size(shape).numel() for shape in shapes.values())
    (291, 8030261248)
    """
    hidden, inner = setting.hidden, setting.inner
    narrow = hidden // setting.heads * setting.kv_heads
    block = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (setting.vocabulary, hidden)}
    for layer in range(setting.layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (setting.vocabulary, hidden)}


def write_sparse(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], contents: Mapping[str, Tensor], *, shard_bytes: int = _SHARD
) -> int:
    """Write a sharded bfloat16 checkpoint whose tensors are holes (zeros) unless their content is given.

    Args:
        folder: created; gets ``model-00001.safetensors`` and so on.
        shapes: name -> shape of every tensor.
        contents: name -> bfloat16 tensor of that shape.
        shard_bytes: a shard ends before it grows beyond this (a single larger tensor has one of its own).

    Returns:
        The bytes of all files, holes included.
    """
    shards: list[dict[str, tuple[int, int]]] = [{}]
    end = 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        if shards[-1] and end + size > shard_bytes:
            shards.append({})
            end = 0
        shards[-1][name] = (end, end + size)
        end += size
    folder.mkdir(parents=True)
    for number, places in enumerate(shards, start=1):
        entries = {
            name: {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": list(place)}
            for name, place in places.items()
        }
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        with open(folder / f"model-{number:05d}.safetensors", "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + max(stop for _, stop in places.values()))
            for name in places.keys() & contents.keys():
                file.seek(8 + len(header) + places[name][0])
                file.write(contents[name].contiguous().view(torch.int16).numpy().tobytes())
    return sum(path.stat().st_size for path in folder.iterdir())


def write_pair(folder: Path, setting: Setting, *, seed: int = 0) -> dict[str, Any]:
    """Write a base and a tuned checkpoint that differ by rank-16 updates of query and value in the first two layers.

    Returns:
        Bytes of both checkpoints, and ``largest``: the bytes of the largest tensor in float32.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = tensor_shapes(setting)
    base: dict[str, Tensor] = {}
    tuned: dict[str, Tensor] = {}
    for layer in range(_CHANGED_LAYERS):
        for part in ("q_proj", "v_proj"):
            name = f"model.layers.{layer}.self_attn.{part}.weight"
            rows, columns = shapes[name]
            weight = torch.randn(rows, columns, generator=generator) / columns**0.5
            update = torch.randn(rows, 16, generator=generator) @ torch.randn(16, columns, generator=generator)
            base[name] = weight.bfloat16()
            tuned[name] = (weight + 4.0 * update / columns).bfloat16()
    return {
        "base_bytes": write_sparse(folder / "base", shapes, base),
        "tuned_bytes": write_sparse(folder / "tuned", shapes, tuned),
        "largest_bytes": 4 * max(torch.Size(shape).numel() for shape in shapes.values()),
    }


def measure(base: Path, tuned: Path) -> dict[str, Any]:
    """Compare all tensors of two checkpoints, count intruders where matrices differ, and watch memory and time.

    Matrices go through `analysis.spectra.weights.from_checkpoints`; vectors are read and compared one by one.

    Returns:
        tensors, matrices, changed, intruders (authors' convention), peak_bytes (growth of the resident set, mapped
        pages included), resident_bytes (with Python and torch), seconds (of CPU), stream_seconds (without the SVDs).
    """
    spent = 0.0

    def timed(updates: Iterator[LayerUpdate]) -> Iterator[LayerUpdate]:
        nonlocal spent
        while True:
            begun = time.process_time()
            layer = next(updates, None)
            spent += time.process_time() - begun
            if layer is None:
                return
            yield layer

    memory, begun = PeakMemory(host=True), time.process_time()
    vectors = intruder_dimensions(timed(from_checkpoints(base, tuned)))
    before, after = WeightFiles(base), WeightFiles(tuned)
    thin = [name for name in before.names if len(before.shape(name)) != 2]
    start = time.process_time()
    changed = sum(not torch.equal(before.read(name), after.read(name)) for name in thin)
    ended = time.process_time()
    peak = memory.read()
    return {
        "tensors": len(before.names),
        "matrices": len(before.names) - len(thin),
        "changed": vectors["layer"].nunique() + changed,
        "intruders": intruder_total(vectors),
        "peak_bytes": peak,
        "resident_bytes": peak + memory.start,
        "seconds": ended - begun,
        "stream_seconds": spent + ended - start,
    }


def run(*, results: str | Path | None = None, quick: bool = False, repeats: int | None = None) -> dict[str, Any]:
    """Write the pair, compare it in a fresh process, and set the peak beside the largest matrix.

    The peer, loading both checkpoints whole, is not run: its memory is the size of the files.

    Args:
        results: where to write; None writes nothing.
        quick: a Llama of width 128.
        repeats: fresh processes; None is 1. The largest peak and the median CPU seconds are kept.

    Returns:
        ``{"timings": empty, "values": ..., "tables": ...}``.
    """
    setting = LLAMA_QUICK if quick else LLAMA_8B
    with tempfile.TemporaryDirectory() as folder:
        written = write_pair(Path(folder), setting)
        found = [_in_fresh_process(Path(folder) / "base", Path(folder) / "tuned") for _ in range(repeats or 1)]
    peak = max(item["peak_bytes"] for item in found)
    whole = written["base_bytes"] + written["tuned_bytes"]
    values = {
        **written,
        **found[0],
        "peak_bytes": peak,
        "resident_bytes": max(item["resident_bytes"] for item in found),
        **{key: statistics.median(item[key] for item in found) for key in ("seconds", "stream_seconds")},
        "peak_gib": peak / 2**30,
        "peak_over_largest": peak / written["largest_bytes"],
        "both_whole_gib, from file sizes": whole / 2**30,
    }
    measured = {"columns": ["quantity", "value"], "rows": [list(item) for item in values.items()]}
    return harness.conclude("streaming", {}, values=values, results=results, tables={"measured": measured})


def _in_fresh_process(base: Path, tuned: Path) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, base, tuned).result()
