"""Numbers and data frames only: agreement, paired differences, resampling. No torch, no files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
