"""`unstill audit`: what a source holds, before any work: found, missing, duplicate; durations, sizes, codecs, faults.

Headers are read in the sandbox; no frame is decoded.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..progress import Progress
from ..safe_text import printable
from ..sandbox.process import Limits, Sandbox
from ..shards.quarantine import Failure
from ..sources.layouts import SourceConfig, find_videos, shrunken_label_set
from ..sources.listing import Listing, SourceVideo
from ..sources.tree import place_of
from .content_hash import DIGESTED_WHOLE, content_sha256
from .sandbox.pool import Pool

LIMITS = Limits(seconds=60.0, memory_bytes=320 << 20)
BATCH = 32  # headers read for one message to a worker
SHOWN = 8  # lines of each list in the printed report


@dataclass(frozen=True, kw_only=True)
class AuditConfig(SourceConfig):
    """Report what a folder of videos holds, before converting it."""

    headers: bool = True
    """Read every video's header (codec, size, duration) and compare the content of files of equal length."""
    workers: int = 0
    """Processes that read headers; 0 is one for every core."""
    sandbox: Sandbox = "auto"
    """Fences around the processes that decode: require stops where this system lacks one, auto says so and goes on, off
    puts up none (time and memory stay limited)."""


@dataclass(frozen=True)
class AuditReport:
    """What was found.

    Attributes:
        listing: the source's videos, missing and duplicate entries.
        headers: one dictionary a readable video: bytes, codec, width, height, fps, seconds.
        unreadable: videos whose header cannot be read, with the reason.
        same_content: groups of paths whose bytes are the same.
        problem: why `convert` would refuse the source; empty when it would not.
    """

    listing: Listing
    headers: tuple[dict, ...]
    unreadable: tuple[Failure, ...]
    same_content: tuple[tuple[str, ...], ...]
    problem: str


def audit(config: AuditConfig) -> AuditReport:
    """Look at the source.

    Raises:
        InputError: the source or its list cannot be used at all.
    """
    listing = find_videos(config)
    headers, unreadable, same = [], [], ()
    if config.headers:
        workers = config.workers or len(os.sched_getaffinity(0))
        headers, unreadable, contents = _read_headers(listing, workers, config.sandbox)
        same = _same_content(listing, contents)
    problem = "" if config.allow_missing else shrunken_label_set(listing)
    if config.headers and not headers and not problem:
        problem = f"none of the {len(listing.videos)} videos has a header that can be read"
    return AuditReport(listing, tuple(headers), tuple(unreadable), same, problem)


def _read_headers(listing: Listing, workers: int, sandbox: Sandbox) -> tuple[list[dict], list[Failure], dict[str, str]]:
    """Headers, what cannot be read, and for each path of files of equal length the digest of some of its bytes."""
    headers, unreadable, contents = [], [], {}
    with (
        Pool(workers, replace(LIMITS, sandbox=sandbox)) as pool,
        Progress("reading headers", len(listing.videos), "videos") as progress,
    ):
        for video, answer in _probed(pool, listing):
            if (content := answer.pop("content", None)) is not None:
                contents[video.path] = str(content)
            if "bad" in answer:
                unreadable.append(Failure(video.path, video.name or "", answer["bad"], answer["detail"]))
            else:
                headers.append(answer)
            progress.advance(note=f"{len(unreadable)} unreadable" if unreadable else "")
    return headers, unreadable, contents


def _probed(pool: Pool, listing: Listing) -> Iterator[tuple[SourceVideo, dict]]:
    """Each video and what its header says; many a message, for a message costs as much as a small file's header."""
    alike = _of_equal_length(listing)

    def task(video: SourceVideo) -> dict:
        compared = {"compare": True} if video.path in alike else {}
        place = place_of(listing.root, video.path)
        return {**place, **compared, "offset": video.offset, "bytes": video.length, "probe": True}

    if not isinstance(listing.root, Path):  # fetched one by one
        yield from ((video, answer) for video, answer, _ in pool.map((video, task(video)) for video in listing.videos))
        return
    batches = (listing.videos[k : k + BATCH] for k in range(0, len(listing.videos), BATCH))
    for batch, answer, _ in pool.map((batch, {"batch": [task(video) for video in batch]}) for batch in batches):
        answers = answer.get("answers")  # a worker that was taken over may send anything
        if not isinstance(answers, list) or len(answers) != len(batch):  # one of them kills its worker: which one?
            yield from ((video, one) for video, one, _ in pool.map((video, task(video)) for video in batch))
        else:
            yield from zip(batch, answers, strict=True)


def _of_equal_length(listing: Listing) -> set[str]:
    """Paths of local files that are as long as another one, and not empty."""
    if not isinstance(listing.root, Path):
        return set()  # would fetch everything twice
    root, sizes = str(listing.root), {}
    for video in listing.videos:
        if video.length is None and video.path not in sizes:
            try:
                sizes[video.path] = os.stat(os.path.join(root, video.path)).st_size
            except OSError:
                continue
    count = Counter(sizes.values())
    return {path for path, size in sizes.items() if size and count[size] > 1}


def _same_content(listing: Listing, contents: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """Files with equal bytes: those of equal length and digest; long ones, whose digest is of parts, are read."""
    groups = []
    for paths in _grouped(contents):
        files = [Path(listing.root) / path for path in paths]
        if files[0].stat().st_size > DIGESTED_WHOLE:
            groups += _grouped({path: _digest(file) for path, file in zip(paths, files, strict=True)})
        else:
            groups.append(paths)
    return tuple(sorted(groups))


def _grouped(digests: dict[str, str]) -> list[tuple[str, ...]]:
    """Sorted paths of one digest, where there are several."""
    same: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(digests):
        same[digests[path]].append(path)
    return [tuple(paths) for paths in same.values() if len(paths) > 1]


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return content_sha256(file, 0, None)[1]
    except OSError:
        return hashlib.sha256(str(path).encode()).hexdigest()  # equal to no other


def render(report: AuditReport) -> RenderableType:
    """The report for a terminal."""
    listing = report.listing
    counts = np.bincount([video.label for video in listing.videos], minlength=len(listing.classes))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row(
        "classes", f"{len(listing.classes)} ({counts.min()} to {counts.max()} videos, median {np.median(counts):g})"
    )
    table.add_row(
        "videos",
        f"{len(listing.videos):,} found, {len(listing.missing):,} missing, {listing.unlisted:,} not listed"
        + (f", {len(listing.outside):,} behind links that leave the source" if listing.outside else ""),
    )
    table.add_row(
        "duplicates", f"{len(listing.duplicates)} listed again, {len(report.same_content)} groups of equal content"
    )
    if report.headers:
        size = sum(header["bytes"] for header in report.headers)
        seconds = [header["seconds"] for header in report.headers if header["seconds"] is not None]
        table.add_row("bytes", f"{size / 1e6:,.1f} MB, {size / len(report.headers) / 1e6:.3f} MB a video")
        if seconds:
            low, middle, high = np.quantile(seconds, [0, 0.5, 1])
            hours = sum(seconds) / 3600
            table.add_row("duration", f"{low:.2f} to {high:.2f} s, median {middle:.2f} s, {hours:.2f} hours in all")
        sizes = Counter(f"{header['width']}x{header['height']}" for header in report.headers)
        table.add_row("sizes", _most_common(sizes))
        table.add_row(
            "rates", _most_common(Counter(f"{header['fps']:.4g} fps" for header in report.headers if header["fps"]))
        )
        table.add_row("codecs", _most_common(Counter(header["codec"] for header in report.headers)))
    parts: list[RenderableType] = [table]
    parts += _named("outside (--follow-links takes them)", [video.path for video in listing.outside])
    parts += _named("missing", [video.path for video in listing.missing if not video.candidates])
    unsure = [f"{v.path}: may be {' or '.join(v.candidates)}" for v in listing.missing if v.candidates]
    parts += _named("ambiguous", unsure)
    for why, count, first in listing.overlooked:
        parts.append(Text(f"not looked at: {count:,} {why}, for example {printable(first)}"))
    parts += _named("listed again", [f"{v.path} as {listing.classes[v.label]}" for v in listing.duplicates])
    parts += _named("equal content", [" = ".join(group) for group in report.same_content])
    parts += _named("unreadable", [f"{f.path}: {f.reason}, {f.detail}" for f in report.unreadable])
    parts += _named("classes without a video", listing.empty_classes())
    parts += [Text(f"warning: {printable(warning)}", style="bold yellow") for warning in listing.warnings]
    if report.problem:
        parts.append(Text(f"convert would refuse this source: {report.problem}", style="bold red"))
    return Group(*parts)


def _most_common(counts: Counter) -> str:
    shown = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(5))
    return shown + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")


def _named(title: str, lines: list[str]) -> list[RenderableType]:
    if not lines:
        return []
    shown = [Text(f"  {printable(line)}") for line in lines[:SHOWN]]
    more = [Text(f"  and {len(lines) - SHOWN:,} more")] if len(lines) > SHOWN else []
    return [Text(f"{title}: {len(lines):,}"), *shown, *more]
