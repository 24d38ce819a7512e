"""`unstill bench convert`: videos to shards, beside the ffmpeg command line; scaling, resuming and memory.

The ratio to ffmpeg is taken in CPU-seconds (user + system) of the process that does the work, ours and ffmpeg in turns,
so that it does not depend on what else the machine does. Ours includes decoding every output frame again to check it;
ffmpeg only writes the file.
"""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ...pipeline.conversion.content_hash import block_digest
from ...pipeline.conversion.convert import ConvertConfig, convert
from ...pipeline.conversion.sandbox.pool import Limits, Worker
from ...pipeline.conversion.transcode import QUALITY
from ...pipeline.progress import Progress
from ...pipeline.shards.video_format import output_size
from ..harness.record import quantiles, record, show
from ..harness.synthetic_videos import synthetic_video

# what must hold, from the project's plan
FFMPEG_BAR, TWO_WORKERS_BAR, RESUME_BAR_S, MEMORY_BAR_MB = 0.9, 1.8, 2.0, 400
KINETICS_VIDEOS = 240_000
SOURCE_SIZE = (720, 1280)  # height, width
MEMORY_SIZES = ((720, 1280, 300), (1080, 1920, 60), (2160, 3840, 24))  # height, width, frames
LIMITS = Limits(seconds=300.0, memory_bytes=320 << 20)

FFMPEG_OPTIONS = {  # the same encoders with the same settings
    "h264": "-c:v libx264 -preset veryfast -profile:v high -crf {q} "
    "-x264-params keyint={g}:min-keyint={g}:scenecut=0:open-gop=0:bframes=1:b-adapt=0:b-pyramid=none:no-mbtree=1:"
    "cpu-independent=1:cabac=0",
    "vp9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -lag-in-frames 0 -auto-alt-ref 0 -row-mt 0 -crf {q} -b:v 0 "
    "-g {g} -keyint_min {g}",
    "hevc": "-c:v libx265 -preset fast -crf {q} -x265-params "
    "keyint={g}:min-keyint={g}:scenecut=0:open-gop=0:bframes=1:b-adapt=0:b-pyramid=0:pools=none:frame-threads=1:log-level=none",
}


@dataclass(frozen=True, kw_only=True)
class ConvertBench:
    """Measure the converter beside the ffmpeg command line."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    rounds: int = 3
    """Times every path is measured, in turns."""
    seconds: float = 10.0
    """Length of the synthetic 1280x720 source videos; Kinetics clips have 10 s."""
    videos: int = 12
    """Videos for the comparison of two workers with one."""
    shards: int = 1000
    """Shards of the finished job that is resumed."""


def run(config: ConvertBench | None = None) -> Path:
    """Measure, print the table, write the result file and return its path."""
    config = config or ConvertBench()
    size = f"{SOURCE_SIZE[1]}x{SOURCE_SIZE[0]}"
    notes = [f"sources: synthetic H.264 {size}, 30 fps, {config.seconds:g} s; output: short side 256, GOP 12"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = _sources(folder / "source", config)
        rows = _beside_ffmpeg(sources[0], config, folder, notes)
        rows += _workers(folder / "source", config, folder, notes)
        rows += _resume(config, folder)
        rows += _memory(folder, notes)
    show("convert", rows, notes=notes)
    return record("convert", rows, out=config.out, notes=notes)


def _sources(folder: Path, config: ConvertBench) -> list[Path]:
    paths = []
    with Progress("synthetic videos", config.videos, "videos") as progress:
        for number in range(config.videos):
            path = folder / f"class_{number % 2}" / f"{number:03d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number < 2:
                synthetic_video(path, round(30 * config.seconds), *SOURCE_SIZE, seed=number)
            else:
                shutil.copy(paths[number % 2], path)
            paths.append(path)
            progress.advance()
    return paths


def _task(source: Path, codec: str) -> dict:
    recipe = asdict(ConvertConfig(source="", out="", codec=codec).recipe())
    data = source.read_bytes()
    with open(source, "rb") as file:
        facts = {"bytes": len(data), "content": block_digest(file, 0, len(data)), "modified": None, "offset": 0}
    return {"path": str(source), **facts, "start": None, "end": None, "recipe": recipe}


def _beside_ffmpeg(source: Path, config: ConvertBench, folder: Path, notes: list[str]) -> list[dict]:
    """CPU-seconds of one video, ours and ffmpeg's, in turns."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        notes.append("ffmpeg is not installed: the comparison with it is left out")
    rows = []
    for codec in ("h264", "vp9", "hevc"):
        ours, theirs, size = [], [], 0
        rounds = config.rounds if codec != "hevc" else 1
        worker = Worker(LIMITS)
        try:
            worker.run(_task(_tiny(folder), codec))  # starts the process
            for _ in range(rounds):
                before = _cpu_seconds(worker.pid)
                header, mp4 = worker.run(_task(source, codec))
                ours.append(max(_cpu_seconds(worker.pid) - before, TICK_S))
                size = len(mp4)
                if ffmpeg is not None:
                    theirs.append(_ffmpeg_cpu_seconds(ffmpeg, codec, source, folder / "ffmpeg.mp4"))
        finally:
            worker.close()
        frames, median = header["frames"], quantiles(ours)["p50"]
        row = {"what": f"transcode and check, {codec}", "unit": "frames per CPU-second"}
        row |= quantiles([frames / seconds for seconds in ours])
        if theirs:
            row["beside"] = frames / quantiles(theirs)["p50"]  # ffmpeg
            row["ratio"] = quantiles([b / a for a, b in zip(ours, theirs, strict=True)])["p50"]
            row["bar"] = FFMPEG_BAR
            their_size = (folder / "ffmpeg.mp4").stat().st_size
            notes.append(f"{codec}: {size / 1e6:.3f} MB a video, {their_size / 1e6:.3f} MB from ffmpeg")
        rows.append(row)
        hours, terabytes = KINETICS_VIDEOS * median / 3600, KINETICS_VIDEOS * size / 1e12
        notes.append(
            f"{codec}: {KINETICS_VIDEOS:,} videos x {median:.2f} CPU-s / 3600 = {hours:,.0f} core-hours; "
            f"x {size / 1e6:.2f} MB = {terabytes:.2f} TB (synthetic content; camera noise and motion change both)"
        )
    return rows


def _tiny(folder: Path) -> Path:
    path = folder / "tiny.mp4"
    if not path.exists():
        synthetic_video(path, 2, 64, 64, seed=0)
    return path


TICK_S = 1 / os.sysconf("SC_CLK_TCK")  # the clock's resolution: a tiny video would take no time


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _ffmpeg_cpu_seconds(ffmpeg: str, codec: str, source: Path, out: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _wait([_start_ffmpeg(ffmpeg, codec, source, out)])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _start_ffmpeg(ffmpeg: str, codec: str, source: Path, out: Path) -> subprocess.Popen:
    """The same transcode by the command line, one thread."""
    options = FFMPEG_OPTIONS[codec].format(q=QUALITY[codec], g=12).split()
    container = "-movflags frag_keyframe+empty_moov+default_base_moof -threads 1 -an".split()
    width, height = output_size(*SOURCE_SIZE[::-1], ConvertConfig.short_side)
    scale = ["-vf", f"scale={width}:{height}:flags=bicubic"]
    command = [ffmpeg, "-v", "error", "-y", "-threads", "1", "-filter_threads", "1", "-i", str(source), *scale]
    return subprocess.Popen([*command, *options, *container, str(out)])


def _wait(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)


def _workers(source: Path, config: ConvertBench, folder: Path, notes: list[str]) -> list[dict]:
    """Wall clock of a whole conversion with one worker and with two, in turns with what the machine itself can do."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    limits: list[float] = []
    for turn in range(config.rounds):
        for workers, taken in seconds.items():
            out = folder / f"workers_{workers}_{turn}"
            began = time.perf_counter()
            convert(ConvertConfig(source=source, out=out, workers=workers))
            taken.append(time.perf_counter() - began)
            shutil.rmtree(out)
        if shutil.which("ffmpeg"):
            limits.append(_two_ffmpegs(next(source.rglob("*.mp4")), folder))
    ratios = quantiles([one / two for one, two in zip(seconds[1], seconds[2], strict=True)])
    rates = quantiles([config.videos / taken for taken in seconds[2]])
    one = config.videos / quantiles(seconds[1])["p50"]
    spread = f"{ratios['p20']:.2f} to {ratios['p80']:.2f}"
    if limits:
        limit = quantiles(limits)
        spread += f"; two ffmpeg processes beside one: {limit['p50']:.2f} ({limit['p20']:.2f} to {limit['p80']:.2f})"
    notes.append(f"two workers beside one, p20 to p80 of the ratio: {spread}")
    what = "two workers beside one, whole conversion"
    return [{"what": what, "unit": "videos/s", **rates, "beside": one, "ratio": ratios["p50"], "bar": TWO_WORKERS_BAR}]


def _two_ffmpegs(source: Path, folder: Path) -> float:
    """How much more two processes do than one on this machine, now: 2 when the second core is free."""
    began = time.perf_counter()
    _wait([_start_ffmpeg("ffmpeg", "h264", source, folder / "one.mp4")])
    one = time.perf_counter() - began
    began = time.perf_counter()
    _wait([_start_ffmpeg("ffmpeg", "h264", source, folder / f"{name}.mp4") for name in ("one", "two")])
    return 2 * one / (time.perf_counter() - began)


def _resume(config: ConvertBench, folder: Path) -> list[dict]:
    """Seconds of the same command on a job that is finished."""
    source = folder / "many" / "class"
    source.mkdir(parents=True)
    tiny = _tiny(folder)
    for number in range(config.shards):
        shutil.copy(tiny, source / f"{number:06d}.mp4")
    job = ConvertConfig(source=source.parent, out=folder / "finished", codec="vp9", short_side=16, samples_per_shard=1)
    report = convert(job)
    taken = [convert(job).seconds for _ in range(max(3, config.rounds))]
    what = f"resume of a finished job of {report.shards} shards"
    return [{"what": what, "unit": "s", **quantiles(taken), "bar": RESUME_BAR_S}]


def _memory(folder: Path, notes: list[str]) -> list[dict]:
    """Peak resident memory of a worker by the size of the video it converts."""
    rows = []
    for height, width, frames in MEMORY_SIZES:
        source = folder / f"{height}.mp4"
        synthetic_video(source, frames, height, width, seed=0)
        for codec in ("h264", "vp9", "hevc"):
            worker = Worker(LIMITS)
            try:
                header, _ = worker.run(_task(source, codec))
                peak = _peak_mb(worker.pid) if worker.pid else float("nan")
            finally:
                worker.close()
            if "bad" in header:
                notes.append(f"{width}x{height} to {codec}: {header['bad']}, {header['detail']}")
            what = f"peak memory of a worker, {width}x{height} to {codec}"
            rows.append({"what": what, "unit": "MB", "p50": peak, "bar": MEMORY_BAR_MB})
    return rows


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
