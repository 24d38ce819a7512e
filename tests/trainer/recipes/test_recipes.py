"""Recipes run from real shards through the real loader, scaled down; what they promise of the paper is in them."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.checkpoints.files import pointed
from unstill.trainer.config import from_dict, to_dict
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.recipes import RECIPES
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Eight VP9 videos of 12 frames of 64x64 in two classes."""
    root = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for number in range(8):
        path = root / "videos" / ("left", "right")[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libvpx-vp9", rate=12, options={"deadline": "realtime", "cpu-used": "8"})
            stream.width = stream.height = 64
            for shift in range(12):
                frame = np.roll(picture, shift * (4 if number % 2 else -4), 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        path.write_bytes(file.getvalue())
    convert(ConvertConfig(source=root / "videos", out=root / "data", codec="vp9", short_side=64, gop=4, workers=1))
    return root / "data"


def test_each_recipe_says_in_one_line_what_it_is():
    for name, recipe in RECIPES.items():
        assert recipe.__doc__.split("\n")[0].endswith("."), name


SMALL = {
    "device": "cpu",
    "batch_size": 2,
    "epochs": 0.5,
    "step": StepConfig(precision="fp32", compile="off"),
    "checkpoint": CheckpointConfig(every=1),
}


# hmdb51_albar has the same one: once is enough of its 28 million weights
SMALL_NETWORK = {"kinetics400_baseline": "motion_cnn"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo_albar", "hmdb51_albar", "kinetics400_baseline", "choi_r3d18"])
def test_a_recipe_trains_from_shards(name, dataset, tmp_path):
    recipe = RECIPES[name]()
    config = replace(
        recipe,
        data=dataset,
        out=tmp_path / "run",
        validation=dataset,
        clip=replace(recipe.clip, frames=8, size=32),
        model=ModelConfig(name=SMALL_NETWORK.get(name, recipe.model.name)),
        **SMALL,
    )
    result = train(config)
    assert result.steps == 2
    _, saved, classes = load_model(result.checkpoint)
    assert classes == ["left", "right"] and to_dict(saved) == to_dict(config)
    lines = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    scores = [line["validation"] for line in lines if "validation" in line]
    assert len(scores) == 2 and all(score in np.arange(9) * 12.5 for score in scores)
    best = pointed(tmp_path / "run" / "checkpoints", "best").name
    assert best == f"step-{1 + (scores[1] > scores[0]):08d}"
    record = next(line for line in lines if "loss" in line)
    assert (
        np.isfinite(record["loss"]) and ("static_ce" in record) == ("albar" in name) and 0 <= record["data_wait"] <= 1
    )


def test_every_recipe_survives_being_written_down():
    for name, recipe in RECIPES.items():
        config = recipe()
        assert from_dict(json.loads(json.dumps(to_dict(config)))) == config, name
        assert config.out.name == name and recipe.__doc__


def test_the_papers_settings():
    albar, baseline = RECIPES["hmdb51_albar"](), RECIPES["hmdb51_baseline"]()
    method = albar.method
    assert (method.w_adv, method.w_ent, method.w_gp, method.gp_norm) == (1.0, 4.25, 10.0, "per_column")
    assert (method.gp_scalar, method.gp_every, method.forward) == ("logits_sum", 1, "two")
    assert (albar.clip.frames, albar.clip.stride, albar.clip.size) == (32, 2, 224)
    assert (albar.optimiser.name, albar.optimiser.lr, albar.optimiser.weight_decay) == ("adamw", 1e-5, 0.05)
    assert (albar.epochs, albar.model.name, albar.model.weights) == (50, "swin3d_t", "kinetics400")
    assert replace(albar, method=baseline.method, out=baseline.out) == baseline  # equal except for the method
    assert albar.step.precision == "fp32"  # as Accelerate's default, with which its code runs


def test_the_rows_of_stillmixs_table_have_its_authors_settings():
    """Of its configurations for Swin-T from Kinetics-400 weights on HMDB51."""
    shares = {"mixup": 0.75, "videomix": 0.25, "be": 0.25, "actor_cutmix": 0.25, "fame": 0.5, "stillmix": 0.75}
    for method in (*shares, "sdn", "two_streams"):
        recipe = RECIPES[f"hmdb51_{method}"]()
        optimiser = recipe.optimiser
        assert optimiser.lr * optimiser.head_lr == pytest.approx(3.75e-4) and optimiser.lr == pytest.approx(3.75e-5)
        assert (optimiser.weight_decay, optimiser.no_decay) == (0.05, ("norm", "relative_position_bias_table"))
        assert (recipe.epochs, recipe.schedule.warmup_epochs, recipe.batch_size) == (30, 2.5, 12)
        assert (recipe.model.head_dropout, recipe.step.precision) == (0.5, "fp32")
        if method in shares:
            assert recipe.augmentation.prob == shares[method]


@pytest.mark.slow
def test_a_run_whose_terminal_is_gone_goes_on(dataset, tmp_path, monkeypatch):
    # no terminal, a narrow one, and a standard error that was closed: the run must not care
    monkeypatch.setenv("COLUMNS", "20")
    closed = open(os.devnull, "w")
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    config = replace(RECIPES["demo_albar"](), data=dataset, out=tmp_path / "run", **SMALL)
    assert train(config).steps == 2
