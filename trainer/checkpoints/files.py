"""Checkpoint folders that are complete or absent, at whatever moment a run is killed.

checkpoints/
    step-00000500/          written as .step-00000500.<pid>.<random>, every file fsynced, then renamed
        manifest.json       step, schema, and size and sha256 of the other files
        model.safetensors   weights and buffers  (ema.safetensors: their moving average)
        state.pt            optimiser, counters; loads with weights_only=True
        config.json         the resolved configuration, class names, versions
    latest                  the name of the newest complete one, replaced only after the rename
    best                    the name of the one with the highest validation score
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from ...pipeline.atomic_files import write_atomic
from ...pipeline.bounded_files import read_bounded, read_json
from ...pipeline.errors import InputError

SCHEMA = 1
MANIFEST = "manifest.json"
WEIGHTS, AVERAGE, TRAINING_STATE = "model.safetensors", "ema.safetensors", "state.pt"
POINTERS = ("latest", "best")


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def write_checkpoint(folder: Path, step: int, files: dict[str, Callable[[Path], None]]) -> Path:
    """Write one checkpoint and point ``latest`` at it.

    Args:
        folder: the run's ``checkpoints`` folder, created when missing.
        step: steps done.
        files: name -> function that writes this file at the path it is given.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError, InputError: the disk is full or not writable; earlier checkpoints and ``latest`` are as they were.
    """
    final = step_folder(folder, step)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{final.name}.{os.getpid()}.{secrets.token_hex(8)}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        entries = {}
        for name, write in files.items():
            write(temporary / name)
            _fsync(temporary / name)
            entries[name] = {"bytes": (temporary / name).stat().st_size, "sha256": _sha256(temporary / name)}
        (temporary / MANIFEST).write_text(json.dumps({"schema": SCHEMA, "step": step, "files": entries}, indent=1))
        _fsync(temporary / MANIFEST)
        _fsync(temporary)
        if final.exists():  # complete, but from a run that was killed before `latest` moved
            shutil.rmtree(final)
        os.rename(temporary, final)
        _fsync(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    point(folder, "latest", final.name)
    return final


def point(folder: Path, pointer: str, name: str) -> None:
    """Make the file ``pointer`` ("latest" or "best") name a checkpoint, atomically."""
    write_atomic(folder / pointer, f"{name}\n".encode())


def pointed(folder: Path, pointer: str = "latest") -> Path | None:
    """The checkpoint that ``pointer`` names, or None when there is no such file."""
    try:
        name = read_bounded(folder / pointer, 4096).decode(errors="backslashreplace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            f"{folder / pointer}: cannot be read ({error.strerror}); write the name of a good one"
        ) from None
    if not re.fullmatch(r"step-[0-9]{1,19}", name):
        raise InputError(
            f"{folder / pointer}: names {name[:80]!r}; expected step-NNNNNNNN; write the name of a good one into it"
        )
    return folder / name


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path stands for.

    Args:
        path: a run folder or its ``checkpoints`` folder (the newest checkpoint), a checkpoint, or either folder with
            ``/latest``, ``/best`` or ``/step-N`` behind it, N with or without leading zeros.

    Raises:
        InputError: there is none; the message names those that there are.
    """
    if (path / WEIGHTS).exists():
        return path
    for folder in (path / "checkpoints", path):
        if (found := pointed(folder)) is not None:
            return found
    for folder in (path.parent / "checkpoints", path.parent):
        if (found := _named(folder, path.name)) is not None:
            return found
        if there := [step.name for step in steps_on_disk(folder)]:
            pointers = [name for name in POINTERS if (folder / name).exists()]
            raise InputError(f"{path}: no such checkpoint; {folder} has {', '.join([*pointers, *there])}")
    missing = "no checkpoint in it" if path.exists() else "no such folder"
    runs = [run for run in sorted(path.iterdir()) if (run / "checkpoints").is_dir()] if path.is_dir() else []
    hint = f"; {runs[0]} is one" if runs else ""
    raise InputError(f"{path}: {missing}; expected a run folder or a checkpoint made by `unstill train`{hint}")


def names_checkpoint(path: Path) -> bool:
    """Whether the last part of a path is ``latest``, ``best`` or ``step-N``."""
    return path.name in POINTERS or re.fullmatch(r"step-[0-9]{1,19}", path.name) is not None


def _named(folder: Path, name: str) -> Path | None:
    """The checkpoint in a ``checkpoints`` folder that ``latest``, ``best`` or ``step-N`` names."""
    if name in POINTERS:
        return pointed(folder, name)
    if step := re.fullmatch(r"step-([0-9]{1,19})", name):
        found = step_folder(folder, int(step[1]))
        return found if found.is_dir() else None
    return None


def run_folder(path: Path) -> Path:
    """The run that a path of ``find_checkpoint`` belongs to; a checkpoint that was copied elsewhere is its own."""
    checkpoint = find_checkpoint(path)
    inside = checkpoint.parent.name == "checkpoints"
    return checkpoint.parent.parent if inside else checkpoint


def step_of(checkpoint: Path) -> int:
    """Steps done in a checkpoint, by its manifest, whatever its folder is called now.

    Raises:
        InputError: there is no manifest, or a damaged one.
    """
    try:
        return int(read_json(checkpoint / MANIFEST)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
        raise InputError(f"checkpoint {checkpoint}: no readable {MANIFEST} in it ({error}); use another one") from None


def weights_file(checkpoint: Path) -> Path:
    """The weights that are used: their moving average where the run kept one."""
    averaged = checkpoint / AVERAGE
    return averaged if averaged.exists() else checkpoint / WEIGHTS


def verify_checkpoint(path: Path) -> int:
    """Check every byte of a checkpoint against its manifest; returns its step.

    Raises:
        InputError: missing, truncated, changed, incomplete, or written by a newer version.
    """
    remedy = "use an earlier one, or --checkpoint.resume auto to fall back to it"
    try:
        manifest = read_json(path / MANIFEST)
        schema, step, files = manifest["schema"], int(manifest["step"]), dict(manifest["files"])
        entries = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
        if not all(re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name) for name in entries):
            raise ValueError("a name that is not a plain file name")
    except FileNotFoundError:
        raise InputError(f"checkpoint {path}: no {MANIFEST} in it; {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise InputError(f"checkpoint {path}: damaged {MANIFEST} ({error}); {remedy}") from None
    if schema != SCHEMA:
        raise InputError(
            f"checkpoint {path}: format {schema}, this version reads format {SCHEMA}; use the version that wrote it"
        )
    for name, (expected, digest) in entries.items():
        file = path / name
        if not file.is_file():
            raise InputError(f"checkpoint {path}: {name} is missing; {remedy}")
        size = file.stat().st_size
        if size != expected:
            raise InputError(f"checkpoint {path}: {name} has {size} bytes, expected {expected}; {remedy}")
        if _sha256(file) != digest:
            raise InputError(f"checkpoint {path}: the content of {name} has changed since it was written; {remedy}")
    return step


def steps_on_disk(folder: Path) -> list[Path]:
    """All checkpoint folders, newest first, complete or not."""
    return sorted(folder.glob("step-[0-9]*"), reverse=True)


def sweep(folder: Path) -> None:
    """Remove what killed saves left behind."""
    for path in folder.glob(".*.[0-9]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints; those that ``latest`` and ``best`` name stay."""
    named = {pointed(folder, "latest"), pointed(folder, "best")}
    for path in steps_on_disk(folder)[keep:]:
        if path not in named:
            # out of sight first: a half-removed folder must not pass for a checkpoint
            doomed = path.with_name(f".{path.name}.{os.getpid()}")
            os.rename(path, doomed)
            shutil.rmtree(doomed)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
