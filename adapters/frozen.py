"""The state of one adapter in one layer: which link is live, and the frozen sum of the links before it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from adapters.config import ColumnConfig
from adapters.functional import Term
from adapters.selectors import link_columns, visited_columns
from theory.methods import get_method

__all__ = ["FrozenSum"]


class FrozenSum(nn.Module):
    """State of one adapter in one layer besides B: which link is live, and the sum of the links before it.

    Attributes:
        values: buffer (out_features, columns visited by the whole chain), unscaled; fp32, or fp64 on such a base.
        state: int64 buffer (live link, in_features, checksum of the live link's columns); it travels with the
            weights, so a checkpoint of another link, another width or another module name is noticed.
    """

    def __init__(
        self,
        *,
        out_features: int,
        in_features: int,
        name: str,
        rank: int,
        config: ColumnConfig,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.values: Tensor
        self.state: Tensor
        self.live_index: Tensor
        self.sum_index: Tensor
        self._selector: dict[str, Any] = {
            "in_features": in_features,
            "rank": rank,
            "seed": config.seed,
            "name": name,
            "columns": config.columns,
        }
        self.rule = get_method(config.method).selector
        self.links = config.links
        slots = visited_columns(self.rule, links=config.links, **self._selector)
        self._slot = {column: slot for slot, column in enumerate(slots)}
        width = len(slots) if config.links > 1 else 0
        self.register_buffer("values", torch.zeros(out_features, width, dtype=dtype))
        self.register_buffer("state", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("live_index", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("sum_index", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.select(config.link)

    def select(self, link: int) -> None:
        """Make ``link`` the live link."""
        if not 0 <= link < self.links:
            raise ValueError(f"link must lie between 0 and links-1={self.links - 1}, got {link}")
        self.link = link
        self.columns = self.columns_at(link)
        self.visited = visited_columns(self.rule, links=link, **self._selector)
        device = self.values.device
        self.live_index = torch.tensor(self.columns, device=device)
        self.sum_index = torch.tensor(self.visited, dtype=torch.int64, device=device)
        self.live_window, self.sum_window = _as_window(self.columns), _as_window(self.visited)
        self.state = torch.tensor(self._expected_state(link), device=device)

    def columns_at(self, link: int) -> tuple[int, ...]:
        """Return the columns that a link trains."""
        return link_columns(self.rule, link=link, **self._selector)

    def terms(self, factor: Tensor | None, scale: float) -> list[Term]:
        """Return the summands of this adapter: the frozen sum (when there is one) and the live B."""
        terms = []
        # The buffers stay where they are under a base on meta, which has no place to keep column numbers.
        device = self.values.device if factor is None else factor.device
        if self.visited:
            values = self.values[:, : len(self.visited)].to(device)
            terms.append(Term(values, self.sum_window or self.sum_index.to(device), scale))
        if factor is not None:
            live = factor if factor.shape[1] == len(self.columns) else factor[:, : len(self.columns)]
            terms.append(Term(live, self.live_window or self.live_index.to(device), scale))
        return terms

    @torch.no_grad()
    def fold(self, factor: Tensor) -> None:
        """Add the live B (given whole) to the sum and move to the next link."""
        slots = torch.tensor([self._slot[column] for column in self.columns], device=self.values.device)
        self.values.index_add_(1, slots, factor[:, : len(self.columns)].to(self.values))
        self.select(self.link + 1)

    def _expected_state(self, link: int) -> list[int]:
        columns = self.columns_at(link)
        digest = hashlib.sha256(repr(columns).encode()).digest()
        return [link, self._selector["in_features"], int.from_bytes(digest[:6], "big")]

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        saved = state_dict.get(prefix + "state")
        if saved is not None:
            self._check(saved)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if saved is not None:
            self.select(int(saved[0]))

    def _check(self, saved: Tensor) -> None:
        link, in_features, checksum = saved.tolist()
        if in_features != self._selector["in_features"]:
            raise ValueError(
                f"the saved adapter is for another base: layer {self._selector['name']!r} has in_features="
                f"{self._selector['in_features']}, the file was made for {in_features}"
            )
        if not 0 <= link < self.links:
            raise ValueError(f"the saved adapter is at link {link}, but this configuration has links={self.links}")
        if checksum != self._expected_state(link)[2]:
            raise ValueError(
                f"the saved adapter trained other columns of layer {self._selector['name']!r} than this "
                "configuration selects (method, r, seed, columns or the module's name differ)"
            )


def _as_window(columns: tuple[int, ...]) -> tuple[int, int] | None:
    """Return (start, stop) when the columns are consecutive."""
    if columns and columns == tuple(range(columns[0], columns[0] + len(columns))):
        return columns[0], columns[0] + len(columns)
    return None
