"""Clips that are decoded as one file: for NVDEC through DALI, to which a file costs as much as 140 frames.

DALI opens a demuxer, a parser and eight device buffers for each file, one file after the other: 9.4 ms on an H200 with
16 cores, whatever the number of threads, where a decoded frame of 336x256 costs 0.066 ms (fitted to the rates in
``loader-nvidia-h200.json``). So the clips of a batch whose decoder needs the same parameters are joined, each starting
with its key frame.

    clip 3 | clip 8 | clip 12 | first frame of clip 3 again

The last frame is a check. DALI numbers frames as they come out of the decoder: were one lost, all later clips would be
shifted by one, and the last frame would not equal the first.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..shards.plain_mp4 import joined_mp4
from .encoded_batch import EncodedBatch
from .frame_decoder import SliceTable, decoder_parameters

_FRAMES = 24.0
"""Frames that one session decodes while a file is opened, at 0.4 ms a frame (an estimate, not measured). Each group
costs an opening, and fewer groups keep fewer sessions busy: the best number for F frames is near the root of F / 24."""

_AVC, _HEVC, _VP9 = b"avc1", b"hvc1 hev1".split(), b"vp09"
# types of NAL units, ITU-T H.264 table 7-1 and H.265 table 7-1: parameter sets, and slices that need no earlier picture
_SETS = {_AVC: (7, 8), **dict.fromkeys(_HEVC, (32, 33, 34))}
_REFRESH = {_AVC: (5,), **dict.fromkeys(_HEVC, (19, 20))}


@dataclass(frozen=True)
class ClipGroup:
    """Clips of a batch in one MP4.

    Attributes:
        rows: of the batch.
        encoded: uint8 (n,), the MP4.
        frames: int32 (F,), ascending, the frames of the MP4 that are wanted.
        places: int64 (len(rows), T), where each clip frame lies in ``frames``.
        checked: the first and the last of ``frames`` must have the same pixels.
    """

    rows: list[int]
    encoded: np.ndarray
    frames: np.ndarray
    places: np.ndarray
    checked: bool


def group_clips(batch: EncodedBatch, most: int) -> list[ClipGroup]:
    """Groups of about the same number of frames, at least one for each kind of video.

    Args:
        batch: n clips.
        most: groups that are decoded at a time.

    Returns:
        Each row of the batch is in one group. A clip that cannot be joined to others is a group by itself.
    """
    kinds: dict[bytes, list[int]] = {}
    groups = []
    for row in range(len(batch)):
        kind = _kind(batch.tables[row], batch.encoded[row]) if batch.tables else None
        if kind is None:
            groups.append(_alone(batch, row))
        else:
            kinds.setdefault(kind, []).append(row)
    frames = [len(table.sizes) for table in batch.tables]
    total = sum(frames[row] for rows in kinds.values() for row in rows)
    parts = min(most, math.sqrt(total / _FRAMES))
    for rows in kinds.values():
        share = sum(frames[row] for row in rows) / total
        groups += [_joined(batch, part) for part in _balanced(rows, frames, max(1, round(parts * share)))]
    return groups


def _balanced(rows: list[int], frames: list[int], parts: int) -> list[list[int]]:
    """Rows in at most ``parts`` parts: the longest first, each to the part with the fewest frames."""
    found: list[list[int]] = [[] for _ in range(min(parts, len(rows)))]
    load = [0] * len(found)
    for row in sorted(rows, key=lambda row: -frames[row]):
        least = load.index(min(load))
        found[least].append(row)
        load[least] += frames[row]
    return [sorted(part) for part in found]


def _alone(batch: EncodedBatch, row: int) -> ClipGroup:
    frames, places = np.unique(batch.frames[row], return_inverse=True)
    return ClipGroup([row], batch.encoded[row], frames.astype(np.int32), places[None], checked=False)


def _joined(batch: EncodedBatch, rows: list[int]) -> ClipGroup:
    sizes, shown, keys, contents, wanted = [], [], [], [], []
    for row in rows:
        table, mp4 = batch.tables[row], batch.encoded[row]
        first = len(sizes)
        wanted.append(batch.frames[row] + first)
        keys.append(first + 1)
        sizes += table.sizes
        shown += [first + int(place) for place in table.shown]
        contents.append(_content(table, mp4))
    last = len(sizes)
    if last == 1:  # nothing can be lost
        return _alone(batch, rows[0])
    keys.append(last + 1)
    sizes.append(sizes[0])
    shown.append(last)
    contents.append(contents[0][: sizes[0]])
    mp4 = joined_mp4(batch.tables[rows[0]].track, contents, sizes, shown, keys)
    frames, places = np.unique(np.array([*np.concatenate(wanted), 0, last]), return_inverse=True)
    return ClipGroup(rows, mp4, frames.astype(np.int32), places[:-2].reshape(len(rows), -1), checked=True)


def _content(table: SliceTable, mp4: np.ndarray) -> np.ndarray:
    return mp4[len(mp4) - sum(table.sizes) :]


def _kind(table: SliceTable, mp4: np.ndarray) -> bytes | None:
    """What clips must have in common to be one file: every byte of the decoder's parameters. None: a file of its own.

    Only codecs whose samples are one picture each: hidden pictures come out of NVDEC through DALI as frames.
    """
    description, content = table.track.description, _content(table, mp4)
    codec = description[20:24]
    if codec == _VP9:
        return description if _one_picture_a_sample(content, table.sizes) else None
    if codec not in _SETS:
        return None
    sets = _parameter_sets(content[: table.sizes[0]].tobytes(), codec, decoder_parameters(description))
    return None if sets is None else description + sets


def _parameter_sets(sample: bytes, codec: bytes, parameters: bytes) -> bytes | None:
    """Those in the first sample of H.264 or HEVC, which override those of the header.

    None where it is not understood, or is no picture at which the decoder forgets all earlier ones.
    """
    at = 4 if codec == _AVC else 21  # where the decoder's parameters say how many bytes the length of a unit has
    if len(parameters) <= at:
        return None
    width, position, found, refresh = (parameters[at] & 3) + 1, 0, [], False
    while position + width < len(sample):
        begin = position + width
        position = begin + int.from_bytes(sample[position:begin], "big")
        kind = sample[begin] & 31 if codec == _AVC else sample[begin] >> 1 & 63
        refresh |= kind in _REFRESH[codec]
        if kind in _SETS[codec]:
            found.append(sample[begin:position])
    return b"".join(found) if refresh and position == len(sample) else None


def _one_picture_a_sample(content: np.ndarray, sizes: list[int]) -> bool:
    """Every sample of VP9 is one frame, decoded and shown, the first one a key frame: no superframe, no frame that
    repeats another.

    Source: VP9 Bitstream & Decoding Process Specification, 6.2 and Annex B; profiles 0 to 2.
    """
    ends = np.cumsum(sizes)
    head, tail = content[np.concatenate([[0], ends[:-1]])], content[ends - 1]
    marker, existing, is_shown, predicted, superframe = 0xC0, 0x08, 0x02, 0x04, 0xE0
    shown = (head & (marker | existing | is_shown)) == (0x80 | is_shown)
    return not head[0] & predicted and bool((shown & ((tail & superframe) != 0xC0)).all())
