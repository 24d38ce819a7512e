"""`unstill convert`: a video dataset in, verified training shards out.

    list -> plan (hash, shuffle, shard) -> work (sandboxed transcoding, one tar a shard) -> merge (index, dataset.json)

Every step is deterministic and every file appears complete, so a run that was killed at any moment is continued by the
same command and ends in the same bytes; two runs on one output folder do no harm.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..errors import InputError
from ..options import at_least, between, check_options, more_than
from ..progress import Progress
from ..sandbox.process import Limits, Sandbox
from ..shards.cache import remote_address
from ..shards.verified import mark_verified
from ..shards.video_format import MAX_RATE, Codec, Entropy, VideoFormat
from ..shards.writer import read_manifest
from ..sources.layouts import SourceConfig, list_source
from ..sources.listing import Listing
from .merge import merge, read_dataset
from .output import LocalOutput, open_output
from .plan import PLAN_NAME, Plan, listing_digest, make_plan, plan_settings, read_header, read_plan, tool_versions
from .shard_work import ShardTask, convert_shards
from .transcode import meant_quality, named_quality


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(SourceConfig):
    """Convert videos into training shards."""

    out: Annotated[str | Path, Positional, arg(metavar="OUT")]
    """Folder or address (s3://...) of the new dataset. The same command again continues a run that was stopped."""
    codec: Codec = "h264"
    """h264 and hevc are decoded by a GPU and by the cores of a CPU. vp9: where DALI is to decode on a CPU. copy keeps
    videos that already fit."""
    short_side: int = 256
    """Pixels of the short side; rounded to a multiple of 16, never enlarged."""
    fps: float | None = None
    """Constant frames per second; by default each video keeps its own rate."""
    gop: int = 12
    """Frames per closed GOP: a clip of any start decodes at most this many frames too many at either end."""
    layers: int | None = None
    """2: no frame refers to an odd one, so that a clip of every second frame decodes half; needs an even --gop. 1:
    every frame refers to the one before it. By default 2 for h264 and hevc, where it makes files smaller, and 1 for
    vp9, where it makes them larger."""
    entropy: Entropy = "cavlc"
    """How h264 packs its bits. cavlc decodes in two thirds of cabac's time on a CPU and costs a GPU nothing; cabac
    makes files 8 % smaller."""
    quality: int | None = None
    """Constant rate factor of the encoder, lower is better; by default h264 23, hevc 26, vp9 33."""
    max_seconds: float | None = None
    """Keep at most the first so many seconds of each video."""
    samples_per_shard: int = 1000
    """Videos planned for each shard."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or a running Ray cluster whose nodes all see source and output (unstill[ray])."""
    workers: int = 0
    """Processes that transcode, one codec thread each; 0 is one for every core."""
    sandbox: Sandbox = "auto"
    """Fences around the processes that decode: require stops where this system lacks one, auto says so and goes on, off
    puts up none (time and memory stay limited)."""
    seed: int = 0
    """Seed of the global shuffle that spreads the videos over the shards."""
    shards: str | None = None
    """Only shards A to B-1, written A:B, for one of many jobs; 0:0 only plans, and the last job to finish merges."""
    timeout: float = 300.0
    """Seconds that one video may take before it is quarantined."""
    memory_mb: int = 320
    """Megabytes that one video may take beyond the idle worker (about 80 MB) before it is quarantined."""
    max_megapixels: float = 10.0
    """Videos with larger pictures are quarantined."""
    max_file_mb: float = 4096.0
    """Larger source files are quarantined."""
    keep_interlaced: bool = False
    """Leave interlaced pictures as they are; by default they are deinterlaced (bwdif)."""
    keep_hdr: bool = False
    """Take HDR (PQ, HLG) and BT.2020 for ordinary video; by default they are mapped to its range and colours."""

    def __post_init__(self):
        check_options(
            self,
            short_side=between(16, 4096, "pixels"),
            fps=between(1, MAX_RATE),
            gop=between(1, 600, "frames"),
            quality=between(0, 63, "a constant rate factor (0 is best)"),
            max_seconds=more_than(0),
            layers=between(1, 2, "layers of time"),
            samples_per_shard=at_least(1),
            workers=at_least(0),
            timeout=more_than(0, "seconds"),
            max_megapixels=more_than(0),
            max_file_mb=more_than(0),
            memory_mb=at_least(16),
        )
        if self.layers == 2 and (self.gop % 2 or self.codec == "copy"):
            raise InputError(
                f"layers is 2 with --codec {self.codec} --gop {self.gop}, expected an even gop, and no copy"
            )

    def _layers(self) -> int:
        return self.layers or (2 if self.codec in ("h264", "hevc") and self.gop % 2 == 0 else 1)

    def recipe(self) -> VideoFormat:
        """What decides the bytes of each video."""
        return VideoFormat(
            codec=self.codec,
            short_side=self.short_side,
            fps=self.fps,
            gop=self.gop,
            layers=self._layers(),
            entropy=self.entropy,
            quality=named_quality(self.codec, self.quality),
            max_seconds=self.max_seconds,
            max_megapixels=self.max_megapixels,
            max_file_mb=self.max_file_mb,
            keep_interlaced=self.keep_interlaced,
            keep_hdr=self.keep_hdr,
        )

    def limits(self) -> Limits:
        """What one video may cost."""
        return Limits(seconds=self.timeout, memory_bytes=self.memory_mb << 20, sandbox=self.sandbox)


@dataclass(frozen=True)
class ConversionReport:
    """How a conversion ended.

    Attributes:
        out: the dataset's folder or address.
        planned: videos of the plan; ``converted + quarantined`` once the dataset is complete.
        converted, quarantined: videos in shards, and on the quarantine list.
        reasons: number of quarantined videos by reason.
        complete: all shards are done and merged (False only after ``shards=A:B`` while others are missing).
        shards, bytes: number and total size of the shards.
        seconds: duration of this run.
        notes: number of videos that were deinterlaced, tone-mapped, ... (see ``Transcoded``).
        same_content: groups of videos whose sources have the same bytes, and the keys of those in several classes.
        overlooked, warnings: see ``Listing``.
    """

    out: Path | str
    planned: int
    converted: int
    quarantined: int
    reasons: dict[str, int]
    complete: bool
    shards: int
    bytes: int
    seconds: float
    notes: dict[str, int]
    same_content: dict
    overlooked: tuple[tuple[str, int, str], ...]
    warnings: tuple[str, ...]


def convert(config: ConvertConfig) -> ConversionReport:
    """Convert ``config.source`` into the dataset ``config.out``, or continue where a stopped run was.

    Raises:
        InputError: the source, an option or the output cannot be used; the message says what to do.
    """
    start = time.monotonic()
    listing = list_source(config)
    if config.labels is None and remote_address(config.out) is None and isinstance(listing.root, Path):
        out = Path(config.out).resolve()
        if listing.root.resolve() in (out, *out.parents):  # it would be a class the next time
            raise InputError(f"{config.out}: is or lies inside the source {listing.root}; choose a folder outside it")
    with open_output(config.out) as output:
        settings = plan_settings(config.recipe(), config.seed, config.samples_per_shard, config.follow_links)
        plan_id = _settled_plan(output, listing, settings)
        dataset = read_dataset(output.root)
        if dataset is None or dataset["plan"] != plan_id or not _shards_stand(output, dataset):
            plan = read_plan(output.root / PLAN_NAME)
            _work(config, plan, listing, output)
            if not all(output.done(shard, plan_id) for shard in range(plan.header.shards)):
                output.gather()  # by other jobs, meanwhile
            if not all(output.done(shard, plan_id) for shard in range(plan.header.shards)):
                return _partial_report(output, plan, listing, time.monotonic() - start)
            dataset = merge(output, plan.header)
            mark_verified(output.root)  # every video was decoded when it was made
    return ConversionReport(
        out=output.root if type(output) is LocalOutput else output.name,
        planned=dataset["planned"],
        converted=dataset["converted"],
        quarantined=dataset["quarantined"],
        reasons=dataset["reasons"],
        complete=True,
        shards=len(dataset["shards"]),
        bytes=sum(shard["bytes"] for shard in dataset["shards"]),
        seconds=time.monotonic() - start,
        notes=dataset.get("notes", {}),
        same_content=dataset.get("same_content", {"groups": 0, "in_several_classes": []}),
        overlooked=listing.overlooked,
        warnings=listing.warnings,
    )


def _work(config: ConvertConfig, plan: Plan, listing: Listing, output: LocalOutput) -> None:
    wanted = _shard_range(config.shards, plan.header.shards)
    pending = [shard for shard in wanted if not output.done(shard, plan.header.id)]
    tasks = [ShardTask(shard, plan.shard(shard)) for shard in pending]
    total = sum(len(task.videos) for task in tasks)
    if config.engine == "ray":
        from .ray_engine import convert_shards_on_ray

        convert_shards_on_ray(plan.header, tasks, listing.root, output, config.limits())
        return
    before = sum(len(plan.shard(shard)) for shard in wanted) - total
    with Progress("converting", total, "videos", before=before) as progress:
        workers = config.workers or len(os.sched_getaffinity(0))
        convert_shards(plan.header, tasks, listing.root, output, config.limits(), workers, progress)


def _settled_plan(output: LocalOutput, listing: Listing, settings: dict) -> str:
    """Make the plan, or check that the one in ``output`` is for this source and these settings; returns its id."""
    path, out = output.root / PLAN_NAME, output.name
    header = read_header(path)
    if header is None:
        plan = make_plan(listing, settings)
        plan.save(path)
        output.written(PLAN_NAME)
        return plan.header.id
    for name in settings | header.settings:
        if header.settings.get(name) != settings.get(name):
            raise InputError(
                f"{out}: was begun with other settings ({_difference(_spelt(header.settings), _spelt(settings))}); "
                "give the same again or choose another OUT folder"
            )
    if header.classes != listing.classes:
        raise InputError(f"{out}: was begun with {len(header.classes)} other classes; choose another OUT folder")
    if header.listing != listing_digest(listing):
        planned = {(v.path, v.offset, v.label, v.start, v.end) for v in read_plan(path).videos if v.fault is None}
        added = [v for v in listing.videos if (v.path, v.offset, v.label, v.start, v.end) not in planned]
        if added:
            raise InputError(
                f"{out}: {len(added)} videos were added to the source since the plan was made "
                f"(first: {added[0].path!r}); choose another OUT folder"
            )
    if header.tools != tool_versions() and read_dataset(output.root) is None:
        raise InputError(
            f"{out}: was begun with {_difference(header.tools, tool_versions())}; finish it there or choose another "
            "OUT folder"
        )
    return header.id


def _spelt(settings: dict) -> dict:
    """Settings with the quality that they mean, where a recipe does not say it."""
    recipe = settings.get("recipe")
    if not isinstance(recipe, dict):
        return settings
    return settings | {"recipe": recipe | {"quality": meant_quality(str(recipe.get("codec")), recipe.get("quality"))}}


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


def _shards_stand(output: LocalOutput, dataset: dict) -> bool:
    """Whether all tars of a merged dataset are still there with their lengths."""
    return all(output.shard_bytes(shard["name"]) == shard["bytes"] for shard in dataset["shards"])


def _shard_range(text: str | None, shards: int) -> range:
    if text is None:
        return range(shards)
    first, colon, last = text.partition(":")
    try:
        a, b = int(first or 0), int(last) if last else shards
    except ValueError:
        a, b = 0, -1
    if not colon or a < 0 or b < a:
        raise InputError(f"shards is {text!r}, expected A:B with 0 <= A <= B <= {shards}")
    return range(min(a, shards), min(b, shards))


def _partial_report(output: LocalOutput, plan: Plan, listing: Listing, seconds: float) -> ConversionReport:
    found = (read_manifest(output.shards, shard) for shard in range(plan.header.shards))
    manifests = [manifest for manifest in found if manifest is not None]
    reasons = Counter(failure["reason"] for manifest in manifests for failure in manifest["failures"])
    return ConversionReport(
        out=output.root if type(output) is LocalOutput else output.name,
        planned=plan.header.videos,
        converted=sum(len(manifest["samples"]) for manifest in manifests),
        quarantined=reasons.total(),
        reasons=dict(sorted(reasons.items())),
        complete=False,
        shards=len(manifests),
        bytes=sum(manifest["bytes"] for manifest in manifests),
        seconds=seconds,
        notes={},
        same_content={"groups": 0, "in_several_classes": []},
        overlooked=listing.overlooked,
        warnings=listing.warnings,
    )
