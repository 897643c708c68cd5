"""Singular spectra of weights and their updates, and intruder dimensions. Knows no runs and no tasks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
