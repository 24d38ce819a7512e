"""Long videos: parts with known borders in which the actor does what the plan says, and looks that mislead in tests."""

import numpy as np
import pytest

from unstill.trainer.demo.motions.long_videos import (
    MOTIONS,
    TURNS,
    LongMotionsConfig,
    long_pose,
    long_video,
    plan,
)

TASKS = {name: LongMotionsConfig(task=name, size=32) for name in ("localisation", "anomaly")}


@pytest.mark.parametrize("task", TASKS)
def test_parts_cover_the_video_and_the_actor_does_what_they_say(task):
    config = TASKS[task]
    ways = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1), "rot_cw": (2, 1), "rot_ccw": (2, -1)}
    for index in range(24):
        happens = plan(config, "train", index)
        assert [part.first for part in happens.parts] == [0, *(part.end for part in happens.parts[:-1])]
        assert happens.parts[-1].end == config.frames
        path = long_pose(config, "train", index, happens.parts)
        steps = np.stack([np.diff(side) for side in (path.x, path.y, path.angle)])
        steps[:2] = (steps[:2] + 0.5) % 1 - 0.5  # the shortest way around
        for part in happens.parts:
            own = steps[:, max(part.first, 1) - 1 : part.end - 1]
            moves = np.abs(own) > 0.01
            if part.motion is None:
                assert not moves.any()
            else:
                row, sign = ways[MOTIONS[part.motion]]
                assert moves[row].all() and moves.sum() == own.shape[1] and (np.sign(own[row]) == sign).all()


def test_only_abnormal_videos_have_turns_and_most_actions_are_of_the_main_class():
    videos = [plan(TASKS["anomaly"], "train", index) for index in range(60)]
    assert [bool(video.abnormal()) for video in videos] == [bool(video.label) for video in videos]
    assert {len(video.abnormal()) for video in videos} == {0, 1, 2}
    actions = [
        (part.motion, video.label)
        for video in (plan(TASKS["localisation"], "train", index) for index in range(120))
        for part in video.parts
        if part.motion is not None
    ]
    assert 0.7 < np.mean([motion == label for motion, label in actions]) < 0.8
    assert {motion for motion, _ in actions} == set(range(len(MOTIONS)))


@pytest.mark.parametrize("task", TASKS)
def test_looks_follow_the_label_except_where_they_are_free_and_nothing_else_differs(task):
    config = TASKS[task]
    own = lambda video: video.scene in TURNS if task == "anomaly" else video.scene  # noqa: E731
    share = {}
    for split in ("train", "free", "alike"):
        videos = [plan(config, split, index) for index in range(600)]
        share[split] = np.mean([own(video) == video.label for video in videos])
    assert share["train"] > 0.9 and share["alike"] > 0.9
    assert share["free"] < (0.56 if task == "anomaly" else 0.25)
    one, other = (long_video(config, split, 3) for split in ("free", "alike"))
    assert one[2].parts == other[2].parts
    again = long_video(config, "free", 3)
    assert np.array_equal(one[0], again[0])
    paths = [long_pose(config, split, 3, one[2].parts) for split in ("free", "alike")]
    assert all(np.array_equal(a, b) for a, b in zip(*paths, strict=True))
    assert not np.array_equal(one[1], long_video(config, "train", 3)[1])


def test_frames_and_masks_are_those_of_the_world():
    frames, mask, _ = long_video(LongMotionsConfig(task="anomaly", frames=96), "train", 1)
    assert frames.shape == (96, 64, 64, 3) and frames.dtype == np.uint8 and mask.shape == (96, 64, 64)
    inside = (mask == 255).mean((1, 2))
    assert 0.02 < inside.min() and inside.max() < 0.5
    still = np.abs(frames[1:].astype(int) - frames[:-1]).mean(3)
    assert still[(mask[1:] == 0) & (mask[:-1] == 0)].mean() < still[(mask[1:] > 0) & (mask[:-1] == 0)].mean() / 3
