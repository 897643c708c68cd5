"""Weights on disk as transformers resolves them, read tensor by tensor, and what their config.json says of layers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig

from analysis.records import read_json

__all__ = ["WeightFiles", "common_prefix", "layer_types", "type_of"]

_WHOLE = ("model.safetensors", "adapter_model.safetensors")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TORCH = ("pytorch_model.bin", "adapter_model.bin")
_ACCEPTED = "a .safetensors or .bin file, or a folder of them"


class WeightFiles:
    """Tensors by name in one file, or in a folder as transformers resolves it.

    In a folder: ``model.safetensors``; else the shards that ``model.safetensors.index.json`` names, where it says; else
    ``pytorch_model.bin``, else its index; else every safetensors file there. A ``.bin`` goes through torch's
    weights-only reader, which runs no code.

    Args:
        path: a file or a folder.

    Raises:
        ValueError: if there is none, one is truncated or holds more than weights, an index names a shard or a tensor
            that is not there, or two files without an index hold the same name.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        self.path = path
        self._where: dict[str, Path] = {}
        index = next((path / name for name in _INDEX if (path / name).is_file()), None) if path.is_dir() else None
        whole = self._whole(path)
        if whole is None and index is not None and not self._bin_first(path, index):
            self._follow(index)
            return
        files = [whole] if whole is not None else sorted(path.glob("*.safetensors"))
        if not files or not all(file.is_file() for file in files):
            raise ValueError(f"no safetensors weights at {str(path)!r}, nor torch's; give {_ACCEPTED}")
        for file in files:
            for name in _names(file):
                if name in self._where:
                    raise ValueError(f"{name!r} is in both {self._where[name].name!r} and {file.name!r}")
                self._where[name] = file

    @staticmethod
    def _whole(path: Path) -> Path | None:
        """The one file that holds everything, in transformers' order."""
        if not path.is_dir():
            return path
        order = [*_WHOLE, *(() if (path / _INDEX[0]).is_file() else _TORCH)]
        return next((path / name for name in order if (path / name).is_file()), None)

    @staticmethod
    def _bin_first(path: Path, index: Path) -> bool:
        """Whether plain safetensors stand beside an index of torch's shards."""
        return index.name == _INDEX[1] and any(path.glob("*.safetensors"))

    def _follow(self, index: Path) -> None:
        places = read_json(index).get("weight_map", {})
        held = {file: set(_names(index.parent / file)) for file in sorted(set(places.values()))}
        for name, file in places.items():
            if name not in held[file]:
                raise ValueError(f"{str(index)!r} says that {name!r} is in {file!r}; it is not")
            self._where[name] = index.parent / file

    @property
    def names(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        file = self._where[name]
        if file.suffix == ".bin":
            return tuple(_torch_weights(file)[name].shape)
        with safe_open(file, framework="pt") as handle:
            return tuple(handle.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        file = self._where[name]
        if file.suffix == ".bin":
            return _torch_weights(file)[name]
        with safe_open(file, framework="pt") as handle:
            return handle.get_tensor(name)

    def find(self, layer: str, parameter: str = "weight") -> str:
        """Return the name of a layer's weight, whatever prefix the file puts before it.

        Raises:
            ValueError: if no name, or more than one, ends in the layer's.
        """
        exact = f"{layer}.{parameter}"
        if exact in self._where:
            return exact
        ends = [
            name
            for name in self._where
            if name.endswith("." + exact) or (name.endswith(f".{parameter}") and exact.endswith("." + name))
        ]
        if len(ends) != 1:
            found = f"no {parameter}" if not ends else f"{len(ends)} {parameter}s"
            raise ValueError(f"{str(self.path)!r} has {found} for layer {layer!r}: base and adapter do not match")
        return ends[0]


def _names(file: Path) -> list[str]:
    try:
        if file.suffix == ".bin":
            return list(_torch_weights(file))
        with safe_open(file, framework="pt") as handle:
            return list(handle.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"weights {str(file)!r} are damaged or truncated: {error}") from None


@functools.lru_cache(maxsize=4)
def _read_torch(file: Path, stamp: int) -> dict[str, Tensor]:
    try:
        found = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # torch raises its own, zip's and the reader's errors, by version
        raise ValueError(f"{str(file)!r} is no file of weights alone: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"{str(file)!r} must hold a state dict of tensors, got {type(found).__name__}")
    return found


def _torch_weights(file: Path) -> dict[str, Tensor]:
    """Read a state dict with torch's weights-only reader; tensors stay on disk until they are used."""
    return _read_torch(file, file.stat().st_mtime_ns)


def layer_types(path: str | Path) -> dict[str, type[nn.Module]]:
    """Return the class of every module of the model that weights belong to, by name; empty where nothing says.

    The model of the ``config.json`` beside the weights is built without memory. Names are those of its architecture; a
    checkpoint may put a prefix before them, or leave one off.

    Args:
        path: a file or folder of weights.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not (folder / "config.json").is_file():
        return {}
    try:
        config: Any = AutoConfig.from_pretrained(str(folder))
        named = getattr(transformers, next(iter(config.architectures or ["AutoModel"])), transformers.AutoModel)
        build: Any = named._from_config if hasattr(named, "_from_config") else named.from_config
        with torch.device("meta"):
            model = build(config)
    except (ValueError, OSError, KeyError):  # an architecture that transformers does not know
        return {}
    return {name: type(module) for name, module in model.named_modules()}


def _ends_alike(one: str, other: str) -> bool:
    """Whether one dotted name is the other behind a prefix.

    >>> _ends_alike("bert.encoder.0", "encoder.0"), _ends_alike("encoder.10", "encoder.0")
    (True, False)
    """
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def type_of(layer: str, types: dict[str, type[nn.Module]]) -> type[nn.Module] | None:
    """Return the class of a layer by its name; None where it is unknown, or names of several classes end alike."""
    if layer in types:
        return types[layer]
    found = {kind for name, kind in types.items() if name and _ends_alike(name, layer)}
    return found.pop() if len(found) == 1 else None


def common_prefix(names: list[str], others: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, other) of equal names; without any, of names that differ by one prefix, the one most names share."""
    known = set(others)
    pairs = [(name, name) for name in names if name in known]
    if not pairs:
        for longer, shorter, swap in ((names, known, False), (others, set(names), True)):
            prefixes: dict[str, list[tuple[str, str]]] = {}
            for name in longer:
                parts = name.split(".")
                for cut in range(1, len(parts)):
                    rest = ".".join(parts[cut:])
                    if rest in shorter:
                        pair = (rest, name) if swap else (name, rest)
                        prefixes.setdefault(".".join(parts[:cut]), []).append(pair)
            pairs = max([pairs, *prefixes.values()], key=len)
    yield from pairs
