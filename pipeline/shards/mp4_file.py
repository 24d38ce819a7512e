"""The container of every video in a shard: fragmented MP4, one fragment per key frame, the same bytes every time."""

from typing import BinaryIO

import av
import av.container


def open_fragmented(file: BinaryIO) -> av.container.OutputContainer:
    """An MP4 for writing: a header without samples, then one fragment per key frame, and nothing after the last."""
    return av.open(
        file,
        "w",
        format="mp4",
        container_options={
            "movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer",
            "fflags": "bitexact",  # no version string of the muxer in the file
        },
    )
