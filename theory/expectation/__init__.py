"""Bounds in expectation for an adapter: table 1, its repairs, and all of them for one update."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
