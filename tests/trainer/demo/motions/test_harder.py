"""The harder world: off, nothing changes; on, only what is named changes, and the class is still the mover's motion."""

import json
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.harder import HarderWorld, camera_path, filmed
from unstill.trainer.demo.motions.world import MotionsConfig, cast, video

CLEAN = MotionsConfig(noise=0)


def of(**options):
    return replace(CLEAN, harder=HarderWorld(**options))


def test_the_demonstrations_videos_are_what_they_were():
    digest = blake2b(digest_size=8)
    for split in ("train", "iid", "scuba", "anti", "swap"):
        for index in range(4):
            frames, mask, _ = video(MotionsConfig(), split, index)
            digest.update(frames.tobytes() + mask.tobytes())
    assert digest.hexdigest() == "22ddce52c491363d"


def test_the_manifest_names_only_what_differs(tmp_path):
    for name, config in (("plain", MotionsConfig()), ("harder", of(camera="pan"))):
        write_motions(replace(config, out=tmp_path / name, train=8, splits=("train",), size=16, noise=6.0))
    plain, harder = (json.loads((tmp_path / name / "motions.json").read_text()) for name in ("plain", "harder"))
    assert "harder" not in plain["config"] and harder["config"]["harder"]["camera"] == "pan"


def hue_spread(frames):
    """How far the colours of the pixels' deviations from grey point in one direction, 0 to 1."""
    flat = frames.reshape(-1, 3).astype(float)
    return flat.mean(0) - flat.mean()


def test_texture_says_the_class_and_hue_does_not():
    config = replace(of(looks="texture"), scene_rate=1.0, actor_rate=1.0)
    same = [video(config, "train", 8 * n)[0] for n in range(24)]  # one class
    hues = np.stack([hue_spread(frames) for frames in same])
    assert np.linalg.norm(hues.mean(0)) < 0.5 * np.linalg.norm(hues, axis=1).mean()
    plain = replace(CLEAN, scene_rate=1.0, actor_rate=1.0)
    hues = np.stack([hue_spread(video(plain, "train", 8 * n)[0]) for n in range(24)])
    assert np.linalg.norm(hues.mean(0)) > 0.8 * np.linalg.norm(hues, axis=1).mean()
    # masks, and so the motion, are those of the plain world
    assert np.array_equal(video(config, "train", 5)[1], video(plain, "train", 5)[1])


@pytest.mark.parametrize("camera", ["shake", "pan", "zoom", "handheld"])
def test_a_camera_moves_all_of_the_picture_and_its_mask(camera):
    world = HarderWorld(camera=camera)
    frames, mask, _ = video(of(camera=camera), "scuba", 5)
    plain_mask = video(CLEAN, "scuba", 5)[1]
    outside = (mask == 0).all(0)
    assert (np.ptp(frames[:, outside].astype(int), axis=0) > 8).mean() > 0.3  # nothing stands still
    path = camera_path(world, 8, lambda purpose: np.random.default_rng([purpose, 1]))
    assert np.abs(np.diff(path, axis=0)).max() > 1e-3 and np.abs(path[:, :2]).max() < 0.3
    turned = filmed(plain_mask, np.tile([0.0, 0.0, 0.0, 1.0], (8, 1)))
    assert np.array_equal(turned, plain_mask)  # a camera that does not move changes nothing
    shifted = filmed(plain_mask, np.tile([3 / 64, -2 / 64, 0.0, 1.0], (8, 1)))
    assert np.array_equal(shifted, np.roll(plain_mask, (2, -3), (1, 2)))


def test_wanderers_a_bar_and_light_leave_the_mover_as_it_was():
    plain_frames, plain_mask, _ = video(CLEAN, "iid", 3)
    frames, mask, _ = video(of(wanderers=2), "iid", 3)
    assert np.array_equal(mask, plain_mask)
    assert np.array_equal(frames[mask == 255], plain_frames[plain_mask == 255])  # beneath the mover
    outside = (mask == 0).all(0)
    assert (np.ptp(frames[:, outside].astype(int), axis=0).max(-1) > 60).any()  # something else moves
    frames, mask, _ = video(of(cover=0.25), "iid", 3)
    hidden = (mask != plain_mask).any(0)
    assert hidden.any() and (frames[:, hidden] == frames[0, hidden]).all()
    assert np.array_equal(mask[:, ~hidden], plain_mask[:, ~hidden])
    frames, mask, _ = video(of(light=0.5), "iid", 3)
    still = (mask == 0).all(0)
    brightness = frames[:, still].mean((1, 2))
    assert np.array_equal(mask, plain_mask) and np.ptp(brightness) > 0.15 * brightness.mean()


def test_tests_of_one_index_still_pair():
    config = of(looks="texture", camera="handheld", wanderers=1, cover=0.1, light=0.2)
    masks = {split: video(config, split, 9)[1] for split in ("iid", "scuba", "conflfg")}
    assert all(np.array_equal(masks["iid"], mask) for mask in masks.values())
    assert cast(config, "anti", 9) == cast(CLEAN, "anti", 9)


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match=r"harder\.cover"):
        HarderWorld(cover=0.9)
