"""Shared set-up: threads, where Triton kernels run, and what a test marked ``gpu`` does on a machine without one."""

import gc
import os

# One thread for torch in each worker of `pytest -n` and in each process that a test starts: the networks are tiny, and
# two pools on two cores wait for each other. Must precede the import of torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# inductor calls g++ itself: the processes that it would start to call it import torch, 4 CPU-seconds each
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import pytest

CUDA = False


def pytest_configure(config):
    """Finds out where Triton kernels run; not in the process that only deals the tests out to others (3 s)."""
    global CUDA
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import torch

    CUDA = torch.cuda.is_available()
    if not CUDA:
        # must precede the first import of triton anywhere in the process: @triton.jit decides when it decorates
        os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> str:
    """The device Triton kernels run on: "cuda", or "cpu" through Triton's interpreter."""
    return "cuda" if CUDA and os.environ.get("TRITON_INTERPRET") != "1" else "cpu"


@pytest.fixture(scope="session")
def unstill():
    """``unstill`` as a command of the shell, for scripts that call it often; see tests/trainer/unstill_server.py."""
    from unstill_server import unstill_server

    with unstill_server() as command:
        yield command


LONGEST = (  # files with tests of 15 to 80 s; a process that began one of them last would let the others wait
    "test_closed_network.py",
    "test_compile_cache.py",
    "test_step.py",
    "test_distributed.py",
    "test_examples.py",
    "test_resume.py",
    "test_examples_run.py",
    "test_procedural_layouts.py",
    "test_loader.py",
    "test_demo.py",
    "test_user_way.py",
    "test_ranges.py",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    # UNSTILL_REQUIRE_GPU=1 lets the tests run and fail there, so that a GPU job can never pass by skipping
    if CUDA or os.environ.get("UNSTILL_REQUIRE_GPU") == "1":
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish():
    """What is imported stays: collections of garbage, which tests and benchmarks ask for, need not go through it."""
    gc.collect()
    gc.freeze()
