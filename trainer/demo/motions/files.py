"""Writes the dataset "motions" as files: VP9 videos in class folders, one mask strip a video, and the truth as CSV.

    OUT/<split>/<class>/<id>.mp4          what the converter reads, like any folder of videos
    OUT/masks/<split>/<class>/<id>.png    grey, T*S wide and S high: the moving actor's masks, frames side by side
    OUT/truth/<split>.csv                 key, class, scene, actor, static_actor of every video
    OUT/motions.json                      the configuration; says "complete" once everything above is there

The same id is the same motion in every test split. Threads are enough: most of the time is in the encoder (5 ms of
8 ms a video), which runs outside the interpreter's lock.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ....pipeline.atomic_files import atomic_path, write_atomic
from ....pipeline.errors import InputError
from ....pipeline.progress import Progress
from .harder import HarderWorld
from .world import CLASSES, SPLITS, Cast, MotionsConfig, cast, video

MANIFEST = "motions.json"
_BLOCK = 32  # videos a task: few enough that progress is smooth


def write_motions(config: MotionsConfig) -> dict[str, Path]:
    """Render every split of ``config`` that is not there yet.

    Finished videos are kept when a run is repeated; a finished dataset of the same configuration is left alone; one of
    another configuration is replaced.

    Returns:
        The folder of each split's videos.

    Raises:
        InputError: the output folder contains something else, a split has no such name, or the disk is full.
    """
    unknown = sorted(set(config.splits) - set(SPLITS))
    if unknown:
        raise InputError(f"splits: {unknown[0]!r} is not one of {', '.join(SPLITS)}; choose among these")
    if config.size % 16:
        raise InputError(f"size: {config.size} is not a multiple of 16; choose 32, 48, 64, ...")
    folders = {split: config.out / split for split in config.splits}
    manifest = config.out / MANIFEST
    kept_out = {"out", "workers"} | ({"harder"} if config.harder == HarderWorld() else set())
    settings = {k: v for k, v in asdict(config).items() if k not in kept_out} | {"splits": list(config.splits)}
    try:
        if _prepare(config.out, manifest, settings):
            return folders
        total = sum(config.videos(split) for split in config.splits)
        with Progress("rendering", total, "videos") as progress:
            for done in _render_all(config):
                progress.advance(done)
        for split in config.splits:
            _write_truth(config, split)
        write_atomic(manifest, json.dumps({"config": settings, "complete": True}, indent=1).encode())
    except OSError as error:
        raise InputError(f"{config.out}: cannot write the videos ({error}); free some space or choose --out") from error
    return folders


def read_mask(path: Path) -> np.ndarray:
    """The mask of one video, uint8 (T, S, S), from its strip."""
    with Image.open(path) as image:
        strip = np.asarray(image)
    size = strip.shape[0]
    return np.ascontiguousarray(strip.reshape(size, -1, size).transpose(1, 0, 2))


def video_name(index: int, label: int) -> str:
    """Path of a video or mask below its split, without extension; its key is this with "_" for "/"."""
    return f"{CLASSES[label]}/{index:06d}"


def _prepare(out: Path, manifest: Path, settings: dict) -> bool:
    """Make ``out`` ready; True when the dataset is already complete there."""
    if manifest.exists():
        try:
            found = json.loads(manifest.read_text())
        except ValueError:
            found = {}
        if found.get("config") == settings:
            return bool(found.get("complete"))
        for name in (*SPLITS, "masks", "truth"):
            shutil.rmtree(out / name, ignore_errors=True)
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: not empty and not made by this command; choose an empty folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(manifest, json.dumps({"config": settings, "complete": False}, indent=1).encode())
    return False


def _render_all(config: MotionsConfig) -> Iterator[int]:
    """Render in parallel; yields the number of videos in each finished block."""
    for split in config.splits:
        for name in CLASSES:
            (config.out / split / name).mkdir(parents=True, exist_ok=True)
            (config.out / "masks" / split / name).mkdir(parents=True, exist_ok=True)
    blocks = [
        (split, range(first, min(first + _BLOCK, config.videos(split))))
        for split in config.splits
        for first in range(0, config.videos(split), _BLOCK)
    ]
    with ThreadPoolExecutor(config.workers or os.cpu_count() or 1) as pool:
        tasks = [pool.submit(_render_block, config, split, indices) for split, indices in blocks]
        try:
            for task in as_completed(tasks):
                yield task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # after an error or Ctrl-C: no new blocks


def _render_block(config: MotionsConfig, split: str, indices: range) -> int:
    for index in indices:
        name = video_name(index, cast(config, split, index).label)
        path, mask_path = config.out / split / f"{name}.mp4", config.out / "masks" / split / f"{name}.png"
        if path.exists() and mask_path.exists():
            continue
        frames, mask, _ = video(config, split, index)
        strip = np.ascontiguousarray(mask.transpose(1, 0, 2)).reshape(config.size, -1)
        with atomic_path(mask_path, durable=False) as partial:
            Image.fromarray(strip).save(partial, format="png", compress_level=1)
        with atomic_path(path, durable=False) as partial:
            encode_vp9(partial, frames, config.fps, config.quality)
    return len(indices)


def encode_vp9(path: Path, frames: np.ndarray, fps: int, quality: int) -> None:
    """Write uint8 (T, S, S, 3) frames as VP9 in MP4; the bytes depend only on the frames and the settings."""
    # realtime/8 costs 5 ms a video, good/5 costs 25 ms, at the same size and 0.05 dB apart
    options = {"crf": str(quality), "b:v": "0", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=fps, options=options)
        stream.width = stream.height = frames.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _write_truth(config: MotionsConfig, split: str) -> None:
    path = config.out / "truth" / f"{split}.csv"
    path.parent.mkdir(exist_ok=True)
    lines = ["key,class,scene,actor,static_actor"]
    for index in range(config.videos(split)):
        who: Cast = cast(config, split, index)
        static = "" if who.static_actor is None else CLASSES[who.static_actor]
        key = video_name(index, who.label).replace("/", "_")
        scene = CLASSES[who.scene] if who.scene < 8 else f"unseen{who.scene - 8}"
        lines.append(f"{key},{CLASSES[who.label]},{scene},{CLASSES[who.actor]},{static}")
    write_atomic(path, ("\n".join(lines) + "\n").encode())
