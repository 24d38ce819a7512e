"""What ``unstill anomaly`` writes.

OUT/anomaly.json                  measures with intervals, for every folder and seed, and the set-up
OUT/scores/FOLDER_seedN.npz       the score of every frame, an array a test video, and its truth as VIDEO.truth
OUT/timeline_VIDEO.png            scores (mean over seeds) and truth over time
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

import numpy as np

from ....pipeline.atomic_files import make_folder, write_atomic
from .config import AnomalyConfig
from .evaluation import AnomalyResult, ScoredVideos


def write_anomaly(config: AnomalyConfig, test: ScoredVideos, results: Sequence[AnomalyResult]) -> None:
    """Write every file named at the top of this module.

    Raises:
        InputError: the folder cannot be written.
    """
    assert config.out is not None
    make_folder(config.out / "scores")
    for result in results:
        for seed, scores in result.scores.items():
            arrays = {}
            for video, score, truth in zip(test.videos, scores, test.truth, strict=True):
                arrays |= {video.video: score.astype(np.float32), f"{video.video}.truth": truth}
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            name = result.name.replace("/", "_")
            write_atomic(config.out / "scores" / f"{name}_seed{seed}.npz", buffer.getvalue())
    for number in _chosen(test, config.timelines):
        video = test.videos[number].video
        curves = {r.name: np.mean([s[number] for s in r.scores.values()], axis=0) for r in results}
        picture = timeline(video, curves, test.truth[number], config.truth_fps)
        write_atomic(config.out / f"timeline_{video}.png", picture)
    write_atomic(config.out / "anomaly.json", (json.dumps(_record(config, test, results), indent=1) + "\n").encode())


def timeline(video: str, curves: dict[str, np.ndarray], truth: np.ndarray, fps: float) -> bytes:
    """A PNG: scores of a video's frames over time, its anomalies as a band behind them.

    Args:
        video: its name, for the title.
        curves: name -> float (frames,), 0 to 1.
        truth: bool (frames,).
        fps: frames per second.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    edges = np.flatnonzero(np.diff(truth.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    for number, (first, end) in enumerate(edges.tolist()):
        axes.axvspan(first / fps, end / fps, color="#c9b89c", alpha=0.5, lw=0, label=None if number else "anomaly")
    for name, scores in curves.items():
        axes.plot(np.arange(len(scores)) / fps, scores, lw=1.2, label=name)
    axes.set(title=video, xlabel="seconds", ylabel="score", ylim=(-0.02, 1.02), xlim=(0, len(truth) / fps))
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _chosen(test: ScoredVideos, count: int) -> list[int]:
    abnormal = [number for number, truth in enumerate(test.truth) if truth.any()]
    places = np.linspace(0, len(abnormal) - 1, min(count, len(abnormal))).round().astype(int)
    return [abnormal[place] for place in places]


def _record(config: AnomalyConfig, test: ScoredVideos, results: Sequence[AnomalyResult]) -> dict:
    models = {}
    for result in results:
        models[result.name] = {
            "measures": asdict(result.measures),
            "difference_to_first": None if result.difference is None else asdict(result.difference),
            "per_seed": {
                str(seed): {"roc_auc": auc, "average_precision": ap} for seed, (auc, ap) in result.per_seed.items()
            },
        }
    options = {name: str(value) for name, value in asdict(config).items() if name != "features"}
    return {
        "models": models,
        "test_videos": len(test.videos),
        "test_frames": sum(len(truth) for truth in test.truth),
        "abnormal_frames": sum(int(truth.sum()) for truth in test.truth),
        "left_out": list(test.left_out),
        "cut_at_the_last_frame": list(test.cut),
        "options": options | {"features": [str(path) for path in config.features]},
        "unstill": version("unstill"),
    }
