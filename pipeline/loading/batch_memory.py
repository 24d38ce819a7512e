"""Memory for batches of clips on the processor, used again once a batch is let go.

Fresh memory costs a page fault for every 4 kB that is written: 150 a clip of 16 frames of 112x112, 0.3 to 0.7 ms of the
7 ms that it takes to decode. The allocator of the C library keeps small blocks, but gives those of more than 32 MB back
to the system each time.
"""

import math
import weakref
from collections import deque

import numpy as np
import torch

_SPARE = 2  # batches of memory that wait; as many as come back before the next is asked for


class BatchMemory:
    """Lends memory; what comes back when a tensor and all views of it are gone is lent again.

    Safe to use from many threads: a tensor may be let go anywhere.
    """

    def __init__(self):
        self._spare: deque[np.ndarray] = deque(maxlen=_SPARE)

    def lend(self, *shape: int) -> torch.Tensor:
        """A tensor of uint8 of this shape, whatever is in it."""
        size = math.prod(shape)
        memory = np.empty(0, np.uint8)
        while memory.size < size:
            try:
                memory = self._spare.pop()
            except IndexError:
                memory = np.empty(size, np.uint8)
        lent = memory[:size]  # an object of its own, which only the tensor's storage knows
        weakref.finalize(lent, self._spare.append, memory).atexit = False
        return torch.from_numpy(lent).view(shape)

    def close(self) -> None:
        """Free what waits."""
        self._spare.clear()
