"""What the loader delivers: the right frames, the same again after a restart or on another number of ranks."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.clips import Clips
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, ViewConfig

CLIP = ClipConfig(frames=6, stride=2, size=32)


def train_loader(root, **options) -> ClipLoader:
    options = {
        "clip": CLIP,
        "augment": AugmentConfig(static_frame="random"),
        "batch_size": 4,
        "device": "cpu",
    } | options
    return ClipLoader(root, **options)


def collect(root, **options) -> list[Clips]:
    with train_loader(root, **options) as loader:
        return list(loader)


def assert_same(a: Clips, b: Clips) -> None:
    for name in ("frames", "label", "sample", "position", "start_frame", "static_index", "flip", "draws"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_batches_have_the_promised_shapes(each_decoder, small_dataset):
    with train_loader(small_dataset, steps=3) as loader:
        batches = list(loader)
        assert len(batches) == len(loader) == 3
        labels = np.asarray(loader.index.label)
    for step, clips in enumerate(batches):
        assert clips.frames.shape == (4, 6, 32, 32, 3) and clips.frames.dtype == torch.uint8
        for column in (clips.label, clips.sample, clips.position, clips.start_frame, clips.static_index):
            assert column.shape == (4,) and column.dtype == torch.int64
        assert clips.flip.shape == (4,) and clips.flip.dtype == torch.bool
        assert clips.draws.shape == (4, 8) and clips.draws.dtype == torch.float32
        assert clips.position.tolist() == list(range(4 * step, 4 * step + 4))
        assert clips.label.tolist() == labels[clips.sample].tolist()


@pytest.mark.parametrize("start", [0, 1, 2, 5, 9])
def test_starting_at_any_step_gives_the_same_batches(each_decoder, small_dataset, start):
    whole, rest = (
        collect(small_dataset, steps=10, seed=3),
        collect(small_dataset, steps=10 - start, start_step=start, seed=3),
    )
    assert len(rest) == 10 - start
    for a, b in zip(whole[start:], rest, strict=True):
        assert_same(a, b)


def test_threads_and_queues_do_not_change_the_batches(each_decoder, small_dataset):
    busy = LoaderConfig(decode_threads=3, core_threads=3, pipelines=3, depth=3, read_threads=3, read_ahead=7, ready=1)
    meagre = LoaderConfig(decode_threads=1, core_threads=1, depth=1, read_ahead=1)
    for a, b in zip(
        collect(small_dataset, steps=8, config=busy), collect(small_dataset, steps=8, config=meagre), strict=True
    ):
        assert_same(a, b)


def test_world_sizes_share_one_global_order(each_decoder, small_dataset):
    alone = collect(small_dataset, steps=4, batch_size=8)
    ranks = [collect(small_dataset, steps=4, batch_size=8, rank=rank, world_size=2) for rank in range(2)]
    for step, whole in enumerate(alone):
        for name in ("frames", "sample", "draws"):
            parts = torch.cat([getattr(rank[step], name) for rank in ranks])
            assert torch.equal(getattr(whole, name), parts), name


def test_a_run_that_changes_its_world_size_sees_the_same_stream(each_decoder, small_dataset):
    """1 -> 2 -> 1 processes, each leg a restart."""
    alone = collect(small_dataset, steps=6, batch_size=8)
    legs = []
    for first, world in ((0, 1), (2, 2), (4, 1)):
        ranks = [
            collect(small_dataset, start_step=first, steps=2, batch_size=8, rank=rank, world_size=world)
            for rank in range(world)
        ]
        legs += zip(*ranks, strict=True)
    for whole, parts in zip(alone, legs, strict=True):
        for name in ("frames", "sample", "position", "draws", "static_index"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name


@pytest.mark.parametrize(
    ("world", "views"), [(1, ViewConfig()), (1, ViewConfig(temporal=2, spatial=3)), (3, ViewConfig())]
)
def test_evaluation_shows_every_view_once(small_dataset, world, views):
    clips = [
        batch
        for rank in range(world)
        for batch in collect(small_dataset, augment=None, views=views, batch_size=3, rank=rank, world_size=world)
    ]
    count = views.temporal * views.spatial
    assert torch.cat([c.position for c in clips]).tolist() == list(range(10 * count))
    assert torch.cat([c.sample for c in clips]).tolist() == [n // count for n in range(10 * count)]
    assert not torch.cat([c.flip for c in clips]).any()


@pytest.mark.parametrize("short_video", ["repeat_last", "loop", "halve_stride"])
def test_whole_chain_against_pyav(each_decoder, small_dataset, pyav_frames, short_video):
    """Start frame, stride, short videos, crop and resize, against PyAV and an antialiased resize in float64."""
    clip = ClipConfig(frames=12, stride=2, size=32, short_video=short_video)
    with ClipLoader(
        small_dataset, clip=clip, views=ViewConfig(temporal=2, spatial=3), batch_size=7, device="cpu"
    ) as loader:
        requests = loader._sampler.draw(np.arange(60))
        clips = torch.cat([batch.frames for batch in loader])
        mp4 = [
            loader._reader.read(n, 0, -(-int(loader.index.frames[n]) // int(loader.index.gop[n]))) for n in range(10)
        ]
    pictures = [pyav_frames(data) for data in mp4]
    for row in range(60):
        r = requests.take([row])
        video = pictures[int(r.sample[0])]
        n, stride = len(video), int(r.stride[0])
        number = int(r.start_frame[0]) + stride * np.arange(12)
        number = number % n if short_video == "loop" else np.minimum(number, n - 1)
        top, left = int(r.top[0]), int(r.left[0])
        cut = video[number, top : top + int(r.height[0]), left : left + int(r.width[0])]
        wanted = torch.nn.functional.interpolate(
            cut.permute(0, 3, 1, 2), size=(32, 32), mode="bilinear", antialias=True
        )
        error = (clips[row].permute(0, 3, 1, 2).double() - wanted).abs()
        # within the picture rounding alone; at its border we filter with the pixels beyond the crop, torch does not
        inside, border = (1.6 if each_decoder == "cores" else 1.1), 7
        assert error[..., 1:-1, 1:-1].max() < inside and error.max() < border, (row, error.max())


def test_accounting(each_decoder, small_dataset):
    with train_loader(small_dataset, steps=6) as loader:
        clips = list(loader)
        requests = loader._sampler.draw(np.arange(24))
    stats, index = loader.stats, loader.index
    assert (stats.batches, stats.clips, stats.frames_delivered, stats.bad_clips) == (6, len(clips) * 4, 24 * 6, 0)
    last = np.minimum(requests.start_frame + 10, np.asarray(index.frames)[requests.sample] - 1)
    first = requests.start_frame // 6 * 6
    assert stats.frames_decoded == (last - first + 1).sum()
    assert 0 < stats.bytes_per_clip < np.asarray(index.mp4_bytes).mean()
    assert 0 <= stats.wait_share <= 1 and stats.clips_per_s > 0


def test_prepare_runs_ahead_on_every_batch(small_dataset):
    clips = collect(small_dataset, steps=3, prepare=lambda batch: batch.frames.float().mean())
    assert all(torch.equal(batch.prepared, batch.frames.float().mean()) for batch in clips)


def test_batches_outlive_the_loader(each_decoder, small_dataset):
    with train_loader(small_dataset, steps=30) as loader:
        kept = next(loader)
        copy = kept.frames.clone()
        for _ in loader:
            pass
    assert torch.equal(kept.frames, copy)


def test_an_error_in_the_background_reaches_the_loop(each_decoder, small_dataset):
    def fails(_):
        raise ZeroDivisionError("in prepare")

    with train_loader(small_dataset, prepare=fails) as loader:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="in prepare"):
                next(loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": ViewConfig()}, "either augment .* or views"),
        ({"batch_size": 4, "world_size": 3}, "multiple of the 3 processes"),
        ({"rank": 1}, "rank 1 of 1"),
        ({"start_step": -1}, "start_step"),
        ({"device": "meta"}, "cpu or cuda"),
    ],
)
def test_wrong_options_are_refused(small_dataset, options, message):
    with pytest.raises(InputError, match=message):
        train_loader(small_dataset, **options)


def test_endless_training_has_no_length(small_dataset):
    with train_loader(small_dataset) as loader, pytest.raises(TypeError, match="endless"):
        len(loader)


@pytest.mark.gpu
def test_gpu_batches_are_on_the_device_and_survive_a_busy_training_stream(tmp_path, gpu_video, dataset):
    """The training stream lags far behind the loader; what it finally reads is still the batch it was given."""
    samples = [gpu_video(seed=n, label=n % 4) for n in range(8)]
    root = dataset(tmp_path / "data", samples)

    def means(busy: bool) -> torch.Tensor:
        out, ballast = [], torch.randn(4096, 4096, device="cuda")
        prepare = lambda clips: (clips.frames.float() / 255).flatten(1)  # noqa: E731
        with train_loader(root, steps=30, device="cuda", prepare=prepare) as loader:
            for clips in loader:
                assert clips.frames.is_cuda and clips.label.is_cuda and clips.draws.is_cuda
                if busy:
                    for _ in range(20):
                        ballast = torch.tanh(ballast @ ballast)
                out.append(torch.stack([clips.frames.double().mean() / 255, clips.prepared.double().mean()]))
        return torch.stack(out).cpu()

    relaxed, busy = means(False), means(True)
    assert torch.equal(relaxed, busy)
    assert torch.allclose(relaxed[:, 0], relaxed[:, 1], atol=1e-5)


@pytest.mark.slow
def test_leaving_without_closing_ends_the_process_cleanly(small_dataset):
    script = (
        "from unstill.pipeline.loading.loader import *\n"
        f"loader = ClipLoader({str(small_dataset)!r}, clip=ClipConfig(frames=6, size=32), augment=AugmentConfig(),"
        " batch_size=4, device='cpu')\n"
        "next(loader)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
