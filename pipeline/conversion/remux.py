"""``codec="copy"``: a video that fulfils the shard contract already is cut into fragments, not encoded again."""

import io
from fractions import Fraction

import av
import av.container
import av.video

from ..shards.contract import check_gops_alone, check_video
from ..shards.mp4_file import open_fragmented
from ..shards.quarantine import BadVideo
from ..shards.video_format import BLOCK, output_rate

CODECS = ("h264", "hevc", "vp9")


def remux(source: av.container.InputContainer, stream: av.video.stream.VideoStream, gop: int) -> tuple[bytes, Fraction]:
    """Copy the packets of ``stream`` into a fragmented MP4, one fragment per GOP.

    Returns:
        (mp4, fps); the complete MP4 has been decoded, and each GOP alone with the same result.

    Raises:
        BadVideo: reason ``contract``: what has to change, so that the video must be encoded.
    """
    fps = output_rate(None, stream.average_rate or stream.guessed_rate)
    _check_header(stream)
    buffer = io.BytesIO()
    output = open_fragmented(buffer)
    copy = output.add_stream_from_template(stream)
    copy.time_base = 1 / fps
    count, origin = 0, None
    for packet in source.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or packet.is_corrupt:
            raise BadVideo("contract", f"packet {count} is damaged or has no time")
        origin = packet.pts if origin is None else origin
        error = (packet.pts - origin) * packet.time_base - count / fps
        if abs(error) > packet.time_base or (packet.dts is not None and packet.dts > packet.pts):
            raise BadVideo(
                "contract",
                f"packet {count} is {float(error):+.4f} s off a constant {float(fps):g} fps in order, "
                "as B-frames and variable rates are; encode it (--codec h264)",
            )
        if packet.is_keyframe != (count % gop == 0):
            raise BadVideo("contract", f"packet {count} does not fit GOPs of exactly {gop} frames")
        packet.time_base, packet.pts, packet.dts, packet.duration = 1 / fps, count, count, 1
        packet.stream = copy
        output.mux(packet)
        count += 1
    output.close()
    mp4 = buffer.getvalue()
    try:
        check_gops_alone(mp4, check_video(mp4, gop=gop, fps=fps, frames=count))
    except BadVideo as bad:
        raise BadVideo("contract", bad.detail) from bad
    return mp4, fps


def _check_header(stream: av.video.stream.VideoStream) -> None:
    context = stream.codec_context
    if context.codec.canonical_name not in CODECS:
        raise BadVideo("contract", f"codec {context.codec.canonical_name}, expected {', '.join(CODECS)}")
    if context.width % BLOCK or context.height % BLOCK:
        raise BadVideo("contract", f"{context.width}x{context.height}, expected multiples of {BLOCK}")
