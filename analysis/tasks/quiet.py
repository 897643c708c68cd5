"""transformers without its loading reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from transformers.utils import logging

__all__ = ["quiet_transformers"]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' loading reports and progress bars off the screen: a new head is what was asked for."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
