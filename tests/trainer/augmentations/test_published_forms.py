"""The blends against the released code's behaviour, restated here in float64: partners, fills, boxes, colours.

The released codes blend the complete batch first, then keep the blended form of each sample with a probability.
"""

import colorsys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unstill.trainer.augmentations.actor_cutmix import ActorCutMix
from unstill.trainer.augmentations.base import Context
from unstill.trainer.augmentations.fame import Fame
from unstill.trainer.augmentations.foreground import colour_bins, foreground_mask
from unstill.trainer.augmentations.mixup import Mixup
from unstill.trainer.augmentations.stillmix import StillMix
from unstill.trainer.augmentations.videomix import VideoMix, draw_cuboid
from unstill.trainer.batch import Batch


def named_batch(n, people=False):
    """Constant clips: sample b is the value b + 1, and has class b."""
    motion = torch.arange(1.0, n + 1).view(-1, 1, 1, 1, 1).expand(n, 3, 2, 8, 8).contiguous()
    mask = torch.zeros(n, 1, 2, 8, 8, dtype=torch.uint8)
    mask[..., 2:5, 1:7] = 1
    return Batch(motion, None, torch.arange(n), None, {"people": mask} if people else {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Mixup, Fame, ActorCutMix])
@pytest.mark.parametrize(("n", "prob"), [(6, 0.25), (6, 0.5), (12, 0.25)])
def test_as_many_samples_get_another_clip_as_in_the_released_code(kind, n, prob):
    """prob (n - 1) / n for a permutation of the batch, prob for the reversed one; partners need not be chosen."""
    rounds, rng, unchosen = 800, np.random.default_rng(0), 0
    blended = np.zeros(n)
    for _ in range(rounds):
        out = kind(prob=prob)(named_batch(n, kind is ActorCutMix), rng, Context(n))
        values = [set(clip.unique().tolist()) - {0.0} for clip in out.motion]
        touched = np.array([found != {b + 1.0} for b, found in enumerate(values)])
        blended += touched
        if kind is ActorCutMix:
            unchosen += sum(touched[b] and not touched[n - 1 - b] for b in range(n))
    expected = prob * (1 if kind is ActorCutMix else (n - 1) / n)
    deviation = (expected * (1 - expected) / (rounds * n)) ** 0.5
    assert blended.sum() / (rounds * n) == pytest.approx(expected, abs=4 * deviation)
    if kind is ActorCutMix:
        assert unchosen > 0


def released_actor_cutmix(clips, people, label):
    """Arrays (B,...), float64: the people of each clip over the reversed batch without its people."""
    mask = people.astype(np.float64)
    size = mask.reshape(len(mask), -1).sum(1)
    invalid = (size == 0) | (size == mask[0].size)
    if len(mask) % 2:
        invalid[len(mask) // 2] = True
    mask[invalid] = 1
    background = (clips * (1 - mask))[::-1] * (1 - mask)
    blended = np.where(invalid[:, None, None, None, None], clips, clips * mask + background)
    weight = 1 - (mask.reshape(len(mask), -1).mean(1) - 1) ** 4
    return blended, weight[:, None] * label + (1 - weight[:, None]) * label[::-1]


def test_actor_cutmix_is_the_released_form():
    """In normalised units, where 0 is the mean colour; a clip without people gives its partner nothing but the mean."""
    rng = np.random.default_rng(0)
    clips, people = rng.standard_normal((7, 3, 4, 10, 12)), rng.random((7, 1, 4, 10, 12)) < 0.3
    people[1], people[4] = False, True
    blended, label = released_actor_cutmix(clips, people, np.eye(7))
    batch = Batch(torch.from_numpy(clips), None, torch.arange(7), None, {"people": torch.from_numpy(people)})
    out = ActorCutMix(prob=1.0)(batch, rng, Context(7, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)))
    np.testing.assert_allclose(out.motion.numpy(), blended, atol=0)
    np.testing.assert_allclose(out.target.numpy(), label, atol=1e-6)
    own, partner = blended[5], people[5, 0]  # its partner is row 1, which shows nobody
    assert (own[:, ~partner] == 0).all()


def released_colour(red, green, blue):
    """The bin: hue in radians times 2 pi, rounded to 1..10 on each axis."""
    turns, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    angle = 2 * np.pi * (2 * np.pi * turns)
    x, y = (saturation * np.cos(angle) + 1) / 2, (saturation * np.sin(angle) + 1) / 2
    return tuple(int(np.round(axis * 9 + 1)) for axis in (x, y, value))


def released_fame(clip, beta):
    """bool (h,w) of one float64 clip (3,T,h,w) in [0,1], h = w."""
    side = clip.shape[-1]
    k = int(0.1 * side) // 2 * 2 + 1
    at = np.arange(k) - k // 2
    kernel = np.exp(-(at**2) / (2 * (k / 3) ** 2))
    kernel = torch.from_numpy(np.outer(kernel, kernel) / kernel.sum() ** 2)[None, None]

    def blur(image):
        padded = F.pad(torch.from_numpy(image)[None, None], (k // 2,) * 4, mode="reflect")
        return F.conv2d(padded, kernel)[0, 0].numpy()

    moves = blur(np.abs(np.diff(clip, axis=1)).sum(0).mean(0)).ravel()
    mean = clip.mean(1).reshape(3, -1).T
    bins = [released_colour(*pixel) for pixel in mean.tolist()]
    order = np.argsort(-moves, kind="stable")
    counts = []
    for rows, start in ((order[: int(0.5 * side**2)], 0), (order[::-1][: int(0.1 * side**2)], 1)):
        count = dict.fromkeys(bins, start)
        for row in rows:
            count[bins[row]] += 1
        total = len(rows) + start * 1000
        counts.append({bin_: n / total for bin_, n in count.items()})
    likely = np.array([counts[0][b] / (counts[0][b] + counts[1][b]) for b in bins]).reshape(side, side)
    found, top = np.zeros(side**2, bool), np.argsort(-blur(likely).ravel(), kind="stable")[: int(beta * side**2)]
    found[top] = True
    return found.reshape(side, side)


def moving_squares():
    rng = np.random.default_rng(1)
    clips = np.repeat(rng.random((3, 3, 1, 8, 8)).repeat(4, 3).repeat(4, 4), 4, 2) * 0.6
    for n in range(3):
        colour, (y, x) = rng.random((3, 1, 1)), rng.integers(4, 14, 2)
        for t in range(4):
            clips[n, :, t, y : y + 9, x + 2 * t : x + 2 * t + 9] = colour
    return clips + 0.05 * rng.random(clips.shape)


def test_fame_finds_the_released_codes_foreground():
    clips = moving_squares()
    for clip, ours in zip(clips, foreground_mask(torch.from_numpy(clips), 0.5), strict=True):
        theirs = released_fame(clip, 0.5)
        assert (ours.numpy() & theirs).sum() / (ours.numpy() | theirs).sum() > 0.99  # ties may fall either way
        assert theirs.sum() == ours.sum()
    other = foreground_mask(torch.from_numpy(clips), 0.5, "circle").numpy()
    theirs = np.stack([released_fame(clip, 0.5) for clip in clips])
    assert (other & theirs).sum() / (other | theirs).sum() < 0.95  # the choice matters


def test_published_colours_are_the_released_codes():
    pixels = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = colour_bins(pixels.T.reshape(1, 3, 10, 20)).flatten().tolist()
    for number, pixel in zip(found, pixels.tolist(), strict=True):
        assert (number // 100 + 1, number // 10 % 10 + 1, number % 10 + 1) == released_colour(*pixel)


def test_boxes_have_cutmixs_even_sides():
    """begin = centre - side // 2, end = centre + side // 2, each cut off at the border."""
    for seed in range(60):
        share = np.random.default_rng(seed).random()
        spans = draw_cuboid((4, 31, 47), share, "spatial", np.random.default_rng(seed))
        again = np.random.default_rng(seed)
        for length, (begin, end) in zip((31, 47), spans[1:], strict=True):
            half, centre = int(length * (1 - share) ** 0.5) // 2, int(again.integers(length))
            assert (begin, end) == (max(centre - half, 0), min(centre + half, length))


def test_the_label_of_a_videomix_follows_the_pixels():
    out = VideoMix(prob=1.0)(named_batch(5), np.random.default_rng(3), Context(5))
    for b in range(5):
        shown = [(out.motion[b] == v + 1).float().mean().item() for v in range(5)]
        assert out.target[b].tolist() == pytest.approx(shown, abs=1e-6)


def test_stillmix_takes_one_frame_of_each_clip_for_everyone_who_picks_it():
    """Clips whose frame t of clip b is 100 b + t: the stills of two receivers of one clip are one frame."""
    values = 100 * torch.arange(6.0)[:, None] + torch.arange(8.0)
    motion = values.view(6, 1, 8, 1, 1).expand(6, 3, 8, 2, 2).contiguous()
    shared = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        out = StillMix(prob=1.0, a=1e6, b=1e6)(Batch(motion, None, torch.arange(6)), rng, Context(6))
        stills = (2 * out.motion[:, 0, :, 0, 0] - values).mean(1)  # a half each
        givers = (stills / 100).round().int().tolist()
        for giver in set(givers):
            of_giver = stills[[g == giver for g in givers]]
            shared += len(of_giver) > 1
            assert np.ptp(of_giver.numpy()) < 0.5
    assert shared > 10
