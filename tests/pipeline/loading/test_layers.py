"""Clips of videos with layers: the frames of the whole video, from as few frames as possible, in an ordinary MP4."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from unstill.pipeline.conversion.convert import ConvertConfig
from unstill.pipeline.conversion.transcode import transcode
from unstill.pipeline.loading.gop_reader import BadClip, ClipFile, GopReader, shards_in
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, frame_numbers
from unstill.pipeline.shards.fragments import fragment_table
from unstill.pipeline.shards.index import SampleIndex

GOP, LENGTHS = 12, (1, 13, 25, 36, 41)  # a fragment of one frame, odd and even last ones


@pytest.fixture(scope="module", params=["h264", "hevc", "vp9", "one layer"])
def layered(request, video, dataset, tmp_path_factory):
    """(folder, layers) of a dataset whose videos are of ``LENGTHS``."""
    codec, layers = ("h264", 1) if request.param == "one layer" else (request.param, 2)
    recipe = ConvertConfig(source="", out="", codec=codec, layers=layers, short_side=64, gop=GOP).recipe()
    videos = []
    for number, length in enumerate(LENGTHS):
        source = video(frames=length, height=64, width=96, seed=number)
        mp4 = transcode(io.BytesIO(source.mp4), recipe).mp4
        videos.append(replace(source, mp4=mp4, codec=codec, gop=GOP, layers=layers, frames=length))
    return dataset(tmp_path_factory.mktemp("layered") / "data", videos), layers


@pytest.fixture
def reader(layered):
    index = SampleIndex.load(layered[0])
    reader = GopReader(index, shards_in(layered[0], index))
    yield reader
    reader.close()


def planes(mp4: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(mp4), format="mp4") as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def whole(layered) -> list[list[np.ndarray]]:
    """Planes of all frames of every video."""
    root, found = layered[0], []
    index = SampleIndex.load(root)
    for sample in range(len(index)):
        with open(root / index.shard_names[int(index.shard[sample])], "rb") as file:
            file.seek(int(index.mp4_offset[sample]))
            found.append(planes(file.read(int(index.mp4_bytes[sample]))))
    assert [len(frames) for frames in found] == list(LENGTHS)
    return found


def check_container(clip: ClipFile, in_order: bool) -> None:
    """Boxes of an ordinary MP4 without an edit list; no negative time; frames at a constant rate."""
    data = clip.mp4.tobytes()
    assert data[4:8] == b"ftyp" and b"moof" not in data[:600] and b"elst" not in data and b"edts" not in data
    with av.open(io.BytesIO(data), format="mp4") as container:
        packets = [p for p in container.demux(video=0) if p.size]
    times = sorted(p.pts for p in packets)
    assert packets[0].is_keyframe and times[0] >= 0 and len(set(np.diff(times))) <= 1
    assert all(p.dts >= 0 and p.pts >= p.dts for p in packets)
    if in_order:
        assert all(p.pts == p.dts for p in packets) and times[0] == 0


@pytest.mark.parametrize("rule", ["repeat_last", pytest.param("loop", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("frames", "stride"),
    [(5, 1), (6, 2), (4, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 1), (4, 4), (9, 5)))],
)
def test_every_start_gives_the_frames_of_the_whole_video(layered, whole, reader, frames, stride, rule):
    config = ClipConfig(frames=frames, stride=stride, short_video=rule)
    for sample, length in enumerate(LENGTHS):
        for start in range(max(1, length - (frames - 1) * stride)):
            wanted = frame_numbers(config, np.array([start]), np.array([stride]), np.array([length]))[0]
            clip = reader.clip(sample, wanted)
            sliced = planes(clip.mp4.tobytes())
            for number, place in zip(wanted, clip.frames, strict=True):
                np.testing.assert_array_equal(sliced[place], whole[sample][number])
            even_only = layered[1] == 2 and (wanted % 2 == 0).all()
            check_container(clip, in_order=even_only or layered[1] == 1)
            first = wanted.min() // GOP * GOP
            if even_only:
                assert len(sliced) == (wanted.max() - first) // 2 + 1
            assert len(sliced) <= wanted.max() - first + 2


def test_all_bytes_of_the_gops_are_checked(layered, tmp_path):
    """A damaged frame that the clip does not need is still found: the checksum is that of the whole GOP."""
    index = SampleIndex.load(layered[0])
    sample = LENGTHS.index(25)
    path = layered[0] / index.shard_names[int(index.shard[sample])]
    data = bytearray(path.read_bytes())
    end = int(index.fragment_end[int(index.fragment_row[sample])]) + int(index.mp4_offset[sample])
    data[end - 3] ^= 1  # the last, odd frame of the first GOP
    (tmp_path / path.name).write_bytes(data)
    reader = GopReader(index, lambda shard: shards_in(tmp_path, replace(index, shard_names=(path.name,) * 2))(0))
    with pytest.raises(BadClip, match="CRC-32"):
        reader.clip(sample, np.array([0, 2]))
    reader.close()


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_dali_delivers_the_same_clips_with_and_without_layers(video, dataset, tmp_path, stride):
    """The clips through the whole loader; with ``starts="all"`` the draws do not depend on the layers."""
    sources = [video(frames=n, height=64, width=96, seed=n) for n in (20, 25, 36)]
    recipe = ConvertConfig(source="", out="", codec="vp9", layers=2, short_side=64, gop=GOP).recipe()
    layered = [
        replace(source, mp4=transcode(io.BytesIO(source.mp4), recipe).mp4, gop=GOP, layers=2) for source in sources
    ]
    clips = []
    for layers in (1, 2):
        root = dataset(tmp_path / str(layers), [replace(v, layers=layers) for v in layered])
        config = ClipConfig(frames=6, stride=stride, size=32)
        options = {"batch_size": 4, "steps": 4, "device": "cpu", "augment": AugmentConfig(starts="all")}
        with ClipLoader(root, clip=config, **options) as loader:
            clips.append(torch.cat([batch.frames for batch in loader]))
    assert torch.equal(*clips)


def test_a_table_that_lies_is_a_bad_clip_and_not_a_crash(video, dataset, tmp_path):
    """Whatever single byte of a fragment's tables is changed, with its checksum made right again."""
    good = video(frames=12, height=32, width=32, gop=6)
    init, offsets = fragment_table(good.mp4)
    size = int.from_bytes(good.mp4[init : init + 4], "big")
    outcomes = set()
    for position in range(init, init + size):
        changed = bytearray(good.mp4)
        changed[position] ^= 0xFF
        root = dataset(tmp_path / str(position), [replace(good, mp4=bytes(changed), table=(init, offsets))])
        index = SampleIndex.load(root)
        reader = GopReader(index, shards_in(root, index))
        try:
            outcomes.add(len(reader.clip(0, np.arange(12)).frames))
        except BadClip:
            outcomes.add("bad")
        reader.close()
    assert outcomes == {12, "bad"}


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
@pytest.mark.parametrize(("stride", "decoder"), [(1, "dali"), (2, "dali"), (3, "dali"), (2, "cores"), (2, "both")])
def test_nvdec_agrees_with_pyav_on_layers(tmp_path, gpu_video, dataset, pyav_frames, codec, stride, decoder):
    """Frames that are decoded out of order, and slices without the odd ones: the right frame, within 2 levels."""
    recipe = ConvertConfig(source="", out="", codec=codec, layers=2, short_side=160, gop=GOP).recipe()
    videos = []
    for number, length in enumerate((13, 25, 36, 41)):
        source = gpu_video(frames=length, height=160, width=160, seed=number)
        mp4 = transcode(io.BytesIO(source.mp4), recipe).mp4
        videos.append(replace(source, mp4=mp4, codec=codec, gop=GOP, layers=2))
    whole = [pyav_frames(video.mp4) for video in videos]
    clip = ClipConfig(frames=4, stride=stride, size=160)
    options = {"batch_size": 4, "steps": 8, "device": "cuda", "augment": AugmentConfig(crop="none", flip=0.0)}
    options["config"] = LoaderConfig(decoder=decoder)
    with ClipLoader(dataset(tmp_path / "data", videos), clip=clip, **options) as loader:
        for batch in loader:
            assert batch.frames.is_cuda
            rows = zip(batch.sample.tolist(), batch.start_frame.tolist(), batch.frames.cpu().double(), strict=True)
            for sample, start, got in rows:
                wanted = np.minimum(start + stride * np.arange(4), len(whole[sample]) - 1)
                assert (got - whole[sample][wanted]).abs().mean() <= 2, (sample, start)
