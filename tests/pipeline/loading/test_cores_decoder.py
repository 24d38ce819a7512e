"""libavcodec on the processor's cores: the right frames, close to DALI's, of every codec; and two decoders together."""

import io
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from unstill.pipeline.conversion.convert import ConvertConfig
from unstill.pipeline.conversion.transcode import transcode
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.clips import Clips
from unstill.pipeline.loading.decoders import DecoderMaker
from unstill.pipeline.loading.encoded_batch import EncodedBatch
from unstill.pipeline.loading.gop_reader import GopReader, shards_in
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.resize import matrix, taps
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, ClipRequests
from unstill.pipeline.loading.shared_decoder import SharedDecoder
from unstill.pipeline.shards.index import SampleIndex

GOP, FRAMES, HEIGHT, WIDTH = 12, 30, 96, 128
# Levels, mean and most, on a picture of steep saturated colours, some of which clip: DALI and the reference clip before
# they resize. The reference has chroma of its own: PyAV's converter rounds what it interpolates.
DALI, REFERENCE = (0.2, 2), (0.3, 3)
REGIONS = {
    "whole": (0, 0, HEIGHT, WIDTH),
    "even": (10, 20, 60, 80),
    "odd": (7, 13, 51, 77),
    "odd top": (9, 20, 64, 64),
    "narrow": (3, 5, 90, 17),
    "corner": (HEIGHT - 31, WIDTH - 33, 31, 33),
    "one pixel": (5, 5, 1, 1),
}


def requests_of(regions: list[tuple[int, int, int, int]]) -> ClipRequests:
    zero = np.zeros(len(regions), np.int64)
    top, left, height, width = np.array(regions).T
    draws = np.zeros((len(regions), 8), np.float32)
    return ClipRequests(zero, zero, zero, zero + 1, top, left, height, width, zero > 0, zero, draws)


def batch_of(reader: GopReader, frames: np.ndarray, regions) -> EncodedBatch:
    clip, n = reader.clip(0, frames), len(regions)
    zero = np.zeros(n, np.int64)
    return EncodedBatch(requests_of(regions), [clip.mp4] * n, np.stack([clip.frames] * n), zero, zero, [clip.table] * n)


@pytest.fixture(scope="module", params=["h264", "hevc", "vp9", "mjpeg"])
def one_video(request, video, dataset, tmp_path_factory):
    """(codec, index, reader, pictures float64 (n, H, W, 3)) of a dataset of one video, layered where it can be."""
    codec = request.param
    sample = video(frames=FRAMES, height=HEIGHT, width=WIDTH, codec="vp9" if codec != "mjpeg" else codec, seed=1)
    if codec != "mjpeg":
        recipe = ConvertConfig(source="", out="", codec=codec, layers=2, short_side=HEIGHT, gop=GOP).recipe()
        mp4 = transcode(io.BytesIO(sample.mp4), recipe).mp4
        sample = replace(sample, mp4=mp4, codec=codec, gop=GOP, layers=2)
    root = dataset(tmp_path_factory.mktemp(codec) / "data", [sample])
    index = SampleIndex.load(root)
    reader = GopReader(index, shards_in(root, index))
    yield codec, index, reader, sample.mp4
    reader.close()


def decoded(name: str, index: SampleIndex, size: int, batch: EncodedBatch) -> torch.Tensor:
    decoder = DecoderMaker(name, index, size, torch.device("cpu")).new(len(batch))
    decoder.submit(batch)
    clips = decoder.collect().clone()
    decoder.close()
    return clips


def reference(pictures: torch.Tensor, region, size: int) -> torch.Tensor:
    """float64 (T, size, size, 3): RGB pictures through the filter of ``resize.py``, which a test holds against DALI."""
    top, left, height, width = region
    rows, columns = (
        matrix(*map(torch.from_numpy, taps(*map(np.array, ([begin], [begin + side], [length])), size)), length)[0]
        for begin, side, length in ((top, height, HEIGHT), (left, width, WIDTH))
    )
    return torch.einsum("ih,thwc,jw->tijc", rows.double(), pictures, columns.double()) / 2048**2


def compare(got: torch.Tensor, wanted: torch.Tensor, levels: tuple[float, int], what: object) -> None:
    error = (got.double() - wanted.double()).abs()
    found = (error.mean().item(), error.max().item())
    assert found[0] <= levels[0] and found[1] <= levels[1], (what, found)


@pytest.mark.parametrize("size", [12, 48, 112])
def test_cores_deliver_the_frames_crops_and_colours_of_the_pictures(one_video, pyav_frames, size):
    """Odd regions, enlarged ninefold and shrunk eightfold, against float64; and DALI's own where it has a decoder."""
    codec, index, reader, mp4 = one_video
    pictures, frames = pyav_frames(mp4), np.array([1, 4, 7, 8, 13, 29])
    batch = batch_of(reader, frames, list(REGIONS.values()))
    ours = decoded("cores", index, size, batch)
    theirs = decoded("dali", index, size, batch) if codec in ("vp9", "mjpeg") else None
    for row, (name, region) in enumerate(REGIONS.items()):
        compare(ours[row], reference(pictures[frames], region, size), REFERENCE, (codec, name))
        if theirs is not None:
            compare(ours[row], theirs[row], DALI, (codec, name, "DALI"))


@pytest.mark.parametrize("frames", [[0, 2, 4, 12, 28], [5, 3, 3, 0], [29, 29, 29], [11, 12, 13]])
def test_every_frame_is_the_one_that_was_asked_for(one_video, pyav_frames, frames):
    """Even frames alone, all layers, repeats, and any order, from decoders that are kept between clips."""
    _, index, reader, mp4 = one_video
    pictures = pyav_frames(mp4)
    clips = decoded("cores", index, HEIGHT, batch_of(reader, np.array(frames), [(0, 0, HEIGHT, HEIGHT)] * 3))
    distance = (clips[0][:, None] - pictures[None, :, :HEIGHT, :HEIGHT]).abs().mean((2, 3, 4))
    assert distance.argmin(1).tolist() == frames
    assert torch.equal(clips[0], clips[1]) and torch.equal(clips[0], clips[2])


@pytest.fixture(scope="module")
def h264(video, dataset, tmp_path_factory):
    samples = [video(frames=20, codec="h264", seed=n, label=n % 4) for n in range(8)]
    return dataset(tmp_path_factory.mktemp("h264") / "data", samples)


def test_auto_says_what_decodes_and_why(h264, small_dataset, caplog, monkeypatch):
    monkeypatch.setattr("unstill.pipeline.loading.loader._said", set())  # it says a line once in a process
    caplog.set_level("INFO")
    options = {"clip": ClipConfig(frames=4, size=32), "augment": AugmentConfig(), "batch_size": 2, "device": "cpu"}
    for root, name, reason in (
        (h264, "cores", "DALI cannot decode h264 on cpu"),
        (small_dataset, "dali", "DALI decodes vp9 on the processor"),
    ):
        with ClipLoader(root, **options) as loader:
            assert (loader.decoder.name, loader.decoder.reason) == (name, reason)
        assert f"decoder {name}, {reason}" in caplog.text


def test_an_unknown_codec_is_refused(h264, tmp_path):
    index = SampleIndex.load(h264)
    index = replace(index, codec=np.full(len(index), 77, np.uint8))
    (tmp_path / "shards").symlink_to(h264 / "shards")
    index.save(tmp_path / "index.safetensors")
    with pytest.raises(InputError, match=r"videos are codec 77.*--loader.decoder dali.*--codec h264"):
        ClipLoader(tmp_path, clip=ClipConfig(), augment=AugmentConfig(), batch_size=2, device="cpu")


def clips_of(root, decoder: str, **options) -> list[Clips]:
    options = {"augment": AugmentConfig(), "batch_size": 5, "steps": 8, "seed": 2} | options
    config = LoaderConfig(decoder=decoder, max_bad_fraction=0.5)
    with ClipLoader(root, clip=ClipConfig(frames=5, size=32), device="cpu", config=config, **options) as loader:
        return list(loader)


def test_both_deliver_what_one_delivers(small_dataset):
    """Order, labels and draws equal, pixels within the stated levels."""
    for one, two in zip(clips_of(small_dataset, "dali"), clips_of(small_dataset, "both"), strict=True):
        for name in ("label", "sample", "position", "start_frame", "draws", "flip"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
        for a, b in zip(one.frames, two.frames, strict=True):
            compare(a, b, DALI, "both")


class Paced:
    """Takes a given time for a clip, whatever else the machine does; delivers its position."""

    def __init__(self, seconds: float):
        self.seconds, self.clips, self._batches = seconds, 0, []

    def submit(self, batch: EncodedBatch) -> None:
        self._batches.append(batch.requests.position)

    def collect(self, stream=None) -> torch.Tensor:
        positions = self._batches.pop(0)
        self.clips += len(positions)
        time.sleep(self.seconds * len(positions))
        return torch.from_numpy(positions)

    def close(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("slow", "least", "batches"), [(1.0, 1.6, 24), (4.0, 1.1, 60)])
def test_two_decoders_share_the_work_by_their_speed(slow, least, batches):
    """Two equal ones take nearly half the time of one; one that is four times slower still helps. Order is kept."""
    gains = []
    for _ in range(12):  # other work on the machine can only hide a gain
        alone, _, _ = delivered_by([Paced(0.003)], batches)
        together, first, second = delivered_by([Paced(0.003), Paced(0.003 * slow)], batches)
        gains.append(alone / together)
        if gains[-1] >= least and 0.5 * slow < first / second < 2 * slow:
            return
    raise AssertionError(f"gains {gains}, last shares {first}:{second}")


def delivered_by(decoders, batches, rows=16):
    """(seconds, clips of the first, clips of the last) of decoders that share the work; checks that order is kept."""
    shared = SharedDecoder([(decoder, 2) for decoder in decoders]) if len(decoders) > 1 else decoders[0]
    begin, delivered = time.perf_counter(), []
    for n in range(batches + 2):
        if n < batches:
            requests = replace(requests_of([(0, 0, 1, 1)] * rows), position=np.arange(n * rows, (n + 1) * rows))
            none = np.zeros(rows, np.int64)
            shared.submit(EncodedBatch(requests, [np.zeros(1, np.uint8)] * rows, none[:, None], none, none))
        if n >= 2:
            delivered += shared.collect().tolist()
    elapsed = time.perf_counter() - begin
    shared.close()
    assert delivered == list(range(batches * rows))
    return elapsed, decoders[0].clips, decoders[-1].clips


def test_damage_met_by_one_of_two_is_replaced(video, dataset, tmp_path):
    """The clip is bad whichever of the two it went to; the other clips are those of an undamaged run."""
    good = [video(frames=12, gop=6, seed=n) for n in range(7)]
    bad = replace(good[0], mp4=good[0].mp4[:900] + bytes(len(good[0].mp4) - 900))
    root = dataset(tmp_path / "data", [*good[:3], replace(bad, table=_table(good[0])), *good[3:]])
    clips = clips_of(root, "both")
    assert all(3 not in batch.sample.tolist() for batch in clips)
    assert [b.sample.tolist() for b in clips] == [b.sample.tolist() for b in clips_of(root, "cores")]


def _table(good):
    from unstill.pipeline.shards.fragments import fragment_table

    return fragment_table(good.mp4)
