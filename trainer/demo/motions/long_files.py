"""Long videos as files, and what happens in them in the forms that the downstream commands read.

    OUT/videos/LABEL/KEY.mp4                  VP9; a source for ``unstill convert``
    OUT/train_videos.txt, test_videos.txt     the keys of either, for its ``--only``
    OUT/train.txt, truth.txt                  anomaly: UCF-Crime's list and annotation
    OUT/annotations.json                      localisation: ActivityNet's JSON, subsets validation and test
    OUT/boxes.csv                             detection: the actor's box in every frame of every action

LABEL is the video's main class, or Normal or Abnormal. A test video is there with either appearance, ``free`` and
``alike``.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ....pipeline.atomic_files import atomic_path, make_folder, write_atomic
from ....pipeline.errors import InputError
from ....pipeline.progress import Progress
from .boxes import largest_box
from .files import encode_vp9
from .long_videos import MOTIONS, LongMotionsConfig, Plan, Split, long_video, plan

FREE_AND_ALIKE: tuple[Split, ...] = ("free", "alike")
SPLITS: tuple[Split, ...] = ("train", *FREE_AND_ALIKE)
MANIFEST = "long_videos.json"
BOXES = "boxes.csv"
_BOX_COLUMNS = ("video", "frame", "left", "top", "right", "bottom", "label", "tube")
_QUALITY = 12  # VP9's constant rate factor, as in the short videos: the files are encoded again when converted


def write_long_videos(config: LongMotionsConfig, out: Path, *, train: int, test: int, workers: int = 0) -> None:
    """Render and write the videos and what happens in them; a finished folder of the same videos is left alone.

    Args:
        config: what to render.
        out: the folder.
        train, test: how many; each test video is there with either appearance.
        workers: threads that render and encode; 0: one for each core.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    settings = {"videos": asdict(config), "train": train, "test": test}
    manifest = out / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text()) == settings:
        return
    if manifest.exists():
        raise InputError(f"{out}: holds long videos of other settings; choose another folder, or remove it")
    plans = {video: plan(config, *video) for video in split_and_index(train, test)}
    try:
        for folder in {_path(out, video, config, happens).parent for video, happens in plans.items()}:
            make_folder(folder)

        def written(video: tuple[Split, int]) -> list[Sequence[object]]:
            frames, mask, happens = long_video(config, *video)
            with atomic_path(_path(out, video, config, happens), durable=False) as partial:
                encode_vp9(partial, frames, config.fps, _QUALITY)
            name = f"{folder_label(config, happens)}/{key_of(*video)}"
            return list(_box_rows(name, mask, happens)) if config.task == "detection" else []

        boxes: list[Sequence[object]] = []
        with (
            ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
            Progress("writing long videos", len(plans), "videos") as progress,
        ):
            for rows in pool.map(written, plans):
                boxes += rows
                progress.advance(1)
        for subset in ("train", "test"):
            names = [key_of(*video) for video in plans if _trains(video[0]) == (subset == "train")]
            write_atomic(out / f"{subset}_videos.txt", "".join(f"{name}\n" for name in names).encode())
        write_annotations(out, config, {key_of(*video): happens for video, happens in plans.items()})
        if boxes:
            write_atomic(out / BOXES, _as_csv(boxes))
        write_atomic(manifest, json.dumps(settings, indent=1).encode())
    except OSError as error:
        raise InputError(f"{out}: cannot write the videos ({error}); free some space or choose another") from error


def split_and_index(train: int, test: int) -> Iterator[tuple[Split, int]]:
    """Every video, training first."""
    for split in SPLITS:
        for index in range(train if split == "train" else test):
            yield split, index


def key_of(split: str, index: int) -> str:
    """The name of a video."""
    return f"{split}_{index:04}"


def folder_label(config: LongMotionsConfig, happens: Plan) -> str:
    """What the folder of a video is called."""
    return ("Normal", "Abnormal")[happens.label] if config.task == "anomaly" else MOTIONS[happens.label]


def write_annotations(out: Path, config: LongMotionsConfig, plans: Mapping[str, Plan]) -> None:
    """UCF-Crime's list and annotation for anomalies, ActivityNet's JSON for actions.

    Args:
        out: the folder.
        config: of the videos.
        plans: by name.
    """
    if config.task == "anomaly":
        train = [f"{folder_label(config, happens)}/{key}.mp4" for key, happens in plans.items() if _trains(key)]
        truth = []
        for key, happens in plans.items():
            if not _trains(key):
                spans = [f"{part.first + 1} {part.end}" for part in happens.abnormal()]
                truth.append(f"{key}.mp4 {folder_label(config, happens)} {' '.join([*spans, '-1 -1', '-1 -1'][:2])}")
        write_atomic(out / "train.txt", "".join(f"{text}\n" for text in train).encode())
        write_atomic(out / "truth.txt", "".join(f"{text}\n" for text in truth).encode())
        return
    database = {
        key: {
            "subset": "validation" if _trains(key) else "test",
            "duration": config.frames / config.fps,
            "fps": config.fps,
            "annotations": [
                {"segment": [part.first / config.fps, part.end / config.fps], "label": MOTIONS[part.motion]}
                for part in happens.parts
                if part.motion is not None
            ],
        }
        for key, happens in plans.items()
    }
    write_atomic(out / "annotations.json", json.dumps({"database": database}).encode())


def _trains(key: str) -> bool:
    return key.startswith("train")


def _path(out: Path, video: tuple[Split, int], config: LongMotionsConfig, happens: Plan) -> Path:
    return out / "videos" / folder_label(config, happens) / f"{key_of(*video)}.mp4"


def _box_rows(name: str, mask: np.ndarray, happens: Plan) -> Iterator[Sequence[object]]:
    """A row for every frame of every action; an actor that reaches over the border is where most of its box is."""
    size = mask.shape[1]
    for tube, part in enumerate(happens.parts):
        if part.motion is None:
            continue
        for frame in range(part.first, part.end):
            box = largest_box(mask[frame] >= 128)
            assert box is not None, "an actor is at least a sixth of the picture wide"
            yield name, frame, *(f"{side / size:.6f}" for side in box), MOTIONS[part.motion], tube


def _as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_BOX_COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode()
