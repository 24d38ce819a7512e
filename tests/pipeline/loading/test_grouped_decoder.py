"""Clips decoded as one file are the clips decoded one by one, and what is wrong with one of them stays with it."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from unstill.pipeline.conversion.convert import ConvertConfig
from unstill.pipeline.conversion.transcode import transcode
from unstill.pipeline.loading import decoders
from unstill.pipeline.loading.clip_groups import group_clips
from unstill.pipeline.loading.decode import ClipDecoder, picture_sizes
from unstill.pipeline.loading.encoded_batch import EncodedBatch
from unstill.pipeline.loading.gop_reader import GopReader, shards_in
from unstill.pipeline.loading.grouped_decoder import GroupedClipDecoder
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler, frame_numbers
from unstill.pipeline.shards.index import SampleIndex

WHERE = [pytest.param("cpu", "vp9"), *(pytest.param("cuda", c, marks=pytest.mark.gpu) for c in ("h264", "hevc", "vp9"))]
CLIP = ClipConfig(frames=6, stride=2, size=48, short_video="loop")


def make_dataset(root, dataset, gpu_video, codec: str, layers: int):
    """Two sizes, videos of 1 to 30 frames: clips of one frame, clips that loop, GOPs that end within a clip."""
    recipe = ConvertConfig(source="", out="", codec=codec, layers=layers, short_side=144, gop=6).recipe()
    videos = []
    for number, length in enumerate((30, 1, 7, 19, 25, 13, 30, 22)):
        width = 176 if number % 3 else 208
        source = gpu_video(frames=length, height=144, width=width, seed=number)
        mp4 = transcode(io.BytesIO(source.mp4), recipe).mp4
        videos.append(replace(source, mp4=mp4, codec=codec, gop=6, layers=layers))
    return dataset(root / f"{codec}{layers}", videos)


def read_batch(root, clips: int = 24, clip: ClipConfig = CLIP) -> tuple[SampleIndex, EncodedBatch]:
    """Random clips, cut at random."""
    index = SampleIndex.load(root)
    reader = GopReader(index, shards_in(root, index))
    requests = TrainSampler(index, clip, AugmentConfig(), 0).draw(np.arange(clips))
    lengths = np.asarray(index.frames, np.int64)[requests.sample]
    numbers = frame_numbers(clip, requests.start_frame, requests.stride, lengths)
    files = [reader.clip(sample, numbers[row]) for row, sample in enumerate(requests.sample.tolist())]
    reader.close()
    none, frames = np.zeros(clips, np.int64), np.stack([file.frames for file in files])
    return index, EncodedBatch(
        requests, [file.mp4 for file in files], frames, none, none, [file.table for file in files if file.table]
    )


def decoded(kind: type[ClipDecoder], index: SampleIndex, batch: EncodedBatch, device="cpu", threads=3) -> torch.Tensor:
    decoder = kind(len(batch), CLIP.size, torch.device(device), threads, 1, picture_sizes(index))
    decoder.submit(batch)
    return decoder.collect().cpu()


@pytest.mark.parametrize(("device", "codec"), WHERE)
@pytest.mark.parametrize("layers", [1, 2])
def test_together_as_alone(tmp_path, dataset, gpu_video, device, codec, layers):
    """Within one level of DALI's cut and resize; and bit for bit whatever a clip is decoded with."""
    index, batch = read_batch(make_dataset(tmp_path, dataset, gpu_video, codec, layers))
    assert 1 < len(group_clips(batch, 3)) < len(batch) / 3
    together = decoded(GroupedClipDecoder, index, batch, device)
    difference = (together.int() - decoded(ClipDecoder, index, batch, device).int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.05
    assert torch.equal(together, decoded(GroupedClipDecoder, index, batch, device, threads=1))
    for row in range(0, len(batch), 5):
        assert torch.equal(together[[row]], decoded(GroupedClipDecoder, index, batch.take([row]), device))
    whole = replace(batch, tables=[])  # files of which only their bytes are known
    assert torch.equal(together, decoded(GroupedClipDecoder, index, whole, device))
