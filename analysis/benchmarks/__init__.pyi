from . import adapters as adapters
