"""``unstill detect``: what it prints; the exit code is returned."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...pipeline.atomic_files import check_folder
from ...pipeline.errors import InputError
from ...pipeline.safe_text import printable
from ..downstream.detection.config import DetectConfig, ScoreConfig
from .help_texts import parse
from .suggestions import unknown

_COLUMNS = ("frame .2", "frame .5", "frame .5:.95", "video .2", "video .5", "video .5:.95")


def detect(arguments: list[str]) -> int:
    """``unstill detect fit MODEL... --train --test --truth`` and ``unstill detect score TRUTH FOUND``."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: unstill detect fit MODEL [MODEL ...] --train DATA --test DATA")
        print("                          --truth BOXES [--option value ...]")
        print("       unstill detect score TRUTH FOUND [--option value ...]\n")
        print("fit: a linear layer on frozen features of boxes; frame-mAP and video-mAP of")
        print("each model.")
        print("score: the same measures of any detector's boxes, also in AVA's format.")
        print("unstill detect fit --help shows every option.")
        return 0
    action, *rest = arguments
    if action == "fit":
        return _fit(parse(DetectConfig, prog="unstill detect fit", args=rest))
    if action == "score":
        return _score(parse(ScoreConfig, prog="unstill detect score", args=rest))
    raise InputError(unknown("action", action, ("fit", "score"), "unstill detect"))


def _fit(config: DetectConfig) -> int:
    from ..downstream.detection.evaluation import run_detect
    from ..downstream.detection.files import write_detections

    if config.out is not None:
        check_folder(config.out)
    report = run_detect(config)
    table = _table(f"mAP in percent, {len(report.truth)} tubes, rules {config.rules}")
    rows = [(printable(result.name), _numbers(result.frames, result.videos)) for result in report.results]
    for number, (name, values) in enumerate(rows):
        table.add_row(escape(name), *(f"{100 * value:.1f}" for value in values))
        if number:
            gains = [100 * (value - first) for value, first in zip(values, rows[0][1], strict=True)]
            table.add_row("  minus the first", *(f"{gain:+.1f}" for gain in gains))
    Console().print(table)
    for (name, _), gains in zip(rows, report.gains, strict=True):
        for column, gain in gains.items():
            ends = f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
            print(f"{name} minus the first, {column}: {100 * gain.value:+.1f} {ends}, 95 % over videos")
    if config.boxes is None:
        print("on the true boxes: where people are was given, only their classes were in question")
    if report.left_out:
        print(f"{len(report.left_out)} annotations left out, first {printable(report.left_out[0])}")
    if report.cut:
        print(f"{report.cut} tubes cut at the last frame of their video")
    if config.out is not None:
        write_detections(config, report)
        print(f"written: {config.out / 'detect.json'}, and the detections of each model")
    return 0


def _score(config: ScoreConfig) -> int:
    from ..downstream.detection.evaluation import run_score

    frames, videos = run_score(config)
    table = _table(f"mAP in percent over {len(frames.classes)} classes, rules {config.rules}")
    table.add_row(escape(config.found.name), *(f"{100 * value:.1f}" for value in _numbers(frames, videos)))
    Console().print(table)
    if frames.ignored:
        print(f"{frames.ignored} detections are of classes without truth, and do not count")
    return 0


def _table(title: str) -> Table:
    table = Table(title=title)
    for name in ("", *_COLUMNS):
        table.add_column(name, justify="right" if name else "left")
    return table


def _numbers(frames, videos) -> list[float]:
    return [value for found in (frames, videos) for value in (found.at(0.2), found.at(0.5), found.average())]
