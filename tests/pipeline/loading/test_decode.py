"""Every frame of every slice is the frame that was asked for: bit-equal to the whole file, equal in content to PyAV."""

import numpy as np
import nvidia.dali as dali
import pytest
import torch
from nvidia.dali import fn, types

from unstill.pipeline.loading.bad_clips import BadClips
from unstill.pipeline.loading.clip_stream import ClipStream
from unstill.pipeline.loading.decode import ClipDecoder, decoder_message
from unstill.pipeline.loading.encoded_batch import EncodedBatch
from unstill.pipeline.loading.gop_reader import GopReader, shards_in
from unstill.pipeline.loading.sampler import ClipConfig, ClipRequests, clip_strides
from unstill.pipeline.shards.index import SampleIndex

FRAMES, SIZE = 20, 64


class AskedFor:
    """A sampler that asks for a given sample, start and stride at every position."""

    def __init__(self, clip: ClipConfig, asked: list[tuple[int, int, int]]):
        self.clip, self.asked = clip, np.array(asked)

    def draw(self, positions):
        sample, start, stride = self.asked[positions].T
        n, whole = len(positions), np.full(len(positions), self.clip.size)
        zero = np.zeros(n, np.int64)
        return ClipRequests(
            positions, sample, start, stride, zero, zero, whole, whole, zero > 0, zero, np.zeros((n, 8), np.float32)
        )


def decode_clips(root, clip, asked, device="cpu", batch=16) -> torch.Tensor:
    """The clips at (sample, start, stride), uint8 (n, T, size, size, 3) on the CPU."""
    index, device = SampleIndex.load(root), torch.device(device)
    reader = GopReader(index, shards_in(root, index))
    stream = ClipStream(
        index,
        reader,
        AskedFor(clip, asked),
        clip,
        BadClips(index, 0.0),
        device=device,
        batch_size=batch,
        decode_threads=2,
        pipelines=1,
        depth=2,
        read_threads=1,
        read_ahead=2,
        known_good=None,
    )
    positions = [np.arange(n, min(n + batch, len(asked))) for n in range(0, len(asked), batch)]
    clips = torch.cat([decoded.clips.cpu() for decoded in stream.batches(positions)])
    stream.close()
    reader.close()
    return clips


def decode_whole_file(mp4: bytes) -> torch.Tensor:
    """DALI's decoder on the whole file, uint8 (n, H, W, 3)."""
    pipeline = dali.Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        encoded = fn.external_source(source=lambda: [np.frombuffer(mp4, np.uint8)], dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(fn.decoders.video(encoded, device="cpu"))
    return torch.from_dlpack(pipeline.run()[0].as_tensor())[0]


def expected_numbers(clip: ClipConfig, start: int, stride: int, n: int) -> list[int]:
    numbers = [start + i * stride for i in range(clip.frames)]
    return [k % n if clip.short_video == "loop" else min(k, n - 1) for k in numbers]


def every_clip(clip: ClipConfig, lengths: list[int]) -> list[tuple[int, int, int]]:
    """Every start with the clip's stride, those that run over the end of the video included."""
    strides = clip_strides(clip, np.array(lengths)).tolist()
    return [(sample, start, strides[sample]) for sample, n in enumerate(lengths) for start in range(n)]


@pytest.fixture(scope="module", params=["vp9", "mjpeg"])
def videos(request, tmp_path_factory, video, dataset):
    """Three videos: longer than, as long as and shorter than one GOP; ``(root, files)``."""
    samples = [video(frames=n, height=SIZE, width=SIZE, codec=request.param, seed=n) for n in (FRAMES, 6, 3)]
    return dataset(tmp_path_factory.mktemp(request.param) / "data", samples), [sample.mp4 for sample in samples]


def test_the_decoder_agrees_with_pyav(videos, pyav_frames):
    for mp4 in videos[1]:
        ours, theirs = decode_whole_file(mp4), pyav_frames(mp4)
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 0.51  # rounding alone


@pytest.mark.parametrize("short_video", ["repeat_last", "loop", "halve_stride"])
@pytest.mark.parametrize(("frames", "stride"), [(1, 1), (4, 1), (4, 3), (9, 2), (7, 7)])
def test_every_start_stride_and_length(videos, frames, stride, short_video):
    root, files = videos
    clip = ClipConfig(frames=frames, stride=stride, size=SIZE, short_video=short_video)
    whole = [decode_whole_file(mp4) for mp4 in files]
    asked = every_clip(clip, [len(video) for video in whole])
    clips = decode_clips(root, clip, asked)
    for (sample, start, actual_stride), got in zip(asked, clips, strict=True):
        numbers = expected_numbers(clip, start, actual_stride, len(whole[sample]))
        assert torch.equal(got, whole[sample][numbers]), (sample, start, numbers)


def test_a_clip_reads_only_the_fragments_it_touches(videos):
    root, _ = videos
    index = SampleIndex.load(root)
    reader = GopReader(index, shards_in(root, index))
    gop = int(index.gop[0])
    spans = reader.spans(np.zeros(FRAMES, np.int64), np.arange(FRAMES), np.minimum(np.arange(FRAMES) + 4, FRAMES - 1))
    assert spans.tolist() == [[k // gop, min(k + 4, FRAMES - 1) // gop + 1] for k in range(FRAMES)]
    ends = [int(index.init_bytes[0]), *index.fragment_end[: index.fragment_row[1]].tolist()]
    for first, last in {tuple(span) for span in spans.tolist()}:
        assert len(reader.read(0, first, last)) == ends[0] + ends[last] - ends[first]
    reader.close()


def test_the_message_of_a_failure_is_one_plain_line():
    decoder = ClipDecoder(1, 8, torch.device("cpu"), threads=1, depth=1, pictures=np.full((1, 2), 8))
    one, zero = np.full(1, 8), np.zeros(1, np.int64)
    requests = ClipRequests(zero, zero, zero, zero, zero, zero, one, one, zero > 0, zero, np.zeros((1, 8), np.float32))
    decoder.submit(EncodedBatch(requests, [np.zeros(100, np.uint8)], zero[:, None], zero, zero))
    with pytest.raises(RuntimeError) as error:
        decoder.collect()
    assert "\n" in str(error.value) and decoder_message(error.value) == "Failed to create video decoder"


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
@pytest.mark.parametrize(("frames", "stride"), [(4, 1), (9, 2)])
def test_nvdec_agrees_with_pyav(tmp_path, gpu_video, dataset, pyav_frames, codec, frames, stride):
    """Every start on the GPU: the right frame, within 2 levels of PyAV on average."""
    sample = gpu_video(frames=FRAMES, height=160, width=160, codec=codec)
    clip = ClipConfig(frames=frames, stride=stride, size=160)
    asked = every_clip(clip, [FRAMES])
    clips = decode_clips(dataset(tmp_path / "data", [sample]), clip, asked, device="cuda")
    theirs = pyav_frames(sample.mp4)
    for (_, start, actual_stride), got in zip(asked, clips, strict=True):
        distance = (got[:, None] - theirs[None]).abs().mean((2, 3, 4))
        numbers = expected_numbers(clip, start, actual_stride, FRAMES)
        assert distance.argmin(1).tolist() == numbers and distance[range(frames), numbers].max() <= 2
