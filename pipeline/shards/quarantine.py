"""Why a video was left out: the reasons, the exception that carries one, and ``quarantine.csv``.

Every planned video ends in a shard or here. A reason is one word that can be counted; the detail names what was found.
"""

import csv
import io
from dataclasses import dataclass
from typing import Literal, get_args

from ..safe_text import csv_cell

Reason = Literal[
    "missing",  # listed, but no such file
    "ambiguous",  # listed, but it may be one of several files
    "outside",  # behind a link that leaves the source
    "duplicate",  # listed more than once
    "changed",  # not the bytes that were planned
    "empty",  # zero bytes
    "unreadable",  # no demuxer makes sense of it
    "not_allowed",  # a container or codec outside the allow-list
    "no_video",  # audio only
    "no_frames",  # a video stream that yields no picture
    "too_large",  # pixels, bytes
    "too_long",  # seconds
    "truncated",  # ends before its own header says
    "corrupt",  # damaged packets or pictures
    "size_change",  # the picture size changes mid-stream
    "timestamps",  # times that cannot be put on a constant rate
    "contract",  # `copy`: does not fulfil the shard contract as it is
    "output",  # the encoded result failed its own check
    "timeout",
    "memory",
    "crashed",
]
REASONS: tuple[str, ...] = get_args(Reason)


class BadVideo(Exception):
    """A video that cannot be converted; ``reason`` is one of ``REASONS``, ``detail`` one line for a person."""

    def __init__(self, reason: Reason, detail: str):
        if reason not in REASONS:
            raise ValueError(f"unknown quarantine reason {reason!r}")
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Failure:
    """One quarantined video: its place in the source, its key, and why it was left out."""

    path: str
    key: str
    reason: str
    detail: str


def quarantine_csv(failures: list[Failure]) -> bytes:
    """The text of ``quarantine.csv``: path, key, reason, detail, in the order given."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "key", "reason", "detail"])
    for failure in failures:
        writer.writerow([csv_cell(text) for text in (failure.path, failure.key, failure.reason, failure.detail)])
    return text.getvalue().encode()
