"""Batch augmentations against hand-computed cases; labels, mass, determinism, and every tensor with its sample."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unstill.pipeline.errors import InputError
from unstill.trainer.augmentations.actor_cutmix import ActorCutMix, actor_cutmix
from unstill.trainer.augmentations.background_erasing import BackgroundErasing, erase_background
from unstill.trainer.augmentations.base import Context
from unstill.trainer.augmentations.fame import Fame
from unstill.trainer.augmentations.foreground import blurred, colour_bins, foreground_mask, hsv, top_share
from unstill.trainer.augmentations.mixup import Mixup, mixup
from unstill.trainer.augmentations.stillmix import StillMix
from unstill.trainer.augmentations.videomix import VideoMix, draw_cuboid, own_share, paste_cuboid
from unstill.trainer.batch import Batch, one_frame

B, C, T, H, W = 6, 5, 4, 8, 8
ALL = [
    Mixup(),
    VideoMix(),
    VideoMix(cuboid="temporal"),
    VideoMix(cuboid="spatio_temporal"),
    BackgroundErasing(),
    ActorCutMix(),
    Fame(),
    StillMix(),
]


def make_batch(seed=0, b=B):
    """A batch whose every tensor names its sample; the first pixel column of a clip is its number."""
    g = torch.Generator().manual_seed(seed)
    motion = torch.rand(b, 3, T, H, W, generator=g)
    index = torch.randint(T, (b,), generator=g)
    people = torch.zeros(b, 1, T, H, W, dtype=torch.uint8)
    people[:, :, :, 2:5, 1:7] = 1
    return Batch(
        motion,
        one_frame(motion, index),
        torch.arange(b) % C,
        index,
        {"scene": torch.eye(7)[torch.arange(b) % 7], "people": people},
    )


def apply(augmentation, batch, seed=0):
    return augmentation(batch, np.random.default_rng(seed), Context(C))


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: f"{type(a).__name__}-{getattr(a, 'cuboid', '')}")
class TestEvery:
    def test_mass_shapes_and_determinism(self, augmentation):
        batch = make_batch()
        once, again = apply(augmentation, batch), apply(augmentation, batch)
        torch.testing.assert_close(once.motion, again.motion, rtol=0, atol=0)
        torch.testing.assert_close(once.target, again.target, rtol=0, atol=0)
        assert once.motion.shape == batch.motion.shape and len(once) == B
        assert once.target.is_floating_point() == augmentation.mixes_labels  # the same dtype in every step
        if augmentation.mixes_labels:
            torch.testing.assert_close(once.target.sum(1), torch.ones(B))
            assert (once.target >= 0).all()
            torch.testing.assert_close(once.per_sample["static_target"], batch.target)
        torch.testing.assert_close(once.per_sample["scene"].sum(1), torch.ones(B))
        torch.testing.assert_close(once.static, batch.static, rtol=0, atol=0)  # static_from original
        others = [apply(augmentation, batch, seed).motion for seed in range(1, 6)]
        assert any(not torch.equal(once.motion, other) for other in others)

    def test_probability_zero_changes_nothing(self, augmentation):
        batch = make_batch()
        same = apply(type(augmentation)(prob=0.0), batch)
        torch.testing.assert_close(same.motion, batch.motion, rtol=0, atol=0)
        assert torch.equal(same.target if same.target.ndim == 1 else same.target.argmax(1), batch.target)
        torch.testing.assert_close(same.per_sample["scene"], batch.per_sample["scene"], rtol=0, atol=0)

    def test_people_are_marked_wherever_they_are_seen(self, augmentation):
        people = (torch.rand(B, 1, T, H, W, generator=torch.Generator().manual_seed(4)) < 0.3).to(torch.uint8)
        batch = Batch(people.expand(-1, 3, -1, -1, -1).float(), None, torch.arange(B) % C, None, {"people": people})
        options = {"cuboid": augmentation.cuboid} if isinstance(augmentation, VideoMix) else {}
        out = apply(type(augmentation)(prob=0.8, **options), batch, seed=3)
        assert torch.equal(out.per_sample["people"] > 0, out.motion[:, :1] > 0)

    def test_a_static_clip_of_the_augmented_clip_is_one_of_its_frames_with_its_label(self, augmentation):
        options = {"cuboid": augmentation.cuboid} if isinstance(augmentation, VideoMix) else {}
        batch = make_batch()
        out = apply(type(augmentation)(prob=1.0, static_from="augmented", **options), batch)
        for b in range(B):
            assert torch.equal(out.static[b], out.motion[b, :, batch.static_index[b]][:, None])
        assert "static_target" not in out.per_sample

    def test_no_row_takes_anything_from_two_other_samples(self, augmentation):
        # constant clips: sample b is the value b, so blends tell who took part; the label must tell the same
        batch = make_batch()
        values = torch.tensor([1.0, 10, 100, 1000, 10000])
        motion = values.view(-1, 1, 1, 1, 1).expand(5, 3, T, H, W).contiguous()
        people = batch.per_sample["people"][:5]
        batch = Batch(motion, None, torch.arange(5), torch.zeros(5).long(), {"people": people, "scene": torch.eye(5)})
        options = {"cuboid": augmentation.cuboid} if isinstance(augmentation, VideoMix) else {}
        out = apply(type(augmentation)(prob=1.0, **options), batch, seed=3)
        for b in range(5):
            seen = {v for v in out.motion[b].unique().tolist() if v != 0}  # 0 is ActorCutMix's mean colour
            if out.target.ndim == 2:
                named = out.target[b].nonzero().flatten().tolist()
                if isinstance(augmentation, Mixup):
                    expected = (out.target[b] * values).sum()
                    torch.testing.assert_close(out.motion[b].mean(), expected, rtol=1e-5, atol=0)
                elif len(seen) > 1:
                    assert {values[n].item() for n in named} == seen and b in named
            else:
                assert out.target[b] == b
            if isinstance(augmentation, Fame) and len(seen) > 1:
                assert out.per_sample["scene"][b].argmax() == next(
                    n for n in range(5) if values[n].item() in seen and n != b
                )


def test_mixup_by_hand():
    clips = torch.tensor([2.0, 6.0]).view(2, 1, 1, 1, 1).expand(2, 3, 1, 1, 1)
    mixed = mixup(clips, torch.tensor([1, 0]), torch.tensor([0.25, 1.0]))
    assert mixed[0].unique().item() == 0.25 * 2 + 0.75 * 6 and mixed[1].unique().item() == 6


def test_pasted_cuboid_by_hand():
    clips = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 3, 4, 4, 4)
    spans = ((0, 4), (1, 3), (2, 4))
    pasted = paste_cuboid(clips, torch.tensor([1, 0]), torch.tensor(spans))
    assert own_share((4, 4, 4), spans) == 1 - 16 / 64
    expected = torch.zeros(4, 4)
    expected[1:3, 2:4] = 1
    assert torch.equal(pasted[0, 2, 3], expected) and torch.equal(pasted[1, 0, 0], 1 - expected)


@pytest.mark.parametrize("kind", ["spatial", "temporal", "spatio_temporal"])
def test_cuboids_stay_inside_and_take_their_share(kind):
    rng = np.random.default_rng(0)
    shape, sizes = (40, 60, 80), []
    for _ in range(200):
        spans = draw_cuboid(shape, 0.7, kind, rng)
        assert all(0 <= begin <= end <= length for (begin, end), length in zip(spans, shape, strict=True))
        sizes.append(np.prod([end - begin for begin, end in spans]) / np.prod(shape))
    assert max(sizes) == pytest.approx(0.3, abs=0.02)  # those that no border cut
    if kind == "spatial":
        assert spans[0] == (0, 40)
    if kind == "temporal":
        assert spans[1:] == ((0, 60), (0, 80))


def test_background_erasing_by_hand():
    clip = torch.tensor([1.0, 5.0]).view(1, 1, 2, 1, 1).expand(1, 3, 2, 1, 1)
    erased = erase_background(clip, torch.tensor([1]), torch.tensor([0.75]))
    assert erased[0, 0].flatten().tolist() == [0.75 * 1 + 0.25 * 5, 5]


def test_actor_cutmix_by_hand():
    clips = torch.tensor([1.0, 2, 3]).view(3, 1, 1, 1, 1).expand(3, 3, 1, 2, 2)
    people = torch.zeros(3, 1, 1, 2, 2)
    people[0, 0, 0, 0] = 1  # upper row
    people[1, 0, 0, :, 0] = 1  # left column
    people[2] = 1  # nothing but people
    out, label, scene = actor_cutmix(clips, people, torch.tensor([1, 0, 0]))
    # below row 0's own people: the partner's person on the left is the mean, its background on the right is kept
    assert out[0, 0, 0].tolist() == [[1, 1], [0, 2]]
    assert out[1, 0, 0].tolist() == [[2, 0], [2, 1]]
    assert torch.equal(out[2], clips[2])
    assert label.tolist() == [1 - 0.5**4, 1 - 0.5**4, 1] and scene.tolist() == [0, 0, 1]


def test_actor_cutmix_pairs_from_both_ends_and_needs_people():
    batch = make_batch(b=5)
    out = apply(ActorCutMix(prob=1.0), batch)
    torch.testing.assert_close(out.motion[2], batch.motion[2], rtol=0, atol=0)  # the middle one of an odd batch
    torch.testing.assert_close(out.motion[0, :, :, 7], batch.motion[4, :, :, 7], rtol=0, atol=0)
    del batch.per_sample["people"]
    with pytest.raises(InputError, match="--people"):
        apply(ActorCutMix(), batch)


def test_fame_finds_the_moving_square():
    g = torch.Generator().manual_seed(0)
    clips = torch.full((2, 3, 4, 32, 32), 0.2) + 0.01 * torch.rand(2, 3, 1, 32, 32, generator=g)
    truth = torch.zeros(2, 32, 32, dtype=torch.bool)
    for t in range(4):
        clips[0, 0, t, 8:16, 4 + 3 * t : 12 + 3 * t] = 0.9  # a red square moves right
        clips[1, 2, t, 10 + 3 * t : 18 + 3 * t, 20:28] = 0.9
        truth[0, 8:16, 4 + 3 * t : 12 + 3 * t] = True
        truth[1, 10 + 3 * t : 18 + 3 * t, 20:28] = True
    mask = foreground_mask(clips, 0.25)
    assert mask.sum((1, 2)).tolist() == [256, 256]
    assert (mask & truth).sum() / truth.sum() > 0.8
    still = foreground_mask(clips[:, :, :1], 0.25)
    assert still.sum((1, 2)).tolist() == [256, 256]  # no motion is no reason for NaN


def test_colours_and_blur_are_those_of_the_formulas():
    import colorsys

    frames = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    hue, saturation, value = hsv(frames)
    for y in range(4):
        for x in range(4):
            h, s, v = colorsys.rgb_to_hsv(*frames[0, :, y, x].tolist())
            assert (hue[0, y, x], saturation[0, y, x], value[0, y, x]) == pytest.approx((h, s, v), abs=1e-5)
    assert colour_bins(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), "circle").item() == (9 * 10 + 5) * 10 + 9
    image = torch.zeros(1, 40, 40)
    image[0, 20, 20] = 1
    out = blurred(image)[0]  # k = 2 * (4 // 2) + 1 = 5, sigma 5/3
    weight = np.exp(-(np.arange(-2, 3) ** 2) / (2 * (5 / 3) ** 2))
    weight /= weight.sum()
    np.testing.assert_allclose(out[18:23, 18:23], np.outer(weight, weight), atol=1e-6)
    assert out.sum() == pytest.approx(1, abs=1e-5) and blurred(torch.rand(1, 224, 224)).shape == (1, 224, 224)
    assert top_share(torch.zeros(1, 4, 4), 0.5).sum() == 8


def test_stillmix_from_a_bank(tmp_path):
    stills = torch.randint(0, 256, (3, 3, H, W), dtype=torch.uint8)
    save_file({"stills": stills}, tmp_path / "bank.safetensors")
    batch = make_batch()
    with pytest.raises(InputError, match="where people are in a bank's stills is not known"):
        StillMix(bank=tmp_path / "bank.safetensors")(batch, np.random.default_rng(0), Context(C))
    del batch.per_sample["people"]
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    augmentation = StillMix(prob=1.0, bank=tmp_path / "bank.safetensors")
    out = augmentation(batch, np.random.default_rng(0), Context(C, mean, std))
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    normalised = (stills / 255 - shift) / scale
    for b in range(B):
        errors = []
        for still in normalised:
            # x' = s x + (1 - s) still for one s about a half: solve for it, and look at what is left over
            d, r = batch.motion[b] - still[:, None], out.motion[b] - still[:, None]
            s = (d * r).sum() / (d * d).sum()
            errors.append(((r - s * d).abs().max().item(), s.item()))
        error, s = min(errors)
        assert error < 1e-5 and 0.3 < s < 0.7
    assert torch.equal(out.target, batch.target)
    with pytest.raises(InputError, match="still-bank"):
        StillMix(bank=tmp_path / "none")(batch, np.random.default_rng(0), Context(C))


def test_stillmix_without_a_bank_uses_a_frame_of_another_clip():
    values = torch.arange(4.0)
    batch = Batch(values.view(4, 1, 1, 1, 1).expand(4, 3, T, H, W), None, torch.arange(4))
    for seed in range(5):
        out = apply(StillMix(prob=1.0), batch, seed)
        assert (out.motion[:, 0, 0, 0, 0] - values).abs().min() > 0.3


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Mixup, {"prob": 1.5}),
        (Mixup, {"alpha": 0}),
        (VideoMix, {"cuboid": "circle"}),
        (BackgroundErasing, {"most": 2}),
        (Fame, {"beta": 1.0}),
        (StillMix, {"a": -1}),
        (StillMix, {"static_from": "nowhere"}),
    ],
)
def test_unknown_options_are_refused(kind, wrong):
    with pytest.raises(InputError, match=f"augmentation.{next(iter(wrong))}"):
        kind(**wrong)
