"""The eleven methods as data: the one registry that every other module reads.

Names and constructions follow arXiv:2606.13767, section 2, and the papers named per method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METHODS", "Method", "get_method", "method_keys"]

Trains = Literal["weight", "both", "b"]
Selector = Literal["none", "gaussian", "window", "random", "circulant", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One adaptation method, as plain data.

    Attributes:
        key: the name used in code and on the command line.
        name: the name used in tables and figures.
        arxiv: arXiv number of the method's source (empty for full fine-tuning).
        trains: ``"weight"`` (the dense matrix), ``"both"`` (A and B), ``"b"`` (B alone).
        selector: where A comes from: ``"none"`` (no A), ``"gaussian"`` (random and dense),
            ``"window"`` (the first r columns), ``"random"`` (r distinct columns),
            ``"circulant"`` (consecutive windows modulo in_features), ``"shuffled"``
            (the same windows in random order without replacement).
        chained: whether links are merged and the next link starts anew.
        in_place: whether the columns of W themselves are trained (PaCA); the function is cLA's.
        lr_ratio: lr_B / lr_A (16 for LoRA+, 1 otherwise).
    """

    key: str
    name: str
    arxiv: str
    trains: Trains
    selector: Selector
    chained: bool = False
    in_place: bool = False
    lr_ratio: float = 1.0

    @property
    def selects_columns(self) -> bool:
        """Whether a link changes at most r columns of W."""
        return self.selector in ("window", "random", "circulant", "shuffled")

    def numbers_trained(self, *, out_features: int, in_features: int, rank: int, links: int = 1) -> int:
        """Numbers trained in one layer over the whole run, as Table 1 of arXiv:2606.13767 counts them.

        Args:
            out_features: rows of W.
            in_features: columns of W.
            rank: r; ignored by full fine-tuning.
            links: chain length k; ignored by unchained methods.

        Returns:
            m n for dense, r (m + n) for both factors, r n for B alone, times k for chains.

        >>> METHODS["c3la"].numbers_trained(out_features=4, in_features=8, rank=2, links=3)
        24
        """
        if self.trains == "weight":
            return out_features * in_features
        per_link = rank * (out_features + in_features) if self.trains == "both" else rank * out_features
        return per_link * (links if self.chained else 1)


METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        Method(key="fft", name="FFT", arxiv="", trains="weight", selector="none"),
        Method(key="lora", name="LoRA", arxiv="2106.09685", trains="both", selector="gaussian"),
        Method(key="lora+", name="LoRA+", arxiv="2402.12354", trains="both", selector="gaussian", lr_ratio=16.0),
        Method(key="asym", name="Asym-LoRA", arxiv="2402.16842", trains="b", selector="gaussian"),
        Method(key="cola", name="CoLA", arxiv="2401.04151", trains="both", selector="gaussian", chained=True),
        Method(key="rac", name="RAC-LoRA", arxiv="2410.08305", trains="b", selector="gaussian", chained=True),
        Method(key="cla", name="cLA", arxiv="2606.13767", trains="b", selector="window"),
        Method(key="r-cla", name="r-cLA", arxiv="2606.13767", trains="b", selector="random"),
        Method(key="c3la", name="c3LA", arxiv="2606.13767", trains="b", selector="circulant", chained=True),
        Method(key="r-c3la", name="r-c3LA", arxiv="2606.13767", trains="b", selector="shuffled", chained=True),
        Method(key="paca", name="PaCA", arxiv="2503.01905", trains="b", selector="random", in_place=True),
    )
}


def method_keys() -> tuple[str, ...]:
    """Return the keys of the eleven methods, in the paper's order."""
    return tuple(METHODS)


def get_method(key: str) -> Method:
    """Look a method up by its key.

    Raises:
        TypeError: if ``key`` is not a string.
        ValueError: if no method has that key; the message lists the keys.

    >>> get_method("cla").name
    'cLA'
    """
    if not isinstance(key, str):
        raise TypeError(f"method must be a string, got {type(key).__name__}; accepted: {', '.join(METHODS)}")
    if key not in METHODS:
        raise ValueError(f"unknown method {key!r}; accepted: {', '.join(METHODS)}")
    return METHODS[key]
