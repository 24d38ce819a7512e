"""Annotated boxes placed in the videos of a dataset: which fit, which are left out and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ....pipeline.bounded_files import read_json
from ....pipeline.errors import InputError
from ....pipeline.shards.index import SampleIndex
from ..head_config import BadAnnotations, refuse_or_leave_out
from .config import DetectConfig
from .tubes import Tube, TubeFile, linked, plain_name, problem_of, read_tubes, within

SPARE_FRAMES = 2  # by which a tube may reach beyond the end; it is cut there: decoders differ in broken last frames


@dataclass(frozen=True)
class PlacedTubes:
    """Tubes of one dataset.

    Attributes:
        of_row: row of the index -> tubes, in shares, within the video.
        left_out: what was wrong with others, a line each.
        cut: tubes cut at the last frame.
    """

    of_row: dict[int, list[Tube]]
    left_out: tuple[str, ...]
    cut: int

    def all(self) -> list[Tube]:
        """All tubes, by row."""
        return [tube for tubes in self.of_row.values() for tube in tubes]


def placed_tubes(file: TubeFile, index: SampleIndex, config: DetectConfig) -> PlacedTubes:
    """The tubes of a dataset's videos; those that do not fit are left out and named, boxes that stand alone linked."""
    rows = {key: row for row, key in enumerate(index.keys())}
    of_row: dict[int, list[Tube]] = {}
    left_out, cut = [], 0
    for number, tube in enumerate(file.tubes):
        row = rows.get(plain_name(tube.video))
        if row is None:
            continue
        if file.pixels:
            size = config.picture or (int(index.width[row]), int(index.height[row]))
            tube = TubeFile((tube,), True).in_shares(*size).tubes[0]
        frames, fps = int(index.frames[row]), int(index.fps_milli[row]) / 1000
        problem = problem_of(tube, frames, SPARE_FRAMES)
        if config.truth_fps is not None and abs(fps - config.truth_fps) > 0.01 * config.truth_fps:
            problem = f"the video has {fps:g} frames/s, the boxes count {config.truth_fps:g}"
        kept = None if problem else within(tube, frames)
        if kept is None:
            left_out.append(f"{tube.video}, tube {number}: {problem or 'behind the last frame'}")
            continue
        if tube.label and any(_same(kept, other) for other in of_row.get(row, ())):
            left_out.append(f"{tube.video}, tube {number}: is there twice")
            continue
        cut += len(kept) < len(tube)
        of_row.setdefault(row, []).append(replace(kept, video=index.key(row)))
    if all(len(tube) == 1 for tube in file.tubes):
        of_row = {row: linked(tubes) for row, tubes in of_row.items()}
    return PlacedTubes(of_row, tuple(left_out), cut)


def detected_tubes(path: Path, index: SampleIndex, config: DetectConfig) -> PlacedTubes:
    """Boxes of a detector in the videos of a dataset, without a class.

    Raises:
        InputError: they fit none of the videos, or some do not fit and are to be refused.
    """
    file = read_tubes(path)
    placed = placed_tubes(TubeFile(tuple(replace(tube, label="") for tube in file.tubes), file.pixels), index, config)
    refuse_misfits([placed], path, config.bad_annotations)
    if not placed.of_row:
        raise InputError(f"{path}: has boxes of none of the videos; expected names or keys of them")
    return placed


def unknown_videos(tubes: TubeFile, indices: Sequence[SampleIndex]) -> set[str]:
    """Videos of a file that are in none of some datasets."""
    known = {key for index in indices for key in index.keys()}
    return {tube.video for tube in tubes.tubes if plain_name(tube.video) not in known}


def check_videos_known(tubes: TubeFile, indices: Sequence[SampleIndex], config: DetectConfig) -> None:
    """Refuse a file that names videos which are in neither dataset, unless they are to be left out.

    Raises:
        InputError: names the first and says how many.
    """
    missing = sorted(unknown_videos(tubes, indices))
    if missing and config.bad_annotations == "refuse":
        raise InputError(
            f"{config.truth}: {len(missing)} of its videos are in neither {config.train} nor {config.test}, first "
            f"{missing[0]}; convert them, or give --bad-annotations leave-out"
        )


def refuse_other_rate(config: DetectConfig) -> None:
    """Refuse datasets that were converted to a frame rate: boxes would silently be those of other frames.

    Raises:
        InputError: names the dataset.
    """
    for path in (config.train, config.test):
        rate = converted_to(path)
        if rate is not None:
            raise InputError(
                f"{path}: was converted with --fps {rate:g}, so its frames may not be those that boxes count; convert "
                "it without, or give the boxes' rate with --truth-fps"
            )


def converted_to(dataset: Path) -> float | None:
    """The frame rate that a dataset was converted to; None where each video kept its own, or without a record."""
    path = dataset / "dataset.json"
    rate = read_json(path).get("settings", {}).get("recipe", {}).get("fps") if path.exists() else None
    return None if rate is None else float(rate)


def refuse_misfits(tubes: Sequence[PlacedTubes], path: Path, rule: BadAnnotations) -> list[str]:
    """What is left out, a line each; see ``refuse_or_leave_out``."""
    bad = [line for placed in tubes for line in placed.left_out]
    count = len(bad) + sum(len(placed.all()) for placed in tubes)
    hint = "give --picture if sides are pixels of another size, "
    refuse_or_leave_out(bad, f"{count} tubes", path, rule, hint)
    return bad


def _same(one: Tube, other: Tube) -> bool:
    """Whether two tubes of one video say the same."""
    equal = one.label == other.label and np.array_equal(one.frames, other.frames)
    return equal and np.array_equal(one.boxes, other.boxes)
