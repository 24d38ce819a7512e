"""`unstill bench downstream`: what the features of baseline, ALBAR and Recast are good for in long procedural videos.

Writes ``bench/results/downstream.json``: anomaly detection and temporal localisation with frozen encoders under one
head, where appearance misleads (``free``) and where it follows the label as in training (``alike``). Encoders are those
of `unstill bench bias` and `unstill bench recast`, in the same folders; one that is not there is trained first.
Features and what heads make of them are kept: a repeated command goes on where the last one stopped.

    unstill bench downstream                            both tasks, three encoders, three seeds
    unstill bench downstream --seeds --train-cost 2000  how long the anomaly head trains on 1,610 videos, alone
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...pipeline.atomic_files import write_atomic
from ...pipeline.errors import InputError
from ...pipeline.progress import Progress
from ...trainer.demo.motions.long_videos import LongMotionsConfig, Task
from ...trainer.downstream.anomaly.annotations import TrainVideo
from ...trainer.downstream.anomaly.config import AnomalyConfig
from ...trainer.downstream.anomaly.evaluation import run_anomaly
from ...trainer.downstream.anomaly.heads import HEADS
from ...trainer.downstream.anomaly.training import read_bags, train_head
from ...trainer.downstream.feature_folder import RECORD, FeatureFolder
from ...trainer.downstream.localisation.config import LocaliseConfig
from ...trainer.downstream.localisation.evaluation import run_localise
from ...trainer.downstream.localisation.videos import truth_of
from ...trainer.downstream.ranking import FrameScores
from ...trainer.downstream.temporal_map import THUMOS_UPPER, Segments, match
from ..harness.long_features import FREE_AND_ALIKE, LongVideos, key_of, write_features
from ..harness.record import ResultFile, show
from ..harness.row import Row
from ..harness.section import Chart, Section
from .bias import METHODS, BiasBench, folder_of, known_measures, make_data, run_one
from .recast import TITLES, RecastBench, recipe_for

SPLITS = {"free": "appearance independent of the label", "alike": "appearance as in training"}
MEASURES = {
    "anomaly": "anomaly detection, frame-level ROC-AUC",
    "localisation": "temporal localisation, mAP over tIoU .3 to .7",
}
INTERVAL = "95 % interval over test videos"
SECTIONS = {
    "downstream": Section(
        title="What the features are good for",
        text="Frozen encoders in long videos, one head for all. Scene and actor follow the label in training.",
        order=19,
        charts={
            task: Chart(
                title=f"Frozen features: {words}",
                reading="Mean over seeds. The same videos with scene and actor independent of the label, and as in "
                "training.",
                main=task == "anomaly",
                whiskers=INTERVAL,
            )
            for task, words in MEASURES.items()
        },
    )
}
# head settings, fixed on seed 50 and other encoders before the table's seeds were run
ANOMALY_STEPS, EPOCHS, RATE, CHANNELS = 500, 30, 4e-3, 64
Score = Callable[[np.ndarray | None], float]  # how often each test video counts -> measure
Outcome = dict[str, Any]  # of a head, in the form of JSON


@dataclass(frozen=True, kw_only=True)
class DownstreamBench:
    """Put one head on the frozen features of each encoder, and measure it where appearance misleads and helps."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    tasks: tuple[Task, ...] = ("anomaly", "localisation")
    """Which tasks."""
    encoders: tuple[str, ...] = ("baseline", "albar", "recast")
    """Which of baseline, albar, recast, recast_moving; the first is what the others are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the encoders and the heads."""
    runs: Path = Path("runs/bench_demo")
    """Folder of the encoders of `unstill bench bias`."""
    recast_runs: Path = Path("runs/bench_recast")
    """Folder of the encoders of `unstill bench recast`."""
    features: Path = Path("runs/bench_downstream")
    """Folder for features and annotations."""
    train: int = 84
    """Training videos of a task."""
    test: int = 48
    """Test videos of a task, each with two appearances."""
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
    """Scores of one task and split: encoder -> seed -> measure."""

    of: dict[str, dict[int, Score]] = field(default_factory=dict)

    def add(self, encoder: str, seed: int, score: Score) -> None:
        """Keep one."""
        self.of.setdefault(encoder, {})[seed] = score


def run(config: DownstreamBench) -> Path:
    """Measure what was asked for, write the result file and return its path."""
    results = ResultFile("downstream", out=config.out, notes=_NOTES, file_name="downstream.json")
    found: dict[tuple[Task, str], Scores] = {(t, s): Scores() for t in config.tasks for s in FREE_AND_ALIKE}
    with Progress("seeds", len(config.seeds) * len(config.tasks), "tasks") as progress:
        for seed in config.seeds:
            encoders = {name: encoder_run(config, name, seed) for name in config.encoders}
            for task in config.tasks:
                videos = long_videos(config, task, seed)
                write_features(videos, encoders)
                for name in encoders:
                    outcome = outcome_of(videos, name)
                    for split in FREE_AND_ALIKE:
                        found[task, split].add(name, seed, TASKS[task][1](outcome, split, config.test))
                progress.advance(note=f"{task}, seed {seed}")
    if config.seeds:
        for (task, split), scores in found.items():
            results.add(*rows(config, task, split, scores))
        show("Percent, mean over seeds", [line(row) for row in results.rows])
    if config.train_cost:
        results.add(cost_row(config.train_cost))
    return results.finish()


_NOTES = (
    "long videos of 160 frames (localisation) and 256 (anomaly), rendered and not compressed; windows of 8 frames, "
    "stride 2 and 8; features are what the encoder's last layer sees",
    "intervals draw the test videos of every seed with replacement, the same ones for all encoders; sd is over seeds",
    "free and alike are the same motions; in free scene and actor are independent of the label, in alike they follow "
    "it with the rate of the training videos, 95 %",
    "settings of the heads were fixed on seed 50 and other encoders; the anomaly head is Sultani's",
)


def encoder_run(config: DownstreamBench, name: str, seed: int) -> Path:
    """The run of an encoder on a seed's short videos, trained if it is not there."""
    if name in METHODS:
        own = BiasBench(methods=(name,), runs=config.runs)
    else:
        own = RecastBench(forms=(name,), runs=config.recast_runs).of_world("plain")
    recipe = recipe_for(name, "plain")
    if known_measures(own, name, recipe, seed) is None:
        make_data(own, seed)
        run_one(own, name, recipe, seed)
    return folder_of(own, seed) / "bias" / name


def long_videos(config: DownstreamBench, task: Task, seed: int) -> LongVideos:
    """The long videos of a seed, and where their features go."""
    frames, stride = (256, 8) if task == "anomaly" else (160, 2)
    return LongVideos(
        folder=config.features / task / f"seed{seed}",
        motions=LongMotionsConfig(task=task, seed=seed, frames=frames),
        train=config.train,
        test=config.test,
        window=8,
        stride=stride,
    )


def anomaly_outcome(videos: LongVideos, encoder: str) -> Outcome:
    """Test video -> scores of its frames, and which are abnormal."""
    config = AnomalyConfig(
        features=(videos.folder / encoder,),
        train_list=videos.folder / "train.txt",
        truth=videos.folder / "truth.txt",
        truth_fps=videos.motions.fps,
        steps=ANOMALY_STEPS,
        seeds=(videos.motions.seed,),
        resamples=2,
        device="cpu",
    )
    test, (result,) = run_anomaly(config)
    (scores,) = result.scores.values()
    return {
        video.video: {"scores": score.tolist(), "truth": truth.tolist()}
        for video, score, truth in zip(test.videos, scores, test.truth, strict=True)
    }


def anomaly_score(outcome: Outcome, split: str, count: int) -> Score:
    """ROC-AUC over all frames of a split."""
    own = [outcome[key_of(split, index)] for index in range(count)]
    return FrameScores.of([np.array(o["scores"]) for o in own], [np.array(o["truth"]) for o in own]).roc_auc


def localisation_outcome(videos: LongVideos, encoder: str) -> Outcome:
    """Truth and detections in the test videos, by columns."""
    config = LocaliseConfig(
        features=videos.folder / encoder,
        annotations=videos.folder / "annotations.json",
        out=videos.folder / "out",
        seeds=(videos.motions.seed,),
        epochs=EPOCHS,
        lr=RATE,
        channels=CHANNELS,
        device="cpu",
    )
    result = run_localise(config)
    (found,) = result.found.values()
    return {name: _columns(segments) for name, segments in (("truth", truth_of(result.test.videos)), ("found", found))}


def localisation_score(outcome: Outcome, split: str, count: int) -> Score:
    """mAP over tIoU .3 to .7 of a split."""
    truth, found = (_segments(outcome[name], split) for name in ("truth", "found"))
    matched = match(truth, found, THUMOS_UPPER, [key_of(split, index) for index in range(count)])
    return lambda times: float(np.nanmean([one.average_precision(times) for one in matched.values()]))


def _columns(segments: Segments) -> dict[str, list]:
    """As JSON has them."""
    columns = {"video": list(segments.video), "label": list(segments.label)}
    columns |= {"start": segments.start.tolist(), "end": segments.end.tolist()}
    return columns if segments.score is None else columns | {"score": segments.score.tolist()}


def _segments(columns: Mapping[str, list], split: str) -> Segments:
    """The segments of a split's videos."""
    own = [row for row, video in enumerate(columns["video"]) if video.startswith(split)]
    chosen = {name: [column[row] for row in own] for name, column in columns.items()}
    numbers = {name: np.array(chosen[name], np.float64) for name in ("start", "end", "score") if name in chosen}
    return Segments(chosen["video"], chosen["label"], **numbers)


TASKS: Mapping[Task, tuple[Callable[[LongVideos, str], Outcome], Callable[[Outcome, str, int], Score]]] = {
    "anomaly": (anomaly_outcome, anomaly_score),
    "localisation": (localisation_outcome, localisation_score),
}


def outcome_of(videos: LongVideos, encoder: str) -> Outcome:
    """What the head of a task makes of an encoder's features: trained now, or kept from before."""
    folder = videos.folder / encoder
    settings = [ANOMALY_STEPS, EPOCHS, RATE, CHANNELS, json.loads((folder / RECORD).read_text())["made_of"]]
    kept = folder / "outcome.json"
    if kept.exists():
        saved = json.loads(kept.read_text())
        if saved["settings"] == settings:
            return saved["outcome"]
    outcome = TASKS[videos.motions.task][0](videos, encoder)
    write_atomic(kept, json.dumps({"settings": settings, "outcome": outcome}).encode())
    return outcome


def rows(config: DownstreamBench, task: Task, split: str, scores: Scores) -> list[Row]:
    """A row for each encoder: mean over seeds with its interval, and the difference to the first encoder."""
    names, seeds = list(scores.of), list(config.seeds)
    values = np.array([[100 * scores.of[name][seed](None) for seed in seeds] for name in names])  # encoder, seed
    draw = np.random.default_rng(0)
    drawn = np.empty((config.resamples, len(names)))
    for resample in range(config.resamples):
        times = [np.bincount(draw.integers(config.test, size=config.test), minlength=config.test) for _ in seeds]
        for column, name in enumerate(names):
            drawn[resample, column] = np.mean(
                [100 * scores.of[name][seed](own) for seed, own in zip(seeds, times, strict=True)]
            )
    made = []
    for column, name in enumerate(names):
        low, high = np.quantile(drawn[:, column], [0.025, 0.975])
        facts: dict[str, Any] = {"task": task, "appearance": split, "encoder": name, "n": len(seeds)}
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
                title=f"{TITLES[name]}: {MEASURES[task]}, {SPLITS[split]}",
                value=float(values[column].mean()),
                p20=float(low),
                p80=float(high),
                unit="percent",
                better="higher",
                figure=task,
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
