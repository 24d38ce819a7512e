"""The learning rate of a batch: what it is, where it is applied, and that a run says so."""

import json
import logging
from dataclasses import replace

import pytest
from synthetic_run import loader_of, make_dataset, run_config

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import AugmentConfig
from unstill.trainer.optimisers.batch_rule import at_batch, base_rate
from unstill.trainer.optimisers.config import OptimiserConfig
from unstill.trainer.optimisers.schedule import ScheduleConfig
from unstill.trainer.train import train


def test_the_rate_follows_the_batch():
    linear = OptimiserConfig(lr=1e-3, lr_batch=256)
    root = replace(linear, lr_rule="root")
    assert base_rate(linear, 32) == pytest.approx(1.25e-4) and base_rate(linear, 2048) == pytest.approx(8e-3)
    assert base_rate(root, 4096) == pytest.approx(4e-3) and base_rate(OptimiserConfig(lr=0.3), 7) == 0.3
    for config in (linear, root):  # applied twice it is applied once
        assert at_batch(at_batch(config, 1024), 1024) == at_batch(config, 1024)
    with pytest.raises(InputError, match="lr_batch"):
        OptimiserConfig(lr_batch=0)


def test_a_run_trains_at_the_rate_of_its_batch_and_says_so(tmp_path, caplog):
    make_dataset(tmp_path / "data")
    augment = AugmentConfig(crop="none", static_frame="random", repeats=2)
    config = run_config(
        tmp_path,
        optimiser=OptimiserConfig(lr=1e-2, lr_batch=16, head_lr=3.0),
        schedule=ScheduleConfig(kind="constant", warmup_epochs=0.25),
        augment=augment,
        epochs=0.5,  # 24 videos twice: 6 steps of 4 clips
        batch_size=4,
    )
    with caplog.at_level(logging.INFO, logger="unstill"):
        assert train(config, make_loader=loader_of()).steps == 6
    said = "2 clips of each video, adamw at 0.0025 (0.01 for 16 clips) after 0.25 epochs of warm-up"
    assert said in caplog.text
    assert json.loads((config.out / "config.json").read_text())["learning_rate"] == pytest.approx(2.5e-3)
    records = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    rates = [record["lr"] for record in records if "lr" in record]
    assert rates == pytest.approx([2.5e-3 * 2 / 3, 2.5e-3, 2.5e-3])
    epochs = [record["epoch"] for record in records if "epoch" in record]
    assert epochs[-1] == pytest.approx(0.5)


def test_a_video_does_not_fall_into_two_batches(tmp_path):
    with pytest.raises(InputError, match=r"batch_size 4: not a multiple of augment\.repeats 3"):
        run_config(tmp_path, augment=AugmentConfig(crop="none", static_frame="random", repeats=3))
