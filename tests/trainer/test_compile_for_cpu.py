"""Kernels that are compiled in one file: each is its own, none is compiled twice, one by one where that fails."""

from typing import Any

import pytest
import torch

HEADER = "#include <torch/csrc/inductor/cpp_prefix.h>\n"
LOOP = (
    'extern "C" void kernel(const float* in, float* out, const int64_t n) {{ for (int64_t i = 0; i < n; ++i) {body}; }}'
)
pytestmark = pytest.mark.slow

TYPES = ["const float*", "float*", "const int64_t"]


def a_kernel(body: str, before: str = "") -> tuple[list[str], str]:
    """Types and source as inductor's wrapper code gives them."""
    return TYPES, f"\n{HEADER}{before}{LOOP.format(body=body)}\n"


def computed(kernel, values) -> list[float]:
    out = torch.empty(3)
    kernel(torch.tensor(values), out, 3)
    return out.tolist()


@pytest.fixture(scope="module")
def compiling(tmp_path_factory):
    from torch._inductor.utils import fresh_cache

    from unstill.trainer import compile_for_cpu  # inductor: a second of every process that reads this file

    compile_for_cpu.compile_kernels_together()
    with fresh_cache():
        yield compile_for_cpu


def loaded(*kernels) -> list[Any]:
    """Python functions of kernels, as a module that inductor wrote gets them."""
    from torch._inductor.async_compile import AsyncCompile

    compiler = AsyncCompile()
    scope = {f"cpp_{i}": compiler.cpp_pybinding(*kernel) for i, kernel in enumerate(kernels)}
    compiler.wait(scope)
    return list(scope.values())


def test_kernels_of_one_file_are_their_own_and_compiled_once(compiling, monkeypatch):
    helper = "static float moved(float x) {{ return x {by}; }}\n"
    kernels = [a_kernel("out[i] = moved(in[i])", helper.format(by=by)) for by in ("+ 1", "* 2")]
    add, double = loaded(*kernels)
    assert computed(add, [1.0, 2.0, 3.0]) == [2, 3, 4] and computed(double, [1.0, 2.0, 3.0]) == [2, 4, 6]
    with pytest.raises(RuntimeError, match="3 args"):
        add(torch.ones(3))
    compiling.KernelFile.cache.clear()  # as in another process
    monkeypatch.setenv("CXX", "false")
    assert computed(loaded(*kernels)[1], [5.0, 6.0, 7.0]) == [10, 12, 14]


def test_kernels_that_do_not_go_into_one_file_are_compiled_one_by_one(compiling):
    only_global = "struct Own {}; template <> struct std::hash<Own> { size_t operator()(Own) const { return 7; } };\n"
    seven, same = loaded(a_kernel("out[i] = std::hash<Own>()({})", only_global), a_kernel("out[i] = in[i]"))
    assert computed(seven, [1.0, 2.0, 3.0]) == [7, 7, 7] and computed(same, [1.0, 2.0, 3.0]) == [1, 2, 3]
