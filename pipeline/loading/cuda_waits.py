"""How a host thread waits for a GPU: asleep, not in a loop.

CUDA's default is to poll where a process has fewer contexts than the machine has cores. The decoder's threads wait once
a frame, so a dozen of them would keep a dozen cores busy with nothing, those of the training loop among them.
"""

import ctypes
from typing import Any

_BLOCKING = 0x04  # CU_CTX_SCHED_BLOCKING_SYNC


def sleep_while_waiting(device: int, driver: Any = None) -> bool:
    """Make threads that wait for a GPU sleep; before CUDA is first used in this process.

    The flag is set on the device's primary context, which PyTorch and DALI share.

    Args:
        device: number of the GPU, as CUDA_VISIBLE_DEVICES leaves it.
        driver: the CUDA driver's library; by default that of this machine.

    Returns:
        Whether it was done; without it everything works, with more load on the cores.
    """
    try:
        driver = driver or ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        return (
            driver.cuInit(0) == 0
            and driver.cuDeviceGet(ctypes.byref(number), device) == 0
            and driver.cuDevicePrimaryCtxSetFlags_v2(number, _BLOCKING) == 0
        )
    except (OSError, AttributeError):  # no driver, or one without these functions
        return False
