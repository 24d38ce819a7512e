"""`unstill bench downstream`: what the features of baseline, ALBAR and Recast are good for in procedural videos.

Writes ``bench/results/downstream.json``: anomaly detection, temporal localisation, spatio-temporal detection and
transfer with frozen encoders under one head, where appearance misleads (``free``) and where it follows the label as in
training (``alike``). Encoders are those of `unstill bench bias` and `unstill bench recast`, in the same folders; one
that is not there is trained first. Features and what heads make of them are kept: a repeated command goes on where the
last one stopped.

    unstill bench downstream                            all tasks, four encoders, three seeds
    unstill bench downstream --seeds --train-cost 2000  how long the anomaly head trains on 1,610 videos, alone
"""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.errors import InputError
from ...pipeline.progress import Progress
from ...trainer.demo.motions.long_videos import LongMotionsConfig
from ...trainer.downstream.anomaly.annotations import TrainVideo
from ...trainer.downstream.anomaly.heads import HEADS
from ...trainer.downstream.anomaly.training import read_bags, train_head
from ...trainer.downstream.feature_folder import FeatureFolder
from ..harness.downstream.anomaly import Anomaly, AnomalyWindows
from ..harness.downstream.detection import Detection
from ..harness.downstream.localisation import Localisation
from ..harness.downstream.long_features import LongVideos
from ..harness.downstream.task import Outcome, Score, Task
from ..harness.downstream.transfer import Transfer
from ..harness.procedural.methods import METHODS
from ..harness.procedural.runs import ProceduralRuns
from ..harness.record import ResultFile, show
from ..harness.row import Row
from ..harness.section import Chart, Section
from .recast import TITLES, recipe_for

SPLITS = {"free": "appearance independent of the label", "alike": "appearance as in training"}
MEASURES = {
    "anomaly": "anomaly detection, frame-level ROC-AUC",
    "anomaly_rot_cw": "anomaly detection, ROC-AUC of clockwise turns alone",
    "anomaly_rot_ccw": "anomaly detection, ROC-AUC of counter-clockwise turns alone",
    "anomaly_windows": "anomalies known by a linear layer from labels of windows, ROC-AUC",
    "localisation": "temporal localisation, mAP over tIoU .3 to .7",
    "detection": "spatio-temporal detection, frame-mAP",
    "detection_videos": "spatio-temporal detection, video-mAP",
    "transfer": "transfer, top-1 of a linear probe",
}
DRAWN = ("anomaly", "localisation", "detection", "transfer")
INTERVAL = "95 % interval over test videos"
SECTIONS = {
    "downstream": Section(
        title="What the features are good for",
        text="Frozen encoders, one head for all. In long videos scene and actor follow the label in training.",
        order=19,
        charts={
            measure: Chart(
                title=f"Frozen features: {MEASURES[measure]}",
                reading="Mean over seeds. "
                + (
                    "Scene and actor are independent of the class, in training and test."
                    if measure == "transfer"
                    else "The same videos with scene and actor independent of the label, and as in training."
                ),
                main=measure in ("anomaly", "detection"),
                whiskers=INTERVAL,
            )
            for measure in DRAWN
        },
    )
}
TaskName = Literal["anomaly", "anomaly_windows", "localisation", "detection", "transfer"]


@dataclass(frozen=True, kw_only=True)
class DownstreamBench:
    """Put one head on the frozen features of each encoder, and measure it where appearance misleads and helps."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    tasks: tuple[TaskName, ...] = ("anomaly", "anomaly_windows", "localisation", "detection", "transfer")
    """Which tasks; anomaly_windows says whether the features hold what the head of anomaly has to find."""
    encoders: tuple[str, ...] = ("baseline", "albar", "recast", "recast_moving")
    """Which of baseline, albar, recast, recast_moving; the first is what the others are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the encoders and the heads."""
    runs: Path = Path("runs/bench_demo")
    """Folder of the encoders of `unstill bench bias`."""
    recast_runs: Path = Path("runs/bench_recast")
    """Folder of the encoders of `unstill bench recast`."""
    features: Path = Path("runs/bench_downstream")
    """Folder for videos, features and annotations."""
    train: int = 84
    """Training videos of a task with long videos."""
    test: int = 48
    """Test videos of a task with long videos, each with two appearances."""
    transfer_train: int = 256
    """Training videos of the transfer."""
    transfer_test: int = 512
    """Test videos of the transfer."""
    resamples: int = 1000
    """Of the intervals."""
    train_cost: int = 0
    """Also measure the CPU time of so many steps of the anomaly head on 1,610 videos; 0: do not."""

    def __post_init__(self):
        known = ("baseline", "albar", "recast", "recast_moving")
        unknown = [name for name in self.encoders if name not in known]
        if unknown:
            raise InputError(f"encoders: {unknown[0]!r} is not one of {', '.join(known)}")


@dataclass
class Scores:
    """Scores of one measure and set of test videos: encoder -> seed -> measure.

    Attributes:
        count: test videos of the set.
    """

    count: int
    of: dict[str, dict[int, Score]] = field(default_factory=dict)

    def add(self, encoder: str, seed: int, score: Score) -> None:
        """Keep one."""
        self.of.setdefault(encoder, {})[seed] = score


def run(config: DownstreamBench) -> Path:
    """Measure what was asked for, write the result file and return its path."""
    results = ResultFile("downstream", out=config.out, notes=_NOTES, file_name="downstream.json")
    found: dict[tuple[str, str], Scores] = {}
    with Progress("seeds", len(config.seeds) * len(config.tasks), "tasks") as progress:
        for seed in config.seeds:
            encoders = {name: encoder_run(config, name, seed) for name in config.encoders}
            for name in config.tasks:
                task = task_of(config, name, seed)
                missing = {e: own for e, own in encoders.items() if kept_outcome(task, e, own) is None}
                if missing:
                    task.prepare(missing)
                for encoder, own_run in encoders.items():
                    outcome = outcome_of(task, encoder, own_run)
                    for split in task.splits:
                        for measure, score in task.scores(outcome, split).items():
                            found.setdefault((measure, split), Scores(task.count)).add(encoder, seed, score)
                progress.advance(note=f"{name}, seed {seed}")
    for (measure, split), scores in found.items():
        results.add(*rows(config, measure, split, scores))
    if found:
        show("Percent, mean over seeds", [line(row) for row in results.rows])
    if config.train_cost:
        results.add(cost_row(config.train_cost))
    return results.finish()


_NOTES = (
    "long videos of 160 frames (localisation, detection) and 256 (anomaly); those of detection are VP9 files that were "
    "converted, the others rendered and not compressed; windows of 8 frames, stride 2 and 8; features are what the "
    "encoder's last layer sees, of detection its last map where the true box is, around every 8th frame",
    "transfer: a logistic regression on features of 256 short videos of another seed whose scene and actor are "
    "independent of the class, tested on 512",
    "intervals draw the test videos of every seed with replacement, the same ones for all encoders; sd is over seeds",
    "free and alike are the same motions; in free scene and actor are independent of the label, in alike they follow "
    "it with the rate of the training videos, 95 %",
    "anomaly_windows: a logistic regression on windows that lie in one motion, with their own labels; it says what the "
    "features hold, where the head of anomaly learns from labels of videos",
    "settings of the heads were fixed on seed 50 and other encoders; the anomaly head is Sultani's; detection and "
    "transfer have the commands' defaults",
)


def encoder_run(config: DownstreamBench, name: str, seed: int) -> Path:
    """The run of an encoder on a seed's short videos, trained if it is not there."""
    runs = ProceduralRuns(folder=config.runs if name in METHODS else config.recast_runs / "plain")
    recipe = recipe_for(name, "plain")
    if runs.known(name, recipe, seed) is None:
        runs.make_data(seed)
        runs.measures(name, recipe, seed)
    return runs.run_folder(name, seed)


def task_of(config: DownstreamBench, name: TaskName, seed: int) -> Task:
    """A task on the videos of a seed."""
    long = "anomaly" if name == "anomaly_windows" else name  # the same videos and features
    folder = config.features / long / f"seed{seed}"
    if long == "transfer":
        return Transfer(folder, seed, config.transfer_train, config.transfer_test)
    frames, stride = {"anomaly": (256, 8), "localisation": (160, 2), "detection": (160, 8)}[long]
    videos = LongVideos(
        folder=folder,
        motions=LongMotionsConfig(task=long, seed=seed, frames=frames),
        train=config.train,
        test=config.test,
        window=8,
        stride=stride,
    )
    if name == "anomaly_windows":
        return AnomalyWindows(videos, "windows.json")
    return {"anomaly": Anomaly, "localisation": Localisation, "detection": Detection}[long](videos)


def outcome_of(task: Task, encoder: str, run: Path) -> Outcome:
    """What the head of a task makes of an encoder's features: trained now, or kept from before."""
    outcome = kept_outcome(task, encoder, run)
    if outcome is None:
        outcome, path = task.outcome(encoder, run), _outcome_path(task, encoder)
        make_folder(path.parent)
        write_atomic(path, json.dumps({"settings": task.settings(run), "outcome": outcome}).encode())
    return outcome


def kept_outcome(task: Task, encoder: str, run: Path) -> Outcome | None:
    """What is kept of the same settings."""
    path = _outcome_path(task, encoder)
    saved = json.loads(path.read_text()) if path.exists() else {"settings": None}
    return saved["outcome"] if saved["settings"] == task.settings(run) else None


def _outcome_path(task: Task, encoder: str) -> Path:
    return task.folder / encoder / task.file


def rows(config: DownstreamBench, measure: str, split: str, scores: Scores) -> list[Row]:
    """A row for each encoder: mean over seeds with its interval, and the difference to the first encoder."""
    names, seeds, count = list(scores.of), list(config.seeds), scores.count
    values = np.array([[100 * scores.of[name][seed](None) for seed in seeds] for name in names])  # encoder, seed
    draw = np.random.default_rng(0)
    drawn = np.empty((config.resamples, len(names)))
    for resample in range(config.resamples):
        times = [np.bincount(draw.integers(count, size=count), minlength=count) for _ in seeds]
        for column, name in enumerate(names):
            drawn[resample, column] = np.mean(
                [100 * scores.of[name][seed](own) for seed, own in zip(seeds, times, strict=True)]
            )
    made = []
    for column, name in enumerate(names):
        low, high = np.quantile(drawn[:, column], [0.025, 0.975])
        facts: dict[str, Any] = {"task": measure, "appearance": split, "encoder": name, "n": len(seeds)}
        facts |= {f"seed_{seed}": round(float(v), 3) for seed, v in zip(seeds, values[column], strict=True)}
        if len(seeds) > 1:
            facts["sd"] = round(float(values[column].std(ddof=1)), 3)
        if column:
            gain = drawn[:, column] - drawn[:, 0]
            ends = np.quantile(gain, [0.025, 0.975])
            facts["gain"] = round(float(values[column].mean() - values[0].mean()), 3)
            facts |= {"gain_low": round(float(ends[0]), 3), "gain_high": round(float(ends[1]), 3)}
        made.append(
            Row(
                title=f"{TITLES[name]}: {MEASURES[measure]}, {SPLITS[split]}",
                value=float(values[column].mean()),
                p20=float(low),
                p80=float(high),
                unit="percent",
                better="higher",
                figure=measure if measure in DRAWN else "",
                label=TITLES[name],
                group=SPLITS[split],
                role="peer" if name == "baseline" else "ours",
                facts=facts,
            )
        )
    return made


def line(row: Row) -> dict[str, Any]:
    """A row as the table shows it."""
    shown = {"task": row.facts["task"], "appearance": row.facts["appearance"], "encoder": row.label}
    shown |= {"value": _one(row.value), "interval": f"{_one(row.p20)} to {_one(row.p80)}"}
    if "gain" in row.facts:
        ends = f"{row.facts['gain_low']:+.1f} to {row.facts['gain_high']:+.1f}"
        shown["minus the first"] = f"{row.facts['gain']:+.1f} [{ends}]"
    return shown


def _one(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


# ------------------------------------------------------------------------------------------ time of the anomaly head
ABNORMAL, NORMAL, WIDTH = 810, 800, 768  # UCF-Crime's training videos, and the width of swin3d_t's features


def cost_row(steps: int) -> Row:
    """CPU time on one core to read 1,610 feature files of 32 rows and to train Sultani's head on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train = _random_videos(Path(folder))
        began, cpu = time.monotonic(), time.process_time()
        bags = read_bags(FeatureFolder.open(Path(folder)), train, HEADS["mil"])
        train_head(HEADS["mil"], *bags, steps=steps, seed=0, device="cpu")
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
    torch.set_num_threads(threads)
    return Row(
        title=f"Anomaly detection: CPU time to train a head on 1,610 feature files, {steps:,} steps",
        value=round(cpu_seconds, 1),
        unit="s",
        at_most=180.0,
        facts={"steps": steps, "width": WIDTH, "rows": 32, "threads": 1, "seconds": round(seconds, 1)},
    )


def _random_videos(folder: Path) -> Sequence[TrainVideo]:
    draw = np.random.default_rng(0)
    videos = [TrainVideo(f"v{number:04}", number < ABNORMAL) for number in range(ABNORMAL + NORMAL)]
    for video in videos:
        np.save(folder / f"{video.video}.npy", draw.standard_normal((32, WIDTH), np.float32))
    return videos
