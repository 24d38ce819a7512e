"""Whether the Hugging Face Hub can be asked at all: its client tries for half a minute what has no address."""

import os
import socket
import urllib.request
from urllib.parse import urlsplit


def only_cached() -> bool:
    """Whether the Hub's name is not known here, so that only files that were downloaded before can be had.

    With a proxy, which knows other names, it is False.
    """
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if urllib.request.getproxies():
        return False
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError:
        return True
    return False
