"""The public face of the certificates: guarantees for one run, with probability 1 - delta over its sample.

A certificate says: with probability at least 1 - delta over the draw of n i.i.d. examples, made after
the code (the prior) was fixed, the risk of the predictor at hand is at most the number. It is vacuous
when the number is not below the loss's range, and says little when it is not below the error of always
guessing the commonest class.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
