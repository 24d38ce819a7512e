"""A server of S3 on this machine with the latency of a distant one, as a process of its own.

    python -m unstill.bench.harness.loader.s3_server SECONDS [CORE]

It runs on that core alone, prints its address and ends with its standard input. Needs moto
(``pip install 'moto[server]'``).
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def s3_server(latency: float, core: int | None = None) -> Iterator[str]:
    """The address of a server that answers every request ``latency`` seconds late.

    Args:
        core: the processor that it runs on; None: any.
    """
    command = [sys.executable, "-m", __spec__.name, str(latency), *([] if core is None else [str(core)])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError("the S3 server did not start; its error is above")
            yield address
        finally:
            process.stdin.close()


class _Late:
    """WSGI: answers late, as if from far away."""

    def __init__(self, app: Any, latency: float):
        self._app, self._latency = app, latency

    def __call__(self, environ: dict, start_response: Any) -> Any:
        time.sleep(self._latency)
        return self._app(environ, start_response)


def _main(latency: float) -> None:
    import logging
    import threading

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = _Late(DomainDispatcherApplication(create_backend_app), latency)
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[2:]:
        os.sched_setaffinity(0, {int(sys.argv[2])})
    _main(float(sys.argv[1]))
