"""Time of a training step of several recipes, measured in turns in one process: CPU time, or on a GPU wall clock."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import torch

from ...pipeline.shards.dataset_info import DatasetInfo
from ...trainer.build import build
from ...trainer.config import TrainConfig
from ...trainer.demo.motions.world import CLASSES
from ...trainer.distributed import Ranks
from ...trainer.inputs.prepare import Prepare
from ...trainer.memory_plan import fake_clips

PERIOD = 4  # the penalty is taken every 4th step, so only means over complete periods can be compared


def step_seconds(recipes: Mapping[str, TrainConfig], steps: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of a step of each recipe on random clips; the recipes take turns step by step.

    Args:
        recipes: by name.
        steps: of each; the first ``PERIOD`` only warm up.
        device: cpu, where the seconds are CPU time of one thread, or cuda, where they are wall clock.

    Returns:
        For each recipe the mean over each ``PERIOD`` of steps, in order: numbers at one place are of the same time.
    """
    gpu, threads = device == "cuda", torch.get_num_threads()
    clock = time.perf_counter if gpu else time.process_time
    torch.set_num_threads(1)
    calls = {name: _step(replace(recipe, device=device), steps) for name, recipe in recipes.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(steps):
        for name, call in calls.items():
            began = clock()
            call()
            if gpu:
                torch.cuda.synchronize()
            if turn >= PERIOD:
                times[name].append(clock() - began)
    torch.set_num_threads(threads)
    return {
        name: [statistics.fmean(own[i : i + PERIOD]) for i in range(0, len(own) - PERIOD + 1, PERIOD)]
        for name, own in times.items()
    }


def _step(recipe: TrainConfig, steps: int) -> Callable[[], None]:
    """A training step of a recipe on random clips, prepared as the loader does."""
    torch.manual_seed(0)
    data = DatasetInfo(samples=1024, classes=CLASSES, digest="")
    device = torch.device(recipe.device)
    _, step = build(recipe, data, Ranks(0, 1, device), steps + 1)
    clips = fake_clips(recipe.batch_size, recipe.clip.frames, recipe.clip.size)
    clips.frames.random_(0, 256)
    clips.label = torch.arange(recipe.batch_size) % len(CLASSES)
    clips.static_index = torch.arange(recipe.batch_size) % recipe.clip.frames
    clips.flip.zero_()
    clips.draws.uniform_()
    for each in fields(clips):
        if torch.is_tensor(value := getattr(clips, each.name)):
            setattr(clips, each.name, value.to(device))
    clips.prepared = Prepare(recipe)(clips)
    return lambda: step(clips)
