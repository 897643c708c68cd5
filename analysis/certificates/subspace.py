"""Train an adapter through a few numbers: theta = theta_0 + P w, with P drawn from a seed.

Only w is written into a certificate's code. P shares each w_j among many trained numbers of the
adapter or the head, with a sign: one entry per row, columns of norm 1, so that |P w| = |w| (the
construction of Uni-LoRA, arXiv:2506.00799; the idea of Li et al., arXiv:1804.08838). Its indices and
signs are SHAKE-256 of the seed, the same on every machine and for every library version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from theory.certificates import GROUPS
from theory.heads import head_modules, is_inside

__all__ = ["Subspace"]


@dataclass(frozen=True)
class _Group:
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    start: Tensor
    index: Tensor
    weight: Tensor


class Subspace:
    """The affine subspace of a model's trainable parameters that w in R^d reaches.

    Args:
        model: a prepared model; its trainable parameters, as they are now, are theta_0.
        numbers: group (``"adapter"``, ``"head"``) -> d of that group; a group with 0 stays at theta_0.
        seed: seed of P.

    Raises:
        ValueError: if nothing is trainable, or a group has fewer trainable numbers than d.

    >>> layer = nn.Linear(3, 2)
    >>> subspace = Subspace(layer, numbers={"adapter": 4, "head": 0}, seed=0)
    >>> moved = subspace.parameters({"adapter": torch.ones(4)})
    >>> norm = sum((moved[n] - p).square().sum() for n, p in layer.named_parameters())
    >>> round(norm.item(), 5)
    4.0
    """

    def __init__(self, model: nn.Module, *, numbers: Mapping[str, int], seed: int) -> None:
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trainable:
            raise ValueError("model has no trainable parameter: prepare it with a method first")
        self.model = model
        self.numbers = {group: int(numbers.get(group, 0)) for group in GROUPS}
        self._groups: dict[str, _Group] = {}
        heads = head_modules(model)
        for group, count in self.numbers.items():
            members = {name: p for name, p in trainable.items() if is_inside(name, heads) == (group == "head")}
            total = sum(p.numel() for p in members.values())
            if count > total:
                raise ValueError(f"{group}_numbers must be at most the {total} numbers trained there, got {count}")
            if count:
                start = torch.cat([p.detach().reshape(-1) for p in members.values()]).clone()
                index, weight = _shares(total, count, f"{group} {seed}")
                shapes = tuple(p.shape for p in members.values())
                self._groups[group] = _Group(tuple(members), shapes, start, index, weight.to(start.dtype))

    def zeros(self) -> dict[str, Tensor]:
        """Return w = 0, ready to be trained."""
        return {group: torch.zeros(self.numbers[group], requires_grad=True) for group in self._groups}

    def parameters(self, w: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return theta_0 + P w by parameter name, differentiable in w."""
        result: dict[str, Tensor] = {}
        for group, part in self._groups.items():
            flat = part.start + part.weight * w[group].to(part.start.dtype)[part.index]
            pieces = flat.split([shape.numel() for shape in part.shapes])
            result |= {n: x.view(s) for n, x, s in zip(part.names, pieces, part.shapes, strict=True)}
        return result

    def write(self, w: Mapping[str, Any]) -> None:
        """Write theta_0 + P w into the model; ``w`` holds tensors or arrays."""
        values = self.parameters({group: torch.as_tensor(np.asarray(x)) for group, x in w.items()})
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of theta_0: what the seeds made of the adapter and the head before training."""
        digest = hashlib.sha256()
        for group, part in self._groups.items():
            digest.update(f"{group} {part.names} {[tuple(s) for s in part.shapes]}".encode())
            digest.update(part.start.cpu().numpy().tobytes())
        return digest.hexdigest()


def _shares(total: int, count: int, key: str) -> tuple[Tensor, Tensor]:
    raw = np.frombuffer(hashlib.shake_256(f"beyond-lora subspace {key}".encode()).digest(8 * total), dtype="<u8")
    index = ((raw >> np.uint64(1)) % np.uint64(count)).astype(np.int64)
    sign = np.where(raw & np.uint64(1), 1.0, -1.0)
    weight = sign / np.sqrt(np.bincount(index, minlength=count))[index]
    return torch.from_numpy(index), torch.from_numpy(weight)
