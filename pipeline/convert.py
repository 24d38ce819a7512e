"""`unstill convert`: a video dataset in, verified training shards out.

    list -> plan (hash, shuffle, shard) -> work (sandboxed transcoding, one tar a shard) -> merge (index, dataset.json)

Every step is deterministic and every file appears whole, so a run that was killed at any moment is continued by the
same command and ends in the same bytes; two runs on one output folder do no harm.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .atomic_files import make_folder, sweep_partials
from .errors import InputError
from .merge import SHARD_FOLDER, merge, read_dataset
from .plan import (
    PLAN_NAME,
    Plan,
    PlannedVideo,
    listing_digest,
    make_plan,
    plan_settings,
    read_header,
    read_plan,
    tool_versions,
)
from .progress import Progress
from .quarantine import Failure
from .recipe import MAX_RATE, Codec, Recipe
from .sandbox import Limits, Pool
from .shard_writer import ShardWriter, read_manifest, shard_done
from .source_layouts import SourceConfig, list_source
from .sources import Listing


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(SourceConfig):
    """Convert videos into training shards."""

    out: str | Path
    """Folder of the new dataset. The same command again continues a run that was stopped."""
    codec: Codec = "h264"
    """h264 or hevc for training on a GPU, vp9 where DALI decodes on the CPU; copy keeps videos that already fit."""
    short_side: int = 256
    """Pixels of the short side; rounded to a multiple of 16, never enlarged."""
    fps: float | None = None
    """Constant frames per second; by default each video keeps its own rate."""
    gop: int = 12
    """Frames per closed GOP: a clip of any start decodes at most this many frames too many at either end."""
    quality: int | None = None
    """Constant rate factor of the encoder, lower is better; by default h264 23, hevc 26, vp9 31."""
    max_seconds: float | None = None
    """Keep at most the first so many seconds of each video."""
    samples_per_shard: int = 1000
    """Videos planned for each shard."""
    workers: int = 0
    """Processes that transcode, one codec thread each; 0 is one for every core."""
    seed: int = 0
    """Seed of the global shuffle that spreads the videos over the shards."""
    shards: str | None = None
    """Only shards A to B-1, written A:B, for one of many jobs; the job that finishes last merges."""
    timeout: float = 300.0
    """Seconds that one video may take before it is quarantined."""
    memory_mb: int = 320
    """Megabytes that one video may take beyond the idle worker (about 80 MB) before it is quarantined."""
    max_megapixels: float = 10.0
    """Videos with larger pictures are quarantined."""

    def __post_init__(self):
        checks = [
            (16 <= self.short_side <= 4096, f"short_side is {self.short_side}, expected 16 to 4096 pixels"),
            (self.fps is None or 1 <= self.fps <= MAX_RATE, f"fps is {self.fps}, expected 1 to {MAX_RATE}"),
            (1 <= self.gop <= 600, f"gop is {self.gop}, expected 1 to 600 frames"),
            (self.quality is None or 0 <= self.quality <= 63, f"quality is {self.quality}, expected 0 (best) to 63"),
            (self.max_seconds is None or self.max_seconds > 0, f"max_seconds is {self.max_seconds}, expected above 0"),
            (self.samples_per_shard >= 1, f"samples_per_shard is {self.samples_per_shard}, expected at least 1"),
            (self.workers >= 0, f"workers is {self.workers}, expected 0 (one a core) or more"),
            (self.timeout > 0, f"timeout is {self.timeout}, expected above 0 seconds"),
            (self.memory_mb >= 16, f"memory_mb is {self.memory_mb}, expected at least 16"),
        ]
        for good, problem in checks:
            if not good:
                raise InputError(problem)

    def recipe(self) -> Recipe:
        """What decides the bytes of each video."""
        return Recipe(
            codec=self.codec,
            short_side=self.short_side,
            fps=self.fps,
            gop=self.gop,
            quality=self.quality,
            max_seconds=self.max_seconds,
            max_megapixels=self.max_megapixels,
        )

    def limits(self) -> Limits:
        """What one video may cost."""
        return Limits(seconds=self.timeout, memory_bytes=self.memory_mb << 20)


@dataclass(frozen=True)
class ConversionReport:
    """How a conversion ended.

    Attributes:
        out: the dataset's folder.
        planned: videos of the plan; ``converted + quarantined`` once the dataset is complete.
        converted, quarantined: videos in shards, and on the quarantine list.
        reasons: number of quarantined videos by reason.
        complete: all shards are done and merged (False only after ``shards=A:B`` while others are missing).
        shards, bytes: number and total size of the shards.
        seconds: duration of this run.
    """

    out: Path
    planned: int
    converted: int
    quarantined: int
    reasons: dict[str, int]
    complete: bool
    shards: int
    bytes: int
    seconds: float


def convert(config: ConvertConfig) -> ConversionReport:
    """Convert ``config.source`` into the dataset ``config.out``, or continue where a stopped run was.

    Raises:
        InputError: the source, an option or the output cannot be used; the message says what to do.
    """
    start = time.monotonic()
    listing = list_source(config)
    out = Path(config.out)
    make_folder(out)
    make_folder(out / SHARD_FOLDER)
    sweep_partials(out)
    sweep_partials(out / SHARD_FOLDER)
    settings = plan_settings(config.recipe(), config.seed, config.samples_per_shard)
    plan_id = _settled_plan(out, listing, settings)
    dataset = read_dataset(out)
    if dataset is None or dataset["plan"] != plan_id or not _shards_stand(out, dataset):
        plan = read_plan(out / PLAN_NAME)
        wanted = _shard_range(config.shards, plan.header.shards)
        convert_shards(plan, listing.root, out / SHARD_FOLDER, wanted, config.limits(), config.workers or _cores())
        folder = out / SHARD_FOLDER
        if all(shard_done(folder, shard, plan_id) for shard in range(plan.header.shards)):
            dataset = merge(out, plan.header)
        else:
            return _partial_report(out, plan, time.monotonic() - start)
    return ConversionReport(
        out=out,
        planned=dataset["planned"],
        converted=dataset["converted"],
        quarantined=dataset["quarantined"],
        reasons=dataset["reasons"],
        complete=True,
        shards=len(dataset["shards"]),
        bytes=sum(shard["bytes"] for shard in dataset["shards"]),
        seconds=time.monotonic() - start,
    )


def convert_shards(plan: Plan, root: Path, folder: Path, shards: Iterator[int], limits: Limits, workers: int) -> None:
    """Write those of ``shards`` that are not done, with ``workers`` processes working on videos side by side.

    Args:
        plan: the plan.
        root: the source's root.
        folder: where tars and manifests go.
        limits: what one video may cost.

    Raises:
        InputError: the output cannot be written.
    """
    recipe = plan.header.settings["recipe"]
    pending = [shard for shard in shards if not shard_done(folder, shard, plan.header.id)]
    total = sum(len(plan.shard(shard)) for shard in pending)

    def tasks() -> Iterator[tuple[tuple[int, PlannedVideo | None], dict | None]]:
        for shard in pending:
            if shard_done(folder, shard, plan.header.id):  # by another run, meanwhile
                continue
            for video in plan.shard(shard):
                yield (shard, video), _task(video, root, recipe)
            yield (shard, None), None

    writer, reasons = None, Counter()
    with Pool(workers, limits) as pool, Progress("converting", total, "videos") as progress:
        try:
            for (shard, video), header, mp4 in pool.map(tasks()):
                if video is None:
                    writer.publish()
                    writer = None
                    continue
                if writer is None:
                    writer = ShardWriter(folder, shard, plan.header.id)
                if video.fault is not None:
                    header = dict(zip(("bad", "detail"), video.fault, strict=True))
                if "bad" in header:
                    writer.failures.append(Failure(video.path, video.key, header["bad"], header["detail"]))
                    reasons[header["bad"]] += 1
                else:
                    writer.add(video.key, video.label, plan.header.classes[video.label], video.path, header, mp4)
                progress.advance(note=_note(reasons))
        finally:
            if writer is not None:
                writer.discard()


def _task(video: PlannedVideo, root: Path, recipe: dict) -> dict | None:
    if video.fault is not None:
        return None
    fields = ("offset", "bytes", "sha256", "start", "end", "maybe_cut")
    return {
        "path": os.path.join(root, video.path),
        **{name: getattr(video, name) for name in fields},
        "recipe": recipe,
    }


def _note(reasons: Counter) -> str:
    if not reasons:
        return ""
    return f"{reasons.total()} quarantined ({', '.join(f'{n} {reason}' for reason, n in reasons.most_common(3))})"


def _settled_plan(out: Path, listing: Listing, settings: dict) -> str:
    """Make the plan, or check that the one in ``out`` is for this source and these settings; returns its id."""
    path = out / PLAN_NAME
    header = read_header(path)
    if header is None:
        plan = make_plan(listing, settings)
        plan.save(path)
        return plan.header.id
    for name, value in settings.items():
        if header.settings.get(name) != value:
            raise InputError(
                f"{out}: was begun with other settings ({_difference(header.settings, settings)}); choose a new --out"
            )
    if header.classes != listing.classes:
        raise InputError(f"{out}: was begun with {len(header.classes)} other classes; choose a new --out")
    if header.listing != listing_digest(listing):
        planned = {(v.path, v.offset, v.label, v.start, v.end) for v in read_plan(path).videos if v.fault is None}
        added = [v for v in listing.videos if (v.path, v.offset, v.label, v.start, v.end) not in planned]
        if added:
            raise InputError(
                f"{out}: {len(added)} videos were added to the source since the plan was made "
                f"(first: {added[0].path!r}); choose a new --out"
            )
    if header.tools != tool_versions() and read_dataset(out) is None:
        raise InputError(
            f"{out}: was begun with {_difference(header.tools, tool_versions())}; finish it there or choose a new --out"
        )
    return header.id


def _difference(old: dict, new: dict) -> str:
    """The first entry that differs between two nested dictionaries, in words."""
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            if a != b:
                return _difference(a, b)
        elif a != b:
            return f"{name} {a}, now {b}"
    return "nothing"


def _shards_stand(out: Path, dataset: dict) -> bool:
    """Whether all tars of a merged dataset are still there with their lengths."""
    try:
        return all(os.stat(out / shard["name"]).st_size == shard["bytes"] for shard in dataset["shards"])
    except FileNotFoundError:
        return False


def _shard_range(text: str | None, shards: int) -> range:
    if text is None:
        return range(shards)
    first, colon, last = text.partition(":")
    try:
        a, b = int(first or 0), int(last) if last else shards
    except ValueError:
        colon = ""
    if not colon or a < 0 or b < a:
        raise InputError(f"shards is {text!r}, expected A:B with 0 <= A <= B <= {shards}")
    return range(min(a, shards), min(b, shards))


def _partial_report(out: Path, plan: Plan, seconds: float) -> ConversionReport:
    manifests = [
        m for shard in range(plan.header.shards) if (m := read_manifest(out / SHARD_FOLDER, shard)) is not None
    ]
    reasons = Counter(failure["reason"] for m in manifests for failure in m["failures"])
    return ConversionReport(
        out=out,
        planned=plan.header.videos,
        converted=sum(len(m["samples"]) for m in manifests),
        quarantined=reasons.total(),
        reasons=dict(sorted(reasons.items())),
        complete=False,
        shards=len(manifests),
        bytes=sum(m["bytes"] for m in manifests),
        seconds=seconds,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
