"""Clips decoded as one file are the clips decoded one by one, and what is wrong with one of them stays with it."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from unstill.pipeline.conversion.convert import ConvertConfig
from unstill.pipeline.conversion.transcode import transcode
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading import clip_groups, decoders, grouped_decoder
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


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_joined_file_shows_the_frames_of_its_clips_in_order(tmp_path, dataset, gpu_video, codec, layers):
    """Planes as libavcodec decodes them, bit for bit; times that ascend in the order shown and are never negative."""
    _, batch = read_batch(make_dataset(tmp_path, dataset, gpu_video, codec, layers), 12)
    groups = group_clips(batch, 1)
    assert len(groups) == 2  # one for each size of picture
    assert sorted(row for group in groups for row in group.rows) == list(range(12))
    for group in groups:
        joined, times = planes(group.encoded)
        assert times == sorted(set(times)) and times[0] >= 0
        for row, places in zip(group.rows, group.places, strict=True):
            alone, _ = planes(batch.encoded[row])
            for place, number in zip(places, batch.frames[row], strict=True):
                np.testing.assert_array_equal(joined[group.frames[place]], alone[number])
        if group.checked:
            assert group.frames[-1] == len(joined) - 1
            np.testing.assert_array_equal(joined[0], joined[-1])


def planes(mp4: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Frames in the order shown, and their times; -1 where there is none."""
    with av.open(io.BytesIO(mp4.tobytes()), format="mp4") as container:
        frames = list(container.decode(container.streams.video[0]))
    return [frame.to_ndarray() for frame in frames], [-1 if frame.pts is None else frame.pts for frame in frames]


def test_a_frame_that_the_decoder_loses_shifts_no_other_clip(tmp_path, dataset, gpu_video, monkeypatch):
    """VP9, a frame of which is now a hidden one: its clip is not joined; were it, the loss would be noticed."""
    root = dataset(tmp_path / "data", [gpu_video(frames=30, codec="vp9", seed=n) for n in range(4)])
    index, batch = read_batch(root, 6)
    good = decoded(GroupedClipDecoder, index, batch)
    hidden, sizes = batch.encoded[2].copy(), batch.tables[2].sizes
    hidden[len(hidden) - sum(sizes[3:])] &= ~np.uint8(2)  # show_frame
    bad = replace(batch, encoded=[*batch.encoded[:2], hidden, *batch.encoded[3:]])
    others = [0, 1, 3, 4, 5]
    assert [group.rows for group in group_clips(bad, 1)] == [[2], others]
    assert torch.equal(decoded(GroupedClipDecoder, index, bad)[others], good[others])
    monkeypatch.setattr(clip_groups, "_one_picture_a_sample", lambda *_: True)
    with pytest.raises(RuntimeError, match="fewer frames"):
        decoded(GroupedClipDecoder, index, bad, threads=1)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_clips_of_other_parameters_are_other_files(tmp_path, dataset, gpu_video, codec):
    """A decoder takes parameter sets of the header once, and those in the stream for all that follows; a picture that
    is no IDR may leave earlier ones in its memory."""
    _, batch = read_batch(dataset(tmp_path / "data", [gpu_video(frames=30, codec=codec)]), 5)
    assert [group.rows for group in group_clips(batch, 1)] == [[0, 1, 2, 3, 4]]
    tables, encoded = list(batch.tables), list(batch.encoded)
    set_unit, plain, idr = ([0x68], 0x61, 5) if codec == "h264" else ([34 << 1, 1], 1 << 1, 19)

    def with_first(row: int, change) -> None:
        sizes = tables[row].sizes
        start = len(encoded[row]) - sum(sizes)
        first = change(bytearray(encoded[row][start : start + sizes[0]]))
        rest = encoded[row][start + sizes[0] :]
        encoded[row] = np.concatenate([encoded[row][:start], np.frombuffer(first, np.uint8), rest])
        tables[row] = replace(tables[row], sizes=[len(first), *sizes[1:]])

    def no_idr(sample: bytearray) -> bytearray:
        position = 0
        while position < len(sample):
            kind = sample[position + 4] & 31 if codec == "h264" else sample[position + 4] >> 1
            if kind in (idr, 20):
                sample[position + 4] = plain
            position += 4 + int.from_bytes(sample[position : position + 4], "big")
        return sample

    with_first(1, lambda sample: len(set_unit).to_bytes(4, "big") + bytes(set_unit) + sample)
    with_first(3, no_idr)
    description = bytearray(tables[2].track.description)
    description[-1] ^= 1
    tables[2] = replace(tables[2], track=replace(tables[2].track, description=bytes(description)))
    changed = replace(batch, encoded=encoded, tables=tables)
    assert sorted(group.rows for group in group_clips(changed, 1)) == [[0, 4], [1], [2], [3]]


def test_groups_have_about_as_many_frames_each(tmp_path, dataset, gpu_video):
    _, batch = read_batch(dataset(tmp_path / "data", [gpu_video(frames=30, codec="vp9")]), 48)
    groups = group_clips(batch, 4)
    assert len(groups) == 4 and len(group_clips(batch, 48)) < 16
    frames = [sum(len(batch.tables[row].sizes) for row in group.rows) for group in groups]
    assert max(frames) - min(frames) <= 12


def test_a_device_on_which_frames_are_lost_is_refused_before_the_first_step(tmp_path, dataset, gpu_video, monkeypatch):
    """A decoder that never delivers a file's last frame: the check of the codec fails, no clip is called bad."""
    root = dataset(tmp_path / "data", [gpu_video(frames=12, codec="vp9", seed=n) for n in range(3)])
    monkeypatch.setattr(decoders, "GROUPED_ON", ("cpu",))
    check = grouped_decoder._check_frames
    lost = lambda videos, groups: check([torch.cat([video[:-1], video[-2:-1]]) for video in videos], groups)  # noqa: E731
    monkeypatch.setattr(grouped_decoder, "_check_frames", lost)
    options = {"clip": CLIP, "augment": AugmentConfig(), "batch_size": 2, "device": "cpu"}
    with pytest.raises(InputError, match=r"DALI cannot decode on cpu \(the decoder delivers fewer frames"):
        ClipLoader(root, **options, config=LoaderConfig(decoder="dali"))
    with ClipLoader(root, **options) as loader:
        assert loader.decoder.name == "cores"
