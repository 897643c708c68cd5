from . import symbolic as symbolic
