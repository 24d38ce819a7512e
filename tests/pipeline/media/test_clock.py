"""Every frame of a source is used, in its place, whatever its container says about time."""

import io
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from unstill.pipeline.conversion.convert import ConvertConfig
from unstill.pipeline.conversion.transcode import transcode
from unstill.pipeline.shards.quarantine import BadVideo

B_FRAMES = {"preset": "veryfast", "bf": "3", "g": "15", "crf": "12", "x264-params": "b-adapt=0"}
# container -> (encoder, its options); as many kinds of time stamps
CONTAINERS = {
    "mp4": ("libx264", B_FRAMES),
    "matroska": ("libx264", B_FRAMES),
    "webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0", "g": "15"}),
    "avi": ("libx264", B_FRAMES),
    "mpegts": ("libx264", B_FRAMES),
    "mpeg": ("mpeg2video", {"q:v": "2", "g": "15", "bf": "2"}),
    "mov": ("mpeg4", {"q:v": "2", "g": "15", "bf": "2"}),
    "flv": ("libx264", B_FRAMES),
}


def numbered(count: int, first=0) -> np.ndarray:
    """uint8 (count, 64, 64, 3): the bits of the frame's number as eight black or white fields."""
    bits = (first + np.arange(count))[:, None] >> np.arange(8) & 1
    fields = (40 + 160 * bits).reshape(count, 2, 4).repeat(32, 1).repeat(16, 2)
    return np.repeat(fields[..., None], 3, axis=-1).astype(np.uint8)


def encode(pictures, container: str, codec: str, options: dict, rate=25, times=None, base=None) -> bytes:
    """A video file; ``times`` in units of ``base`` seconds."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.thread_count = 1
        if base is not None:
            stream.codec_context.time_base = base
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], base or Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def convert(source: bytes, start=None, end=None, **changes):
    recipe = ConvertConfig(source="", out="", codec="h264", quality=8, short_side=64, gop=12).recipe()
    return transcode(io.BytesIO(source), replace(recipe, **changes), start, end)


def shown(done) -> list[int]:
    """The number of each frame of the output, read from its picture."""
    with av.open(io.BytesIO(done.mp4)) as container:
        pictures = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    bits = pictures.reshape(-1, 2, 32, 4, 16).mean((2, 4)).reshape(-1, 8) > 120
    return (bits << np.arange(8)).sum(1).tolist()


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_frame_comes_through_once(container):
    done = convert(encode(numbered(48), container, *CONTAINERS[container]))
    assert shown(done) == list(range(48)) and done.notes == ()


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_part_is_exactly_the_frames_between_its_seconds(container):
    source = encode(numbered(100), container, *CONTAINERS[container])
    for first, last in [(0, 7), (1, 20), (14, 16), (15, 31), (52, 77), (90, 100), (99, 100)]:
        done = convert(source, start=first / 25, end=last / 25)
        assert shown(done) == list(range(first, last)), (first, last)
    with pytest.raises(BadVideo, match="no_frames"):
        convert(source, start=9.0, end=10.0)


@pytest.mark.parametrize("lengths", [(31, 31), (22, 40), (40, 22), (22, 19, 22)])
def test_a_clock_that_restarts_goes_on_where_it_was(lengths):
    """Program streams joined end to end, as people join recordings with `cat`."""
    parts, first = [], 0
    for length in lengths:
        parts.append(encode(numbered(length, first), "mpeg", *CONTAINERS["mpeg"]))
        first += length
    done = convert(b"".join(parts))
    assert shown(done) == list(range(sum(lengths))) and done.notes == ("clock repaired",)


def test_a_variable_rate_keeps_every_frame():
    """Bursts at 60 Hz in a video of 20 frames per second on average."""
    times = [t for burst in range(6) for t in range(burst * 30, burst * 30 + 10)]
    source = encode(numbered(60), "mp4", "libx264", {"bf": "0", "crf": "8"}, 60, times, Fraction(1, 60))
    done = convert(source)
    assert done.notes == ("rate raised",) and done.facts.fps == 60
    found = shown(done)
    assert sorted(set(found)) == list(range(60)) and [found[t] for t in times] == list(range(60))


def test_frames_closer_than_any_rate_are_refused_and_not_dropped():
    times = [4000 * t if t % 3 == 0 else 4000 * (t // 3 * 3) + t % 3 for t in range(30)]  # three within a millisecond
    source = encode(numbered(30), "mp4", "libx264", {"bf": "0"}, 25, times, Fraction(1, 90_000))
    with pytest.raises(BadVideo, match=r"timestamps: .* of 30 frames would be left out"):
        convert(source)


def test_a_lower_rate_that_was_asked_for_may_leave_frames_out():
    assert shown(convert(encode(numbered(40), "mp4", *CONTAINERS["mp4"]), fps=12.5)) == list(range(0, 40, 2))


def test_a_hole_is_filled_and_a_long_one_is_a_fault():
    options = {"bf": "0", "crf": "8"}
    times = [0, 1, 2, 3, 8, 9, 10, 11]
    found = shown(convert(encode(numbered(8), "mp4", "libx264", options, times=times), fps=25.0))
    assert found == [0, 1, 2, 3, 3, 3, 3, 3, 4, 5, 6, 7]
    times = [0, 1, 2, 3, 25 * 61 + 3, 25 * 61 + 4]
    with pytest.raises(BadVideo, match="a hole of 61 s"):
        convert(encode(numbered(6), "mp4", "libx264", options, times=times))
