"""The bank of stills: which frames are kept, and that a run can use it."""

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.trainer.augmentations.stillmix import read_bank
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.config import TrainConfig
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig
from unstill.trainer.demo.recipes import demo_baseline
from unstill.trainer.diagnostics.config import StillBankConfig
from unstill.trainer.diagnostics.still_bank import build_still_bank, most_certain
from unstill.trainer.methods import Baseline
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.train import train


def test_the_upper_quantiles_are_kept():
    p = np.array([0.1, 0.9, 0.5, 0.5, 0.3])
    assert most_certain(p, 0.4).tolist() == [1, 2, 3] and most_certain(p, 0.0).tolist() == [0, 1, 2, 3, 4]
    assert most_certain(p, 0.99).tolist() == [1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("motions")
    (folder,) = write_motions(MotionsConfig(out=root / "videos", test=16, splits=("iid",), workers=1)).values()
    convert(ConvertConfig(source=folder, out=root / "iid", codec="vp9", short_side=64, workers=1))
    return root / "iid"


def test_random_bank(tmp_path, data):
    config = StillBankConfig(data=data, out=tmp_path / "bank.safetensors", stills=10, every=3, size=32, device="cpu")
    stills = load_file(build_still_bank(config))["stills"]
    assert stills.shape == (10, 3, 32, 32) and stills.dtype == torch.uint8
    assert len(stills.flatten(1).unique(dim=0)) == 10
    assert torch.equal(load_file(build_still_bank(config))["stills"], stills)
    assert read_bank(config.out, (16, 16)).shape == (10, 3, 16, 16)  # resized to the clips


@pytest.mark.slow
def test_bank_of_a_reference_network(tmp_path, data, one_thread):
    recipe = demo_baseline()
    reference = TrainConfig(
        data=data,
        out=tmp_path / "reference",
        model=ModelConfig(name="unstill.trainer.models.frame_net:resnet18"),
        method=Baseline(),
        clip=type(recipe.clip)(frames=1, stride=1, size=32),
        step=recipe.step,
        epochs=1,
        batch_size=8,
        device="cpu",
        checkpoint=CheckpointConfig(every=0),
    )
    train(reference)
    config = StillBankConfig(
        data=data,
        out=tmp_path / "bank.safetensors",
        reference=tmp_path / "reference",
        tau=0.75,
        stills=99,
        every=4,
        size=32,
        device="cpu",
    )
    stills = load_file(build_still_bank(config))["stills"]
    with open(tmp_path / "bank.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32 and len(stills) == 8  # a quarter of 32 frames: numbers 0 and 4 of 16 videos
    assert [row["frame"] for row in rows] == ["0", "4"] * 16
    assert all(0 < float(row["p_class"]) <= float(row["p_max"]) <= 1 for row in rows)
    with pytest.raises(InputError, match="tau is 1"):
        StillBankConfig(data=data, out=tmp_path / "x", tau=1.0)
