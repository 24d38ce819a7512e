"""``unstill convert``, ``audit`` and ``verify``: videos and shards.

A function here returns the process's exit code. Nothing here needs torch or DALI, whose import takes seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional

from ...pipeline.conversion.audit import AuditConfig, render
from ...pipeline.conversion.audit import audit as audit_source
from ...pipeline.conversion.convert import ConvertConfig
from ...pipeline.conversion.convert import convert as convert_source
from ...pipeline.conversion.verify import verify as verify_shards
from ...pipeline.errors import InputError
from ...pipeline.sandbox.process import Sandbox


def convert(options: ConvertConfig) -> int:
    """``unstill convert``; 0 also when videos were quarantined, for the report names every one."""
    report = convert_source(options)
    print(
        f"{report.out}: {report.planned} planned = {report.converted} converted + {report.quarantined} quarantined; "
        f"{report.shards} shards, {report.bytes / 1e6:,.1f} MB, {report.seconds:.1f} s"
    )
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
        print(f"  {count} quarantined: {reason}")
    if report.quarantined:
        print(f"  each one with its reason: {report.out}/quarantine.csv")
    for note, count in report.notes.items():
        print(f"  {count} {note}")
    for why, count, first in report.overlooked:
        print(f"  {count} files not looked at: {why}, for example {first!r}")
    for keys in report.same_content["in_several_classes"][:8]:
        print(f"  the same bytes in several classes: {', '.join(keys)}")
    for warning in report.warnings:
        print(f"  warning: {warning}")
    if report.complete:
        numbered_by = options.classes
        another = numbered_by.parent if numbered_by is not None and numbered_by.suffix == ".json" else None
        used = f"{another} --validation {report.out}" if another else report.out
        print(f"look at {report.out}/stats.html; then: unstill train RECIPE --data {used} --out runs/NAME")
    else:
        print("other shards are still to be made; the job that makes the last one merges them")
    return 0


def audit(options: AuditConfig) -> int:
    """``unstill audit``; 1 when ``convert`` would refuse the source."""
    report = audit_source(options)
    Console().print(render(report))
    return 1 if report.problem else 0


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Check a converted dataset, or one shard: structure, checksums, fragment tables, and that every frame decodes."""

    path: Annotated[Path, Positional]
    """Dataset folder, or one .tar file."""
    decode: bool = True
    """Decode every frame too; without it only bytes are checked."""
    workers: int = 0
    """Processes; 0 is one for every core."""
    sandbox: Sandbox = "auto"
    """Fences around the processes that decode: require stops where this system lacks one, auto says so and goes on, off
    puts up none (time and memory stay limited)."""
    device: Literal["cpu", "cuda"] | None = None
    """If all is well, also decode every frame with DALI on this device, and compare it with the processor's picture: a
    GPU may leave a frame out without an error. DALI on a CPU decodes VP9 and Motion JPEG only."""


def verify(options: VerifyOptions) -> int:
    """``unstill verify``; 1 when there are faults."""
    if options.device and not (options.decode and options.path.is_dir()):
        raise InputError(f"{options.path}: --device decodes a dataset's folder; expected one, without --no-decode")
    faults: Sequence[object] = verify_shards(
        options.path, decode=options.decode, workers=options.workers, sandbox=options.sandbox
    )
    if options.device and not faults:
        # imports DALI and torch
        from ...pipeline.loading.decoder_check import compare_decoders

        faults = compare_decoders(options.path, options.device, threads=options.workers)
    for fault in faults:
        print(fault)
    print(f"{options.path}: {f'{len(faults)} faults' if faults else 'no fault found'}")
    return 1 if faults else 0
