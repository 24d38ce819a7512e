"""Small runs without video files: an index, a loader whose clips are a function of the position, two tiny networks."""

import contextlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from unstill.pipeline.loading.clips import Clips, ClipSource
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, step_positions
from unstill.pipeline.shards.index import INDEX_NAME, SampleIndex
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.config import TrainConfig
from unstill.trainer.demo.circular_shift import CircularShift
from unstill.trainer.inputs.config import InputConfig
from unstill.trainer.methods import Albar
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.monitoring.config import LogConfig
from unstill.trainer.optimisers.config import OptimiserConfig
from unstill.trainer.step_config import StepConfig

SAMPLES, CLASSES, FRAMES, SIZE = 24, 4, 4, 12


def make_dataset(folder: Path) -> Path:
    """An index of 24 samples in 4 classes; there are no videos behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    types = {"u1": ("codec", "key_text"), "u2": ("gop", "width", "height"), "i8": ("mp4_offset", "key_end")}
    types |= {"i4": ("shard", "frames", "fps_milli"), "u4": ("mp4_bytes", "init_bytes", "init_crc")}
    columns = {name: np.ones(SAMPLES, kind) for kind, names in types.items() for name in names}
    columns |= {"fragment_end": np.ones(0, "u4"), "fragment_crc": np.ones(0, "u4")}
    columns |= {"fragment_row": np.zeros(SAMPLES + 1, "i8"), "label": (np.arange(SAMPLES) % CLASSES).astype("i4")}
    names = tuple(f"class {i}" for i in range(CLASSES))
    SampleIndex(**columns, shard_names=("00000.tar",), classes=names).save(folder / INDEX_NAME)
    return folder


def clips_at(positions) -> Clips:
    """The clips at some positions, each a function of its position alone."""
    rows = []
    for position in positions:
        g = torch.Generator().manual_seed(int(position))
        rows.append(
            (
                torch.randint(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=torch.uint8, generator=g),
                torch.randint(0, FRAMES, (), generator=g),
                torch.rand(8, generator=g),
            )
        )
    frames, static_index, draws = (torch.stack(column) for column in zip(*rows, strict=True))
    position = torch.as_tensor(np.asarray(positions))
    sample = position % SAMPLES
    return Clips(
        frames=frames,
        label=sample % CLASSES,
        sample=sample,
        position=position,
        start_frame=torch.zeros_like(position),
        static_index=static_index,
        flip=position % 2 == 0,
        draws=draws,
        source=ClipSource(
            sample.numpy(), np.zeros(len(sample), np.int64), np.tile(np.float32([0, 0, 1, 1]), (len(sample), 1))
        ),
    )


def loader_of(seen=None, change=None):
    """A ``make_loader`` for ``train``.

    Args:
        seen: a list that gets (step, positions) of every batch.
        change: called with (step, clips) before a batch is delivered.
    """

    @contextlib.contextmanager
    def make_loader(config, ranks, start_step, steps):
        def batches():
            for step in range(start_step, start_step + steps):
                positions = step_positions(step, config.batch_size, ranks.rank, ranks.world_size)
                clips = clips_at(positions)
                if change is not None:
                    change(step, clips)
                if seen is not None:
                    seen.append((step, positions.tolist()))
                yield clips

        yield batches()

    return make_loader


def run_config(folder: Path, **changes) -> TrainConfig:
    """10 steps of ALBAR with a penalty every second one, dropout, an average, a checkpoint every 3."""
    settings = {
        "data": folder / "data",
        "out": folder / "run",
        "model": ModelConfig(name="synthetic_run:dropout_net"),
        "method": Albar(w_adv=0.3, w_gp=0.05, gp_every=2),
        "clip": ClipConfig(frames=FRAMES, stride=1, size=SIZE),
        "augment": AugmentConfig(crop="none", static_frame="random"),
        "inputs": InputConfig(transform=CircularShift()),
        "optimiser": OptimiserConfig(lr=1e-2),
        "step": StepConfig(precision="fp32", compile="off", ema=0.9),
        "epochs": 40 / SAMPLES,
        "batch_size": 4,
        "device": "cpu",
        "memory_check": "off",  # half of such a run's time; test_memory_plan.py and the runs with videos have it
        "checkpoint": CheckpointConfig(every=3),
        "log": LogConfig(every=2),
    }
    return TrainConfig(**settings | changes)


class Net(nn.Module):
    """conv - norm - ReLU - conv - layer norm - pool - linear."""

    def __init__(
        self, classes: int, norm: nn.Module, dropout: float = 0.0, width: int = 4, act: nn.Module | None = None
    ):
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, 3, padding=1)
        self.norm = norm
        self.act = act or nn.ReLU()
        self.conv2 = nn.Conv3d(width, width, 3, stride=2)
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.act(self.norm(self.conv1(x)))
        x = self.layer_norm(self.conv2(x).movedim(1, -1))
        return self.head(self.dropout(self.act(x).mean((1, 2, 3))))


def dropout_net(classes: int) -> nn.Module:
    """Batch norm and dropout: running statistics and random draws must both resume."""
    return Net(classes, nn.BatchNorm3d(4), dropout=0.3)


def batch_norm_net(classes: int) -> nn.Module:
    """Batch norm, no dropout."""
    return Net(classes, nn.BatchNorm3d(4))


def layer_norm_net(classes: int) -> nn.Module:
    """No batch statistics."""
    return Net(classes, nn.GroupNorm(1, 4))


class ManyBuckets(nn.Module):
    """Residual layers of 70 MB in float64: four buckets of DistributedDataParallel, at 25 MB each."""

    def __init__(self, classes: int, width: int = 850, layers: int = 12):
        super().__init__()
        self.stem = nn.Conv3d(3, width, 3, stride=2)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = torch.tanh(self.stem(x).mean((2, 3, 4)))
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.head(x)


def many_buckets_net(classes: int) -> nn.Module:
    """See ``ManyBuckets``."""
    return ManyBuckets(classes)


class RandomNet(nn.Module):
    """No statistics of the batch; dropout and stochastic depth, as video transformers have them."""

    def __init__(self, classes):
        super().__init__()
        self.net, self.depth = Net(8, nn.GroupNorm(1, 4), dropout=0.3), StochasticDepth(0.4, "row")
        self.norm, self.drop, self.head = nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, classes)

    def forward(self, x):
        x = self.net(x)
        return self.head(self.drop(x + self.depth(torch.tanh(self.norm(x)))))


def random_net(classes: int) -> nn.Module:
    """See ``RandomNet``."""
    return RandomNet(classes)
