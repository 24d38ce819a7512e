"""A pytest plugin that counts what Triton would compile on a GPU, while its interpreter runs the kernels on a CPU."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the first import of triton

import torch
from triton.runtime import interpreter

seen: set[tuple] = set()
launch = interpreter.GridExecutor.__call__


def counted(executor, *arguments, **constants):
    """Triton compiles anew for other types, alignment and constants; not for other values of ordinary arguments."""

    def kind(argument):
        if isinstance(argument, torch.Tensor):
            return str(argument.dtype), argument.data_ptr() % 16 == 0
        if isinstance(argument, int) and not isinstance(argument, bool):
            return "i64" if abs(argument) >= 2**31 else "i32"
        return argument if argument is None or isinstance(argument, bool) else type(argument).__name__

    seen.add((executor.fn.__name__, *map(kind, arguments), str(sorted(constants.items()))))
    return launch(executor, *arguments, **constants)


interpreter.GridExecutor.__call__ = counted


def pytest_sessionfinish():
    print(f"\nspecialisations: {len(seen)}")
