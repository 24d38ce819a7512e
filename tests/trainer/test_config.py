"""Configurations as files: what other versions wrote, and what an untrusted file may say."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.checkpoints.checkpoint import read_record
from unstill.trainer.config import from_dict, to_dict
from unstill.trainer.recipes import RECIPES

SAVED = sorted((Path(__file__).parent / "saved_runs").glob("*_0.1.json"))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_what_version_0_1_saved_is_read_as_the_same_run(path):
    config, classes, digest = read_record(path)
    today = RECIPES[path.stem.removesuffix("_0.1")]()
    # what was saved stays: today the device and the number of pipelines of the loader are automatic
    device = "cpu" if path.stem.startswith("demo") else "cuda"
    # ... and the recipes of papers whose code computes in float32 do so
    step = replace(today.step, precision=config.step.precision)
    assert config.step.precision == ("fp32" if device == "cpu" else "bf16")
    # ... and say for how many clips their learning rate is
    optimiser = replace(today.optimiser, lr_batch=None)
    if path.stem == "demo_albar_sdn_0.1":  # ... and this one's weight was tuned
        today = replace(today, method=replace(today.method, w_adv=0.3))
    today = replace(today, device=device, step=step, optimiser=optimiser, loader=replace(today.loader, pipelines=1))
    if path.stem.startswith("demo"):  # its tuning has chosen another weight since
        today = replace(today, method=replace(today.method, w_adv=config.method.w_adv))
    assert config == today
    assert classes == ["left", "right"] and len(digest) == 64
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    "kind", ["os:system", "unstill.trainer.config:TrainConfig", "antigravity:X", "unstill.no:X", "X"]
)
def test_a_config_file_names_no_other_code_than_transforms(kind):
    plain = to_dict(RECIPES["demo_albar"]())
    plain["inputs"]["transform"] = {"kind": kind}
    with pytest.raises(InputError, match=r"inputs\.transform"):
        from_dict(plain)
    assert "this" not in sys.modules


def test_an_unknown_field_is_named():
    plain = to_dict(RECIPES["hmdb51_albar"]())
    with pytest.raises(InputError, match=r"unknown field clip\.speed"):
        from_dict(plain | {"clip": plain["clip"] | {"speed": 2}})
    assert from_dict(plain) == replace(from_dict(plain))
