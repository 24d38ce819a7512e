import time

import pytest
import torch

from unstill.bench.harness.gpu_clock import CYCLES_PER_MS, device_milliseconds, host_milliseconds


def test_the_host_is_timed():
    assert 3 <= host_milliseconds(lambda: time.sleep(3e-3), calls=3) < 300


@pytest.mark.gpu
def test_the_gpu_is_timed_without_the_host():
    """Between two launches the host sleeps for longer than the GPU works."""

    def slow_host():
        for _ in range(2):
            torch.cuda._sleep(CYCLES_PER_MS)
            time.sleep(4e-3)

    timed = device_milliseconds(slow_host, 20)
    assert 1.5 < timed["p20"] <= timed["p50"] < 7  # 2 ms at the fastest clocks, 10 with the host
    assert host_milliseconds(slow_host, calls=3) > 8
