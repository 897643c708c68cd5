"""The configuration of the column methods, with LoRA's own field names, and their registration with PEFT."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig
from peft.utils import PeftType

from adapters.card import write_card
from theory.methods import METHODS, get_method
from theory.package import check_adapters_are_ours

__all__ = ["FORMAT_VERSION", "ColumnConfig", "extend_peft_type", "say_how_many_links"]

check_adapters_are_ours()
logger = logging.getLogger(__name__)
FORMAT_VERSION = 1
TYPE_NAME = "BEYOND_COLUMN"


def extend_peft_type(name: str) -> PeftType:
    """Return the member ``name`` of PEFT's closed enumeration, made if it is not there.

    A plain string would pass through PEFT but not through transformers' ``add_adapter`` and ``load_adapter``.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member: Any = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    member._sort_order_ = len(PeftType._member_names_)
    type.__setattr__(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    return member


def say_how_many_links(config: PeftConfig, doing: str) -> None:
    """Log a warning if a chain has not reached its last link, unless a callback is moving it on just now."""
    links, trained = getattr(config, "links", 1), getattr(config, "link", 0) + 1
    if trained < links and not getattr(config, "attended", False):
        logger.warning(
            "%s a chain of %d links of which %d %s trained: a transformers Trainer moves it on by itself, a loop of "
            "one's own has to call adapters.merge_and_continue",
            *(doing, links, trained, "was" if trained == 1 else "were"),
        )


@dataclass
class ColumnConfig(PeftConfig):
    """Configuration of cLA, r-cLA, c3LA, r-c3LA and PaCA (arXiv:2606.13767, section 2).

    It takes `peft.LoraConfig`'s place with the same field names.

    Attributes:
        method: ``"cla"``, ``"r-cla"``, ``"c3la"``, ``"r-c3la"`` or ``"paca"``.
        r: columns per link.
        lora_alpha: the update is scaled by ``lora_alpha / r``. PaCA trains the columns themselves, so its scale
            is 1 and ``lora_alpha`` is not read.
        lora_dropout: dropout on the selected inputs.
        links: length of the chain; 1 for methods that do not chain.
        link: number of the link being trained, from 0; written by the chain, read when an adapter is loaded.
        seed: seed of the random selectors, mixed with each module's name.
        columns: explicit columns instead of the method's rule: one list per link, or one list for one link.
        target_modules, exclude_modules, layers_to_transform, layers_pattern, rank_pattern, alpha_pattern, bias,
            modules_to_save, inference_mode: as in `peft.LoraConfig`.
        target_parameters: as in `peft.LoraConfig`: parameters that no linear layer holds, such as fused experts
            (experts, out, in); the columns of every expert are trained.
        init_weights: True starts at the base function (B = 0); False draws B at random, for tests.
        base_shapes: written on saving: module name -> [out_features, in_features]; a loaded configuration refuses
            a base of other shapes before touching it.
        format_version: version of the saved format; newer ones are refused.
    """

    method: str = field(default="cla")
    r: int = field(default=8)
    lora_alpha: float = field(default=8)
    lora_dropout: float = field(default=0.0)
    links: int = field(default=1)
    link: int = field(default=0)
    seed: int = field(default=0)
    columns: list[Any] | None = field(default=None)
    target_modules: set[str] | list[str] | str | None = field(default=None)
    target_parameters: list[str] | None = field(default=None)
    exclude_modules: set[str] | list[str] | str | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    bias: str = field(default="none")
    modules_to_save: list[str] | None = field(default=None)
    init_weights: bool = field(default=True)
    base_shapes: dict[str, list[int]] | None = field(default=None)
    format_version: int = field(default=FORMAT_VERSION)

    def __post_init__(self):
        super().__post_init__()
        self.found_shapes: dict[str, list[int]] | None = None  # of the base, once the adapter sits on one
        self.peft_type = extend_peft_type(TYPE_NAME)
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"format_version {self.format_version} is newer than this package reads ({FORMAT_VERSION}); update it"
            )
        if not get_method(self.method).selects_columns:
            accepted = ", ".join(key for key, method in METHODS.items() if method.selects_columns)
            raise ValueError(f"method {self.method!r} does not select columns; accepted: {accepted}")
        for name, value in (("r", self.r), *self.rank_pattern.items()):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name, alpha in (("lora_alpha", self.lora_alpha), *self.alpha_pattern.items()):
            if not alpha > 0:
                raise ValueError(f"{name} must be above 0, got {alpha!r}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must lie in [0, 1), got {self.lora_dropout!r}")
        if isinstance(self.target_parameters, str):
            raise TypeError(f"target_parameters must be a list of names, got {self.target_parameters!r}")
        if self.target_parameters and self.lora_dropout:
            raise ValueError(f"lora_dropout must be 0 with target_parameters, got {self.lora_dropout!r}")
        if self.columns is not None and self.columns and not isinstance(self.columns[0], list | tuple):
            self.columns = [list(self.columns)]
        if self.columns is not None:
            chosen = [column for one in self.columns for column in one]
            repeated = sorted({column for column in chosen if chosen.count(column) > 1})
            if repeated or not chosen:
                problem = f"got {repeated[0]} more than once" if repeated else "got none"
                raise ValueError(f"columns must be distinct over all links, {problem}")
            self.links = len(self.columns)
        if self.links < 1 or (self.links > 1 and self.columns is None and not get_method(self.method).chained):
            raise ValueError(f"links must be 1 for {self.method!r} and at least 1 for a chain, got {self.links}")
        if not 0 <= self.link < self.links:
            raise ValueError(f"link must lie between 0 and links-1={self.links - 1}, got {self.link}")
        self.target_modules = set(self.target_modules) if isinstance(self.target_modules, list) else self.target_modules
        self.exclude_modules = (
            set(self.exclude_modules) if isinstance(self.exclude_modules, list) else self.exclude_modules
        )
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("`layers_to_transform` cannot be used when `target_modules` is a str.")
        if isinstance(self.target_modules, str) and self.layers_pattern is not None:
            raise ValueError("`layers_pattern` cannot be used when `target_modules` is a str.")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("When `layers_pattern` is specified, `layers_to_transform` must also be specified.")

    def to_dict(self) -> dict:
        """Return the fields, with the shapes of the base the adapter sits on."""
        return {**super().to_dict(), "base_shapes": self.found_shapes or self.base_shapes}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Write ``adapter_config.json``, and into ``README.md`` what the adapter is and how to load it."""
        say_how_many_links(self, "saving")
        super().save_pretrained(os.fspath(save_directory), **kwargs)
        method = get_method(self.method)
        links = f", link {self.link + 1} of {self.links}" if method.chained else ""
        what = f"{method.name} (arXiv:{method.arxiv}) trains columns of weight matrices: {self.r} a link{links}."
        write_card(save_directory, kind=TYPE_NAME, what=what)
