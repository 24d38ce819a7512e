"""`unstill bench mixed`: many mixed and broken videos convert to the same bytes with any number of workers.

Every file ends in a shard, in the quarantine list or among those that are named as left out; none is lost. The numbers
are counts: they do not depend on the machine.
"""

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ...pipeline.conversion.convert import ConversionReport, ConvertConfig, convert
from ...pipeline.shards.video_format import Codec
from ..harness.mixed_videos import mixed_videos
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Section

SECTIONS = {
    "mixed": Section(
        title="Mixed and broken videos",
        text="The same bytes with any number of workers, and every file accounted for.",
        order=23,
        charts={},
    )
}


@dataclass(frozen=True, kw_only=True)
class MixedBench:
    """Convert many mixed videos twice, and count."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    videos: int = 2000
    """Videos; one of ten is broken."""
    codec: Codec = "h264"
    """Codec of the shards."""
    workers: tuple[int, int] = (1, 3)
    """Workers of the two conversions."""


def run(config: MixedBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    results = ResultFile("mixed", out=config.out)
    with tempfile.TemporaryDirectory() as temporary:
        source, reports, digests = Path(temporary) / "source", [], []
        made = mixed_videos(source, config.videos)
        results.note("source: " + ", ".join(f"{count} {kind}" for kind, count in sorted(made.items())))
        for workers in config.workers:
            out = Path(temporary) / f"out_{workers}"
            job = ConvertConfig(source=source, out=out, codec=config.codec, workers=workers, samples_per_shard=250)
            reports.append(convert(job))
            digests.append(digest(out))
        results.add(*rows(made, reports, digests, config))
    results.show("mixed videos")
    return results.finish()


def rows(made: Counter, reports: list[ConversionReport], digests: list[dict], config: MixedBench) -> list[Row]:
    """Counts, each with the value that it has to have."""
    first, other = digests
    differing = sum(first.get(name) != other.get(name) for name in first.keys() | other.keys())
    report = reports[0]
    left_out = sum(count for _, count, _ in report.overlooked)
    lost = sum(made.values()) - report.converted - report.quarantined - left_out
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(report.reasons.items()))
    named = ", ".join(f"{count} {reason}" for reason, count, _ in report.overlooked)
    a, b = config.workers
    return [
        Row(title=f"files that differ between {a} and {b} workers", value=differing, unit="files", at_most=0),
        Row(title="files that are not accounted for", value=abs(lost), unit="files", at_most=0),
        Row(title="converted", value=report.converted, unit="videos"),
        Row(title="quarantined", value=report.quarantined, unit="videos", facts={"reasons": why}),
        Row(title="named as left out", value=left_out, unit="files", facts={"reasons": named}),
    ]


def digest(out: Path) -> dict[str, str]:
    """SHA-256 of every file of a dataset by its name; locks and times of a run are none of it."""
    names = ("*.tar", "index.safetensors", "quarantine.csv", "plan.jsonl")
    paths = sorted(path for name in names for path in out.rglob(name))
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
