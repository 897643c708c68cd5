"""Information-theoretic generalization bounds for low-rank and sparse adapters. Imports no torch.

Import the modules: ``from theory import bounds``, ``from theory import layers``. The registry of the eleven
methods is handed on here.
"""

from theory.methods import METHODS, Method, get_method, method_keys

__all__ = ["METHODS", "Method", "get_method", "method_keys"]
