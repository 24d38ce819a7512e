"""Shifts with wrap-around."""

import torch

from unstill.trainer.demo.circular_shift import _roll_by_index, circular_shift


def test_each_clip_is_shifted_by_its_own_draws():
    frames = torch.randint(0, 256, (5, 2, 6, 7, 3), dtype=torch.uint8)
    draws = torch.rand(5, 8)
    draws[0, :2] = 1 - 2**-24  # the largest draw
    rolled = circular_shift(frames, draws)
    for clip, out, draw in zip(frames, rolled, draws, strict=True):
        assert torch.equal(out, clip.roll((int(draw[0] * 6), int(draw[1] * 7)), (1, 2)))
    by_index = _roll_by_index(frames, (draws[:, 0] * 6).long(), (draws[:, 1] * 7).long())
    assert torch.equal(rolled, by_index)
    assert rolled.is_contiguous() and rolled.dtype == torch.uint8
