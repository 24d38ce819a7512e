"""The work of a conversion: planned videos through the sandbox into finished shards."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..progress import Progress
from ..sandbox.process import Limits
from ..shards.quarantine import Failure
from ..shards.writer import ShardWriter
from ..sources.tree import place_of
from .output import LocalOutput
from .plan import PlanHeader, PlannedVideo
from .sandbox.pool import Pool


@dataclass(frozen=True)
class ShardTask:
    """One shard to make: its number and its videos in order."""

    shard: int
    videos: list[PlannedVideo]


def convert_shards(
    header: PlanHeader,
    tasks: Iterable[ShardTask],
    root: str | Path,
    output: LocalOutput,
    limits: Limits,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """Write those of ``tasks`` that are not done, with ``workers`` processes working on videos side by side.

    Args:
        header: of the plan.
        tasks: the shards.
        root: the source's root.
        output: where shards go.
        limits: what one video may cost.
        progress: counts every video.

    Raises:
        InputError: the output cannot be written.
    """
    recipe = header.settings["recipe"]

    def requests() -> Iterator[tuple[tuple[int, PlannedVideo | None], dict | None]]:
        for task in tasks:
            if output.done(task.shard, header.id):  # by another run, meanwhile
                if progress is not None:
                    progress.advance(len(task.videos))
                continue
            for video in task.videos:
                yield (task.shard, video), _request(video, root, recipe)
            yield (task.shard, None), None

    writer: ShardWriter | None = None
    reasons, read, start = Counter(), 0, time.monotonic()
    with Pool(workers, limits) as pool:
        try:
            for (shard, video), answer, mp4 in pool.map(requests()):
                if video is None:
                    assert writer is not None, "a shard ends after its videos"
                    writer.publish()
                    output.published(shard)
                    writer = None
                    continue
                if writer is None:
                    writer = ShardWriter(output.shards, shard, header.id)
                if (refusal := _refusal(video, recipe)) is not None:
                    answer = dict(zip(("bad", "detail"), refusal, strict=True))
                if "bad" in answer:
                    writer.failures.append(Failure(video.path, video.key, answer["bad"], answer["detail"]))
                    reasons[answer["bad"]] += 1
                else:
                    writer.add(video.key, video.label, header.classes[video.label], video.path, answer, mp4)
                read += video.bytes
                if progress is not None:
                    rate = read / 1e6 / max(time.monotonic() - start, 1e-6)
                    progress.advance(note=f"{rate:.1f} MB/s read" + failure_note(reasons))
        finally:
            if writer is not None:
                writer.discard()


def _request(video: PlannedVideo, root: str | Path, recipe: dict) -> dict | None:
    if _refusal(video, recipe) is not None:
        return None
    fields = ("offset", "bytes", "content", "modified", "start", "end")
    return {**place_of(root, video.path), **{name: getattr(video, name) for name in fields}, "recipe": recipe}


def _refusal(video: PlannedVideo, recipe: dict) -> tuple[str, str] | None:
    """(reason, detail) when the video is not even to be opened."""
    if video.bytes > recipe["max_file_mb"] * 1e6:
        return "too_large", f"{video.bytes / 1e6:.0f} MB is more than {recipe['max_file_mb']:g} MB"
    return video.fault


def failure_note(reasons: Counter) -> str:
    """Failures by reason, for the end of a progress line."""
    if not reasons:
        return ""
    return f", {reasons.total()} quarantined ({', '.join(f'{n} {reason}' for reason, n in reasons.most_common(3))})"
