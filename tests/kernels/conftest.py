"""The two forms of every kernel."""

import importlib
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session", params=["torch", "triton"])
def form(request, device) -> SimpleNamespace:
    """One form of each kernel and the device it is checked on: plain torch on a CPU, or Triton."""
    # the package's names are the functions, so the modules are fetched by their full name
    modules = {
        n: importlib.import_module(f"unstill.kernels.{n}") for n in ("clip_prep", "static_losses", "step_boundary")
    }
    kinds = ("clip_prep", "static_losses", "static_losses_backward", "step_boundary")
    found = {n: getattr(modules[n.removesuffix("_backward")], f"{n}_{request.param}", None) for n in kinds}
    return SimpleNamespace(
        name=request.param, device="cpu" if request.param == "torch" else device, modules=modules, **found
    )
