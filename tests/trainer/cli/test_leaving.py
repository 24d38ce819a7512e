"""A process that used a GPU ends with its own exit code, although a library crashes while it is unloaded."""

import subprocess
import sys

import pytest

# what a static destructor does, as late as Python can do it: after exit handlers and threads, when modules are freed
CRASH = """
import atexit, ctypes, os, sys, threading
class Library:
    def __del__(self, kill=os.kill, own=os.getpid()):
        kill(own, 11)
sys.modules["crashing"] = Library()
atexit.register(lambda: print("exit handlers ran"))
"""
LEAVE = "from unstill.trainer.cli.leaving import leave_with_code_of\n"


def ended(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1200, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code"), [("lambda: 0", 0), ("lambda: 75", 75), ("lambda: sys.exit(3)", 3), ("lambda: 1 / 0", 1)]
)
def test_the_code_is_the_commands_although_unloading_crashes(command, code):
    assert ended(f"{CRASH}import sys; sys.exit(0)").returncode == -11
    done = ended(f"{CRASH}{LEAVE}print('said', end='')\nleave_with_code_of({command}, lambda: True)")
    assert done.returncode == code
    assert done.stdout == "saidexit handlers ran\n"
    assert ("ZeroDivisionError" in done.stderr) == (code == 1)


def test_without_a_gpu_python_ends_as_always():
    done = ended(f"{LEAVE}leave_with_code_of(lambda: 1 / 0)")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert ended(f"{LEAVE}leave_with_code_of(lambda: 75)").returncode == 75
