"""What is left to a process whose decoder was taken over: nothing that reaches the user, as root or not."""

import json
import logging
import os
import subprocess
import sys

import pytest

from unstill.pipeline.conversion.sandbox.pool import Worker
from unstill.pipeline.errors import InputError
from unstill.pipeline.sandbox import process
from unstill.pipeline.sandbox.process import Limits

ATTACKS = """
import ctypes, json, os, resource, signal, socket, subprocess, sys
from pathlib import Path

import numpy

from unstill.pipeline.sandbox.fence import close_fence, leave_network

secret, user = Path(sys.argv[1]), int(sys.argv[2])
parent = os.getppid()
if user:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
own = os.open(secret, os.O_RDONLY)
missing = [name for name in (leave_network(),) if name]
assert secret.read_text() == "secret"  # the attacks are real: before the fence, this works
missing += close_fence()
c = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    if c.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def connect(kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as s:
        s.connect(address)


reached = []
for name, attack in {
    "read a file": lambda: open(secret).read(),
    "list a folder": lambda: os.listdir("/"),
    "write a file": lambda: open(secret, "w"),
    "write in place": lambda: os.open(secret, os.O_RDWR),
    "create": lambda: os.open(f"{secret}.new", os.O_CREAT | os.O_WRONLY),
    "truncate": lambda: os.truncate(secret, 0),
    "unlink": lambda: os.unlink(secret),
    "rename": lambda: os.rename(secret, f"{secret}.moved"),
    "chmod": lambda: os.chmod(secret, 0o777),
    "chmod by descriptor": lambda: os.fchmod(own, 0o777),
    "reopen a descriptor": lambda: os.open(f"/proc/self/fd/{own}", os.O_RDWR),
    "attributes": lambda: os.setxattr(own, "user.x", b"1"),
    "times": lambda: os.utime(own),
    "link": lambda: os.symlink("/", f"{secret}.link"),
    "folder": lambda: os.mkdir(f"{secret}.folder"),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: os._exit(0) if os.fork() == 0 else None,
    "a process": lambda: subprocess.run(["/bin/true"]),
    "TCP": lambda: connect(socket.AF_INET, ("127.0.0.1", 80)),
    "Unix socket": lambda: connect(socket.AF_UNIX, "/var/run/docker.sock"),
    "abstract socket": lambda: connect(socket.AF_UNIX, "\\0x"),
    "signal the parent": lambda: os.kill(parent, 0),
    "signal a thread of the parent": lambda: call(234, parent, parent, 0),
    "signal by pidfd": lambda: os.pidfd_open(parent),
    "limits of the parent": lambda: resource.prlimit(parent, resource.RLIMIT_CPU),
    "memory of the parent": lambda: os.open(f"/proc/{parent}/mem", os.O_RDWR),
    "environment of the parent": lambda: open(f"/proc/{parent}/environ").read(),
    "ptrace": lambda: call(101, 16, parent, 0, 0),
    "read the parent's memory": lambda: call(310, parent, 0, 0, 0, 0, 0),
    "another namespace": lambda: call(308, own, 0),
    "new namespace": lambda: call(272, 0x10000000),
    "mount": lambda: call(165, b"none", b"/", b"tmpfs", 0, 0),
    "io_uring": lambda: call(425, 1, 0),
    "bpf": lambda: call(321, 0, 0, 0),
    "keys": lambda: call(250, 0, 0, 0),
    "shared memory": lambda: call(29, 1, 4096, 0o1600),
    "new code": lambda: call(9, 0, 4096, 7, 0x22, -1, 0),
    "signals by descriptor": lambda: call(72, own, 8, parent),
}.items():
    try:
        attack()
    except (OSError, PermissionError):
        continue
    reached.append(name)
print(json.dumps({"reached": reached, "missing": missing, "sum": float(numpy.ones(1000).sum())}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
@pytest.mark.parametrize("user", [0, 65534], ids=["as it is", "as another user"])
def test_nothing_is_in_reach_of_a_decoder_that_was_taken_over(tmp_path, user):
    if user and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    if user:
        os.chown(secret, user, user)
        for folder in (tmp_path, *list(tmp_path.parents)[:3]):  # pytest's own; one more in a worker of `pytest -n`
            if not folder.stat().st_mode & 0o001:
                folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", ATTACKS, str(secret), str(user)], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if {"Landlock", "seccomp"} & set(found["missing"]):
        pytest.skip(f"this system lacks {found['missing']}")
    assert found["reached"] == [] and found["sum"] == 1000
    assert secret.read_text() == "secret" and not list(tmp_path.glob("secret.*"))


def test_the_worker_is_fenced_and_sees_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    worker = Worker(Limits(seconds=60.0, memory_bytes=320 << 20))
    try:
        worker.run({"errno": 2, "probe": True})
        with open(f"/proc/{worker.pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        if os.geteuid() == 0:  # it is undumpable: others of its user may not look
            with open(f"/proc/{worker.pid}/environ", "rb") as file:
                names = {entry.split(b"=")[0] for entry in file.read().split(b"\0")}
            assert b"AWS_SECRET_ACCESS_KEY" not in names and b"HOME" not in names
    finally:
        worker.close(kill=True)


def test_what_is_missing_is_said_once_or_refused(monkeypatch, caplog):
    process._told.clear()
    limits = Limits(seconds=60.0, memory_bytes=320 << 20)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            Worker(limits)._judge(["seccomp"])
    assert caplog.text.count("this system lacks seccomp") == 1
    with pytest.raises(InputError, match="--sandbox require: this system lacks Landlock and seccomp"):
        Worker(Limits(seconds=60.0, memory_bytes=1, sandbox="require"))._judge(["Landlock", "seccomp"])
