"""Byte ranges from an object store by a plain HTTP client, at addresses that its file system signs.

A request through s3fs takes 4 ms of CPU time, most of it to prepare and to sign it; one of these takes a tenth. The
file system signs the address of a shard once an hour, with the credentials that it has found.
"""

import os
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

_PROTOCOLS = {"s3", "s3a"}
_VALID = 3600  # seconds that an address is signed for
_CONNECTIONS = 256  # kept open; as many requests as the loader has on their way are used
_SECONDS = 60.0  # without an answer


class SignedRequests:
    """GET of byte ranges.

    Until the first answer nothing is known of this way: when that one fails (an own certificate, a signature that the
    server does not take), it is not tried again. Safe to use from many threads.

    Args:
        files: an fsspec file system that signs.
        connect: makes a ``urllib3.PoolManager``; called once in a process.
    """

    def __init__(self, files: Any, connect: Callable[[], Any]):
        self._files, self._connect = files, connect
        self._client, self._process = connect(), os.getpid()
        self._addresses: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._works: bool | None = None

    @classmethod
    def of(cls, files: Any) -> "SignedRequests | None":
        """For a file system that signs addresses which nothing but the signature is needed for; else None."""
        protocols = files.protocol if isinstance(files.protocol, (tuple, list)) else [files.protocol]
        sent_along = any(getattr(files, name, None) for name in ("req_kw", "s3_additional_kwargs"))
        own_certificates = "verify" in (getattr(files, "client_kwargs", None) or {})
        if not _PROTOCOLS & set(protocols) or sent_along or own_certificates or urllib.request.getproxies():
            return None
        try:
            import urllib3  # comes with s3fs
        except ImportError:
            return None
        timeout = urllib3.Timeout(connect=10.0, read=_SECONDS)
        return cls(files, lambda: urllib3.PoolManager(maxsize=_CONNECTIONS, retries=False, timeout=timeout))

    def get(self, path: str, begin: int, end: int) -> bytes | None:
        """Bytes ``begin`` to ``end`` of an object, perhaps fewer; None when the file system is to be asked instead."""
        if self._works is False:
            return None
        try:
            data = self._answer(path, begin, end)
        except Exception:  # the file system knows better what an error means
            data = None
        with self._lock:
            if self._works is None:
                self._works = data is not None
            if data is None:
                self._addresses.pop(path, None)
        return data

    def _answer(self, path: str, begin: int, end: int) -> bytes | None:
        headers = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        address = urlsplit(self._address(path))
        # by its parts: taken as a whole, urllib3 would encode the address again, which takes longer than sending it
        server = self._clients().connection_from_host(address.hostname, address.port, address.scheme)
        target = f"{address.path}?{address.query}"
        answer = server.urlopen("GET", target, headers=headers, preload_content=False)
        data = None
        try:
            if answer.status == 206:
                data = answer.read(end - begin)
            return data
        finally:
            if data is None or len(data) < end - begin:
                answer.close()  # what else comes is not waited for
            answer.release_conn()

    def _clients(self) -> Any:
        with self._lock:
            if os.getpid() != self._process:  # a fork: two processes must not share a connection
                self._client, self._process = self._connect(), os.getpid()
            return self._client

    def _address(self, path: str) -> str:
        address, until = self._addresses.get(path, ("", 0.0))
        if time.monotonic() >= until:
            until = time.monotonic() + _VALID / 2
            address = self._files.sign(path, expiration=_VALID)
            self._addresses[path] = address, until
        return address
