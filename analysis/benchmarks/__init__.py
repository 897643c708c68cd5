"""Benchmarks behind ``make bench``: medians of interleaved repeats, ratios against a peer in the same run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
