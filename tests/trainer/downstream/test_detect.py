"""``unstill detect``: files of boxes, features where the boxes are, annotations that do not fit, the commands."""

import dataclasses
import json
import pickle

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.cli.main import run
from unstill.trainer.downstream.detection.config import DetectConfig
from unstill.trainer.downstream.detection.evaluation import examples, run_detect, scored
from unstill.trainer.downstream.detection.roi_features import TubeFeatures, box_features, clip_around, key_boxes
from unstill.trainer.downstream.detection.tubes import Tube, linked, problem_of, read_tubes, within
from unstill.trainer.evaluation.linear_probe import LinearProbe
from unstill.trainer.inference.classifier import WEIGHTS, Facts
from unstill.trainer.models.network import Network

pytestmark = pytest.mark.usefixtures("one_thread")
HEADER = "video,frame,left,top,right,bottom,label\n"


def tube(frames=range(3), box=(0.1, 0.1, 0.4, 0.4), label="a", video="v"):
    frames = np.array(frames)
    return Tube(video, label, frames, np.array([box] * len(frames), np.float64), np.ones(len(frames)))


def test_published_pickles_give_tubes_with_classes(tmp_path):
    corrected = {
        "Fencing/v_1": {"annotations": [{"label": 6, "sf": 2, "ef": 4, "boxes": np.array([[11, 21, 30, 40]] * 2)}]}
    }
    act = {
        "labels": ["run", "jump"],
        "gttubes": {"jump/x": {1: [np.array([[1, 10, 20, 40, 60], [2, 10, 20, 40, 60]], np.float32)]}},
    }
    for content, label, frames in ((corrected, "Fencing", [2, 3]), (act, "jump", [0, 1])):
        (tmp_path / "boxes.pkl").write_bytes(pickle.dumps(content, protocol=2))
        found = read_tubes(tmp_path / "boxes.pkl")
        assert found.pixels and [(t.label, t.frames.tolist()) for t in found.tubes] == [(label, frames)]
        assert found.tubes[0].boxes.tolist() == [[10, 20, 40, 60]] * 2
        shares = found.in_shares(100, 200)
        assert not shares.pixels and shares.tubes[0].boxes[0].tolist() == [0.1, 0.1, 0.4, 0.3]


def test_csv_of_people_and_of_ava(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(HEADER.replace("label", "label,tube,score") + "v,1,.1,.1,.3,.3,a,7,.5\nv,0,.1,.1,.3,.3,a,7,.9\n")
    (one,) = read_tubes(path).tubes
    assert one.frames.tolist() == [0, 1] and one.scores.tolist() == [0.9, 0.5]
    path.write_text("-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,0.95\n-5KQ66BBWC4,0902,0.07,0.15,0.28,0.81,9,1\n")
    found = read_tubes(path).tubes
    assert [(t.video, t.frames[0], t.label, t.scores[0]) for t in found] == [
        ("-5KQ66BBWC4", 902, "80", 0.95),
        ("-5KQ66BBWC4", 902, "9", 1.0),  # the last column is a person's number
    ]
    for text, says in (
        ("video,frame\nv,0\n", "lacks the column 'left'"),
        (HEADER + "v,0,0,0,nan,1,a\n", "line 2: a number that is not finite"),
        (HEADER + "v,x,0,0,1,1,a\n", "invalid literal"),
        (HEADER, "holds no boxes"),
        (HEADER.replace("label", "tube") + "v,0,0,0,1,1,3\nv,0,0,0,1,1,3\n", "two boxes of one tube"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=says):
            read_tubes(path)


def test_boxes_that_stand_alone_are_linked_frame_by_frame():
    left, right = (0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 0.9, 1.0)
    alone = [tube([f], box) for f in (0, 1, 2, 5) for box in (left, right)]
    found = linked(alone)
    assert sorted((t.frames.tolist(), float(t.boxes[0, 0])) for t in found) == [
        ([0, 1, 2], 0.0),
        ([0, 1, 2], 0.5),
        ([5], 0.0),  # a gap ends a tube
        ([5], 0.5),
    ]
    assert all(np.ptp(t.boxes, axis=0).max() == 0 for t in found)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (tube(), None),
        (tube(range(9, 12)), None),  # two frames beyond the end are cut
        (tube(range(9, 13)), "frames 9 to 12 of 10"),
        (tube(range(-1, 3)), "frames -1 to 2"),
        (tube(box=(0.4, 0.1, 0.1, 0.4)), "comes before"),
        (tube(box=(1.1, 0.1, 1.4, 0.4)), "outside the picture"),
    ],
)
def test_tubes_that_do_not_fit_the_video(wrong, says):
    found = problem_of(wrong, 10, 2)
    assert found == says if says is None else says in found


def test_what_reaches_out_is_cut():
    kept = within(tube(range(8, 12), (-0.2, 0.5, 0.5, 1.5)), 10)
    assert kept.frames.tolist() == [8, 9] and kept.boxes[0].tolist() == [0, 0.5, 0.5, 1]
    assert within(tube(range(10, 12)), 10) is None


def test_a_box_has_the_mean_of_its_places():
    maps = torch.zeros(2, 3, 4, 8, 8)
    maps[0, 1, :, :4, 4:] = 1.0  # upper right
    maps[1, 2, :2] = 1.0  # half of the time
    found = box_features(
        maps, [np.array([[0.55, 0.05, 0.95, 0.45], [0.05, 0.55, 0.45, 0.95]]), np.array([[0, 0, 1, 1]])]
    )
    torch.testing.assert_close(found, torch.tensor([[0, 1.0, 0], [0, 0, 0], [0, 0, 0.5]]))


def test_key_frames_and_clips():
    assert key_boxes([tube(range(3, 20)), tube(range(5, 8)), tube(range(8, 9))], 8) == {
        6: [(1, 1)],  # the middle of a tube without a key frame
        8: [(0, 5), (2, 0)],
        16: [(0, 13)],
    }
    clip = ClipConfig(frames=4, stride=2, size=8)
    assert clip_around(8, clip, 100).tolist() == [4, 6, 8, 10]
    assert clip_around(0, clip, 2).tolist() == [0, 0, 0, 1]


def test_detected_boxes_are_people_by_overlap_and_scores_are_of_the_nearest_key_frame():
    truth = [tube(range(10))]
    features = [TubeFeatures(np.array([0, 2]), np.ones((2, 1), np.float32))]
    for box, labels in (
        ((0.1, 0.1, 0.4, 0.36), ["a", "a"]),  # .87
        ((0.1, 0.1, 0.4, 0.22), []),  # .4
        ((0.5, 0.5, 0.9, 0.9), ["\0background", "\0background"]),
    ):
        assert examples([tube(range(5), box, "")], features, truth)[1] == labels
    probe = LinearProbe(np.zeros(1), np.ones(1), np.array([[1.0, 0.0]]), np.zeros(2))
    person = dataclasses.replace(tube(range(4)), scores=np.array([0.5, 1, 1, 1]))
    values = TubeFeatures(np.array([0, 3]), np.log([[1.0], [3.0]]).astype(np.float32))
    (found,) = scored(person, values, probe, ("a", "\0background"), times_own=True)
    np.testing.assert_allclose(found.scores, [0.25, 0.5, 0.75, 0.75], atol=1e-6)


class Colours(nn.Module):
    """A network whose map is the picture at a quarter of its size."""

    def __init__(self):
        super().__init__()
        self.map = nn.Conv3d(3, 3, (1, 4, 4), stride=(1, 4, 4), bias=False)
        self.map.weight.data = torch.eye(3).view(3, 3, 1, 1, 1).repeat(1, 1, 1, 4, 4) / 16
        self.head = nn.Linear(3, 2)

    def forward(self, clips):
        return self.head(self.map(clips).mean((2, 3, 4)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two sets of two videos, each with a red and a green square that move; and their boxes by split."""
    root = tmp_path_factory.mktemp("squares")
    lines = [HEADER.replace("label", "label,tube")]
    for split in ("train", "test"):
        for number in range(2):
            (root / split / "a").mkdir(parents=True, exist_ok=True)
            name = f"{split}{number}"
            with av.open(str(root / split / "a" / f"{name}.mp4"), "w") as container:
                stream = container.add_stream("libx264", rate=30)
                stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
                for frame in range(24):
                    picture = np.full((64, 96, 3), 40, np.uint8)
                    for tube_, (colour, left) in enumerate(((0, frame), (1, 70 - frame))):
                        top = 8 if (tube_ + number) % 2 else 36
                        picture[top : top + 20, left : left + 20, colour] = 230
                        lines.append(f"a/{name},{frame},{left},{top},{left + 20},{top + 20},{'rg'[colour]},{tube_}\n")
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode())
        convert(
            ConvertConfig(source=root / split, out=root / f"{split}_shards", codec="h264", short_side=64, workers=1)
        )
    (root / "boxes.csv").write_text("".join(lines))
    return root


def colours(num_classes):
    """The network as ``module:function``."""
    return Network(module=Colours(), head="head")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    clip = ClipConfig(frames=4, stride=2, size=48)
    Facts(f"{__name__}:colours", ("r", "g"), clip, (0.5,) * 3, (0.25,) * 3).save(folder)
    save_file(dict(Colours().state_dict()), folder / WEIGHTS)
    return str(folder)


def test_who_is_where_is_found_from_the_places_of_boxes(shards, model, tmp_path, capsys):
    options = {"train": shards / "train_shards", "test": shards / "test_shards", "truth": shards / "boxes.csv"}
    report = run_detect(DetectConfig(models=(model,), device="cpu", layer="map", trust_model_code=True, **options))
    (result,) = report.results
    assert len(report.truth) == 4 and not report.left_out
    assert result.frames.at(0.5) == result.videos.at(0.5) == 1.0
    # a detector's boxes: the true ones without classes, moved a little, and one of the background, surer than all
    rows = [line.split(",") for line in (shards / "boxes.csv").read_text().splitlines()[1:]]
    people = ["video,frame,left,top,right,bottom,score\n"]
    for video, frame, left, top, right, bottom, *_ in rows:
        people.append(f"{video},{frame},{int(left) + 2},{top},{int(right) + 2},{bottom},.8\n")
        if "red" not in video and frame == "0":
            people.append(f"{video},{frame},75,2,95,7,.9\n")
    for split in ("train", "test"):
        kept = [line for line in people if line.startswith(("video", f"a/{split}"))]
        (tmp_path / f"{split}.csv").write_text("".join(kept))
    command = ["detect", "fit", model, model, *"--device cpu --layer map --trust-model-code --out".split()]
    command += [str(tmp_path / "out")]
    for name, path in options.items():
        command += [f"--{name}", str(path)]
    command += ["--boxes", str(tmp_path / "test.csv"), "--train-boxes", str(tmp_path / "train.csv")]
    assert run(command) == 0
    assert "frame .5: +0.0 [+0.0, +0.0]" in capsys.readouterr().out  # the same model twice
    record = json.loads((tmp_path / "out" / "detect.json").read_text())
    found = record["models"][f"0 {model}"]
    assert found["frame_map"]["mean"]["0.5"] > 0.95 and found["video_map"]["mean"]["0.5"] > 0.95
    # its detections, scored from the files
    detections = next((tmp_path / "out").glob("detections_0*.csv"))
    truth = tmp_path / "truth.csv"
    text = (shards / "boxes.csv").read_text().splitlines(keepends=True)
    truth.write_text("".join([text[0], *(line.replace("a/", "a_") for line in text if line.startswith("a/test"))]))
    assert run(["detect", "score", str(truth), str(detections), "--picture", "96", "64"]) == 0
    assert f"{100 * found['frame_map']['mean']['0.5']:.1f}" in capsys.readouterr().out
    assert run(["detect", "score", str(truth), str(detections)]) == 2
    assert "one has pixels" in capsys.readouterr().err


def test_annotations_that_do_not_fit_are_refused_or_left_out_and_named(shards, model, tmp_path):
    text = (shards / "boxes.csv").read_text()
    of_test0 = [line for line in text.splitlines(keepends=True) if line.startswith("a/test0") and ",r,0" in line]
    bad = tmp_path / "boxes.csv"
    options = {"train": shards / "train_shards", "test": shards / "test_shards", "truth": bad}
    config = DetectConfig(models=(model,), device="cpu", layer="map", trust_model_code=True, **options)
    cases = {
        "a/gone,0,1,1,20,20,r,0\n": "1 of its videos are in neither .* first a/gone",
        "a/test0,40,1,1,20,20,r,9\n": "1 of 9 tubes cannot be used: .* frames 40 to 40 of 24; .* give --picture",
        "a/test0,4,20,1,1,20,r,8\n": "comes before the other",
        "".join(line.replace(",r,0", ",r,7") for line in of_test0): "a/test0, tube 8: is there twice",
    }
    for line, says in cases.items():
        bad.write_text(text + line)
        with pytest.raises(InputError, match=says):
            run_detect(config)
    bad.write_text(text + "".join(cases))
    report = run_detect(dataclasses.replace(config, bad_annotations="leave-out"))
    assert len(report.left_out) == 4 and len(report.truth) == 4
    bad.write_text(text)
    with pytest.raises(InputError, match="has 30 frames/s, the boxes count 25"):
        run_detect(dataclasses.replace(config, truth_fps=25.0))
    with pytest.raises(InputError, match="outside the picture"):
        run_detect(dataclasses.replace(config, picture=(48, 32)))  # pixels of another size: boxes leave the picture


def test_avas_last_column_is_a_person_or_a_score_in_all_of_the_file(tmp_path):
    path = tmp_path / "found.csv"
    path.write_text("v,0902,0.1,0.1,0.3,0.8,80,1e-05\nv,0902,0.1,0.1,0.3,0.8,9,1\nv,0902,0.1,0.1,0.3,0.8,7,0\n")
    assert [tube.scores[0] for tube in read_tubes(path).tubes] == [1e-5, 1.0, 0.0]
    path.write_text("v,0902,0.1,0.1,0.3,0.8,80,3\nv,0903,,,,,,\n")
    with pytest.raises(InputError, match="line 2 has an empty column"):
        read_tubes(path)


def test_videos_converted_to_a_frame_rate_need_that_of_the_boxes(shards, model, tmp_path):
    convert(
        ConvertConfig(
            source=shards / "test", out=tmp_path / "slow", codec="h264", short_side=64, workers=1, fps=15, gop=12
        )
    )
    config = DetectConfig(
        models=(model,),
        train=shards / "train_shards",
        test=tmp_path / "slow",
        truth=shards / "boxes.csv",
        device="cpu",
        trust_model_code=True,
    )
    with pytest.raises(InputError, match=r"slow: was converted with --fps 15, .* --truth-fps"):
        run_detect(config)
    with pytest.raises(InputError, match="the video has 15 frames/s, the boxes count 30"):
        run_detect(dataclasses.replace(config, truth_fps=30.0))
