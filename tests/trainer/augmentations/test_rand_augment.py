"""RandAugment's operators against torchvision's on the same parameters; what is drawn, and what belongs together."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from unstill.trainer.augmentations import picture_operators as pictures
from unstill.trainer.augmentations.base import Context
from unstill.trainer.augmentations.mixup_cutmix import MixupCutmix
from unstill.trainer.augmentations.rand_augment import OPERATORS, RandAugment, draw_rectangle
from unstill.trainer.batch import Batch

GREY = [128.0, 128.0, 128.0]
WARP = {"interpolation": InterpolationMode.BILINEAR, "fill": GREY}
H, W = 24, 32
WARPS = ("rotate", "shear_x", "shear_y")


def affine(clip, **changes):
    options = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | changes
    return functional.affine(clip, **options, **WARP)


def sheared(clip, x, y):
    # as torchvision.transforms.v2.RandAugment calls it: about the corner
    degrees = [float(np.degrees(np.arctan(x))), float(np.degrees(np.arctan(y)))]
    return affine(clip, shear=degrees, center=[0, 0])


CASES = {
    "brightness": ((0.4, 1.7), functional.adjust_brightness),
    "saturation": ((0.4, 1.7), functional.adjust_saturation),
    "contrast": ((0.4, 1.7), functional.adjust_contrast),
    "sharpness": ((0.4, 1.7), functional.adjust_sharpness),
    "solarize": ((80.0, 200.0), functional.solarize),
    "posterize": ((2.0, 4.0), lambda clip, bits: functional.posterize(clip, int(bits))),
    "autocontrast": ((0.0, 0.0), lambda clip, _: functional.autocontrast(clip)),
    "equalize": ((0.0, 0.0), lambda clip, _: functional.equalize(clip)),
    "invert": ((0.0, 0.0), lambda clip, _: functional.invert(clip)),
    "rotate": ((-20.0, 13.0), lambda clip, degrees: functional.rotate(clip, degrees, **WARP)),
    "shear_x": ((-0.17, 0.13), lambda clip, amount: sheared(clip, amount, 0)),
    "shear_y": ((-0.17, 0.13), lambda clip, amount: sheared(clip, 0, amount)),
    "translate_x": ((-0.25, 0.125), lambda clip, share: affine(clip, translate=[int(share * W), 0])),
    "translate_y": ((-0.25, 0.25), lambda clip, share: affine(clip, translate=[0, int(share * H)])),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_torchvisions_on_each_clip(name):
    strengths, theirs = CASES[name]
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(20, 230, (2, 3, 3, H, W), dtype=torch.uint8, generator=generator)
    found = getattr(pictures, name)(clips.float(), torch.tensor(strengths))
    expected = torch.stack([theirs(clip, strength) for clip, strength in zip(clips, strengths, strict=True)]).float()
    assert torch.equal(found, found.round()) and found.min() >= 0 and found.max() <= 255
    difference = (found - expected).abs()
    if name in WARPS:  # torchvision darkens pixels that come in part from outside
        covered = torch.stack([theirs(torch.zeros_like(clips[0]), strength) for strength in strengths])
        difference = difference[(covered == 0) | (covered == 128)]
        assert len(difference) > clips.numel() / 2
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.02  # one step where float32 rounds otherwise
    assert name == "invert" or not torch.equal(found, clips.float())


def make_batch(n=64):
    motion = torch.randint(0, 256, (n, 3, 1, H, W), generator=torch.Generator().manual_seed(1)) / 255
    motion = ((motion - 0.45) / 0.25).expand(-1, -1, 4, -1, -1).contiguous()
    return Batch(motion, None, torch.arange(n) % 5), Context(5, (0.45,) * 3, (0.25,) * 3)


def test_operators_and_rectangles_are_the_same_in_all_frames_and_drawn_for_each_clip():
    batch, context = make_batch()
    augment = RandAugment(erase=0.0)
    found = augment(batch, np.random.default_rng(0), context).motion
    torch.testing.assert_close(found, found[:, :, :1].expand_as(found), rtol=0, atol=1e-5)
    changed = ((found - batch.motion).abs().amax((1, 2, 3, 4)) > 0.01).float().mean()
    assert 0.8 < changed < 1  # 1 - 1/2^4 of the clips
    again = augment(batch, np.random.default_rng(0), context).motion
    assert torch.equal(found, again) and torch.equal(make_batch()[0].motion, batch.motion)
    none = RandAugment(operators=0, erase=0.0)(batch, np.random.default_rng(0), context).motion
    torch.testing.assert_close(none, batch.motion)


def test_a_quarter_of_the_clips_lose_a_rectangle():
    batch, context = make_batch(200)
    erased = RandAugment(operators=0, erase=0.25)(batch, np.random.default_rng(0), context).motion
    lost = ((erased - batch.motion).abs() > 1e-3).any(1)  # (B,T,h,w)
    assert 0.15 < lost.flatten(1).any(1).float().mean() < 0.35
    for clip in lost[lost.flatten(1).any(1)]:
        assert torch.equal(clip, clip[:1].expand_as(clip))
        rows, columns = clip[0].any(1), clip[0].any(0)
        assert clip[0].sum() == rows.sum() * columns.sum()  # a full rectangle
    areas = [
        tall * wide / (100 * 80)
        for _, _, tall, wide in (draw_rectangle(100, 80, np.random.default_rng(i)) for i in range(200))
    ]
    assert 0.015 < min(a for a in areas if a) and max(areas) < 0.34


def test_each_batch_is_mixed_one_way_and_labels_follow():
    batch, context = make_batch(8)
    for switch, is_cut in ((0.0, False), (1.0, True)):
        mixed = MixupCutmix(switch=switch)(batch, np.random.default_rng(3), context)
        torch.testing.assert_close(mixed.target.sum(1), torch.ones(8))
        known = (mixed.motion[:, None] == batch.motion[None]).all(3).all(2).any(1)  # pixels of some clip as it was
        assert bool(known.all()) == is_cut
    both = RandAugment(then=MixupCutmix())
    assert both.mixes_labels and not RandAugment().mixes_labels
    assert both(batch, np.random.default_rng(0), context).target.shape == (8, 5)
    assert len(OPERATORS) == 15
