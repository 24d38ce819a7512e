"""`unstill bench convert`: videos to shards, against the ffmpeg command line; scaling, resuming and memory.

The ratio to ffmpeg is taken in CPU-seconds (user + system) of the process that does the work, ours and ffmpeg in turns,
so that it does not depend on what else the machine does. Ours includes decoding every output frame again to check it;
ffmpeg only writes the file.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ...pipeline.conversion.audit import AuditConfig, audit
from ...pipeline.conversion.content_hash import block_digest
from ...pipeline.conversion.convert import ConvertConfig, convert
from ...pipeline.conversion.plan import make_plan, plan_settings
from ...pipeline.conversion.sandbox.pool import Worker
from ...pipeline.options import at_least, check_files, check_options, more_than
from ...pipeline.progress import Progress
from ...pipeline.sandbox.process import Limits
from ...pipeline.shards.video_format import Codec, output_size
from ...pipeline.sources.layouts import list_source
from ..harness import ffmpeg_command
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row, number
from ..harness.section import Chart, Section
from ..harness.synthetic_videos import synthetic_video

# the project's targets
LEAST_OF_FFMPEG, LEAST_OF_TWO_WORKERS, MOST_RESUME_S, MOST_MEMORY_MB = 0.9, 1.8, 2.0, 400
SMALL_FILES_PER_S = 5000  # audited, and planned, on two cores
CODECS = {"h264": "H.264", "vp9": "VP9", "hevc": "HEVC"}
KINETICS_VIDEOS = 240_000
SOURCE_SIZE = (720, 1280)  # height, width
SMALL_SIZE = (256, 340)
MEMORY_SIZES = ((720, 1280, 300), (1080, 1920, 60), (2160, 3840, 24))  # height, width, frames
LIMITS = Limits(seconds=300.0, memory_bytes=320 << 20)

SECTIONS = {
    "convert": Section(
        title="Conversion: videos to shards",
        text="How fast, against the ffmpeg command line, and in how much memory.",
        order=20,
        picture="data",
        charts={
            "ffmpeg": Chart(
                title="Converting against the ffmpeg command line",
                reading="Speed as a multiple of ffmpeg's with the same encoder and settings, median of paired rounds "
                "of CPU time. Ours also decodes every written frame again to check it.",
                reference=(1.0, "ffmpeg"),
            ),
            "memory": Chart(
                title="Memory of a converting worker",
                reading="Peak by the size of the source video, which is streamed: it hardly grows.",
                main=False,
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class ConvertBench:
    """Measure the converter against the ffmpeg command line."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    rounds: int = 3
    """Times every path is measured, in turns."""
    seconds: float = 10.0
    """Length of the synthetic 1280x720 source videos; Kinetics clips have 10 s."""
    videos: int = 12
    """Videos for the comparison of two workers with one."""
    real: tuple[Path, ...] = ()
    """Your own videos, compared with the ffmpeg command line as well."""
    shards: int = 1000
    """Shards of the finished job that is resumed."""
    files: int = 30_000
    """Small files of the tree that is audited and planned."""

    def __post_init__(self):
        check_options(self, rounds=at_least(1), seconds=more_than(0), videos=at_least(2))
        check_files("real", self.real)


def run(config: ConvertBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    size = f"{SOURCE_SIZE[1]}x{SOURCE_SIZE[0]}"
    notes = [f"sources: synthetic H.264 {size}, 30 fps, {config.seconds:g} s; output: short side 256, GOP 12"]
    results = ResultFile("convert", out=config.out, notes=notes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = _sources(folder / "source", config)
        _against_ffmpeg(sources[0], config, folder, results)
        _real_videos(config, folder, results)
        _small_sources(config, folder, results)
        _workers(folder / "source", config, folder, results)
        results.add(_resume(config, folder))
        results.add(*_small_files(config, folder))
        _memory(folder, results)
    results.show("convert")
    return results.finish()


def _sources(folder: Path, config: ConvertBench) -> list[Path]:
    paths = []
    with Progress("synthetic videos", config.videos, "videos") as progress:
        for video in range(config.videos):
            path = folder / f"class_{video % 2}" / f"{video:03d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            if video < 2:
                synthetic_video(path, round(30 * config.seconds), *SOURCE_SIZE, seed=video)
            else:
                shutil.copy(paths[video % 2], path)
            paths.append(path)
            progress.advance()
    return paths


def _task(source: Path, codec: Codec) -> dict:
    recipe = asdict(ConvertConfig(source="", out="", codec=codec).recipe())
    data = source.read_bytes()
    with open(source, "rb") as file:
        facts = {"bytes": len(data), "content": block_digest(file, 0, len(data)), "modified": None, "offset": 0}
    return {"path": str(source), **facts, "start": None, "end": None, "recipe": recipe}


def _against_ffmpeg(source: Path, config: ConvertBench, folder: Path, results: ResultFile) -> None:
    """CPU-seconds of one video, ours and ffmpeg's, in turns."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        results.note("ffmpeg is not installed: the comparison with it is left out")
    else:
        results.note(f"the other command line: {ffmpeg_command.version(ffmpeg)}; scaled as here, bit-exact")
    for codec in ("h264", "vp9", "hevc"):
        ours, theirs, size, header = [], [], 0, {}
        with _started_worker(folder, codec) as worker:
            for _ in range(config.rounds):
                seconds, header, mp4 = _converted(worker, source, codec)
                ours.append(seconds)
                size = len(mp4)
                if ffmpeg is not None:
                    out = folder / "ffmpeg.mp4"
                    theirs.append(ffmpeg_command.cpu_seconds(ffmpeg, codec, source, out, _size_of_synthetic()))
        frames, median = header["frames"], quantiles(ours)["p50"]
        hours, terabytes = KINETICS_VIDEOS * median / 3600, KINETICS_VIDEOS * size / 1e12
        results.note(
            f"{codec}: {KINETICS_VIDEOS:,} videos x {median:.2f} CPU-s / 3600 = {hours:,.0f} core-hours; "
            f"x {size / 1e6:.2f} MB = {terabytes:.2f} TB (synthetic content; camera noise and motion change both)"
        )
        rate = quantiles([frames / seconds for seconds in ours])
        if not theirs:
            results.add(rate_row(codec, rate), size_row(codec, size / 1e6))
            continue
        their_rate = frames / quantiles(theirs)["p50"]
        ratio = quantiles([b / a for a, b in zip(ours, theirs, strict=True)])["p50"]
        their_size = (folder / "ffmpeg.mp4").stat().st_size
        results.add(
            rate_row(codec, rate, their_rate),
            ratio_row(codec, ratio, rate, their_rate),
            size_row(codec, size / 1e6, their_size / 1e6),
        )


def rate_row(codec: str, rate: dict[str, float], ffmpeg: float | None = None) -> Row:
    """Frames that are transcoded and checked in a second of CPU time."""
    facts = {"measure": "rate", "codec": codec} | ({} if ffmpeg is None else {"ffmpeg": ffmpeg})
    return Row(
        title=f"transcode and check, {CODECS[codec]}",
        **spread(rate),
        unit="frames per CPU-second",
        better="higher",
        facts=facts,
    )


def ratio_row(codec: str, ratio: float, rate: dict[str, float], ffmpeg: float) -> Row:
    """Our speed as a multiple of ffmpeg's."""
    shown = f"{number(rate['p50'])} ({number(rate['p20'])} to {number(rate['p80'])})"
    headline = "the ffmpeg command line's speed in H.264, with every written frame decoded and checked"
    return Row(
        title=f"transcode and check / ffmpeg, {CODECS[codec]}",
        value=ratio,
        unit="times",
        at_least=LEAST_OF_FFMPEG,
        target="transcode and check / ffmpeg",
        headline=headline if codec == "h264" else "",
        figure="ffmpeg",
        label=CODECS[codec],
        detail=f"frames per CPU-second: ours {shown}, ffmpeg {number(ffmpeg)}",
        facts={"measure": "ratio", "codec": codec},
    )


def size_row(codec: str, megabytes: float, ffmpeg: float | None = None) -> Row:
    """Size of the converted video."""
    facts = {"measure": "size", "codec": codec} | ({} if ffmpeg is None else {"ffmpeg": round(ffmpeg, 3)})
    title = f"a converted video, {CODECS[codec]}"
    return Row(title=title, value=round(megabytes, 3), unit="MB", better="lower", facts=facts)


def _real_videos(config: ConvertBench, folder: Path, results: ResultFile) -> None:
    """Each of ``config.real`` once in every codec, ours and ffmpeg's in turns."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None or not config.real:
        return
    results.note("real videos: " + ", ".join(path.name for path in config.real))
    codecs: tuple[Codec, ...] = ("h264", "vp9", "hevc")
    for codec in codecs:
        ratios = []
        with _started_worker(folder, codec) as worker:
            for path in config.real:
                ours, header, _ = _converted(worker, path, codec)
                if "bad" in header:
                    results.note(f"{path.name} to {codec}: {header['bad']}, {header['detail']}")
                    continue
                size = (header["width"], header["height"])
                ratios.append(ffmpeg_command.cpu_seconds(ffmpeg, codec, path, folder / "real.mp4", size) / ours)
        if ratios:
            results.add(real_row(codec, quantiles(ratios)))


def real_row(codec: str, ratio: dict[str, float]) -> Row:
    """Our speed as a multiple of ffmpeg's on real videos; the median over videos."""
    title, facts = f"transcode and check / ffmpeg, {CODECS[codec]}, real videos", {"measure": "real", "codec": codec}
    return Row(title=title, **spread(ratio), unit="times", at_least=LEAST_OF_FFMPEG, facts=facts)


def _small_sources(config: ConvertBench, folder: Path, results: ResultFile) -> None:
    """CPU-seconds and bytes of a source that has its final size already, as most copies of Kinetics-400 are."""
    source = folder / "small.mp4"
    synthetic_video(source, round(30 * config.seconds), *SMALL_SIZE, seed=0)
    with _started_worker(folder, "h264") as worker:
        taken = [_converted(worker, source, "h264") for _ in range(config.rounds)]
    median, size = quantiles([seconds for seconds, _, _ in taken])["p50"], len(taken[-1][2])
    hours, terabytes = KINETICS_VIDEOS * median / 3600, KINETICS_VIDEOS * size / 1e12
    results.note(
        f"h264 from {SMALL_SIZE[1]}x{SMALL_SIZE[0]}: {KINETICS_VIDEOS:,} videos x {median:.2f} CPU-s / 3600 = "
        f"{hours:,.0f} core-hours; x {size / 1e6:.2f} MB = {terabytes:.2f} TB"
    )


def _tiny(folder: Path) -> Path:
    path = folder / "tiny.mp4"
    if not path.exists():
        synthetic_video(path, 2, 64, 64, seed=0)
    return path


TICK_S = 1 / os.sysconf("SC_CLK_TCK")  # the clock's resolution: a tiny video would take no time


@contextmanager
def _started_worker(folder: Path, codec: Codec) -> Iterator[Worker]:
    """A worker whose process has started and has its encoder in memory."""
    worker = Worker(LIMITS)
    try:
        worker.run(_task(_tiny(folder), codec))
        yield worker
    finally:
        worker.close()


def _converted(worker: Worker, source: Path, codec: Codec) -> tuple[float, dict, bytes]:
    """CPU-seconds of a conversion, and what the worker answers: its header and the file."""
    before = _cpu_seconds(worker.pid)
    header, mp4 = worker.run(_task(source, codec))
    return max(_cpu_seconds(worker.pid) - before, TICK_S), header, mp4


def _size_of_synthetic() -> tuple[int, int]:
    """Width and height that the synthetic sources are converted to."""
    return output_size(SOURCE_SIZE[1], SOURCE_SIZE[0], ConvertConfig.short_side)


def _cpu_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _workers(source: Path, config: ConvertBench, folder: Path, results: ResultFile) -> None:
    """Wall clock of a conversion with one worker and with two, in turns with what the machine itself can do."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    limits: list[float] = []
    for turn in range(config.rounds):
        for workers, taken in seconds.items():
            out = folder / f"workers_{workers}_{turn}"
            began = time.perf_counter()
            convert(ConvertConfig(source=source, out=out, workers=workers))
            taken.append(time.perf_counter() - began)
            shutil.rmtree(out)
        if ffmpeg := shutil.which("ffmpeg"):
            video = next(source.rglob("*.mp4"))
            limits.append(ffmpeg_command.gain_of_two(ffmpeg, video, folder, _size_of_synthetic()))
    ratios = quantiles([one / two for one, two in zip(seconds[1], seconds[2], strict=True)])
    rates = quantiles([config.videos / taken for taken in seconds[2]])
    one = config.videos / quantiles(seconds[1])["p50"]
    spread_of = f"{ratios['p20']:.2f} to {ratios['p80']:.2f}"
    if limits:
        limit = quantiles(limits)
        spread_of += f"; two ffmpeg of a core each / one: {limit['p50']:.2f} ({limit['p20']:.2f} to {limit['p80']:.2f})"
    results.note(f"two workers against one, p20 to p80 of the ratio: {spread_of}")
    results.add(*workers_rows(rates, one, ratios["p50"]))


def workers_rows(rates: dict[str, float], one: float, ratio: float) -> tuple[Row, Row]:
    """Conversion with two workers, and how much faster it is than with one."""
    title = "whole conversion, two workers"
    rate = Row(title=title, **spread(rates), unit="videos/s", better="higher", facts={"one worker": one})
    facts = {"measure": "workers"}
    return rate, Row(title=f"{title} / one", value=ratio, unit="times", at_least=LEAST_OF_TWO_WORKERS, facts=facts)


def _resume(config: ConvertBench, folder: Path) -> Row:
    """Seconds of the same command on a job that is finished."""
    source = folder / "many" / "class"
    source.mkdir(parents=True)
    tiny = _tiny(folder)
    for shard in range(config.shards):
        shutil.copy(tiny, source / f"{shard:06d}.mp4")
    job = ConvertConfig(source=source.parent, out=folder / "finished", codec="vp9", short_side=16, samples_per_shard=1)
    report = convert(job)
    return resume_row(report.shards, quantiles([convert(job).seconds for _ in range(max(3, config.rounds))]))


def resume_row(shards: int, taken: dict[str, float]) -> Row:
    """Seconds of asking again for what is done."""
    return Row(title=f"resume of a finished job of {shards} shards", **spread(taken), unit="s", at_most=MOST_RESUME_S)


def _small_files(config: ConvertBench, folder: Path) -> list[Row]:
    """Seconds of auditing and of planning a tree of small files, no two of them equal."""
    source, tiny = folder / "small_files", _tiny(folder).read_bytes()
    for n in range(config.files):
        path = source / f"class_{n % 100:02d}" / f"{n:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        filler = b"%08d" % n + bytes(n % 64)  # in a box that players skip
        path.write_bytes(tiny + (8 + len(filler)).to_bytes(4) + b"free" + filler)
    began = time.perf_counter()
    report = audit(AuditConfig(source=source))
    audited = time.perf_counter()
    recipe = ConvertConfig(source=source, out=folder / "planned")
    make_plan(list_source(recipe), plan_settings(recipe.recipe(), recipe.seed, recipe.samples_per_shard))
    planned = time.perf_counter()
    assert len(report.headers) == config.files, f"{len(report.headers)} of {config.files} files were audited"
    return [
        small_files_row("audit", config.files, audited - began),
        small_files_row("plan", config.files, planned - audited),
    ]


def small_files_row(what: str, files: int, seconds: float) -> Row:
    """Seconds of looking at all files of a tree."""
    return Row(title=f"{what} of {files:,} small files", value=seconds, unit="s", at_most=files / SMALL_FILES_PER_S)


def _memory(folder: Path, results: ResultFile) -> None:
    """Peak resident memory of a worker by the size of the video it converts."""
    for height, width, frames in MEMORY_SIZES:
        source = folder / f"{height}.mp4"
        synthetic_video(source, frames, height, width, seed=0)
        for codec in ("h264", "vp9", "hevc"):
            worker = Worker(LIMITS)
            try:
                header, _ = worker.run(_task(source, codec))
                peak = _peak_mb(worker.pid) if worker.pid else None
            finally:
                worker.close()
            if "bad" in header:
                results.note(f"{width}x{height} to {codec}: {header['bad']}, {header['detail']}")
            results.add(memory_row(f"{width}x{height}", codec, peak))


def memory_row(size: str, codec: str, peak: float | None) -> Row:
    """Peak resident memory of a converting worker, MB."""
    return Row(
        title=f"peak memory of a worker, {size} to {CODECS[codec]}",
        value=peak,
        unit="MB",
        at_most=MOST_MEMORY_MB,
        target="peak memory of a worker",
        figure="memory",
        label=CODECS[codec],
        group=size,
    )


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
