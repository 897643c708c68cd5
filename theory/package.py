"""Is the package `adapters` this project's? AdapterHub's has the same name, and pip writes one over the other."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["check_adapters_are_ours"]

_MARK = "arXiv:2606.13767"  # in the first line of our adapters/__init__.py


def check_adapters_are_ours() -> None:
    """Read what Python finds under the name ``adapters``, without importing it.

    Raises:
        ImportError: if it is another package, whose files were written over ours or stand before them in the path.

    >>> check_adapters_are_ours()
    """
    spec = find_spec("adapters")
    read = getattr(spec.loader, "get_source", None) if spec is not None else None
    source = read("adapters") if read is not None else None
    if spec is not None and source is not None and _MARK not in source.partition("\n")[0]:
        raise ImportError(
            f"the package adapters at {spec.origin} is not beyond-lora's: AdapterHub's package has the same import "
            "name, and pip writes one over the other; uninstall adapters and install beyond-lora anew, in an "
            "environment of its own"
        )
