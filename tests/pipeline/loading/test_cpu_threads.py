"""The loader's threads fit the machine, and those that wait for a GPU sleep."""

import ctypes

import pytest
import torch

from unstill.pipeline.loading import cpu_threads
from unstill.pipeline.loading.cpu_threads import LoaderThreads, default_threads, loader_threads
from unstill.pipeline.loading.cuda_waits import sleep_while_waiting
from unstill.pipeline.loading.loader_config import LoaderConfig


@pytest.mark.parametrize(
    ("cores", "ranks", "batch", "decode", "pipelines"),
    [
        (16, 1, 32, 12, 1),  # before: 16 decoding threads on 16 cores
        (16, 1, 6, 6, 2),
        (16, 1, 4, 4, 2),
        (128, 8, 32, 12, 1),  # before: 128 threads on the machine
        (64, 8, 32, 4, 1),
        (64, 8, 2, 2, 2),
        (2, 1, 64, 4, 1),
        (2, 8, 1, 1, 2),
    ],
)
def test_decoding_threads_on_a_gpu(cores, ranks, batch, decode, pipelines):
    assert default_threads(True, cores, ranks, batch) == LoaderThreads(decode, pipelines, 4)


def test_a_process_leaves_cores_to_its_step_and_no_thread_is_without_a_clip():
    for cores in range(1, 200):
        for ranks in (1, 2, 4, 8):
            for batch in range(1, 40):
                found = default_threads(True, cores, ranks, batch)
                assert found.decode <= batch and found.decode >= 1
                assert found.decode * found.pipelines <= max(4, min(12, cores // ranks - 4)) + 1
                assert default_threads(False, cores, ranks, batch).decode <= max(1, cores // ranks)


def test_what_is_configured_wins(monkeypatch):
    monkeypatch.setattr(cpu_threads.os, "sched_getaffinity", lambda _: range(32))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    of = lambda batch=64, **given: loader_threads(LoaderConfig(**given), "cuda:1", batch)  # noqa: E731
    assert of() == LoaderThreads(12, 1, 4)
    assert of(decode_threads=7) == LoaderThreads(7, 1, 4)
    assert of(6, decode_threads=7) == LoaderThreads(7, 1, 4)
    assert of(pipelines=2) == LoaderThreads(6, 2, 4)  # the same number of threads in all
    assert of(decode_threads=7, pipelines=3, read_threads=2) == LoaderThreads(7, 3, 2)
    assert loader_threads(LoaderConfig(), "cpu", 64) == LoaderThreads(4, 1, 1)


class Driver:
    """The CUDA driver's three functions; remembers which flags were set on which device."""

    def __init__(self, failing: str = ""):
        self.flags: dict[int, int] = {}
        self._failing = failing

    def _answer(self, name: str) -> int:
        return 100 if name == self._failing else 0

    def cuInit(self, flags):
        return self._answer("cuInit")

    def cuDeviceGet(self, number, ordinal):
        number._obj.value = 10 + ordinal
        return self._answer("cuDeviceGet")

    def cuDevicePrimaryCtxSetFlags_v2(self, number, flags):
        self.flags[number.value] = flags
        return self._answer("cuDevicePrimaryCtxSetFlags_v2")


def test_the_flag_is_set_on_the_device_that_is_used():
    driver = Driver()
    assert sleep_while_waiting(3, driver) and driver.flags == {13: 4}
    for name in ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxSetFlags_v2"):
        assert not sleep_while_waiting(0, Driver(failing=name))
    assert not sleep_while_waiting(0, object())  # a library without these functions


@pytest.mark.gpu
def test_the_context_waits_asleep():
    torch.cuda.init()
    assert sleep_while_waiting(0)
    torch.zeros(1, device="cuda").sum().item()
    state, active = ctypes.c_uint(), ctypes.c_int()
    assert ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxGetState(0, ctypes.byref(state), ctypes.byref(active)) == 0
    assert state.value & 7 == 4 and active.value == 1
