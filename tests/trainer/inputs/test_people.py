"""Masks of people follow the clips through time, crop, roll and flip."""

import json

import numpy as np
import pytest
import torch
from synthetic_run import FRAMES, SIZE, clips_at, loader_of, make_dataset, run_config

from unstill.kernels import clip_prep
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.clips import ClipSource
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.pipeline.shards.index import INDEX_NAME, SampleIndex
from unstill.trainer.augmentations import ActorCutMix
from unstill.trainer.demo.circular_shift import CircularShift
from unstill.trainer.inputs.config import InputConfig
from unstill.trainer.inputs.people import PeopleMasks
from unstill.trainer.methods import Sdn
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path):
    folder = make_dataset(tmp_path / "data")
    columns = {name: np.array(value) for name, value in vars(SampleIndex.load(folder)).items() if name != "classes"}
    del columns["shard_names"]
    keys = "".join(f"v{n:02}" for n in range(24)).encode()
    columns |= {"key_text": np.frombuffer(keys, "u1"), "key_end": 3 * np.arange(1, 25), "frames": np.full(24, 9, "i4")}
    index = SampleIndex(**columns, shard_names=("00000.tar",), classes=tuple(f"class {i}" for i in range(4)))
    index.save(folder / "new")
    (folder / "new").replace(folder / INDEX_NAME)
    return folder


def boxed_clips(n):
    clips = clips_at(range(n))
    # top, left, height, width
    region = np.float32([[0, 0, 1, 1], [0.25, 0.5, 0.5, 0.5], [0.5, 0, 0.25, 0.75], [0, 0, 1, 1]])[:n]
    clips.source = ClipSource(clips.sample.numpy(), np.arange(n) % 5, region)
    return clips


@pytest.mark.parametrize("roll", [False, True])
def test_equal_to_boxes_painted_into_the_frames(tmp_path, data, roll):
    rng = np.random.default_rng(0)
    table = {}
    for n in range(4):
        boxes = np.sort(rng.random((9, 2, 2)), 1)  # (frame, low or high, x or y)
        table[f"v{n:02}"] = {str(t): [boxes[t].flatten().tolist()] for t in range(0, 9, 2)}
    (tmp_path / "boxes.json").write_text(json.dumps(table))
    clip = ClipConfig(frames=FRAMES, stride=2, size=SIZE)
    clips = boxed_clips(4)
    people = PeopleMasks(tmp_path / "boxes.json", data, clip, CircularShift() if roll else None)(clips)
    assert people.shape == (4, 1, FRAMES, SIZE, SIZE)

    frames = torch.zeros(4, FRAMES, SIZE, SIZE, 3, dtype=torch.uint8)
    for n in range(4):
        top, left, tall, wide = clips.source.region[n].tolist()
        for t in range(FRAMES):
            number = min(int(clips.source.start_frame[n]) + 2 * t, 8)
            for x0, y0, x1, y1 in table[f"v{n:02}"].get(str(number), []):
                for y in range(SIZE):
                    for x in range(SIZE):  # is the pixel's centre inside the box, in shares of the picture?
                        at_y, at_x = top + (y + 0.5) / SIZE * tall, left + (x + 0.5) / SIZE * wide
                        frames[n, t, y, x] = 255 * (y0 <= at_y < y1 and x0 <= at_x < x1)
    frames = CircularShift()(frames, clips.draws) if roll else frames
    painted = clip_prep(frames, mean=(0, 0, 0), std=(1, 1, 1), flip=clips.flip)[0]
    assert torch.equal(painted[:, :1] > 0.5, people.bool())
    assert 0 < people.float().mean() < 1


@pytest.mark.slow
def test_runs_that_need_people(tmp_path, data):
    (tmp_path / "boxes.csv").write_text(
        "video,frame,left,top,right,bottom\n"
        + "\n".join(f"v{n:02},{t},.2,.2,.7,.9" for n in range(24) for t in range(9))
    )

    with pytest.raises(InputError, match="--people"):
        train(run_config(tmp_path, augmentation=ActorCutMix()), make_loader=loader_of())
    people = {"inputs": InputConfig(people=tmp_path / "boxes.csv")}
    train(run_config(tmp_path, augmentation=ActorCutMix(prob=1.0), **people), make_loader=loader_of())
    (tmp_path / "scenes.csv").write_text("key,scene\n" + "\n".join(f"v{n:02},s{n % 3}" for n in range(24)))
    sdn = Sdn(scenes=tmp_path / "scenes.csv", w_mask=0.5, hidden=8, layers=1)
    config = run_config(tmp_path, out=tmp_path / "sdn", method=sdn, model=ModelConfig(name="motion_cnn"), **people)
    result = train(config, make_loader=loader_of())
    last = json.loads(result.metrics.read_text().splitlines()[-1])
    assert 0 < last["masked_entropy"] < 1.4 and last["scene_ce"] > 0

    (tmp_path / "pixels.csv").write_text("video,frame,left,top,right,bottom\nv00,0,50,40,120,200\n")
    with pytest.raises(InputError, match="reaches to 200; expected shares of the picture"):
        PeopleMasks(tmp_path / "pixels.csv", data, ClipConfig(), False)
    (tmp_path / "none.csv").write_text("video,frame,left,top,right,bottom\nother,0,0,0,1,1\n")
    with pytest.raises(InputError, match="of none of the 24 videos"):
        PeopleMasks(tmp_path / "none.csv", data, ClipConfig(), False)
