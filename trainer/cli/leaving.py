"""The end of a process that may have used a GPU: with its own exit code, whatever libraries do when they are unloaded.

Static destructors of libraries that decode on a GPU run after the driver has shut down and can crash (torchcodec's
did); a finished run then ends with code 139, and whoever started it takes it for failed.
"""

import atexit
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def leave_with_code_of(command: Callable[[], int], used_gpu: Callable[[], bool] | None = None) -> NoReturn:
    """Run a command and end the process with the code that it returns.

    Where a GPU was used, Python's exit handlers run and output is written, then the process ends without the libraries'
    own clean-up: the operating system and the driver free what is left.

    Args:
        command: returns the exit code, or raises.
        used_gpu: asked after the command; by default whether PyTorch has initialised CUDA.
    """
    used_gpu = used_gpu or cuda_was_used
    try:
        code: int | str | None = command()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        if not used_gpu():
            raise
        traceback.print_exc()
        code = 1
    if not used_gpu():
        sys.exit(code)
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):  # nothing reads it any more
                continue
    os._exit(code or 0)


def cuda_was_used() -> bool:
    """Whether PyTorch has initialised CUDA in this process; imports nothing."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()
