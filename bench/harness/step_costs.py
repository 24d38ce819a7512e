"""CPU time of a training step of several recipes, measured in turns in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from ...pipeline.shards.dataset_info import DatasetInfo
from ...trainer.build import build
from ...trainer.config import TrainConfig
from ...trainer.demo.motions.world import CLASSES
from ...trainer.distributed import Ranks
from ...trainer.inputs.prepare import Prepare
from ...trainer.memory_plan import fake_clips

PERIOD = 4  # the penalty is taken every 4th step, so only means over complete periods can be compared


def step_seconds(recipes: Mapping[str, TrainConfig], steps: int) -> dict[str, list[float]]:
    """CPU seconds of a step of each recipe on random clips, one thread; the recipes take turns step by step.

    Args:
        recipes: by name.
        steps: of each; the first ``PERIOD`` only warm up.

    Returns:
        For each recipe the mean over each ``PERIOD`` of steps, in order: numbers at one place are of the same time.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    calls = {name: _step(recipe, steps) for name, recipe in recipes.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(steps):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if turn >= PERIOD:
                times[name].append(time.process_time() - began)
    torch.set_num_threads(threads)
    return {
        name: [statistics.fmean(own[i : i + PERIOD]) for i in range(0, len(own) - PERIOD + 1, PERIOD)]
        for name, own in times.items()
    }


def _step(recipe: TrainConfig, steps: int) -> Callable[[], None]:
    """A training step of a recipe on random clips, prepared as the loader does."""
    torch.manual_seed(0)
    data = DatasetInfo(samples=1024, classes=CLASSES, digest="")
    recipe = replace(recipe, device="cpu")
    _, step = build(recipe, data, Ranks(0, 1, torch.device("cpu")), steps + 1)
    clips = fake_clips(recipe.batch_size, recipe.clip.frames, recipe.clip.size)
    clips.frames.random_(0, 256)
    clips.label = torch.arange(recipe.batch_size) % len(CLASSES)
    clips.static_index = torch.arange(recipe.batch_size) % recipe.clip.frames
    clips.flip.zero_()
    clips.draws.uniform_()
    clips.prepared = Prepare(recipe)(clips)
    return lambda: step(clips)
