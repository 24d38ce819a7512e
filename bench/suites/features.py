"""`unstill bench features`: features of long videos: speed beside the evaluation loader, memory, and being killed.

Speed is windows per CPU-second of this process without a network, the loader and the walk in turns on the same windows
with one decoding thread each, so that it does not depend on what else the machine does.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from safetensors.torch import save_file

from ...pipeline.conversion.convert import ConvertConfig, convert
from ...pipeline.loading.frame_walk import FrameWalk
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.loader_config import LoaderConfig
from ...pipeline.loading.sampler import ClipConfig, ViewConfig
from ...trainer.downstream.features.crops import crop_regions
from ...trainer.downstream.features.windows import window_frames, windows
from ...trainer.inference.classifier import WEIGHTS, Facts
from ...trainer.models.registry import build_model
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row
from ..harness.section import Section
from ..harness.synthetic_videos import synthetic_dataset

LEAST_OF_LOADER, MOST_GB = 0.8, 1.5
SECTIONS = {
    "features": Section(
        title="Features of long videos",
        text="Every window of a video, each GOP decoded once, beside the loader as an evaluation uses it.",
        order=25,
    )
}


@dataclass(frozen=True, kw_only=True)
class FeaturesBench:
    """Measure `unstill features`."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    rounds: int = 5
    """Measurements of the loader and of the walk, in turns."""
    windows: int = 32
    """Windows of a video in such a measurement."""
    hours: float = 2.0
    """Length of the long video."""
    kills: int = 5
    """SIGKILLs after a few files each before a run is let through."""


def run(config: FeaturesBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    results = ResultFile("features", out=config.out)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = random_model(folder / "model", size=112)
        for window, stride in ((16, 16), (16, 4), (16, 64)):
            results.add(speed_row(config, folder, window, stride))
        results.add(memory_row(config, folder, model), killed_row(config, folder, model))
    results.show("features of long videos")
    return results.finish()


def planned(config: FeaturesBench) -> float:
    """Seconds that a GPU machine should need at most."""
    return 120 + 10 * config.rounds + 90 * config.hours + 30 * config.kills


def speed_row(config: FeaturesBench, folder: Path, window: int, stride: int) -> Row:
    """The same windows from the walk and from the loader, as a ratio of windows per CPU-second."""
    total = window + stride * (config.windows - 1)
    shards = synthetic_dataset(folder / f"speed{stride}", videos=2, codec="h264", frames=total, max_seconds=None)
    clip = ClipConfig(frames=window, stride=1, size=112)
    expected: list[np.ndarray] = []

    def loader() -> int:
        views = ViewConfig(temporal=config.windows)  # spread from end to end: a window every ``stride`` frames
        options = LoaderConfig(decoder="cores", core_threads=1, read_threads=1)
        count = 0
        with ClipLoader(shards, clip=clip, views=views, batch_size=16, device="cpu", config=options) as clips:
            for batch in clips:
                count += len(batch)
                expected.append(batch.frames[-1, -1, ::8, ::8].numpy().copy())
        return count

    found: list[np.ndarray] = []

    def walk() -> int:
        wanted, count = window_frames(total, window, stride, np.arange(window)), 0
        with FrameWalk(shards, clip.size, threads=1) as walked:
            regions = [region for region, _ in crop_regions(int(walked.index.height[0]), int(walked.index.width[0]), 1)]
            batch = np.empty((16, window, clip.size, clip.size, 3), np.uint8)
            for video in walked.videos(range(2), lambda _: np.unique(wanted), lambda _: regions):
                for frames, rows in windows(video.parts, wanted):
                    batch[count % 16] = frames[rows, 0]
                    count += 1
                    if count % 16 == 0:
                        found.append(batch[-1, -1, ::8, ::8].copy())
        return count

    rates: dict[Callable[[], int], list[float]] = {loader: [], walk: []}
    for turn in range(-1, config.rounds):
        for path in rates:
            begin = time.process_time()
            count = path()
            if turn >= 0:
                rates[path].append(count / (time.process_time() - begin))
    if not all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True)):
        raise RuntimeError("the walk and the loader give different frames")
    ratios = [a / b for a, b in zip(rates[walk], rates[loader], strict=True)]
    return Row(
        title=f"windows of {window} every {stride} frames, against the evaluation loader",
        **spread(quantiles(ratios)),
        unit="times",
        at_least=LEAST_OF_LOADER,
        target="features against the evaluation loader",
        facts={
            "windows_per_cpu_second": round(statistics.median(rates[walk]), 1),
            "loader_windows_per_cpu_second": round(statistics.median(rates[loader]), 1),
            "codec": "h264",
            "size": clip.size,
        },
    )


def memory_row(config: FeaturesBench, folder: Path, model: Path) -> Row:
    """Largest memory of a process that makes the features of one long video; and of a short one."""
    source = folder / "long.mp4"
    piece = folder / "piece.mp4"
    ten_seconds(piece)
    repeated(piece, source, round(config.hours * 3600 / 10))
    most = {}
    for name, video in (("short", piece), ("long", source)):
        (folder / f"{name}_videos" / "a").mkdir(parents=True)
        video.rename(folder / f"{name}_videos" / "a" / f"{name}.mp4")
        convert(ConvertConfig(source=folder / f"{name}_videos", out=folder / name, codec="copy", max_seconds=None))
        process = start(model, folder / name, folder / f"{name}_features")
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise RuntimeError(f"unstill features ended with {status}")
        most[name] = usage.ru_maxrss * 1024 / 1e9
    rows = np.load(folder / "long_features" / "a_long.npy", mmap_mode="r")
    return Row(
        title=f"largest memory for a video of {config.hours:g} hours",
        value=round(most["long"], 3),
        unit="GB",
        at_most=MOST_GB,
        facts={"rows": len(rows), "crops": 1, "size": 112, "short_video_gb": round(most["short"], 3)},
    )


def ten_seconds(out: Path) -> None:
    """Write an H.264 file of 300 frames that shards can hold without being encoded again."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 255, (128, 192, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"g": "12", "keyint_min": "12", "sc_threshold": "0", "bf": "0", "preset": "ultrafast"}
        for k in range(300):
            shown = np.ascontiguousarray(picture[k : k + 64, k : k + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


def repeated(piece: Path, out: Path, times: int) -> None:
    """Write a video that shows another one ``times`` times, its packets copied."""
    with av.open(str(out), "w") as container:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(piece)) as source:
                video = source.streams.video[0]
                stream = stream or container.add_stream_from_template(video)
                end = 0
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    container.mux(packet)
                shift += end


def killed_row(config: FeaturesBench, folder: Path, model: Path) -> Row:
    """A run killed after random numbers of files and started again, against one that was not."""
    shards = synthetic_dataset(folder / "killed", videos=24, codec="h264", frames=200, height=72, width=96)
    if start(model, shards, folder / "undisturbed").wait():
        raise RuntimeError("unstill features failed")
    draws, files = random.Random(0), []
    for _ in range(config.kills):
        there = len(list((folder / "disturbed").glob("*.npy")))
        process, enough = start(model, shards, folder / "disturbed"), there + draws.randint(1, 4)
        while process.poll() is None and len(list((folder / "disturbed").glob("*.npy"))) < enough:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        files.append(len(list((folder / "disturbed").glob("*.npy"))))
    if start(model, shards, folder / "disturbed").wait():
        raise RuntimeError("unstill features failed")
    found, expected = (
        {path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("disturbed", "undisturbed")
    )
    different = sum(found.get(name) != expected.get(name) for name in found.keys() | expected.keys())
    return Row(
        title=f"files that differ after {config.kills} times kill -9",
        value=different,
        unit="files",
        at_most=0,
        facts={"files": len(expected), "files_after_each": " ".join(map(str, files))},
    )


def start(model: Path, shards: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """``unstill features`` in a process of its own."""
    program = "import sys; from unstill.trainer.cli.main import run; sys.exit(run(sys.argv[1:]))"
    arguments = ["features", str(model), str(shards), str(out), "--device", "cpu", *options]
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL)


def random_model(folder: Path, size: int) -> Path:
    """An exported folder with a small network of random weights."""
    folder.mkdir()
    torch.manual_seed(0)
    network = build_model("motion_cnn", 4)
    clip = ClipConfig(frames=16, stride=1, size=size)
    Facts("motion_cnn", tuple("abcd"), clip, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)).save(folder)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)
    return folder
