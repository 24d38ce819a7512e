"""What ``unstill localise`` writes.

OUT/localisation.json        mean average precision at each threshold, of every seed, class and average, and the set-up
OUT/timeline_VIDEO.png       what was found in a video, and what is there, over time
OUT/annotations.json, ...    for other repositories, see ``exchange``
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from ....pipeline.atomic_files import make_folder, write_atomic
from ..temporal_map import MeanAveragePrecision, Segments
from .config import LocaliseConfig
from .evaluation import AVERAGES, LocaliseResult
from .exchange import annotations_json, dataset_json, detections_json
from .videos import LocatedVideo

SHOWN = 0.2  # detections of a lower share of the video's surest score are not drawn


def write_localise(config: LocaliseConfig, result: LocaliseResult) -> None:
    """Write every file named at the top of this module.

    Raises:
        InputError: the folder cannot be written.
    """
    out, videos = config.out, [*result.train.videos, *result.test.videos]
    make_folder(out)
    seed = config.seeds[0]
    for number in _chosen(result.test.videos, config.timelines):
        video = result.test.videos[number]
        write_atomic(out / f"timeline_{video.annotated.video}.png", timeline(video, result.found[seed], seed))
    width = result.folder.read(videos[0].key).shape[2]
    facts = dataset_json(
        result.folder,
        videos,
        result.classes,
        width=width,
        train_subset=config.train_subset,
        test_subset=config.test_subset,
    )
    _write(out / "annotations.json", annotations_json(videos, result.classes))
    _write(out / "dataset.json", facts)
    write_atomic(out / "category_idx.txt", "".join(f"{name}\n" for name in result.classes).encode())
    for seed, found in result.found.items():
        _write(out / f"detections_seed{seed}.json", detections_json(found))
    _write(out / "localisation.json", _record(config, result))


def timeline(video: LocatedVideo, found: Segments, seed: int) -> bytes:
    """A PNG: a lane a class; what is there as a band, what was found as bars below it, the surer the darker.

    Args:
        video: which.
        found: detections in all videos.
        seed: of the head, for the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert found.score is not None
    own = [k for k, name in enumerate(found.video) if name == video.annotated.video]
    best = max((float(found.score[k]) for k in own), default=1.0)
    own = [k for k in own if found.score[k] >= SHOWN * best]
    lanes = sorted({action.label for action in video.annotated.actions} | {found.label[k] for k in own})
    figure = Figure(figsize=(9, 1.2 + 0.45 * max(1, len(lanes))), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for action in video.annotated.actions:
        lane = lanes.index(action.label)
        axes.barh(lane - 0.2, action.end - action.start, 0.3, left=action.start, color="#c9b89c")
    for k in reversed(own):  # the surest on top
        start, end, share = float(found.start[k]), float(found.end[k]), float(found.score[k]) / best
        axes.barh(lanes.index(found.label[k]) + 0.18, end - start, 0.3, left=start, color="#1f77b4", alpha=share)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set(xlabel="seconds", xlim=(0, video.length), ylim=(max(1, len(lanes)) - 0.5, -0.5))
    axes.set_title(f"{video.annotated.video}: truth above, detections below (seed {seed})", fontsize=9)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _chosen(videos: Sequence[LocatedVideo], count: int) -> list[int]:
    some = [number for number, video in enumerate(videos) if video.annotated.actions]
    places = np.linspace(0, len(some) - 1, min(count, len(some))).round().astype(int)
    return [some[place] for place in places]


def _record(config: LocaliseConfig, result: LocaliseResult) -> dict[str, Any]:
    options = {name: str(value) for name, value in asdict(config).items()}
    return {
        "mean_over_seeds": _measures(config, result.mean()),
        "per_seed": {str(seed): _measures(config, measure) for seed, measure in result.measures.items()},
        "train_videos": len(result.train.videos),
        "test_videos": len(result.test.videos),
        "test_actions": sum(len(video.annotated.actions) for video in result.test.videos),
        "left_out": [*result.train.left_out, *result.test.left_out],
        "remarks": [*result.train.notes, *result.test.notes],
        "classes_without_training": sorted(set(result.mean().classes) - set(result.classes)),
        "options": options,
        "unstill": version("unstill"),
    }


def _measures(config: LocaliseConfig, measure: MeanAveragePrecision) -> dict[str, Any]:
    thresholds = [f"{threshold:g}" for threshold in measure.thresholds]
    return {
        "map": dict(zip(thresholds, measure.at().tolist(), strict=True)),
        "average": {name: measure.average(over) for name, over in AVERAGES[config.tiou].items()},
        "per_class": {
            name: dict(zip(thresholds, row, strict=True))
            for name, row in zip(measure.classes, measure.table.tolist(), strict=True)
        },
        "detections_of_other_classes": measure.ignored,
    }


def _write(path, content: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
