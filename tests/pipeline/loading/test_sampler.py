"""The sampler is a pure function of (seed, position), whatever the batch, the rank or the world."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.counter_random import fold, permute, uniform_columns
from unstill.pipeline.loading.sampler import (
    AugmentConfig,
    ClipConfig,
    ClipRequests,
    EvalSampler,
    TrainSampler,
    ViewConfig,
    clip_strides,
    frame_numbers,
    step_positions,
)


class Videos(SimpleNamespace):
    """What a sampler needs of an index."""

    def __init__(self, **columns):
        super().__init__(**{"layers": np.ones(len(columns["frames"]), np.uint8), **columns})

    def __len__(self):
        return len(self.frames)


def videos(n=50, seed=0) -> Videos:
    random = np.random.default_rng(seed)
    return Videos(
        frames=random.integers(1, 300, n).astype(np.int32),
        width=random.integers(16, 400, n).astype(np.uint16),
        height=random.integers(16, 400, n).astype(np.uint16),
    )


def same(a: ClipRequests, b: ClipRequests) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**63 - 1))
def test_permute_is_a_permutation(size, key):
    out = permute(np.arange(size), size, np.array([key], np.uint64))
    assert np.array_equal(np.sort(out), np.arange(size))


def test_permutations_of_a_small_range_are_all_reached_and_even():
    keys = fold(3, np.arange(24_000))
    places = np.stack([permute(np.full(24_000, value), 4, keys) for value in range(4)], axis=1)
    counts = np.unique(places, axis=0, return_counts=True)[1]
    # 24 permutations, 1000 draws each: chi-square with 23 degrees of freedom, 1e-6 quantile 75
    assert len(counts) == 24 and ((counts - 1000.0) ** 2 / 1000).sum() < 75


def test_uniform_columns_are_uniform_and_independent():
    u = uniform_columns(fold(1, np.arange(40_000)), 6)
    assert u.min() >= 0 and u.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in u.T])
    assert (((counts - 2000.0) ** 2 / 2000).sum(1) < 65).all()  # 19 degrees of freedom, 1e-6 quantile 65
    correlation = np.corrcoef(np.concatenate([u, np.roll(u, 1, axis=0)], axis=1).T)
    assert np.abs(correlation - np.eye(12)).max() < 6 / np.sqrt(40_000)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    step=st.integers(0, 10**9),
    world=st.sampled_from([1, 2, 3, 4, 6, 12]),
    static=st.sampled_from(["first", "middle", "last", "random"]),
    crop=st.sampled_from(["random_resized", "none"]),
    repeats=st.sampled_from([1, 2, 3]),
)
def test_global_batch_does_not_depend_on_the_world_size(seed, step, world, static, crop, repeats):
    augment = AugmentConfig(static_frame=static, crop=crop, repeats=repeats)
    sampler = TrainSampler(videos(), ClipConfig(frames=8), augment, seed)
    whole = sampler.draw(step_positions(step, 24))
    parts = [sampler.draw(step_positions(step, 24, rank, world)) for rank in range(world)]
    assert same(whole, ClipRequests.join(parts))


def test_every_epoch_has_every_sample_once_in_another_order():
    n = 50
    sampler = TrainSampler(videos(n), ClipConfig(frames=4), AugmentConfig(), seed=5)
    epochs = sampler.draw(np.arange(3 * n)).sample.reshape(3, n)
    assert all(np.array_equal(np.sort(epoch), np.arange(n)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])
    other_seed = TrainSampler(videos(n), ClipConfig(frames=4), AugmentConfig(), seed=6).draw(np.arange(n))
    assert not np.array_equal(other_seed.sample, epochs[0])


def test_repeated_clips_are_of_one_video_and_differ():
    n, k = 50, 3
    once, repeated = (
        TrainSampler(videos(n), ClipConfig(frames=4), AugmentConfig(static_frame="random", repeats=repeats), seed=5)
        for repeats in (1, k)
    )
    found = repeated.draw(np.arange(2 * k * n))
    samples = found.sample.reshape(2, n, k)
    assert (samples == samples[:, :, :1]).all()
    assert np.array_equal(samples[:, :, 0].ravel(), once.draw(np.arange(2 * n)).sample)  # the order of the videos stays
    assert repeated.clips_per_epoch == k * n and once.clips_per_epoch == n
    for column in (found.start_frame, found.left, found.static_index, found.draws[:, 0]):
        rows = column.reshape(-1, k)
        assert (rows[:, 0] != rows[:, 1]).mean() > 0.5 and (rows[:, 1] != rows[:, 2]).mean() > 0.5
    assert 0.3 < (found.flip[::k] != found.flip[1::k]).mean() < 0.7


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    frames=st.integers(1, 40),
    stride=st.integers(1, 8),
    short=st.sampled_from(["repeat_last", "loop", "halve_stride"]),
    attempt=st.integers(0, 3),
)
def test_requests_lie_within_their_videos(seed, frames, stride, short, attempt):
    index = videos(seed=seed)
    clip = ClipConfig(frames=frames, stride=stride, short_video=short)
    r = TrainSampler(index, clip, AugmentConfig(static_frame="random"), seed).draw(np.arange(64), attempt)
    n, width, height = (np.asarray(a, np.int64)[r.sample] for a in (index.frames, index.width, index.height))
    assert (r.top >= 0).all() and (r.left >= 0).all() and (r.height > 0).all() and (r.width > 0).all()
    assert (r.top + r.height <= height).all() and (r.left + r.width <= width).all()
    assert (r.start_frame >= 0).all() and (r.start_frame < n).all()
    assert (r.static_index >= 0).all() and (r.static_index < frames).all()
    assert r.draws.dtype == np.float32 and (r.draws >= 0).all() and (r.draws < 1).all()
    numbers = frame_numbers(clip, r.start_frame, r.stride, n)
    assert (numbers >= 0).all() and (numbers < n[:, None]).all()
    fits = (frames - 1) * r.stride + 1 <= n
    assert (np.diff(numbers[fits], axis=1) == r.stride[fits, None]).all()


def test_start_frames_are_uniform_over_all_valid_ones():
    index = Videos(frames=np.array([40]), width=np.array([32]), height=np.array([32]))
    r = TrainSampler(index, ClipConfig(frames=16, stride=2), AugmentConfig(), 0).draw(np.arange(20_000))
    counts = np.bincount(r.start_frame)
    assert len(counts) == 40 - 31 + 1  # starts 0 .. 9
    assert ((counts - 2000.0) ** 2 / 2000).sum() < 50  # 9 degrees of freedom, 1e-7 quantile 50


def test_crop_areas_and_ratios_follow_the_configuration():
    index = Videos(frames=np.array([8]), width=np.array([400]), height=np.array([300]))
    r = TrainSampler(index, ClipConfig(frames=8, stride=1), AugmentConfig(min_area=0.3), 0).draw(np.arange(5000))
    share, ratio = r.height * r.width / (400 * 300), r.width / r.height
    assert share.min() > 0.29 and share.max() <= 1.0 and 0.5 < share.mean() < 0.66
    assert ratio.min() > 0.74 and ratio.max() < 1.35 and 0.4 < r.flip.mean() < 0.6


def test_attempts_give_other_samples():
    sampler = TrainSampler(videos(1000), ClipConfig(), AugmentConfig(), 0)
    rows = [sampler.draw(np.arange(100), attempt).sample for attempt in range(4)]
    assert all((rows[a] == rows[b]).mean() < 0.05 for a in range(4) for b in range(a))


@pytest.mark.parametrize(
    ("policy", "n", "expected"),
    [
        ("repeat_last", 5, [0, 2, 4, 4]),
        ("repeat_last", 6, [0, 2, 4, 5]),
        ("loop", 5, [0, 2, 4, 1]),
        ("loop", 1, [0, 0, 0, 0]),
        ("halve_stride", 5, [0, 1, 2, 3]),
        ("halve_stride", 3, [0, 1, 2, 2]),
        ("halve_stride", 7, [0, 1, 2, 3]),
        ("halve_stride", 8, [0, 2, 4, 6]),
    ],
)
def test_short_videos(policy, n, expected):
    clip, length = ClipConfig(frames=4, stride=2, short_video=policy), np.array([n])
    assert frame_numbers(clip, np.array([0]), clip_strides(clip, length), length).tolist() == [expected]


def test_views_cover_the_video():
    index = Videos(frames=np.array([100, 10]), width=np.array([64, 48]), height=np.array([48, 96]))
    r = EvalSampler(index, ClipConfig(frames=8, stride=4), ViewConfig(temporal=4, spatial=3)).draw(np.arange(24))
    assert r.sample.tolist() == [0] * 12 + [1] * 12
    assert r.start_frame[:12:3].tolist() == [0, 23, 47, 71] and r.start_frame[12:].tolist() == [0] * 12
    assert r.left[:3].tolist() == [0, 8, 16] and r.top[:3].tolist() == [0, 0, 0]
    assert r.top[12:15].tolist() == [0, 24, 48] and r.left[12:15].tolist() == [0, 0, 0]
    assert (r.height == 48).all() and (r.width == 48).all()


def test_views_of_the_published_evaluations():
    """MMAction's four clips lie in the middle of their share; ALBAR crops 224 of 256; Confl-FG is squeezed."""
    index = Videos(frames=np.array([200, 40]), width=np.array([340, 340]), height=np.array([256, 256]))
    clip = ClipConfig(frames=32, stride=2, short_video="loop")
    r = EvalSampler(index, clip, ViewConfig(temporal=4, spread="middles")).draw(np.arange(8))
    interval = (200 - 64 + 1) / 4
    assert r.start_frame.tolist() == [int(n * interval + interval / 2) for n in range(4)] + [0] * 4
    r = EvalSampler(index, clip, ViewConfig(squeeze=True)).draw(np.arange(2))
    assert (r.top.tolist(), r.left.tolist()) == ([0, 0], [0, 0])
    assert r.height.tolist() == [256, 256] and r.width.tolist() == [340, 340]
    with pytest.raises(InputError, match="squeeze"):
        ViewConfig(squeeze=True, spatial=3)


@pytest.mark.parametrize(("anchor", "start"), [("first", 0), ("centre", 34)])
def test_one_view(anchor, start):
    index = Videos(frames=np.array([100]), width=np.array([340]), height=np.array([256]))
    views = ViewConfig(anchor=anchor, crop_share=0.875)
    r = EvalSampler(index, ClipConfig(frames=16, stride=2), views).draw(np.array([0]))
    assert (r.start_frame[0], r.height[0], r.width[0], r.top[0], r.left[0]) == (start, 224, 224, 16, 58)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (ClipConfig, {"frames": 0}),
        (ClipConfig, {"short_video": "pad"}),
        (AugmentConfig, {"crop": "centre"}),
        (AugmentConfig, {"flip": 1.5}),
        (AugmentConfig, {"static_frame": "all"}),
        (ViewConfig, {"spatial": 5}),
        (ViewConfig, {"anchor": "end"}),
    ],
)
def test_wrong_options_are_refused(config, options):
    with pytest.raises(InputError, match=next(iter(options))):
        config(**options)


def starts(frames: int, layers: int, rule: str, clip: ClipConfig, n=4000) -> np.ndarray:
    """int64 (n,): first frames of n clips of one video."""
    one = Videos(frames=np.array([frames]), width=np.array([64]), height=np.array([64]), layers=np.array([layers]))
    drawn = TrainSampler(one, clip, AugmentConfig(starts=rule), seed=0).draw(np.arange(n))
    assert (drawn.start_frame + (clip.frames - 1) * drawn.stride < max(frames, clip.frames)).all()
    return drawn.start_frame


@pytest.mark.parametrize("frames", [40, 41])
def test_clips_of_layered_videos_start_at_any_even_frame_alike(frames):
    clip = ClipConfig(frames=8, stride=2)
    found = starts(frames, 2, "auto", clip)
    counts = np.bincount(found, minlength=frames - 14)
    assert (counts[1::2] == 0).all()
    even = counts[::2]  # 0, 2, ... up to the last even one that fits
    assert len(even) == (frames - 15) // 2 + 1
    expected = len(found) / len(even)
    assert ((even - expected) ** 2 / expected).sum() < 48  # 12 degrees of freedom: 3e-6
    assert np.array_equal(starts(frames, 1, "even", clip), found)
    assert np.array_equal(starts(frames, 2, "all", clip), starts(frames, 1, "auto", clip))


def test_an_odd_stride_starts_anywhere():
    assert np.array_equal(np.unique(starts(30, 2, "auto", ClipConfig(frames=8, stride=3))), np.arange(9))


def test_datasets_without_layers_are_drawn_as_ever():
    drawn = TrainSampler(videos(), ClipConfig(frames=8), AugmentConfig(), seed=7).draw(np.arange(12))
    assert drawn.start_frame.tolist() == [5, 156, 0, 20, 119, 0, 0, 84, 4, 37, 127, 73]
