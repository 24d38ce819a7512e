"""Failures that a benchmark records and goes on after."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ...trainer.memory_check import is_out_of_memory

OUT_OF_MEMORY = "out of memory"


def one_line(error: BaseException) -> str:
    """What a row says of an error."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


@contextmanager
def out_of_memory_goes_to(record: Callable[[str], None]) -> Iterator[None]:
    """Inside, running out of memory ends the block and no more; every other error passes.

    Args:
        record: is told, once the memory is free again.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    record(OUT_OF_MEMORY)
