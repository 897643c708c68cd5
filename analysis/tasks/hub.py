"""Whether the hub can be reached, asked once: its client would retry for half a minute before it said no."""

from __future__ import annotations

import functools
import os
import socket
from urllib.parse import urlsplit

from huggingface_hub import constants

__all__ = ["hub_reachable"]


@functools.lru_cache(maxsize=1)
def hub_reachable() -> bool:
    """Whether the hub's name resolves (a proxy is trusted to resolve it), and offline mode is not asked for."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
