"""HAT's sets: people painted out, alone, or before another video, on small videos whose answer is known."""

import csv
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from unstill.pipeline.errors import InputError
from unstill.pipeline.ood.build import GREY, OodConfig, build
from unstill.pipeline.ood.paint_out import painted_out
from unstill.pipeline.ood.swaps import like
from unstill.pipeline.ood.video_files import read_frames, write_frames

T, H, W = 5, 48, 64


@pytest.fixture
def source(tmp_path):
    """Four videos in two classes: a bright square walks right (left) over grey; the first frame shows no one."""
    for n, (label, level) in enumerate([("run", 200), ("run", 220), ("jump", 240), ("jump", 180)]):
        frames, masks = np.full((T, H, W, 3), 90, np.uint8), np.zeros((T, H, W), np.uint8)
        for t in range(1, T):
            left = 4 + 12 * t if label == "run" else 52 - 12 * t
            frames[t, 16:32, left : left + 8], masks[t, 16:32, left : left + 8] = level, 255
        for folder in ("videos", "masks"):
            (tmp_path / folder / label).mkdir(parents=True, exist_ok=True)
        write_frames(tmp_path / "videos" / label / f"v{n}.mp4", frames, Fraction(10), 0)
        Image.fromarray(np.hstack(list(masks))).save(tmp_path / "masks" / label / f"v{n}.png")
    return tmp_path


def settings(source, out="out", **changes):
    given = {"source": source / "videos", "masks": source / "masks", "out": source / out, "quality": 0, "workers": 1}
    return OodConfig(**given | changes)


def manifest_of(out):
    with open(out / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def walking(width=12):
    """A texture that stands still, and a bright square that walks over it."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 200, (H, W, 3), np.uint8)
    frames, masks = np.repeat(scene[None], T, 0), np.zeros((T, H, W), bool)
    for t in range(T):
        part = np.s_[t, 16:28, 4 + 10 * t : 4 + 10 * t + width]
        frames[part], masks[part] = 255, True
    return scene, frames, masks


def test_what_was_seen_in_another_frame_is_exact():
    scene, frames, masks = walking(width=6)
    out = painted_out(frames, masks)
    assert np.array_equal(out, np.repeat(scene[None], T, 0))
    assert frames.max() == 255  # the input is left alone


def test_the_nearest_frame_is_taken():
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 40, 40, 3), np.uint8)
    masks = np.zeros((5, 40, 40), bool)
    masks[1:4, 10:20, 10:20] = True
    out = painted_out(frames, masks)
    assert out[:, 15, 15, 0].tolist() == [0, 0, 0, 4, 4] and out[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_what_is_never_seen_is_a_smooth_fill():
    """On a linear ramp the fill stays near the ramp and inside its range; an empty picture does not fail."""
    ramp = np.broadcast_to(np.linspace(40, 200, W).astype(np.uint8)[None, :, None], (H, W, 3))
    masks = np.zeros((T, H, W), bool)
    masks[:, 16:28, 24:40] = True
    out = painted_out(np.repeat(ramp[None], T, 0), masks)
    inside = out[0, 16:28, 24:40].astype(int)
    assert abs(inside - ramp[16:28, 24:40]).max() < 30 and abs(inside - ramp[16:28, 24:40]).mean() < 12
    assert np.array_equal(out[:, :10], np.repeat(ramp[None, :10], T, 0))
    assert painted_out(np.full((2, 8, 8, 3), 9, np.uint8), np.ones((2, 8, 8), bool)).shape == (2, 8, 8, 3)


def test_backgrounds_are_played_there_and_back():
    video = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)
    assert like(video, (8, 4, 6, 3))[:, 0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert like(video, (2, 8, 8, 3)).shape == (2, 8, 8, 3)
    assert like(video[:1], (3, 4, 6, 3)).shape == (3, 4, 6, 3)


@pytest.mark.parametrize("kind", ["background_only", "human_only"])
def test_one_of_each_video(source, kind):
    report = build(settings(source, kind=kind))
    rows = manifest_of(source / "out")
    assert report.composites == 4 and [row["path"].rpartition("__")[2] for row in rows] == ["0.mp4"] * 4
    for row in rows:
        frames, _ = read_frames(source / "out" / "videos" / row["path"])
        original, _ = read_frames(source / "videos" / row["source"])
        person = original[1:, ..., 0] > 150
        if kind == "background_only":  # grey 90 everywhere, for each place is free in some frame
            assert abs(frames.astype(int) - 90).max() <= 6
        else:
            assert abs(frames.astype(int) - original[1:])[person].max() <= 6
            assert abs(frames.astype(int) - GREY)[~person].mean() < 3


def test_swaps_are_drawn_of_both_kinds(source):
    build(settings(source, kind="swap", per_video=1))
    rows = manifest_of(source / "out")
    assert len(rows) == 8
    for row in rows:
        assert (row["kind"] == "same") == (row["background_class"] == row["class"]) and row["background"] != row[
            "source"
        ]
        frames, _ = read_frames(source / "out" / "videos" / row["path"])
        original, _ = read_frames(source / "videos" / row["source"])
        person = original[1:, ..., 0] > 150
        assert abs(frames.astype(int) - original[1:])[person].max() <= 6
        assert abs(frames[~person].astype(int) - 90).mean() < 3  # the other human is gone
    with open(source / "out" / "truth.csv", newline="") as file:
        truth = list(csv.DictReader(file))
    assert {row["key"] for row in truth} == {row["path"].replace("/", "_").removesuffix(".mp4") for row in rows}
    assert sorted(row["kind"] for row in truth) == ["random"] * 4 + ["same"] * 4


def test_swaps_by_a_list(source):
    (source / "pairs.csv").write_text("human,background,kind\nrun/v0,jump/v2,far\nrun/v0,run/v1,same\n")
    report = build(settings(source, kind="swap", pairs=source / "pairs.csv"))
    found = [(row["source"], row["background"], row["kind"]) for row in manifest_of(source / "out")]
    assert found == [("run/v0.mp4", "jump/v2.mp4", "far"), ("run/v0.mp4", "run/v1.mp4", "same")]
    assert set(report.left_out.values()) == {"no pair names it"}
    (source / "pairs.csv").write_text("human,background,kind\nrun/v0,jump/v9,far\n")
    with pytest.raises(InputError, match="no column or video 'jump/v9'"):
        build(settings(source, out="other", kind="swap", pairs=source / "pairs.csv"))
    with pytest.raises(InputError, match="--kind swap"):
        OodConfig(source=source, masks=source, out=source, pairs=source / "pairs.csv")
