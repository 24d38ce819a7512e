"""What a header says, read without opening decoders, is what FFmpeg says after it has decoded the first frames."""

import io

import av
import numpy as np
import pytest

from unstill.pipeline.conversion import transcode

KINDS = [
    ("mp4", "libx264"),
    ("mp4", "libx265"),
    ("mov", "mjpeg"),
    ("matroska", "libx264"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
    ("flv", "libx264"),
    ("mpegts", "libx264"),  # says its size in its frames only
    ("mpeg", "mpeg2video"),
]


def video(container: str, encoder: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(encoder, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        for k in range(12):
            picture = np.full((64, 96, 3), 20 * k, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize(("container", "encoder"), KINDS)
def test_headers_say_the_same_without_decoders(container, encoder, monkeypatch):
    data, opened = video(container, encoder), []
    header = transcode._header
    monkeypatch.setattr(
        transcode, "_header", lambda file, decoders: opened.append(decoders) or header(file, decoders=decoders)
    )
    assert transcode.probe(io.BytesIO(data)) == header(io.BytesIO(data), decoders=True)
    if container == "mp4":
        assert opened == [False]
