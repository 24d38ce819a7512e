"""A replaying run trains on its first batches over and over, through the same step, and says that it is no training."""

import json
import logging
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.trainer import train as loop
from unstill.trainer.build import open_loader
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig
from unstill.trainer.demo.recipes import demo_albar
from unstill.trainer.monitoring.config import LogConfig

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, STEPS, REPLAYED = 4, 7, 2


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    videos = MotionsConfig(out=folder / "videos", train=16, splits=("train",), workers=1)
    write_motions(videos)
    convert(
        ConvertConfig(source=videos.out / "train", out=folder / "data", codec="vp9", short_side=videos.size, workers=1)
    )
    return replace(
        demo_albar(),
        data=folder / "data",
        batch_size=BATCH,
        epochs=STEPS * BATCH / 16,
        checkpoint=CheckpointConfig(every=3),
        log=LogConfig(every=1),
    )


def records(config):
    lines = (config.out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_it_is_the_first_batches_repeated_by_hand_and_marked(config, tmp_path, caplog):
    @contextmanager
    def by_hand(config, ranks, start_step, steps):
        with open_loader(config, ranks, 0, REPLAYED) as loader:
            kept = [replace(clips, frames=clips.frames.clone(), prepared=None) for clips in loader]
        yield (replace(kept[step % REPLAYED], per_sample={}) for step in range(start_step, start_step + steps))

    hand = replace(config, out=tmp_path / "hand")
    loop.train(hand, make_loader=by_hand)
    replayed = replace(config, out=tmp_path / "replayed", replay=REPLAYED)
    with caplog.at_level(logging.WARNING):
        loop.train(replayed)

    losses = [[record["loss"] for record in records(run)] for run in (hand, replayed)]
    assert len(losses[0]) == STEPS and losses[0] == losses[1]  # to the bit
    assert "NOT A TRAINING" in caplog.text
    assert all(record["replayed_batches"] == REPLAYED for record in records(replayed))
    assert "replayed_batches" not in records(hand)[0]
    assert json.loads((replayed.out / "config.json").read_text())["config"]["replay"] == REPLAYED
    with pytest.raises(InputError, match="replay was 2, now 0"):  # a training never goes on from a measurement
        loop.train(replace(replayed, replay=0))


@pytest.mark.slow
def test_a_stopped_measurement_continues_with_the_same_batches(config, tmp_path):
    whole = replace(config, out=tmp_path / "whole", replay=REPLAYED)
    loop.train(whole)
    parts = replace(whole, out=tmp_path / "parts")
    with pytest.raises(loop.Preempted):
        loop.train(replace(parts, stop_after=3))
    loop.train(parts)
    assert [record["loss"] for record in records(parts)] == [record["loss"] for record in records(whole)]


def test_it_reads_and_decodes_once(config, tmp_path):
    ranks = loop.Ranks(0, 1, torch.device("cpu"))
    seen = []
    with open_loader(replace(config, out=tmp_path, replay=REPLAYED), ranks, 0, STEPS) as loader:
        assert len(loader) == STEPS
        for clips in loader:
            seen.append(clips.position.tolist())
            stats = (loader.stats.bytes_read, loader.stats.frames_decoded)
            if len(seen) == REPLAYED:
                once = stats
    assert stats == once and once[1] == REPLAYED * BATCH * config.clip.frames
    assert seen == [np.arange(BATCH * (step % 2), BATCH * (step % 2 + 1)).tolist() for step in range(STEPS)]


def test_a_negative_number_is_refused(config):
    with pytest.raises(InputError, match="replay is -1"):
        replace(config, replay=-1)
