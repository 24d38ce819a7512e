"""Temporal localisation: annotations, the time axis, losses and targets against plain loops, the command, exports."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.trainer.cli.main import run
from unstill.trainer.downstream.feature_folder import RECORD, FeatureFolder
from unstill.trainer.downstream.localisation.annotations import (
    Action,
    AnnotatedVideo,
    problem_of,
    read_annotations,
    tidied,
)
from unstill.trainer.downstream.localisation.config import LocaliseConfig
from unstill.trainer.downstream.localisation.evaluation import run_localise
from unstill.trainer.downstream.localisation.losses import distance_iou_loss, focal_loss
from unstill.trainer.downstream.localisation.network import LEVELS, LocalisationHead
from unstill.trainer.downstream.localisation.points import Points, targets_of
from unstill.trainer.downstream.localisation.suppression import soft_nms
from unstill.trainer.downstream.localisation.training import TrainingVideo, _part, find
from unstill.trainer.downstream.localisation.videos import row_of_second, second_of_row

# entries as ActivityNet and THUMOS14 publish them
PUBLISHED = {
    "version": "VERSION 1.3",
    "database": {
        "sJXqBYlVfvE": {
            "duration": 90.0,
            "subset": "training",
            "resolution": "640x360",
            "url": "",
            "annotations": [{"segment": [0.01, 4.2], "label": "Drinking coffee"}],
        },
        "video_test_0000004": {
            "subset": "Test",
            "duration": 33.73,
            "fps": 30.0,
            "annotations": [
                {"label": "CricketBowling", "segment": [0.2, 1.1], "segment(frames)": [6.0, 33.0], "label_id": 5}
            ],
        },
        "empty": {"subset": "Test", "annotations": []},
    },
}


def test_published_annotations_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PUBLISHED))
    assert read_annotations(path) == [
        AnnotatedVideo("sJXqBYlVfvE", "training", 90.0, None, (Action("Drinking coffee", 0.01, 4.2),)),
        AnnotatedVideo("video_test_0000004", "test", 33.73, 30.0, (Action("CricketBowling", 0.2, 1.1),)),
        AnnotatedVideo("empty", "test", None, None, ()),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as JSON"),
        ('{"database": {}}', 'no videos in "database"'),
        ('{"database": {"v": {"subset": "a"}, "v": {"subset": "a"}}}', "v is there twice"),
        ('{"database": {"v": {"annotations": []}}}', "video v is damaged"),
        ('{"database": {"v": {"subset": "a", "annotations": [{"segment": [1], "label": "x"}]}}}', "video v is damaged"),
        ('{"database": {"v": {"subset": "a", "annotations": [{"segment": [1, NaN], "label": "x"}]}}}', "no finite"),
        ('{"database": {"v": {"subset": "a", "annotations": [{"segment": [1, "2"], "label": "x"}]}}}', "no finite"),
        ('{"database": {"v": {"subset": "a", "fps": 0, "annotations": []}}}', "fps is 0"),
    ],
)
def test_damaged_annotations_are_named(tmp_path, text, says):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=says):
        read_annotations(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"fps": 29.97}, None),
        ({"fps": 25.0}, "features at 30 frames/s, annotation at 25"),
        ({"duration": 12.0}, "features of 10.00 s, annotation of 12 s"),
        ({"duration": 10.3}, None),
        ({"actions": (Action("a", 3.0, 3.0),)}, "reversed or empty"),
        ({"actions": (Action("a", 4.0, 3.0),)}, "reversed or empty"),
        ({"actions": (Action("a", -0.5, 3.0),)}, "starts before"),
        ({"actions": (Action("a", 9.0, 10.5),)}, None),  # 16 frames are 0.53 s
        ({"actions": (Action("a", 9.0, 10.6),)}, "beyond the end"),
        ({"actions": (Action("a", 10.1, 10.3),)}, "beyond the end"),
    ],
)
def test_annotations_that_do_not_fit_the_video(change, says):
    video = dataclasses.replace(AnnotatedVideo("v", "test", None, None, (Action("a", 1.0, 2.0),)), **change)
    found = problem_of(video, 300, 30.0, 16)
    assert found is None if says is None else says in (found or "")


def test_repetitions_go_ends_are_cut_and_overlaps_stay_and_all_are_named():
    actions = (
        Action("a", 1.0, 3.0),
        Action("a", 1.0005, 3.0),
        Action("a", 2.0, 4.0),
        Action("b", 1.0, 3.0),
        Action("b", 3.0, 5.0),
        Action("Ambiguous", 6.0, 7.0),
        Action("c", 9.0, 10.4),
    )
    good, notes = tidied(AnnotatedVideo("v", "test", None, None, actions), 10.0)
    assert good.actions == (actions[0], actions[2], actions[3], actions[4], Action("c", 9.0, 10.0))
    assert [note.split()[-1] for note in notes] == ["once", "out", "s", "kept"]


def test_times_and_rows_are_those_of_the_window_middles():
    folder = FeatureFolder(path=None, window=16, stride=4, files={}, videos={})  # type: ignore[arg-type]
    middle = (np.arange(9) * 4 + 8) / 25.0  # the middle of frames 4k to 4k + 15, frame i lasts from i/25 to (i+1)/25 s
    assert row_of_second(middle, folder, 25.0) == pytest.approx(np.arange(9), abs=1e-12)
    times = np.random.default_rng(0).uniform(0, 9, 50)
    assert second_of_row(row_of_second(times, folder, 25.0), folder, 25.0) == pytest.approx(times, abs=1e-12)


def test_focal_loss_is_the_papers():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(40, generator=g, dtype=torch.float64)
    targets = (torch.rand(40, generator=g) < 0.5).double()
    for logit, target, loss in zip(
        logits.tolist(), targets.tolist(), focal_loss(logits, targets).tolist(), strict=True
    ):
        p = 1 / (1 + np.exp(-logit))
        by_hand = -0.25 * (1 - p) ** 2 * np.log(p) if target else -0.75 * p**2 * np.log(1 - p)
        assert loss == pytest.approx(by_hand, rel=1e-12)


def test_distance_iou_loss_is_the_papers_and_zero_for_the_truth():
    g = torch.Generator().manual_seed(1)
    found, truth = (5 * torch.rand(30, 2, generator=g, dtype=torch.float64) for _ in range(2))
    for (l1, r1), (l2, r2), loss in zip(
        found.tolist(), truth.tolist(), distance_iou_loss(found, truth).tolist(), strict=True
    ):
        inside, around = min(r1, r2) + min(l1, l2), max(r1, r2) + max(l1, l2)
        iou = inside / ((r1 + l1) + (r2 + l2) - inside)
        far = abs((r1 - l1) / 2 - (r2 - l2) / 2)
        assert loss == pytest.approx(1 - iou + (far / around) ** 2, rel=1e-12)
    assert distance_iou_loss(truth, truth).abs().max() < 1e-15
    assert distance_iou_loss(torch.zeros(1, 2), truth[:1].float()).isfinite().all()


def plain_targets(points, actions, classes):
    """The rules in loops: which classes a point finds, and how far its shortest action reaches."""
    kinds, reach = np.zeros((len(points.at), classes)), np.zeros((len(points.at), 2))
    for number, (at, stride, near, far) in enumerate(
        zip(*(column.tolist() for column in (points.at, points.stride, points.near, points.far)), strict=True)
    ):
        fitting = []
        for start, end, label in actions:
            if start < at < end and abs(at - (start + end) / 2) < 1.5 * stride:
                if near <= max(at - start, end - at) <= far:
                    fitting.append((end - start, (at - start) / stride, (end - at) / stride, label))
        if fitting:
            shortest = min(fitting)
            reach[number] = shortest[1:3]
            for length, _, _, label in fitting:
                kinds[number, label] = max(kinds[number, label], float(length <= shortest[0] + 1e-3))
    return kinds, reach


def test_targets_equal_plain_loops():
    g, points, found_some = np.random.default_rng(2), Points.of(128, LEVELS), 0
    for _ in range(30):
        n = int(g.integers(0, 8))
        start = g.uniform(-2, 110, n).astype(np.float32)
        end = start + g.uniform(0.5, 60, n).astype(np.float32)
        label = g.integers(3, size=n)
        tensors = [torch.from_numpy(column) for column in (start, end, label)]
        kinds, reach = targets_of(points, tensors[0], tensors[1], tensors[2], 3)
        expected, ends = plain_targets(points, list(zip(start.tolist(), end.tolist(), label.tolist(), strict=True)), 3)
        assert np.array_equal(kinds.numpy(), expected)
        finds = expected.any(1)
        found_some += finds.sum()
        assert reach.numpy()[finds] == pytest.approx(ends[finds], abs=1e-4)
    assert found_some > 100


def test_every_length_is_found_by_a_level():
    points = Points.of(512, LEVELS)
    for length in (1.2, 3, 7, 15, 40, 90, 200, 500):
        kinds, _ = targets_of(points, torch.tensor([5.0]), torch.tensor([5.0 + length]), torch.tensor([0]), 1)
        assert kinds.any(), length


def test_soft_nms_equals_a_plain_loop():
    g = np.random.default_rng(3)
    for _ in range(100):
        n = int(g.integers(0, 12))
        start = g.integers(0, 10, n).astype(float)
        end, score = start + g.integers(1, 8, n), g.random(n)
        which, scores = soft_nms(start, end, score, least=0.05)
        left, expected = {k: s for k, s in enumerate(score.tolist()) if s >= 0.05}, []
        while left:
            best = max(left, key=lambda k: left[k])
            expected.append((best, left.pop(best)))
            for k in list(left):
                inside = max(0.0, min(end[k], end[best]) - max(start[k], start[best]))
                left[k] *= np.exp(-((inside / (end[k] - start[k] + end[best] - start[best] - inside)) ** 2) / 0.5)
                if left[k] < 0.05:
                    del left[k]
        assert which.tolist() == [k for k, _ in expected]
        assert scores == pytest.approx([s for _, s in expected], rel=1e-12)


def test_what_lies_behind_the_end_changes_nothing():
    torch.manual_seed(0)
    head, rows = LocalisationHead(5, 3, 8).eval(), torch.randn(40, 5)
    alone = find(head, rows, "cpu")
    padded = torch.zeros(2, 128, 5)
    padded[0, :40], padded[1] = rows, torch.randn(128, 5)
    valid = torch.arange(128)[None] < torch.tensor([[40], [128]])
    logits, reach, inside = head(padded, valid)
    short = head(torch.nn.functional.pad(rows, (0, 0, 0, 24))[None], valid[:1, :64])
    for one, other in zip((logits, reach), short[:2], strict=True):
        assert torch.allclose(one[0][inside[0]], other[0][short[2][0]], atol=1e-6)
    assert (alone.score[:-1] >= alone.score[1:]).all() and len(alone.score) <= 200


def test_a_part_of_a_long_video_keeps_its_actions_in_place():
    rows = torch.arange(100.0)[:, None]
    video = TrainingVideo(rows, torch.tensor([10.0, 70.0]), torch.tensor([20.0, 75.0]), torch.tensor([0, 1]))
    for seed in range(20):
        part = _part(video, 40, np.random.default_rng(seed))
        assert part.rows.shape == (40, 1) and len(part.start) >= 1
        for start, end, label in zip(part.start.tolist(), part.end.tolist(), part.label.tolist(), strict=True):
            first = float(part.rows[0])
            own = (float(video.start[label]), float(video.end[label]))
            assert (max(own[0], first), min(own[1], first + 39)) == (start + first, end + first)


CLASSES = ("Diving", "Jump", "Throw")


def make_world(folder, record: bool = True):
    """24 videos of 40 to 60 rows: row k of an action has its class's number raised; two of three videos train."""
    g, database, videos = np.random.default_rng(5), {}, {}
    (folder / "features").mkdir(parents=True)
    for number in range(24):
        frames = int(g.integers(40, 60)) * 4 + 15
        rows = (frames - 16) // 4 + 1
        values = 0.3 * g.normal(size=(rows, 6)).astype(np.float32)
        actions, at = [], float(g.uniform(0.4, 1.2))
        middle = (np.arange(rows) * 4 + 8) / 30.0
        while at + 1.8 < frames / 30.0:
            kind, end = int(g.integers(3)), at + float(g.uniform(0.8, 1.8))
            values[(middle > at) & (middle < end), kind] += 2
            actions.append({"segment": [at, end], "label": CLASSES[kind]})
            at = end + float(g.uniform(0.4, 1.0))
        name = f"video_{number:04}"
        np.save(folder / "features" / f"{name}.npy", values)
        videos[name] = {"frames": frames, "fps": 30.0}
        subset = "Test" if number % 3 == 0 else "Validation"
        database[name] = {"subset": subset, "duration": frames / 30.0, "fps": 30.0, "annotations": actions}
    if record:
        (folder / "features" / RECORD).write_text(json.dumps({"window": 16, "stride": 4, "videos": videos}))
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return LocaliseConfig(
        features=folder / "features",
        annotations=folder / "annotations.json",
        out=folder / "out",
        seeds=(0,),
        epochs=1,
        channels=16,
        device="cpu",
    )


@pytest.mark.slow
def test_the_head_learns_to_find_actions_and_equal_seeds_give_equal_detections(tmp_path):
    config = dataclasses.replace(make_world(tmp_path), epochs=30, channels=32, lr=4e-3)
    result = run_localise(config)
    assert result.mean().at()[4] > 0.8  # at tIoU .5
    again = run_localise(config)
    assert np.array_equal(np.asarray(again.found[0].score), np.asarray(result.found[0].score))


def change(config, edit):
    content = json.loads(config.annotations.read_text())
    edit(content["database"])
    config.annotations.write_text(json.dumps(content))


def test_videos_that_cannot_be_used_are_refused_or_left_out_and_counted(tmp_path):
    config = make_world(tmp_path)

    def edit(database):
        database["missing"] = database["video_0000"]
        database["video_0003"]["annotations"][0]["segment"].reverse()
        database["video_0006"]["annotations"][0]["segment"] = [1.0, 100.0]
        database["video_0009"]["fps"] = 25.0
        database["video_0012"]["annotations"] *= 2

    change(config, edit)
    with pytest.raises(InputError, match=r"4 of 9 videos of test cannot be used: video_0003: .* is reversed"):
        run_localise(config)
    test = run_localise(dataclasses.replace(config, bad_annotations="leave-out")).test
    assert len(test.videos) == 5 and len(test.left_out) == 4
    reasons = dict(line.split(": ", 1) for line in test.left_out)
    assert "no features" in reasons["missing"] and "annotation at 25" in reasons["video_0009"]
    assert len(test.notes) == sum(len(v.annotated.actions) for v in test.videos if v.key == "video_0012")
    with pytest.raises(InputError, match="no videos of subset training; it has test, validation"):
        run_localise(dataclasses.replace(config, train_subset="training"))


def test_features_without_a_record_need_their_frame_rate(tmp_path):
    config = dataclasses.replace(make_world(tmp_path, record=False), stride=4)
    with pytest.raises(InputError, match="give --fps"):
        run_localise(config)
    with pytest.raises(InputError, match="features at 25 frames/s, annotation at 30"):
        run_localise(dataclasses.replace(config, fps=25.0))
    with pytest.raises(InputError, match=r"features of .* s, annotation of"):  # another stride: another time axis
        run_localise(dataclasses.replace(config, fps=30.0, stride=8))
    assert len(run_localise(dataclasses.replace(config, fps=30.0)).test.videos) == 8


def actionformer_items(folder):
    """ActionFormer's and TriDet's THUMOS14Dataset, its rules restated: rows and actions in rows, of every video."""
    facts = json.loads((folder / "dataset.json").read_text())["actionformer, tridet"]
    database = json.loads((folder / facts["json_file"]).read_text())["database"]
    label_of = {act["label"]: act["label_id"] for video in database.values() for act in video["annotations"]}
    assert len(label_of) == facts["num_classes"]
    for key, video in database.items():
        assert video["subset"].lower() in (*facts["train_split"], *facts["val_split"])
        rows = np.load(f"{facts['feat_folder']}/{key}{facts['file_ext']}").astype(np.float32)
        assert rows.shape[1] == facts["input_dim"]
        fps = facts["default_fps"] or video["fps"]
        segments = np.asarray([act["segment"] for act in video["annotations"]], np.float32)
        segments = segments * fps / facts["feat_stride"] - 0.5 * facts["num_frames"] / facts["feat_stride"]
        yield key, rows, segments, [label_of[act["label"]] for act in video["annotations"]]


def opentad_items(folder):
    """OpenTAD's ThumosPaddingDataset, its rules restated."""
    facts = json.loads((folder / "dataset.json").read_text())["opentad"]
    names = (folder / facts["class_map"]).read_text().splitlines()
    for key, video in json.loads((folder / facts["ann_file"]).read_text())["database"].items():
        frames = [[int(t / video["duration"] * video["frame"]) for t in a["segment"]] for a in video["annotations"]]
        segments = (np.array(frames, np.float32) - facts["offset_frames"]) / facts["feature_stride"]
        yield key, segments, [names.index(a["label"]) for a in video["annotations"]]


def test_the_command_writes_numbers_pictures_and_what_other_repositories_read(tmp_path, capsys):
    config = make_world(tmp_path)
    few = ["--epochs", "2", "--seeds", "3", "--channels", "8", "--timelines", "2", "--device", "cpu"]
    assert run(["localise", str(config.features), str(config.annotations), str(config.out), *few]) == 0
    said = capsys.readouterr().out
    assert "mean .1 to .7" in said and "mean .3 to .7" in said and "mAP at tIoU .1: " in said
    assert max(map(len, said.splitlines()[:-1])) <= 80
    record = json.loads((config.out / "localisation.json").read_text())
    values = list(record["mean_over_seeds"]["map"].values())
    assert len(values) == 7
    assert record["per_seed"]["3"]["average"][".3 to .7"] == pytest.approx(np.mean(values[2:]))
    assert set(record["mean_over_seeds"]["per_class"]) == set(CLASSES)
    assert len(list(config.out.glob("timeline_*.png"))) == 2
    truth = json.loads(config.annotations.read_text())["database"]
    kinds = 0
    for (key, rows, segments, labels), (same, other, others) in zip(
        actionformer_items(config.out), opentad_items(config.out), strict=True
    ):
        assert same == key and labels == others
        assert np.abs(segments - other).max() <= 1 / 4 + 1e-5  # OpenTAD rounds to frames, a row is 4 of them
        for (start, end), label in zip(segments.tolist(), labels, strict=True):
            inside = rows[int(np.ceil(start)) : int(end) + 1]  # rows whose middle is in the action
            kinds += inside[:, label].min() > 0.5
        assert len(labels) == len(truth[key]["annotations"])
    assert kinds > 0.9 * sum(len(video["annotations"]) for video in truth.values())
    results = json.loads((config.out / "detections_seed3.json").read_text())["results"]
    for key, found in results.items():
        for item in found:
            start, end = item["segment"]
            assert 0 <= start < end <= truth[key]["duration"] + 1e-6 and item["label"] in CLASSES
