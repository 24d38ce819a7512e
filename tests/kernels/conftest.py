"""The two forms of every kernel, and Triton's interpreter a good deal faster."""

import importlib
import inspect
from types import SimpleNamespace

import pytest


class PatchOnce:
    """In place of the interpreter's ``_patch_lang``, which puts its own functions into Triton's modules.

    The original does it anew for every call of a helper inside a kernel: a third of the time of these tests. This one
    does it once a module, and undoes it when the kernel ends.
    """

    def __init__(self, patch):
        self.patch, self.scopes = patch, {}

    def __call__(self, function):
        """What is called for a kernel undoes all; what is called for a helper undoes nothing."""
        of_kernel = not self.scopes
        from triton import language

        seen = [v for v in function.__globals__.values() if inspect.ismodule(v) and v in (language, language.core)]
        if not all(module in self.scopes for module in seen):
            self.scopes |= dict.fromkeys(seen, self.patch(function))
        return self if of_kernel else SimpleNamespace(restore=lambda: None)

    def restore(self) -> None:
        for scope in reversed(list(dict.fromkeys(self.scopes.values()))):
            scope.restore()
        self.scopes = {}


def sums_at_once(apply_impl):
    """In place of the interpreter's ``ReduceOps.apply_impl``, which calls a combining function for every element."""

    def apply(reduction, inputs):
        if reduction.combine_fn.fn.__name__ != "add_each":
            return apply_impl(reduction, inputs)
        # the function itself on halves, as often as it takes: it is tested, too
        parts = [tensor.handle.data for tensor in inputs]
        while len(parts[0]) > 1:
            half = len(parts[0]) // 2
            tensors = [
                reduction.to_tensor(p[at], t.dtype)
                for at in (slice(half), slice(half, None))
                for p, t in zip(parts, inputs, strict=True)
            ]
            parts = [result.handle.data for result in reduction.combine_fn.fn(*tensors)]
        return [reduction.to_tensor(p[0], t.dtype) for p, t in zip(parts, inputs, strict=True)]

    return apply


@pytest.fixture(scope="session", autouse=True)
def faster_interpreter():
    """Triton is imported here and not above: pytest reads this file before tests/conftest.py says where kernels run."""
    from triton.runtime import interpreter

    if hasattr(interpreter, "_patch_lang"):
        interpreter._patch_lang = PatchOnce(interpreter._patch_lang)
    interpreter.ReduceOps.apply_impl = sums_at_once(interpreter.ReduceOps.apply_impl)


@pytest.fixture(scope="session", params=["torch", "triton"])
def form(request, device) -> SimpleNamespace:
    """One form of each kernel and the device it is checked on: plain torch on a CPU, or Triton."""
    # the package's names are the functions, so the modules are fetched by their full name
    modules = {
        n: importlib.import_module(f"unstill.kernels.{n}.{request.param}_form")
        for n in ("clip_prep", "static_losses", "attention")
    }
    modules["step_boundary"] = importlib.import_module("unstill.kernels.step_boundary")
    losses = ("static_losses", "static_losses_backward", "weighted_losses", "weighted_losses_backward")
    of_module = {"clip_prep": "clip_prep", "step_boundary": "step_boundary"} | dict.fromkeys(losses, "static_losses")
    found = {n: getattr(modules[module], f"{n}_{request.param}") for n, module in of_module.items()}
    passes = ("attention", "attention_backward", "attention_double_backward")
    found["attention"] = tuple(getattr(modules["attention"], f"{n}_{request.param}") for n in passes)
    return SimpleNamespace(
        name=request.param, device="cpu" if request.param == "torch" else device, modules=modules, **found
    )
