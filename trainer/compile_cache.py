"""Compiled steps that are kept: a restart, another rank on the machine and the next benchmark variant load them.

PyTorch keeps what it compiles in TORCHINDUCTOR_CACHE_DIR (by default in the folder for temporary files), but refuses a
graph that calls a function it does not know, and an ALBAR step does: ``autograd.grad`` (torch 2.11), and what
``sdpa_kernel`` and ``autocast`` come to. What these do is decided by their arguments alone, which are part of the key.

The derivatives of this project's own operators are traced into the graphs and are not part of PyTorch's key; a digest
of the project's source files is added to it.
"""

import fcntl
import functools
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch._functorch.config
import torch._inductor.config
import torch.compiler.config
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.runtime.cache_dir_utils import cache_dir

from .compile_for_cpu import compile_kernels_together

log = logging.getLogger(__name__)

_KNOWN_FUNCTIONS = (
    "torch.autograd.grad",
    "torch.amp.autocast_mode._enter_autocast",
    "torch.amp.autocast_mode._exit_autocast",
    "torch.nn.attention._backend_from_string",
    "torch.nn.attention._sdpa_kernel",
)
_TRACED = ("kernels", "trainer")  # the parts of the project whose code ends up in a graph
# of a graph as it is written in Python: swin3d_t's ALBAR step, 1,328 operations, took 125 CPU-seconds for a CPU
_SECONDS_PER_OPERATION = 0.09


def keep_compiled_steps() -> None:
    """Make compiled steps loadable by later processes, and compile for a CPU in few files; before the first one."""
    compile_kernels_together()
    functions = {name: torch.__version__ for name in _KNOWN_FUNCTIONS}
    torch._inductor.config.unsafe_marked_cacheable_functions |= functions
    tag, digest = torch.compiler.config.cache_key_tag, source_digest()
    if digest not in tag:
        torch.compiler.config.cache_key_tag = f"{tag}{digest}"


@functools.cache
def source_digest() -> str:
    """A digest of the source files whose code can end up in a compiled step."""
    digest, package = hashlib.sha256(), Path(__file__).resolve().parents[1]
    for part in _TRACED:
        folder = (package / part).resolve()
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{part}/{path.relative_to(folder)}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compile_or_load(
    graph: torch.fx.GraphModule, inputs: list[Tensor], options: dict, *, recompute: bool, announce: bool
) -> Callable:
    """Forward and backward of a graph, compiled by inductor, or loaded where the same was compiled before.

    Args:
        graph, inputs: as dynamo gives them to a backend.
        options: of inductor.
        recompute: see ``StepConfig``.
        announce: say what is compiled, how long it may take, and what came of it.
    """
    operations, sizes = sum(node.op != "placeholder" for node in graph.graph.nodes), []

    def lower(lowered: torch.fx.GraphModule, *arguments, **keywords):
        sizes.append(len(lowered.graph.nodes))
        return compile_fx_inner(lowered, *arguments, **keywords)

    if announce:
        expected = duration(operations * _SECONDS_PER_OPERATION)
        log.info("compiling %s operations: about %s, or seconds where they are kept", f"{operations:,}", expected)
    # the backward is compiled here and not in the first backward: what is kept is complete when the lock is free
    eager: dict[str, Any] = {"force_non_lazy_backward_lowering": True} if _can_compile_backward_at_once() else {}
    hits, start = counters["aot_autograd"]["autograd_cache_hit"], time.monotonic()
    settings = torch._functorch.config.patch(aggressive_recomputation=recompute, **eager)
    with one_at_a_time(_device(inputs)), settings:
        compiled = compile_fx(graph, inputs, inner_compile=lower, config_patches=options)
    if announce:
        loaded = counters["aot_autograd"]["autograd_cache_hit"] > hits
        how = "loaded from" if loaded else "compiled; kept in"
        parts = "" if loaded else f" ({' + '.join(f'{size:,}' for size in sizes)} operations, forward + backward)"
        log.info("%s %s in %s%s", how, cache_dir(), duration(time.monotonic() - start), parts)
    return cast(Callable, compiled)


@contextmanager
def one_at_a_time(device: torch.device) -> Iterator[None]:
    """Inside, no other process of this machine compiles for a device of this name: it waits, then finds the result.

    The number of a GPU is part of what is compiled, so that ranks on cuda:0 and cuda:1 cannot share and do not wait.
    They share where each sees its own GPU as cuda:0, as with ``torchrun --virtual-local-rank``.
    """
    if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) == 1:
        yield
        return
    folder = Path(cache_dir())
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"unstill-{str(device).replace(':', '-')}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # freed when the file is closed, or the process ends
        yield


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _device(inputs: list) -> torch.device:
    return next((value.device for value in inputs if isinstance(value, Tensor)), torch.device("cpu"))


def _can_compile_backward_at_once() -> bool:
    return hasattr(torch._functorch.config, "force_non_lazy_backward_lowering")
