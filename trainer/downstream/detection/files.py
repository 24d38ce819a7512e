"""What ``unstill detect fit`` writes.

OUT/detect.json              measures of every model, by class and threshold, and the set-up
OUT/detections_MODEL.csv     video,frame,left,top,right,bottom,label,tube,score; sides are shares of the picture
"""

import io
import json
import re
from dataclasses import asdict
from importlib.metadata import version

from ....pipeline.atomic_files import make_folder, write_atomic
from ..detection_map import DetectionMap
from .config import DetectConfig
from .evaluation import DetectReport, DetectResult


def write_detections(config: DetectConfig, report: DetectReport) -> None:
    """Write every file named at the top of this module.

    Raises:
        InputError: the folder cannot be written.
    """
    assert config.out is not None
    make_folder(config.out)
    for number, result in enumerate(report.results):
        name = re.sub(r"[^A-Za-z0-9._-]", "_", result.name)
        write_atomic(config.out / f"detections_{number}_{name}.csv", _csv(result))
    record = {
        "models": {
            f"{number} {result.name}": {
                "frame_map": _measures(result.frames),
                "video_map": _measures(result.videos),
                "difference_to_first": {name: asdict(gain) for name, gain in gains.items()},
            }
            for number, (result, gains) in enumerate(zip(report.results, report.gains, strict=True))
        },
        "test_tubes": len(report.truth),
        "left_out": list(report.left_out),
        "cut_at_the_last_frame": report.cut,
        "options": {name: str(value) for name, value in asdict(config).items() if name != "models"},
        "unstill": version("unstill"),
    }
    write_atomic(config.out / "detect.json", (json.dumps(record, indent=1) + "\n").encode())


def _measures(found: DetectionMap) -> dict:
    return {
        "mean": {f"{threshold:g}": found.at(threshold) for threshold in found.thresholds},
        "mean_50_to_95": found.average(),
        "by_class": {
            name: dict(zip(map("{:g}".format, found.thresholds), row, strict=True))
            for name, row in zip(found.classes, found.table.tolist(), strict=True)
        },
        "ignored": found.ignored,
    }


def _csv(result: DetectResult) -> bytes:
    text = io.StringIO()
    text.write("video,frame,left,top,right,bottom,label,tube,score\n")
    for number, tube in enumerate(result.found):
        for frame, box, score in zip(tube.frames.tolist(), tube.boxes.tolist(), tube.scores.tolist(), strict=True):
            sides = ",".join(f"{side:.6f}" for side in box)
            text.write(f"{tube.video},{frame},{sides},{_quoted(tube.label)},{number},{score:.6g}\n")
    return text.getvalue().encode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text
