"""Container, stream and index must agree on the size: otherwise DALI's CPU decoder writes past its buffer."""

import struct

import numpy as np
import pytest

from unstill.pipeline.loading.gop_reader import BadClip, GopReader, shards_in
from unstill.pipeline.shards.contract import check_video
from unstill.pipeline.shards.fragments import fragment_table
from unstill.pipeline.shards.index import SampleIndex
from unstill.pipeline.shards.quarantine import BadVideo
from unstill.pipeline.shards.sample_table import parse_fragments, parse_header
from unstill.pipeline.shards.stream_size import check_size

CODECS = ["h264", "hevc", "vp9"]


def parts(mp4: bytes):
    init, offsets = fragment_table(mp4)
    found = parse_fragments(memoryview(mp4), init, offsets[1:].tolist(), 0, 4)
    samples = [mp4[at : at + size] for at, size in zip(found.offset, found.size, strict=True)]
    return parse_header(mp4[:init]).description, samples


def said_by_container(mp4: bytes, width: int, height: int) -> bytes:
    at = mp4.index(b"stsd") + 12 + 32
    return mp4[:at] + struct.pack(">HH", width, height) + mp4[at + 4 :]


@pytest.mark.parametrize("codec", CODECS)
def test_every_place_that_says_a_size_is_compared(video, codec):
    small, large = (video(frames=9, height=64, width=width, codec=codec).mp4 for width in (64, 96))
    description, samples = parts(large)
    check_size(description, samples, (96, 64))
    with pytest.raises(ValueError, match="container says 96x64, the index 64x64"):
        check_size(description, samples, (64, 64))
    other, _ = parts(said_by_container(large, 64, 64))
    # the parameter sets lie in the container, VP9's sizes in its frames
    with pytest.raises(ValueError, match="of its stream says 96x64, the index 64x64"):
        check_size(other, samples, (64, 64))
    if codec == "vp9":
        for k, sample in enumerate(samples):  # every frame, the inter frames by the frames they refer to
            if k % 6 == 0:
                with pytest.raises(ValueError, match="of its stream says 96x64"):
                    check_size(parts(small)[0], [sample], (64, 64))
        # an inter frame with a size of its own: no bit says "as the frame it refers to"
        bits = "1000011000" + "0" * 20 + "000" + f"{95:016b}{63:016b}" + "0" * 100
        frame = int(bits[:192].ljust(192, "0"), 2).to_bytes(24, "big")
        with pytest.raises(ValueError, match="of its stream says 96x64"):
            check_size(parts(small)[0], [frame], (64, 64))
    else:
        unit = b"\x67\x42" if codec == "h264" else b"\x42\x01\x01"
        with pytest.raises(ValueError, match="brings a parameter set"):
            check_size(description, [struct.pack(">I", len(unit)) + unit], (96, 64))
    for broken in (description[:-30], description[:40], description[:15] + b"\2" + description[16:]):
        with pytest.raises(ValueError):
            check_size(broken, samples, (96, 64))


@pytest.mark.parametrize("codec", CODECS)
def test_verify_and_the_reader_see_it(tmp_path, video, dataset, codec):
    sample = video(frames=9, height=64, width=96, codec=codec)
    forged = said_by_container(sample.mp4, 64, 64)
    check_video(sample.mp4, gop=6)
    with pytest.raises(BadVideo, match="its container says 64x64"):
        check_video(forged, gop=6)
    index = SampleIndex.load(dataset(tmp_path / "data", [sample]))
    reader = GopReader(index, shards_in(tmp_path / "data", index))
    reader.clip(0, np.arange(3))
    reader.close()
    index.width.flags.writeable or object.__setattr__(index, "width", np.full(1, 64, np.uint16))
    reader = GopReader(index, shards_in(tmp_path / "data", index))
    for _ in range(2):  # not only the first time
        with pytest.raises(BadClip, match="container says 96x64, the index 64x64"):
            reader.clip(0, np.arange(3))
    reader.close()
