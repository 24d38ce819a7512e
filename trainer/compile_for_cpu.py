"""Kernels for a CPU are compiled many to a file, which takes a tenth of the C++ compiler's time.

Inductor starts the C++ compiler once for each kernel, and nearly all of that time goes into reading headers: the 244
kernels of swin3d_t's ALBAR step took 184 CPU-seconds one by one, and 29 in five files. Kernels, the compiler's options
and the folder that compiled files are kept in are inductor's; only the files are fewer.
"""

import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from torch._C._dynamo import guards
from torch._inductor.async_compile import AsyncCompile, get_compile_threads
from torch._inductor.codecache import CppPythonBindingsCodeCache

log = logging.getLogger(__name__)

KERNELS_PER_FILE = 64  # a constant: what is kept is found again whatever the number of compiling processes
_INCLUDE = re.compile(r"^\s*#\s*include\b.*$", re.MULTILINE)


class Kernel(NamedTuple):
    """A kernel that is not compiled yet.

    Attributes:
        types: of its arguments, such as "const float*".
        source: C++ with a function ``kernel``.
    """

    types: list[str]
    source: str


def compile_kernels_together() -> None:
    """From now on inductor compiles the kernels of a graph in files of ``KERNELS_PER_FILE``, in this process."""
    if hasattr(AsyncCompile.wait, "one_by_one"):
        return
    wait, one_by_one = AsyncCompile.wait, AsyncCompile.cpp_pybinding

    def keep_for_later(self: AsyncCompile, argtypes: list[str], source_code: str) -> Kernel:
        return Kernel(argtypes, source_code)

    def compile_and_wait(self: AsyncCompile, scope: dict[str, Any]) -> None:
        kernels = {name: value for name, value in scope.items() if isinstance(value, Kernel)}
        try:
            scope.update(zip(kernels, compile_kernels(list(kernels.values())), strict=True))
        except Exception as error:  # the C++ compiler's, or another torch's bindings: inductor's own way remains
            log.debug("kernels are compiled one by one: %s", error)
            scope.update({name: one_by_one(self, *kernel) for name, kernel in kernels.items()})
        wait(self, scope)

    compile_and_wait.one_by_one = one_by_one  # type: ignore[attr-defined]
    AsyncCompile.cpp_pybinding, AsyncCompile.wait = keep_for_later, compile_and_wait  # type: ignore[method-assign]


def compile_kernels(kernels: Sequence[Kernel]) -> list[Callable]:
    """The kernels' Python functions, compiled or loaded where the same were compiled before."""
    submit = AsyncCompile.submit if get_compile_threads() > 1 else None
    files = [kernels[i : i + KERNELS_PER_FILE] for i in range(0, len(kernels), KERNELS_PER_FILE)]
    started = [KernelFile.start(file, submit) for file in files]  # all before the first is waited for
    return [function for file, path in zip(files, started, strict=True) for function in functions(path(), len(file))]


class KernelFile(CppPythonBindingsCodeCache):
    """A C++ file of several kernels."""

    cache: ClassVar[dict[str, Callable[[], Any]]] = {}  # of its own: what is loaded is a path

    @classmethod
    def start(cls, kernels: Sequence[Kernel], submit: Callable | None) -> Callable[[], str]:
        """Begin to compile a file in another process, or when it is waited for; returns what waits for its path."""
        includes = dict.fromkeys(line.strip() for kernel in kernels for line in _INCLUDE.findall(kernel.source))
        includes |= dict.fromkeys(f"#include <{name}>" for name in ("Python.h", "sstream", "cstdlib", "cerrno"))
        sources = [cls.in_namespace(kernel, kernel_name(i)) for i, kernel in enumerate(kernels)]
        return cls.load_async("\n".join([*includes, *sources]), submit_fn=submit)

    @classmethod
    def in_namespace(cls, kernel: Kernel, name: str) -> str:
        """C++ of a kernel and its Python module, both called ``name``; each module defines the same helpers."""
        arguments = (f"parse_arg<{one.replace('const ', '')}>(args, {i})" for i, one in enumerate(kernel.types))
        module = cls.suffix_template.format(
            arg_len=len(kernel.types),
            entry_func="kernel",
            call_entry_func=cls.call_entry_function.format(", ".join(arguments)),
            extra_parse_arg="",
        )
        source = re.sub(r"\b(PyInit_)?kernel\b", rf"\g<1>{name}", kernel.source + module)
        return f"namespace in_{name} {{\n{_INCLUDE.sub('', source)}\n}}"

    @classmethod
    def _load_library(cls, path: str, key: str) -> Any:
        return path  # ``functions`` loads its modules


def kernel_name(place: int) -> str:
    """Of the kernel's function and of its Python module, by the kernel's place in its file."""
    return f"kernel_{place}"


def functions(path: str, kernels: int) -> list[Callable]:
    """Python functions of a compiled file's kernels."""
    # where the modules find torch's function that gives the address of a tensor's memory, as inductor tells them
    address = guards._torchinductor_pyobject_tensor_data_ptr  # type: ignore[attr-defined]
    os.environ["_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"] = str(address)
    found = []
    for name in map(kernel_name, range(kernels)):
        full_name = f"{path}.{name}"
        if full_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(full_name, path)
            assert spec is not None and spec.loader is not None
            sys.modules[full_name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[full_name])
        found.append(getattr(sys.modules[full_name], name))
    return found
