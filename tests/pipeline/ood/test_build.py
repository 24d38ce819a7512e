"""SCUBA and Confl-FG from small videos made here, through the converter."""

import csv
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.ood.build import OodConfig, build, smoothed
from unstill.pipeline.ood.compose import over_background, with_still_actor
from unstill.pipeline.ood.video_files import read_frames
from unstill.pipeline.shards.index import SampleIndex

T, H, W = 5, 48, 64


def write_video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def source(tmp_path):
    """Four videos in two classes: a bright square walks right (left) over grey; the first frame shows nobody."""
    for n, (label, level) in enumerate([("run", 200), ("run", 220), ("jump", 240), ("jump", 180)]):
        frames = np.full((T, H, W, 3), 90, np.uint8)
        masks = np.zeros((T, H, W), np.uint8)
        for t in range(1, T):
            left = 4 + 4 * t if label == "run" else 44 - 4 * t
            frames[t, 16:32, left : left + 12] = level
            masks[t, 16:32, left : left + 12] = 255
        write_video(tmp_path / "videos" / label / f"v{n}.mp4", frames)
        (tmp_path / "masks" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.hstack(list(masks))).save(tmp_path / "masks" / label / f"v{n}.png")
    return tmp_path


def settings(source, out="out", **changes):
    given = {"source": source / "videos", "masks": source / "masks", "out": source / out, "quality": 0, "workers": 2}
    return OodConfig(**given | {"per_video": 2} | changes)


def manifest_of(out):
    with open(out / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_class_cannot_lead_out_of_the_output_folder(source):
    """Its name becomes a folder, and comes from a list that somebody else may have written."""
    (source / "list.csv").write_text("path,label\nrun/v0.mp4,../../escaped\njump/v2.mp4,jump\n")
    with pytest.raises(InputError, match=r"class '../../escaped' cannot be the name of a folder"):
        build(settings(source, labels=source / "list.csv"))
    assert not list(source.rglob("*escaped*"))


def test_compositing_is_exact():
    rng = np.random.default_rng(0)
    frames, background = rng.integers(0, 256, (T, H, W, 3), np.uint8), rng.integers(0, 256, (H, W, 3), np.uint8)
    masks = rng.random((T, H, W)) < 0.5
    out = over_background(frames, masks, background)
    assert np.array_equal(out[masks], frames[masks])
    assert np.array_equal(out[~masks], np.broadcast_to(background, out.shape)[~masks])


@pytest.mark.slow
def test_scuba_files_manifest_and_preview(source):
    report = build(settings(source, trim="on"))
    assert report.composites == 8 and not report.left_out
    rows = manifest_of(source / "out")
    assert [row["path"] for row in rows] == sorted(
        f"{c}/v{n}__{k}.mp4" for n, c in enumerate(["run", "run", "jump", "jump"]) for k in range(2)
    )
    for row in rows:
        frames, rate = read_frames(source / "out" / "videos" / row["path"])
        original, _ = read_frames(source / "videos" / row["source"])
        assert rate == 10 and row["first_frame"] == "1" and len(frames) == int(row["frames"]) == T - 1
        person = original[1:] > 150
        assert float(row["mask_coverage"]) == pytest.approx(person[..., 0].mean(), abs=1e-4)
        assert abs(frames.astype(int) - original[1:])[person].max() <= 4  # colours are rounded once by the codec
        still = ~person[..., 0].any(0)
        assert np.ptp(frames[:, still].astype(int), axis=0).max() <= 4  # one background that does not move
    first, second = (read_frames(source / "out" / "videos" / f"run/v0__{k}.mp4")[0] for k in range(2))
    assert abs(first.astype(int) - second).mean() > 5
    assert Image.open(source / "out" / "preview.png").height == 8 * 96


@pytest.mark.slow
def test_frames_without_a_mask_stay_as_background_and_faint_saliency_counts(source):
    """As the released scripts do for HMDB51 and Kinetics-400: only UCF101's videos are trimmed."""
    shutil.copytree(source / "masks", source / "faint")
    for path in (source / "faint").rglob("*.png"):
        with Image.open(path) as image:
            faint = np.minimum(np.asarray(image), 1)
        Image.fromarray(np.roll(faint, 3, 0)).save(path)  # three rows lower
    build(settings(source, per_video=1, saliency=source / "faint"))
    for row in manifest_of(source / "out"):
        frames, _ = read_frames(source / "out" / "videos" / row["path"])
        assert len(frames) == T and row["first_frame"] == "0"
        still = np.ones((H, W), bool)
        still[16:35] = False
        assert abs(frames[0].astype(int) - frames[1])[still].max() <= 4  # one background, from the first frame on
        assert float(row["mask_coverage"]) == pytest.approx((T - 1) * 19 * 12 / (T * H * W), abs=1e-4)


@pytest.mark.slow
def test_the_same_bytes_again_and_after_a_stop(source):
    build(settings(source, "one"))
    build(settings(source, "two", workers=1))
    names = [row["path"] for row in manifest_of(source / "one")]
    before = {name: (source / "one" / "videos" / name).read_bytes() for name in names}
    assert before == {name: (source / "two" / "videos" / name).read_bytes() for name in names}

    # as a kill leaves it: rows of finished videos in the log, one video of another row gone
    lines = (source / "two" / "manifest.csv").read_text().splitlines()
    (source / "two" / "manifest.csv").unlink()
    (source / "two" / "manifest.partial").write_text("\n".join(lines[1:6]) + "\nrun/v1__1.mp4,ru")
    (source / "two" / "videos" / names[2]).unlink()
    kept = source / "two" / "videos" / names[0]
    stamp = kept.stat().st_mtime_ns
    report = build(settings(source, "two"))
    assert report.composites == 8 and kept.stat().st_mtime_ns == stamp
    assert before == {name: (source / "two" / "videos" / name).read_bytes() for name in names}
    assert (source / "two" / "manifest.csv").read_text() == (source / "one" / "manifest.csv").read_text()
    with pytest.raises(InputError, match="made with seed 0, not 1"):
        build(settings(source, "two", seed=1))


def test_backgrounds_from_a_folder(source):
    (source / "places").mkdir()
    for n, colour in enumerate([(250, 0, 0), (0, 0, 250)]):
        Image.new("RGB", (30, 20), colour).save(source / "places" / f"{n}.png")
    build(settings(source, backgrounds=source / "places", per_video=4))
    rows = manifest_of(source / "out")
    assert {row["background"] for row in rows} == {"0.png", "1.png"}
    for row in rows[:3]:
        frames, _ = read_frames(source / "out" / "videos" / row["path"])
        assert frames[0, 0, 0, 0 if row["background"] == "0.png" else 2] > 200
    with pytest.raises(InputError, match="no pictures"):
        build(settings(source, "other", backgrounds=source / "videos"))


def test_conflfg_places_another_class_behind(source):
    build(settings(source, kind="conflfg", per_video=1))
    rows = manifest_of(source / "out")
    levels = {"run/v0.mp4": 200, "run/v1.mp4": 220, "jump/v2.mp4": 240, "jump/v3.mp4": 180}
    for row in rows:
        assert row["static_class"] != row["class"]
        frames, _ = read_frames(source / "out" / "videos" / row["path"])
        top, left = int(row["static_top"]), int(row["static_left"])
        assert (top, left) in {(16, 10), (16, 42)}  # centred at a quarter or three quarters, at its own height
        spot = frames[-1 if row["class"] == "jump" else 0, top + 2, left + 1 : left + 11].mean()
        moving = levels[row["source"]]
        assert min(abs(spot - levels[row["static_source"]]), abs(spot - moving)) < 15
    with open(source / "out" / "truth.csv", newline="") as file:
        truth = {row["key"]: row["static_actor"] for row in csv.DictReader(file)}
    assert truth == {row["path"][:-4].replace("/", "_"): row["static_class"] for row in rows}


def test_still_actor_goes_to_the_emptier_half_beneath():
    background, masks = np.zeros((40, 80, 3), np.uint8), np.zeros((2, 40, 80), bool)
    masks[:, :, 50:70] = True
    still, shape = np.full((20, 40, 3), 200, np.uint8), np.zeros((20, 40), bool)
    shape[5:15, 30:40] = True
    out, corner = with_still_actor(background, masks, still, shape)
    assert corner == (15, 15) and (out[15:25, 15:25] == 200).all() and out.sum() == 200 * 3 * 100
    large = np.ones((90, 200), bool)
    out, (_, left) = with_still_actor(background, masks, np.full((90, 200, 3), 9, np.uint8), large)
    assert left == 0 and (out[:, 40:] == 0).all() and out[20, 0, 0] == 9  # scaled down to half the width


@pytest.mark.slow
def test_what_cannot_be_used_is_named(source):
    (source / "masks" / "run" / "v0.png").unlink()
    blank = np.zeros((H, W * T), np.uint8)
    Image.fromarray(blank).save(source / "masks" / "jump" / "v2.png")
    report = build(settings(source, allow_missing=True))
    assert report.left_out == {
        "run/v0.mp4": "no masks",
        "jump/v2.mp4": "0% of its frames have a mask that covers enough",
    }
    assert "run/v0.mp4,no masks" in (source / "out" / "left_out.csv").read_text()
    with pytest.raises(InputError, match="none of the 4 videos"):
        build(settings(source, "none", min_coverage=0.9))
    (source / "elsewhere").mkdir()
    with pytest.raises(InputError, match=r"the first: no masks called (run|jump)/v[0-3]$"):
        build(settings(source, "lost", masks=source / "elsewhere"))
    (source / "full").mkdir()
    (source / "full" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        build(settings(source, "full"))


def test_a_corrected_mistake_may_use_the_same_folder(source):
    with pytest.raises(InputError, match="no such file"):
        build(settings(source, masks=source / "nowhere"))
    assert build(settings(source)).composites == 8
    with pytest.raises(InputError, match="made with seed 0, not 1"):
        build(settings(source, seed=1))


def test_smoothing():
    masks = np.zeros((5, 1, 1), bool)
    masks[2] = True
    assert smoothed(masks, 1).flatten().tolist() == [False, True, True, True, False]
    assert np.array_equal(smoothed(masks, 0), masks)


@pytest.mark.slow
def test_shards_like_those_of_the_training_set(source):
    (source / "classes.txt").write_text("walk\nrun\njump\n")
    train = ConvertConfig(
        source=source / "videos",
        out=source / "train",
        classes=source / "classes.txt",
        allow_missing=True,
        codec="vp9",
        short_side=32,
        workers=1,
    )
    convert(train)
    report = build(settings(source, like=source / "train"))
    made, model = SampleIndex.load(report.shards), SampleIndex.load(source / "train")
    assert made.classes == model.classes == ("walk", "run", "jump")
    assert sorted(made.keys()) == sorted(
        f"{c}_v{n}__{k}" for n, c in enumerate(["run", "run", "jump", "jump"]) for k in range(2)
    )
    assert (made.width[0], made.height[0], made.codec[0]) == (model.width[0], model.height[0], model.codec[0])
    with pytest.raises(InputError, match="nowhere: no dataset"):
        build(settings(source, like=source / "nowhere"))
