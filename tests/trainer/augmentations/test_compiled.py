"""Augmentations compiled by ``--step.compile``: the same clips to the bit, and no draw compiles anything again."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_run import CLASSES, SAMPLES, clips_at, run_config
from torch._dynamo.utils import counters

from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.trainer.augmentations import ActorCutMix, BackgroundErasing, Mixup, RandAugment, StillMix, VideoMix
from unstill.trainer.augmentations.base import Context
from unstill.trainer.batch import Batch
from unstill.trainer.build import build
from unstill.trainer.distributed import Ranks
from unstill.trainer.methods import Baseline
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.step_config import StepConfig

LAYOUTS = {RandAugment: torch.channels_last_3d}
EAGER = Context(5, (0.43, 0.39, 0.35), (0.22, 0.21, 0.25))


def batch(n: int, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format) -> Batch:
    generator = torch.Generator().manual_seed(n)
    motion = torch.randn(n, 3, 4, 12, 10, generator=generator).to(dtype).contiguous(memory_format=layout)
    people = (torch.rand(n, 1, 4, 12, 10, generator=generator) < 0.3).to(torch.uint8)
    return Batch(motion, None, torch.arange(n) % 5, per_sample={"people": people})


@pytest.mark.slow
@pytest.mark.parametrize(
    "augmentation",
    [Mixup(), VideoMix(), BackgroundErasing(), StillMix(), ActorCutMix(), RandAugment()],
    ids=lambda a: a.title,
)
@pytest.mark.usefixtures("one_thread")
def test_compiled_is_eager_to_the_bit(augmentation):
    compiled = replace(EAGER, compile=True)

    def equal(given: Batch, seed: int) -> None:
        if not augmentation.needs_people:
            given = replace(given, per_sample={})
        ours, theirs = (augmentation(given, np.random.default_rng(seed), context) for context in (compiled, EAGER))
        assert torch.equal(ours.motion, theirs.motion)
        torch.testing.assert_close(ours.target, theirs.target, rtol=0, atol=1e-6)  # shares of people are sums
        assert ours.motion.dtype == given.motion.dtype and ours.motion.stride() == theirs.motion.stride()

    given = batch(6, torch.bfloat16, LAYOUTS.get(type(augmentation), torch.contiguous_format))
    equal(given, 0)
    graphs = counters["stats"]["unique_graphs"]
    for seed in range(1, 6):
        equal(given, seed)
    assert counters["stats"]["unique_graphs"] == graphs  # random parameters are tensors
    if isinstance(augmentation, Mixup):
        for n in range(3, 13):  # dynamo refuses the ninth form of a function
            equal(batch(n, torch.bfloat16), n)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_compiled_run_compiles_its_augmentation_and_says_so(tmp_path, caplog):
    data = DatasetInfo(samples=SAMPLES, classes=tuple(map(str, range(CLASSES))), digest="")
    losses = []
    for form in ("off", "default"):
        config = run_config(
            tmp_path,
            model=ModelConfig(name="synthetic_run:layer_norm_net"),
            method=Baseline(),
            augmentation=Mixup(prob=1.0),
            step=StepConfig(precision="fp32", compile=form),
        )
        state, step = build(config, data, Ranks(0, 1, torch.device("cpu")), 10)
        with caplog.at_level(logging.INFO):
            step(clips_at(range(4)))
        losses.append(state.meter.take()["loss"])
        assert sum("compiling" in record.message for record in caplog.records) == 2 * (form == "default")
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
