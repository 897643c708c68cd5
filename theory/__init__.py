"""Information-theoretic generalization bounds for low-rank and sparse adapters. Imports no torch.

Import the modules: ``from theory import bounds``, ``from theory import layers``. The registry of the eleven methods is
handed on here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
