"""VP9's headers, against FFmpeg's own reader of them."""

import io
import re

import av
import av.logging
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from unstill.pipeline.conversion.transcode import VP9_LAYERS
from unstill.pipeline.shards.vp9_frames import frames_of, read_header, without_filter

STREAMS = {  # as the converter writes them, and others
    "one layer": {"lag-in-frames": "0", "auto-alt-ref": "0"},
    "two layers": {"lag-in-frames": "0", "auto-alt-ref": "0", **VP9_LAYERS},
    "low rate": {"lag-in-frames": "0", "b": "20k", "maxrate": "20k", "bufsize": "5k"},
    "slow": {"lag-in-frames": "25", "deadline": "good", "cpu-used": "2", "crf": "58", "g": "100"},
}


def stream(options: dict[str, str], width: int = 168, height: int = 112) -> bytes:
    random, buffer = np.random.default_rng(0), io.BytesIO()
    ground = random.integers(0, 255, (height, width, 3)).repeat(8, 0).repeat(8, 1)
    with av.open(buffer, "w", format="ivf") as out:
        video = out.add_stream("libvpx-vp9", rate=25)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"deadline": "realtime", "cpu-used": "8", "crf": "40", "b": "0", "g": "20", **options}
        for k in range(30):
            picture = ground[k // 4 :, k // 2 :][:height, :width] + random.normal(0, 9, (height, width, 1))
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")))
        out.mux(video.encode(None))
    return buffer.getvalue()


def traced(data: bytes, change=bytes) -> list[tuple[str, str]]:
    """(field, value) of all headers as FFmpeg reads them, after a change of every packet."""
    before = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.open(io.BytesIO(data)) as container, av.logging.Capture() as lines:
            tracer = BitStreamFilterContext("trace_headers", container.streams.video[0])
            for packet in container.demux(video=0):
                if packet.size:
                    packet.update(change(memoryview(packet)))
                    tracer.filter(packet)
    finally:
        av.logging.set_level(before)
    found = (re.match(r"\d+ +(\S+) .*= (-?\d+)$", line[2].strip()) for line in lines)
    return [(match[1], match[2]) for match in found if match]


def samples(data: bytes) -> list[bytes]:
    with av.open(io.BytesIO(data)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS)
def test_only_the_filters_level_changes(options):
    data = stream(options)
    before, after = traced(data), traced(data, without_filter)
    assert len(before) == len(after) > 500
    changed = [(name, a, b) for (name, a), (_, b) in zip(before, after, strict=True) if a != b]
    assert changed, "the stream has no filter to leave out"
    assert {(name, b) for name, _, b in changed} == {("loop_filter_level", "0")}


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS)
def test_every_other_bit_of_a_sample_is_kept_and_all_frames_still_decode(options):
    data = stream(options)
    with av.open(io.BytesIO(data)) as container:
        decoded, closeness = 0, []
        whole = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                packet.update(without_filter(memoryview(packet)))
            for frame in packet.decode():
                closeness.append(np.abs(frame.to_ndarray(format="gray").astype(int) - whole[decoded]).mean())
                decoded += 1
    assert decoded == len(whole) == 30
    assert 0 < np.mean(closeness) < 12
    for sample in samples(data):
        flipped = np.frombuffer(sample, np.uint8) ^ np.frombuffer(without_filter(sample), np.uint8)
        assert np.unpackbits(flipped).sum() <= 6 * len(list(frames_of(sample)))


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS)
def test_headers_say_what_ffmpeg_reads(options):
    data = stream(options)
    headers = [read_header(frame) for sample in samples(data) for frame in frames_of(sample)]
    fields = traced(data)
    assert all(header is not None for header in headers)
    for name, found in (
        ("frame_type", [int(header.inter) for header in headers]),
        ("error_resilient_mode", [int(header.resilient) for header in headers]),
        ("frame_width_minus_1", [header.size[0] - 1 for header in headers if header.size]),
        ("frame_height_minus_1", [header.size[1] - 1 for header in headers if header.size]),
    ):
        assert [int(value) for field, value in fields if field == name] == found


def test_all_frames_of_a_superframe_are_changed():
    first, second = samples(stream(STREAMS["low rate"]))[3:5]
    marker = bytes([0b110_01_001])  # two frames, lengths of two bytes
    index = marker + len(first).to_bytes(2, "little") + len(second).to_bytes(2, "little") + marker
    joined = without_filter(first + second + index)
    assert joined == without_filter(first) + without_filter(second) + index != first + second + index


@pytest.mark.parametrize("sample", [b"\x00", b"\x82", b"\x82\x49\x83", b"\xff" * 30, bytes(40)])
def test_what_is_not_vp9_is_refused(sample):
    with pytest.raises(ValueError, match="its stream"):
        without_filter(sample)
