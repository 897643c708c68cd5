"""The paper's questions: finished runs in, a committed result out. One module a question."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
