"""What a change of weights does to a network's output: perturbation, Lipschitz constants, transformers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
