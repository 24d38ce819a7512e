"""The memory of a training step, known before the first one.

    plan = plan_memory(config, model, classes=51)
    plan.peak(16)                    # bytes, with 16 clips in a process
    plan.largest_batch(80 * 2**30)   # clips

A step of the run's own code is traced in eager mode (``memory_trace``); swin3d_t at 32x224x224 takes 4 CPU-seconds. For
a compiled step this is an estimate, not a trace: its graph takes minutes to make. Compiled, the peak is taken as the
eager one: 0.96 to 1.03 times that was found (swin3d_t's joint graph without fusion, and a reduced Swin's allocator).
With ``recompute`` the per-clip part of a step with a gradient penalty is multiplied by ``RECOMPUTE``, unless its layers
are closed, which leaves nothing to save.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from ..pipeline.loading.clips import Clips, ClipSource
from ..pipeline.loading.cpu_threads import loader_threads
from ..pipeline.loading.resize import WORKSPACE
from .assembly import assemble
from .config import TrainConfig
from .distributed import Ranks
from .inputs.prepare import Prepare
from .memory_trace import prime_for, tracing

PARTS = 12  # the traced batch divides into any usual number of parts
# of an eager ALBAR step's bytes per clip: swin3d_t's joint graph needs 0.82 (an upper bound, without fusion), a reduced
# Swin's allocator gave 0.85
RECOMPUTE = 0.85
PICTURE = 256 * 344  # pixels that a video is taken to have: the converter's default short side, 4:3

Bytes = tuple[int, int]  # (fixed, per_clip): fixed + clips * per_clip


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a training step as functions of the clips in a process.

    Attributes:
        moments: those that can be the peak.
        resident: between two steps: weights, their average, optimiser state, and the batch at hand.
        saved: when a backward starts; the one with most per clip, resident bytes included.
        queue: what the loader prepares ahead of the batch at hand, and a checkpoint's copy of the state.
        factor: of a compiled step's bytes per clip to an eager one's; 1 where it is eager.
    """

    moments: tuple[Bytes, ...]
    resident: Bytes
    saved: Bytes
    queue: Bytes = (0, 0)
    factor: float = 1.0

    def peak(self, clips: int) -> float:
        """Largest number of bytes that live at once."""
        return max(fixed + clips * per_clip for fixed, per_clip in self._lines())

    def step_peak(self, clips: int) -> float:
        """``peak`` without the queue, above what is there between two steps."""
        fixed, per_clip = self.resident
        return max(a - fixed + clips * (b * self.factor - per_clip) for a, b in self.moments)

    @property
    def per_clip(self) -> float:
        """Bytes that one more clip costs, where there are many."""
        return max(per_clip for _, per_clip in self._lines())

    @property
    def fixed(self) -> float:
        """Bytes that are needed for any batch: weights, optimiser state, their average and a checkpoint's copy."""
        return self.resident[0] + self.queue[0]

    def largest_batch(self, memory: float) -> int:
        """Most clips whose peak fits into ``memory`` bytes; 0 where none does."""
        room = [(memory - fixed) / per_clip if per_clip else memory - fixed for fixed, per_clip in self._lines()]
        return max(0, int(min(room)))

    def in_parts(self, parts: int) -> "MemoryPlan":
        """An estimate for a batch that is computed in so many times more parts (``step.accumulate``)."""
        moments = tuple((a, self.resident[1] + max(0, b - self.resident[1]) // parts) for a, b in self.moments)
        return replace(self, moments=moments)

    def scaled(self, factor: float) -> "MemoryPlan":
        """The same with another ``factor``."""
        return replace(self, factor=factor)

    def _lines(self) -> list[tuple[float, float]]:
        fixed, per_clip = self.queue
        return [(a + fixed, b * self.factor + per_clip) for a, b in self.moments]


def plan_memory(
    config: TrainConfig,
    model: nn.Module,
    method_module: nn.Module | None = None,
    tables: dict[str, Tensor] | None = None,
    *,
    classes: int,
    ranks: int = 1,
    static_parts: int | None = None,
    cuda: bool | None = None,
) -> MemoryPlan:
    """Trace one step of the run on fake tensors.

    Args:
        config: the run's.
        model: the network as it is trained; it is copied without its values, and not changed.
        method_module, tables: see ``assembly.assemble``.
        classes: number of classes.
        ranks: processes of the run; several keep the gradients' buckets between steps.
        static_parts: of the static pass; by default those of ``config.step``.
        cuda: count as a GPU would; by default where ``config.device`` is one.
    """
    cuda = config.device == "cuda" if cuda is None else cuda
    # the frames' transform reads its draws, and adds little
    inputs = replace(config.inputs, transform=None)
    step = replace(config.step, compile="off", deterministic=False)
    eager = replace(config, device="cpu", step=step, inputs=inputs)
    frames, size = config.clip.frames, config.clip.size
    pair = nn.ModuleList([model] if method_module is None else [model, method_module])
    tensors = [*pair.parameters(), *pair.buffers()]
    if config.augmentation is not None:
        config.augmentation.read_files(size)  # a file cannot be read into tensors without data
    prime = prime_for({frames, size, classes, *(tensor.numel() for tensor in tensors)})
    parts = static_parts or config.step.static_parts or 1
    clips = prime * PARTS * config.step.accumulate * parts
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(fakes):
        pair = copy.deepcopy(pair)
        tables = {name: copy.deepcopy(table) for name, table in (tables or {}).items()}
    with fakes:
        _to_cpu(pair)
        tables = {name: table.cpu() for name, table in tables.items()}
    with fakes, tracing(prime, clips, cuda=cuda) as trace:
        for tensor in (*pair.parameters(), *pair.buffers(), *tables.values()):
            trace.add(tensor)
        alone = Ranks(0, 1, torch.device("cpu"))
        networks = pair[0], pair[1] if len(pair) > 1 else None
        _, step = assemble(eager, *networks, tables, alone, 1 << 20, classes, parts)
        batch = fake_clips(clips, frames, size)
        if config.inputs.people is not None:  # `PeopleMasks` reads the sample numbers
            batch.per_sample["people"] = torch.empty(clips, 1, frames, size, size, dtype=torch.uint8)
        if not config.step.fused_boundary:
            batch.prepared = Prepare(eager)(batch)
        trace.mark_start()
        step(next(iter(step.inputs([batch, batch]))))
        lines = trace.lines()
    recomputes = config.step.compile != "off" and config.step.recompute and config.step.closed_layers == "off"
    recomputes = recomputes and config.method.twice_differentiable
    return MemoryPlan(
        moments=_candidates(lines.all),
        resident=_bytes(lines.start),
        saved=_bytes(lines.backwards[lines.backwards[:, 1].argmax()]),
        queue=_ahead(config, pair, lines.start, ranks, cuda),
        factor=RECOMPUTE if recomputes else 1.0,
    )


def _to_cpu(module: nn.Module) -> None:
    """Move tensors without data, whose module cannot move them itself; what is shared stays shared."""
    moved: dict[int, Tensor] = {}
    for part in module.modules():
        held: list[dict[str, Any]] = [part._parameters, part._buffers]
        for tensors in held:
            for name, tensor in tensors.items():
                if tensor is not None and tensor.device.type != "cpu":
                    if id(tensor) not in moved:
                        on_cpu = tensor.detach().cpu()
                        parameter = isinstance(tensor, nn.Parameter)
                        moved[id(tensor)] = nn.Parameter(on_cpu, tensor.requires_grad) if parameter else on_cpu
                    tensors[name] = moved[id(tensor)]


def fake_clips(clips: int, frames: int, size: int) -> Clips:
    """What the loader delivers, uninitialised."""
    number = lambda: torch.empty(clips, dtype=torch.int64)  # noqa: E731
    none = np.zeros(clips, np.int64)
    return Clips(
        frames=torch.empty(clips, frames, size, size, 3, dtype=torch.uint8),
        label=number(),
        sample=number(),
        position=number(),
        start_frame=number(),
        static_index=number(),
        flip=torch.empty(clips, dtype=torch.bool),
        draws=torch.empty(clips, 8),
        source=ClipSource(none, none, np.tile(np.array([0, 0, 1, 1], np.float32), (clips, 1))),
    )


def _ahead(config: TrainConfig, pair: nn.Module, start: np.ndarray, ranks: int, cuda: bool) -> Bytes:
    """Memory outside the step: the loader's queue, decoded frames, DDP's buckets and a checkpoint's copy."""
    prepared = int(start[1])  # the batch at hand, frames included
    frames, nvdec = 3 * config.clip.frames, cuda and config.loader.decoder != "cores"
    # the queue and the batch that is being made; DALI keeps decoded frames of each batch that it works on, on a GPU
    # whole pictures, and those that are being cut
    pipelines = loader_threads(config.loader, "cuda" if cuda else "cpu", config.batch_size // ranks).pipelines
    decoded = config.loader.depth * pipelines
    decoded = PICTURE * (decoded + 1) if nvdec else config.clip.size**2 * decoded
    queue = prepared * (config.loader.ready + 1) + frames * decoded
    copied = int(start[0]) if cuda and config.checkpoint.every else 0  # written while training goes on
    buckets = sum(p.nbytes for p in pair.parameters() if p.requires_grad) if ranks > 1 else 0
    return copied + buckets + (WORKSPACE if nvdec else 0), queue


def _candidates(live: np.ndarray) -> tuple[Bytes, ...]:
    """The moments that no other one exceeds in both numbers."""
    found: list[Bytes] = []
    for fixed, per_clip in sorted({_bytes(row) for row in live}, key=lambda row: (-row[1], -row[0])):
        if not found or fixed > found[-1][0]:
            found.append((fixed, per_clip))
    return tuple(found)


def _bytes(row: np.ndarray) -> Bytes:
    return int(row[0]), int(row[1])
