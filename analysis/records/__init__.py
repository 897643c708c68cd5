"""Files whole or not at all, keys, locks, provenance, result files. Knows nothing of what they hold."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
