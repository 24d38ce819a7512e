"""``unstill features``, ``anomaly`` and ``localise``: what they print; the exit code is returned."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...pipeline.atomic_files import check_folder
from ...pipeline.safe_text import printable
from ..downstream.anomaly.config import AnomalyConfig
from ..downstream.features.config import FeaturesConfig
from ..downstream.localisation.config import LocaliseConfig

if TYPE_CHECKING:
    from ..downstream.localisation.evaluation import LocaliseResult


def features(config: FeaturesConfig) -> int:
    """``unstill features``."""
    from ..downstream.features.extract import extract_features

    done = extract_features(config)
    kept = f", {done.videos - done.made} were there" if done.made < done.videos else ""
    print(f"{config.out}: {done.videos} videos{kept}; how they were made: {config.out / 'features.json'}")
    return 0


def anomaly(config: AnomalyConfig) -> int:
    """``unstill anomaly``."""
    from ..downstream.anomaly.evaluation import run_anomaly
    from ..downstream.anomaly.files import write_anomaly

    if config.out is not None:
        check_folder(config.out)
    test, results = run_anomaly(config)
    frames = sum(len(truth) for truth in test.truth)
    table = Table(title=f"Percent over {frames:,} frames of {len(test.videos)} videos, with the 95 % interval")
    for name in ("features", "ROC-AUC", "average precision", "ROC-AUC of each seed"):
        table.add_column(name)
    for result in results:
        seeds = " ".join(f"{100 * auc:.1f}" for auc, _ in result.per_seed.values())
        measures = result.measures
        cells = [_percent(measures.roc_auc), _percent(measures.average_precision), seeds]
        table.add_row(escape(printable(result.name)), *cells)
        if result.difference is not None:
            gain = result.difference
            table.add_row("  minus the first", _percent(gain.roc_auc, "+"), _percent(gain.average_precision, "+"), "")
    Console().print(table)
    if test.left_out:
        print(f"{len(test.left_out)} test videos left out, first {printable(test.left_out[0])}")
    if config.out is not None:
        write_anomaly(config, test, results)
        print(f"written: {config.out / 'anomaly.json'}, scores and timelines")
    return 0


def localise(config: LocaliseConfig) -> int:
    """``unstill localise``."""
    from ..downstream.localisation.evaluation import run_localise
    from ..downstream.localisation.files import write_localise

    check_folder(config.out)
    result = run_localise(config)
    Console().print(_precision_table(config, result))
    mean = result.mean()
    each = " ".join(f"{t:g}".lstrip("0") + f": {100 * v:.1f}" for t, v in zip(mean.thresholds, mean.at(), strict=True))
    print(f"mAP at tIoU {each}")
    for videos in (result.train, result.test):
        if videos.left_out:
            print(f"{len(videos.left_out)} videos left out, first {printable(videos.left_out[0])}")
        if videos.notes:
            print(f"{len(videos.notes)} remarks on annotations, first {printable(videos.notes[0])}")
    write_localise(config, result)
    print(f"written: {config.out / 'localisation.json'}, detections, timelines, files for other repositories")
    return 0


def _precision_table(config: LocaliseConfig, result: "LocaliseResult") -> Table:
    """A row a class, then their mean, then that of each seed; three thresholds and the averages, to fit a terminal."""
    from ..downstream.localisation.evaluation import AVERAGES

    averages = AVERAGES[config.tiou]
    shown = (0.3, 0.5, 0.7) if config.tiou == "thumos" else (0.5, 0.75, 0.95)
    count = len(result.test.videos)
    table = Table(title=f"Average precision in percent, {count} videos, mean of {len(config.seeds)} seeds")
    table.add_column("class")
    for name in (*(f"tIoU {t:g}".replace("0.", ".") for t in shown), *(f"mean {name}" for name in averages)):
        table.add_column(name, justify="right")
    mean = result.mean()
    places = [[mean.thresholds.index(t) for t in over] for over in (*((t,) for t in shown), *averages.values())]
    cells = lambda row: [f"{100 * row[place].mean():.1f}" for place in places]  # noqa: E731
    for name, row in zip(mean.classes, mean.table, strict=True):
        table.add_row(escape(printable(name)), *cells(row))
    table.add_section()
    table.add_row("mAP", *cells(mean.at()))
    for seed, measure in result.measures.items():
        table.add_row(f"mAP, seed {seed}", *cells(measure.at()))
    return table


def _percent(interval, sign: str = "") -> str:
    value, low, high = (100 * number for number in (interval.value, interval.low, interval.high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
