"""The biased dataset is what it claims: no class in one frame, exact masks, paired tests, stated correlations."""

from dataclasses import replace

import av
import numpy as np
import pytest

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import AugmentConfig
from unstill.trainer.demo.motions.files import read_mask, write_motions
from unstill.trainer.demo.motions.world import (
    CLASSES,
    MIRROR_CLASS,
    RADIUS,
    SHAPES,
    SPLITS,
    TESTS,
    MotionsConfig,
    cast,
    pose,
    video,
)
from unstill.trainer.demo.recipes import demo_albar, demo_baseline
from unstill.trainer.evaluation.truth import read_truth

CONFIG = MotionsConfig()
CLEAN = MotionsConfig(noise=0)


@pytest.mark.slow
def test_one_frame_carries_no_class_information():
    # Pose at a uniformly random frame, all classes, against its uniform law: Kolmogorov-Smirnov at n = 500 a class.
    n, frame = 4000, np.random.default_rng(0).integers(0, CONFIG.frames, 4000)
    samples = np.empty((n, 4))
    for i in range(n):
        p = pose(CONFIG, "iid", i)
        t = frame[i]
        low, high = np.log(RADIUS)
        samples[i] = p.x[t], p.y[t], p.angle[t] / (2 * np.pi) % 1, (np.log(p.radius[t]) - low) / (high - low)
    grid = (np.arange(n // 8) + 0.5) / (n // 8)
    for label in range(8):
        distance = np.abs(np.sort(samples[label::8], 0) - grid[:, None]).max(0)
        assert (distance < 0.087).all(), (CLASSES[label], distance)  # p = 0.001 for one of the 32
    # pixels too: the mean frame of every class is grey to within its sampling error
    means = np.stack(
        [np.mean([video(CLEAN, "unbiased", i)[0][i // 8 % 8] for i in range(c, 800, 8)]) for c in range(8)]
    )
    assert np.ptp(means) < 5


@pytest.mark.parametrize("label", range(8))
def test_motion_is_what_the_class_says(label):
    p = pose(CONFIG, "train", label)
    wrapped = lambda v, period: (np.diff(v) + period / 2) % period - period / 2  # noqa: E731
    dx, dy = wrapped(p.x, 1), wrapped(p.y, 1)
    turn, grow = wrapped(p.angle, 2 * np.pi), np.diff(p.radius)
    moving = {"left": -dx, "right": dx, "up": -dy, "down": dy, "rot_cw": turn, "rot_ccw": -turn}
    moving |= {"zoom_in": grow, "zoom_out": -grow}
    assert (moving.pop(CLASSES[label]) > 0.005).all()
    del moving[MIRROR_CLASS[CLASSES[label]]]
    assert all(np.abs(still).max() < 1e-6 for still in moving.values())


@pytest.mark.parametrize("index", range(8))
def test_masks_are_the_covered_area_and_the_blending_weight(index):
    config = replace(CLEAN, actor_rate=1.0)
    frames, mask, who = video(config, "scuba", index)
    assert who.actor == index
    # reference: points on an 8 x 8 grid in each pixel, tested against every polygon in float64
    t, fine = 3, (np.arange(64 * 8) + 0.5) / (64 * 8)
    p = pose(config, "scuba", index)
    dx, dy = (fine - p.x[t] + 0.5) % 1 - 0.5, ((fine - p.y[t] + 0.5) % 1 - 0.5)[:, None]
    cos, sin, radius = np.cos(float(p.angle[t])), np.sin(float(p.angle[t])), float(p.radius[t])
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    covered = np.zeros((512, 512), bool)
    for polygon in list(SHAPES.values())[index]:
        inside = np.ones_like(covered)
        for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            inside &= (x1 - x0) * (v - y0) - (y1 - y0) * (u - x0) >= 0
        covered |= inside
    reference = covered.reshape(64, 8, 64, 8).mean((1, 3)) * 255
    assert np.abs(mask[t] - reference).mean() < 1.0 and np.abs(mask[t] - reference).max() < 100
    assert abs(mask[t].sum() / reference.sum() - 1) < 0.02
    # where the mask is 0 nothing ever changes; where it is 255 the scene does not show
    still = (mask == 0).all(0)
    assert still.any() and (frames[:, still] == frames[0, still]).all()
    other_scene = video(config, "iid", index)[0]
    assert (frames[mask == 255] == other_scene[mask == 255]).all()
    assert (frames[:, still] != other_scene[:, still]).any()


def test_tests_pair_by_index_and_differ_only_where_they_should():
    for i in range(64):
        casts = {split: cast(CONFIG, split, i) for split in TESTS}
        iid, y = casts["iid"], i % 8
        assert all(c.label == y for c in casts.values())
        assert casts["scuba"].actor == casts["conflfg"].actor == iid.actor
        assert casts["scuba"].scene == casts["swap"].scene >= 8 > casts["anti"].scene != y
        assert casts["swap"].actor == casts["anti"].actor != y
        # as published: the scene of its SCUBA twin, so that only the two foregrounds conflict
        assert casts["conflfg"].scene == casts["scuba"].scene and casts["conflfg"].static_actor not in (None, y)
        for split in TESTS:
            assert all(
                np.array_equal(a, b) for a, b in zip(pose(CONFIG, split, i), pose(CONFIG, "iid", i), strict=True)
            )
    iid_mask = video(CONFIG, "iid", 5)[1]
    assert np.array_equal(iid_mask, video(CONFIG, "scuba", 5)[1])
    assert np.array_equal(iid_mask, video(CONFIG, "conflfg", 5)[1])


def test_static_actor_stands_still_beneath_the_mover():
    for index in range(8):
        frames, mask, _ = video(CLEAN, "conflfg", index)
        still = (mask == 0).all(0)
        assert (frames[:, still] == frames[0, still]).all()
        saturation = np.ptp(frames[0].astype(int), axis=-1)
        assert (saturation[still] > 100).sum() > 20  # only actors are colourful


def test_same_seed_same_pixels_and_no_sharing_between_train_and_tests():
    first, again = video(CONFIG, "train", 11), video(CONFIG, "train", 11)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], video(CONFIG, "iid", 11)[0])
    assert not np.array_equal(first[0], video(replace(CONFIG, seed=1), "train", 11)[0])
    assert pose(CONFIG, "train", 11).x[0] != pose(CONFIG, "iid", 11).x[0]


@pytest.mark.parametrize(("split", "scene_rate", "actor_rate"), [
    ("train", 0.95, 0.95), ("iid", 0.95, 0.95), ("scuba", 0, 0.95), ("conflfg", 0, 0.95),
    ("anti", 0, 0), ("swap", 0, 0), ("unbiased", 0.125, 0.125),
])  # fmt: skip
def test_correlation_rates(split, scene_rate, actor_rate):
    n = 4000
    casts = np.array([cast(CONFIG, split, i)[:3] for i in range(n)])
    label, scene, actor = casts.T
    assert (label == np.arange(n) % 8).all()
    for found, rate in (((scene == label).mean(), scene_rate), ((actor == label).mean(), actor_rate)):
        assert abs(found - rate) <= 4 * np.sqrt(rate * (1 - rate) / n)
    wrong = (actor - label) % 8
    counts = np.bincount(wrong[wrong > 0], minlength=8)[1:]
    assert counts.min() > counts.mean() * 0.6  # the other seven, evenly


def test_files_decode_pair_and_resume(tmp_path):
    config = MotionsConfig(out=tmp_path / "videos", train=8, test=8, splits=("train", "scuba", "conflfg"), workers=1)
    folders = write_motions(config)
    assert list(folders) == ["train", "scuba", "conflfg"]
    names = {s: sorted(str(f.relative_to(folders[s])) for f in folders[s].rglob("*")) for s in folders}
    assert names["scuba"] == names["conflfg"] and "rot_ccw/000005.mp4" in names["scuba"]

    path = folders["scuba"] / "rot_ccw/000005.mp4"
    frames, mask, who = video(config, "scuba", 5)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "vp9"
        decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]).astype(float)
    assert decoded.shape == frames.shape
    assert 10 * np.log10(255**2 / np.mean((decoded - frames) ** 2)) > 27  # dB; the noise alone costs 32.6
    assert np.array_equal(read_mask(config.out / "masks/scuba/rot_ccw/000005.png"), mask)
    truth = read_truth(config.out / "truth/conflfg.csv")
    assert truth["rot_ccw_000005"]["static_actor"] == CLASSES[cast(config, "conflfg", 5).static_actor]
    assert truth["rot_ccw_000005"]["actor"] == CLASSES[who.actor]

    # killed half-way: the missing video comes back, byte for byte; the others are not touched
    data, stamp = path.read_bytes(), (folders["train"] / "left/000000.mp4").stat().st_mtime_ns
    path.unlink()
    manifest = config.out / "motions.json"
    manifest.write_text(manifest.read_text().replace("true", "false"))
    write_motions(config)
    assert path.read_bytes() == data
    assert (folders["train"] / "left/000000.mp4").stat().st_mtime_ns == stamp
    # complete: left alone; another configuration: replaced
    path.unlink()
    write_motions(config)
    assert not path.exists()
    write_motions(replace(config, seed=1))
    assert path.exists() and path.read_bytes() != data


def test_refuses_foreign_folders_and_unknown_splits(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not made by this command"):
        write_motions(MotionsConfig(out=tmp_path, train=8, test=8))
    assert (tmp_path / "precious.txt").exists()
    with pytest.raises(InputError, match="'bogus' is not one of train, iid"):
        write_motions(MotionsConfig(out=tmp_path / "x", splits=("bogus",)))
    with pytest.raises(InputError, match="not a multiple of 16"):
        write_motions(MotionsConfig(out=tmp_path / "x", size=60))
    assert set(TESTS) < set(SPLITS)


def test_size_says_nothing_at_a_random_frame_and_much_at_a_known_one():
    """Why fixed static frames are refused: the best guess from the size alone, by counting quantiles of the radius."""
    config = MotionsConfig(seed=1)
    low, high = np.log(RADIUS)
    quantile = np.zeros((4000, config.frames))
    for index in range(4000):
        quantile[index] = (np.log(pose(config, "iid", index).radius) - low) / (high - low)
    labels, bins = np.arange(4000) % 8, np.clip((quantile * 8).astype(int), 0, 7)

    def best_guess(found, of):
        return sum(np.bincount(of[found == b], minlength=8).max() for b in range(8)) / len(of)

    rng = np.random.default_rng(0)
    at_random = bins[np.arange(4000), rng.integers(0, config.frames, 4000)]
    assert best_guess(at_random, labels) < 0.18  # guessing 0.125, and the bias of counting
    assert all(0.33 < best_guess(bins[:, t], labels) < 0.37 for t in range(config.frames))  # 2/8 + 6/64 and that bias
    with pytest.raises(InputError, match="static_frame middle"):
        replace(demo_albar(), augment=AugmentConfig(crop="none", flip=0.0, static_frame="middle"))
    replace(demo_baseline(), augment=AugmentConfig(crop="none", flip=0.0, static_frame="middle"))  # has no static clips
