"""``unstill`` for scripts that call it many times: one process imports the program, and each command is a fork of it.

An import takes about 4 CPU-seconds, a fork 0.1. Each command still has a process, a folder, an environment, standard
streams and an exit code of its own, and is killed with its caller. Python in the variable UNSTILL_BEFORE runs first;
where that sets ``run``, a function from the arguments to an exit code, the command is that instead of ``unstill``.

    python unstill_server.py serve SOCKET           until it is ended
    python unstill_server.py call SOCKET ARGUMENT   the command in the folder and environment of this call
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SAFETY_S = 1200  # no assertion depends on it


@contextlib.contextmanager
def unstill_server() -> Iterator[str]:
    """Inside, the string in a shell is the command ``unstill``."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path is at most 107 bytes long
        path = f"{folder}/unstill"
        server = subprocess.Popen([sys.executable, __file__, "serve", path])
        try:
            deadline = time.monotonic() + SAFETY_S
            while not Path(path).exists():
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            yield f"{sys.executable} -I -S {__file__} call {path}"
        finally:
            server.kill()
            server.wait()


def call(path: str, arguments: list[str]) -> int:
    """Have a command run; SIGTERM is passed on to it. Returns its exit code."""
    request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        with connection.makefile() as answers:
            process = int(answers.readline())
            signal.signal(signal.SIGTERM, lambda *_: os.kill(process, signal.SIGTERM))
            code = int(answers.readline() or 1)  # nothing where it was killed
    with contextlib.suppress(ProcessLookupError):  # what it holds, such as a port, is free when it has ended
        select.select([os.pidfd_open(process)], [], [])
    return code


def serve(path: str) -> None:
    """Run the commands of all callers, at the same time where they call so."""
    from unstill.trainer import train  # noqa: F401  what most commands import
    from unstill.trainer.cli.main import run

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)  # who finds it can connect
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended commands leave no zombies
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                answer(connection, run)
            connection.close()


def answer(connection: socket.socket, run: Callable[[list[str]], int]) -> None:
    """Be the command that a caller wants; does not return."""
    from unstill.trainer.cli.leaving import leave_with_code_of

    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with connection.makefile("rb") as requests:
        arguments, folder, environment = json.loads(requests.read(int.from_bytes(length, "big")))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    connection.sendall(f"{os.getpid()}\n".encode())
    ended = threading.Event()

    def die_with_caller() -> None:
        if not connection.recv(1) and not ended.is_set():
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die_with_caller, daemon=True).start()

    names = {"run": run}

    def command() -> int:
        exec(os.environ.get("UNSTILL_BEFORE", ""), names)
        code = names["run"](arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        ended.set()
        connection.sendall(f"{code}\n".encode())
        return code

    leave_with_code_of(command)


if __name__ == "__main__":
    action, place, *words = sys.argv[1:]
    if action == "serve":
        serve(place)
    sys.exit(call(place, words))
