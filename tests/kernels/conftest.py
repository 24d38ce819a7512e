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


@pytest.fixture(scope="session", autouse=True)
def faster_interpreter():
    """Triton is imported here and not above: pytest reads this file before tests/conftest.py says where kernels run."""
    from triton.runtime import interpreter

    if hasattr(interpreter, "_patch_lang"):
        interpreter._patch_lang = PatchOnce(interpreter._patch_lang)


@pytest.fixture(scope="session", params=["torch", "triton"])
def form(request, device) -> SimpleNamespace:
    """One form of each kernel and the device it is checked on: plain torch on a CPU, or Triton."""
    # the package's names are the functions, so the modules are fetched by their full name
    modules = {
        n: importlib.import_module(f"unstill.kernels.{n}.{request.param}_form")
        for n in ("clip_prep", "static_losses", "attention")
    }
    modules["step_boundary"] = importlib.import_module("unstill.kernels.step_boundary")
    kinds = ("clip_prep", "static_losses", "static_losses_backward", "step_boundary")
    found = {n: getattr(modules[n.removesuffix("_backward")], f"{n}_{request.param}", None) for n in kinds}
    passes = ("attention", "attention_backward", "attention_double_backward")
    found["attention"] = tuple(getattr(modules["attention"], f"{n}_{request.param}") for n in passes)
    return SimpleNamespace(
        name=request.param, device="cpu" if request.param == "torch" else device, modules=modules, **found
    )
