"""From long videos as files to numbers, by the commands that a user types."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.cli.main import run
from unstill.trainer.demo.motions.boxes import largest_box
from unstill.trainer.demo.motions.long_files import write_long_videos
from unstill.trainer.demo.motions.long_videos import LongMotionsConfig, long_video
from unstill.trainer.downstream.detection.tubes import read_tubes
from unstill.trainer.inference.classifier import WEIGHTS, Facts
from unstill.trainer.models.registry import build_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    network = build_model("motion_cnn", 4)
    clip = ClipConfig(frames=8, stride=1, size=32)
    Facts("motion_cnn", tuple("abcd"), clip, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)).save(folder)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)
    return str(folder)


def converted(videos, out, *options):
    how = ["--codec", "vp9", "--short-side", "32", "--workers", "1", "--sandbox", "off"]
    assert run(["convert", str(videos / "videos"), str(out), *how, *options]) == 0
    return str(out)


def features(model, data, out, stride):
    how = ["--window", "8", "--stride", stride, "--names", "video", "--device", "cpu"]
    assert run(["features", model, data, str(out), *how]) == 0
    return str(out)


@pytest.mark.slow
def test_anomalies_of_video_files(model, tmp_path):
    config = LongMotionsConfig(task="anomaly", frames=128, size=32)
    write_long_videos(config, tmp_path / "v", train=6, test=2)
    found = features(model, converted(tmp_path / "v", tmp_path / "data"), tmp_path / "f", "8")
    lists = ["--train-list", str(tmp_path / "v" / "train.txt"), "--truth", str(tmp_path / "v" / "truth.txt")]
    few = ["--truth-fps", "8", "--steps", "5", "--seeds", "0", "--resamples", "5", "--device", "cpu"]
    assert run(["anomaly", found, *lists, *few, "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "anomaly.json").read_text())
    turns = sum(part.end - part.first for k in (0, 1) for part in long_video(config, "free", k)[2].abnormal())
    assert record["test_frames"] == 4 * 128 and record["abnormal_frames"] == 2 * turns > 0


@pytest.mark.slow
def test_actions_in_time_and_space_of_video_files(model, tmp_path, capsys):
    config = LongMotionsConfig(task="detection", frames=64, size=32)
    videos = tmp_path / "v"
    write_long_videos(config, videos, train=6, test=3)
    found = features(model, converted(videos, tmp_path / "data"), tmp_path / "f", "2")
    few = ["--epochs", "1", "--seeds", "0", "--channels", "8", "--timelines", "1", "--device", "cpu"]
    assert run(["localise", found, str(videos / "annotations.json"), str(tmp_path / "located"), *few]) == 0
    assert json.loads((tmp_path / "located" / "localisation.json").read_text())["mean_over_seeds"]
    sets = {
        name: converted(videos, tmp_path / name, "--only", f"{videos}/{name}_videos.txt") for name in ("train", "test")
    }
    options = ["--truth", str(videos / "boxes.csv"), "--truth-fps", "8", "--device", "cpu"]
    command = ["detect", "fit", model, "--train", sets["train"], "--test", sets["test"], *options]
    assert run([*command, "--out", str(tmp_path / "detected")]) == 0
    (record,) = json.loads((tmp_path / "detected" / "detect.json").read_text())["models"].values()
    assert 0 < record["frame_map"]["mean"]["0.5"] <= 1
    (detections,) = (tmp_path / "detected").glob("detections_0*.csv")
    assert run(["detect", "score", str(detections), str(detections)]) == 0  # what it wrote is what it reads


def test_boxes_are_around_the_actor_in_its_actions(tmp_path):
    config = LongMotionsConfig(task="detection", frames=64, size=32)
    write_long_videos(config, tmp_path / "v", train=2, test=1)
    tubes = read_tubes(tmp_path / "v" / "boxes.csv")
    assert not tubes.pixels
    _, mask, happens = long_video(config, "train", 1)
    own = [tube for tube in tubes.tubes if tube.video.endswith("train_0001")]
    assert [(t.frames[0], t.frames[-1] + 1) for t in own] == [
        (part.first, part.end) for part in happens.parts if part.motion is not None
    ]
    for tube in own:
        for frame, box in zip(tube.frames, np.rint(tube.boxes * 32).astype(int), strict=True):
            assert tuple(box) == largest_box(mask[frame] >= 128)
            left, top, right, bottom = box
            assert (mask[frame, top:bottom, left:right] >= 128).sum() >= 0.25 * (mask[frame] >= 128).sum()
    with pytest.raises(InputError, match="of other settings"):
        write_long_videos(config, tmp_path / "v", train=3, test=1)
