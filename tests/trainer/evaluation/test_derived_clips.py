"""Derived test clips: what they keep, and that they depend only on seed and key."""

import numpy as np
import pytest
import torch

from unstill.trainer.evaluation.derived_clips import as_filmed, backwards, shaken, shuffled, still, still_frame

KEYS = [f"left_{i:06d}" for i in range(40)]


@pytest.fixture
def frames():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 8, 16, 24, 3), np.uint8))


def test_still_repeats_one_frame_chosen_by_key(frames):
    clips, index = still(frames, KEYS), still_frame(KEYS, 8)
    for b in range(40):
        assert (clips[b] == frames[b, index[b]]).all()
    counts = np.bincount(still_frame([f"k{i}" for i in range(4000)], 8), minlength=8)
    assert counts.min() > 420 and counts.max() < 580  # uniform: 500 +- 4 sd
    assert (still_frame(KEYS, 8, seed=1) != index).any()


@pytest.mark.parametrize("transform", [as_filmed, still, shaken, backwards, shuffled])
def test_a_clip_depends_on_its_key_and_not_on_its_batch(frames, transform):
    whole = transform(frames, KEYS)
    assert whole.shape == frames.shape and whole.dtype == torch.uint8
    order = np.random.default_rng(1).permutation(40)
    assert torch.equal(transform(frames[order], [KEYS[i] for i in order]), whole[order])
    assert torch.equal(transform(frames[7:8], KEYS[7:8]), whole[7:8])


def test_shaken_is_the_still_frame_rolled_by_up_to_an_eighth(frames):
    clips, index, offsets = shaken(frames, KEYS), still_frame(KEYS, 8), set()
    for b in range(40):
        source = frames[b, index[b]]
        for t in range(8):
            fits = [
                (dy, dx)
                for dy in range(-2, 3)
                for dx in range(-3, 4)
                if torch.equal(clips[b, t], source.roll((dy, dx), (0, 1)))
            ]
            assert len(fits) == 1
            offsets |= set(fits)
    assert len(offsets) == 5 * 7  # every offset occurs
    assert (clips[:, 0] != clips[:, 1]).any()


def test_time_is_reversed_or_permuted(frames):
    assert torch.equal(backwards(frames, KEYS)[:, 0], frames[:, 7])
    assert torch.equal(backwards(backwards(frames, KEYS), KEYS), frames)
    clips = shuffled(frames, KEYS)
    sums = lambda x: x.long().sum((2, 3, 4))  # noqa: E731
    assert torch.equal(sums(clips).sort(1).values, sums(frames).sort(1).values)
    assert not torch.equal(clips, frames)
