"""Bounds from information: inequalities, estimates of the information, and what they assume of a loss."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
