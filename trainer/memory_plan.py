"""The memory of a training step, known before the first one.

    plan = plan_memory(config, model, classes=51)
    plan.peak(16)                    # bytes, with 16 clips in a process
    plan.largest_batch(80 * 2**30)   # clips
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from ..pipeline.loading.clips import Clips
from .build import assemble
from .config import TrainConfig
from .distributed import Ranks
from .inputs.prepare import Prepare
from .memory_trace import prime_for, tracing

PARTS = 12  # the traced batch divides into any usual number of parts


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a training step as functions of the clips in a process.

    Attributes:
        lines: (fixed, per_clip) of the moments that can be the peak: ``fixed + clips * per_clip``.
        resident: (fixed, per_clip) between two steps: weights, their average, optimiser state, and the next batch.
        saved: (fixed, per_clip) when a backward starts, the one with most per clip.
        queue: (fixed, per_clip) of what the loader prepares ahead.
        factor: of a compiled step's memory per clip to an eager one's; 1 where it is eager.
    """

    lines: tuple[tuple[int, int], ...]
    resident: tuple[int, int]
    saved: tuple[int, int]
    queue: tuple[int, int]
    factor: float = 1.0

    def peak(self, clips: int) -> float:
        """Largest number of bytes that live at once."""
        fixed, per_clip = self.queue
        return max(a + clips * b * self.factor for a, b in self.lines) + fixed + clips * per_clip

    @property
    def per_clip(self) -> float:
        """Bytes that one more clip costs, where there are many."""
        return max(b for _, b in self.lines) * self.factor + self.queue[1]

    def largest_batch(self, memory: float) -> int:
        """Most clips whose peak fits into ``memory`` bytes; 0 where none does."""
        clips = 0
        for a, b in self.lines:
            room, slope = memory - a - self.queue[0], b * self.factor + self.queue[1]
            most = room / slope if slope else (float("inf") if room >= 0 else -1)
            clips = most if not clips else min(clips, most)
        return max(0, int(clips))


def plan_memory(
    config: TrainConfig,
    model: nn.Module,
    extra: nn.Module | None = None,
    tables: dict[str, Tensor] | None = None,
    *,
    classes: int,
    cuda: bool | None = None,
) -> MemoryPlan:
    """Trace one step of the run on fake tensors.

    Args:
        config: the run's.
        model: the network as it is trained; it is copied without its values.
        extra, tables: see ``assembly.assemble``.
        classes: number of classes.
        cuda: count as a GPU would; by default where ``config.device`` is one.
    """
    cuda = config.device == "cuda" if cuda is None else cuda
    eager = replace(config, device="cpu", step=replace(config.step, compile="off", deterministic=False))
    frames, size = config.clip.frames, config.clip.size
    tensors = [*model.parameters(), *model.buffers(), *(() if extra is None else (*extra.parameters(), *extra.buffers()))]
    prime = prime_for({frames, size, classes, *(t.numel() for t in tensors)})
    clips = prime * PARTS * config.step.accumulate
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(fakes):
        pair = copy.deepcopy(nn.ModuleList([model] if extra is None else [model, extra]))
        tables = {name: copy.deepcopy(table) for name, table in (tables or {}).items()}
    with fakes, tracing(prime, clips, cuda=cuda) as trace:
        for tensor in (*pair.parameters(), *pair.buffers(), *tables.values()):
            trace.add(tensor)
        ranks = Ranks(0, 1, torch.device("cpu"))
        state, update = assemble(eager, pair[0], None if extra is None else pair[1], tables, ranks, 1 << 20, classes)
        batch = fake_clips(clips, frames, size)
        if not config.step.fused_boundary:
            batch.prepared = Prepare(eager)(batch)
        trace.mark_start()
        update(batch, batch if config.step.fused_boundary else None)
        lines = trace.lines()
    saved = lines.backwards[lines.backwards[:, 1].argmax()]
    return MemoryPlan(_candidates(lines.all), tuple(lines.start.tolist()), tuple(saved.tolist()), (0, 0))


def fake_clips(clips: int, frames: int, size: int) -> Clips:
    """What the loader delivers, with nothing in it."""
    whole = lambda: torch.empty(clips, dtype=torch.int64)  # noqa: E731
    return Clips(
        frames=torch.empty(clips, frames, size, size, 3, dtype=torch.uint8),
        label=whole(),
        sample=whole(),
        position=whole(),
        start_frame=whole(),
        static_index=whole(),
        flip=torch.empty(clips, dtype=torch.bool),
        draws=torch.empty(clips, 8),
        region=torch.empty(clips, 4),
    )


def _candidates(live: np.ndarray) -> tuple[tuple[int, int], ...]:
    """The moments that no other one exceeds in both numbers."""
    found: list[tuple[int, int]] = []
    for fixed, per_clip in sorted({tuple(row) for row in live.tolist()}, key=lambda row: (-row[1], -row[0])):
        if not found or fixed > found[-1][0]:
            found.append((fixed, per_clip))
    return tuple(found)
