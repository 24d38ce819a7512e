"""``unstill transfer``: the probe's choice of penalty, splits and their mean, fine-tuned runs, sets that do not fit."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.cli.main import run
from unstill.trainer.diagnostics.clip_features import ClipFeatures
from unstill.trainer.downstream.transfer.config import TransferConfig
from unstill.trainer.downstream.transfer.evaluation import known_by_probe, source_of
from unstill.trainer.inference.classifier import WEIGHTS, Facts
from unstill.trainer.models.registry import build_model
from unstill.trainer.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")


def features(prefix: str, count: int, classes=("a", "b"), noise=0.3, seed=0) -> ClipFeatures:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(classes)
    values = random.normal(0, noise, (count, 8))
    values[:, 0] += [ord(classes[label]) - ord("a") for label in labels]
    keys = tuple(f"{prefix}_g{n // 2:02}_c{n % 2:02}" for n in range(count))
    return ClipFeatures(keys, labels, tuple(classes), {("filmed", "penultimate"): values.astype(np.float32)})


def test_the_probe_reads_the_class_and_maps_class_names():
    train, test = features("train", 60), features("test", 40, seed=1)
    known, penalty = known_by_probe(train, test, "penultimate")
    assert known.mean() > 0.85 and penalty > 0
    swapped = features("test", 40, classes=("b", "a"), seed=1)  # the test set numbers its classes otherwise
    assert known_by_probe(train, swapped, "penultimate")[0].mean() > 0.85


def test_noise_is_penalised_more():
    wide = features("train", 60, noise=3.0), features("test", 60, noise=3.0, seed=1)
    narrow = features("train", 60, noise=0.05), features("test", 60, noise=0.05, seed=1)
    assert known_by_probe(*wide, "penultimate")[1] > known_by_probe(*narrow, "penultimate")[1]


def test_sets_that_do_not_fit_are_refused():
    train = features("train", 60)
    for test, says in (
        (features("test", 10, classes=("a", "c")), "class 'c' of the test set"),
        (features("train", 10), "10 videos are in training and test, first train_g00_c00"),
    ):
        with pytest.raises(InputError, match=says):
            known_by_probe(train, test, "penultimate")
    with pytest.raises(InputError, match="of 4 sources"):
        known_by_probe(features("train", 8), features("test", 8), "penultimate")


def test_clips_of_one_source_stay_together():
    one, other = (source_of(f"Archery_v_Archery_g01_c{n}", "Archery") for n in ("03", "12"))
    assert one == other == "Archery_v_Archery_g01"
    assert source_of("clap_Movie_clap_u_nm_np1_fr_med_12", "clap") == "clap_Movie_clap_u_nm_np1_fr_med"
    assert source_of("Brush_hair_000012", "Brush hair") == "Brush_hair_000012"  # a number, not one of a clip


def test_one_set_or_run_for_each_split():
    splits = {"test": (Path("t1"), Path("t2"))}
    with pytest.raises(InputError, match="1 data sets in --train, 2 in --test"):
        TransferConfig(models=("m",), train=(Path("a"),), **splits)
    with pytest.raises(InputError, match="1 fine-tuned runs, 2 splits"):
        TransferConfig(models=("m",), fine_tuned=True, **splits)


def test_finetune_recipes_start_from_the_run_that_is_given():
    for name in ("ucf101", "hmdb51", "diving48"):
        recipe = RECIPES[f"{name}_finetune"]()
        assert recipe.model.weights == "none" and name in str(recipe.data) and recipe.clip.frames == 16


@pytest.mark.slow
def test_two_splits_from_videos_to_their_mean(tmp_path, capsys):
    """Red videos and green ones: any network's features tell them apart, its own last layer does not."""
    for split in ("one", "two"):
        for number in range(12):
            colour = number % 2
            folder = tmp_path / split / "rg"[colour]
            folder.mkdir(parents=True, exist_ok=True)
            with av.open(str(folder / f"v_{split}_g{number:02}_c01.mp4"), "w") as container:
                stream = container.add_stream("libx264", rate=30)
                stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
                picture = np.full((48, 48, 3), 60 + number, np.uint8)
                picture[..., colour] = 200
                for _ in range(8):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode())
        convert(ConvertConfig(source=tmp_path / split, out=tmp_path / f"{split}_shards", codec="h264", short_side=48))
    torch.manual_seed(0)
    network = build_model("motion_cnn", 2)
    clip = ClipConfig(frames=4, stride=1, size=24)
    (tmp_path / "model").mkdir()
    Facts("motion_cnn", ("g", "r"), clip, (0.4,) * 3, (0.2,) * 3).save(tmp_path / "model")
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    state["head.weight"] = torch.zeros_like(state["head.weight"])
    state["head.bias"] = torch.tensor([0.0, 1.0])  # says "r" of everything
    save_file(state, tmp_path / "model" / WEIGHTS)
    one, two, model = (str(tmp_path / name) for name in ("one_shards", "two_shards", "model"))
    out = tmp_path / "out" / "probe.json"
    splits = ["--train", one, two, "--test", two, one]
    assert run(["transfer", model, *splits, "--device", "cpu", "--out", str(out)]) == 0
    (result,) = json.loads(out.read_text())["results"]
    assert result["accuracy"] == [1.0, 1.0] and result["mean"] == 1.0
    assert (
        run(["transfer", model, model, "--fine-tuned", "--test", one, two, "--device", "cpu", "--out", str(out)]) == 0
    )
    assert json.loads(out.read_text())["results"][0]["accuracy"] == [0.5, 0.5]
    assert "50.0" in capsys.readouterr().out
