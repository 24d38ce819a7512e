"""The ffmpeg command line with the encoder settings of ``unstill convert``: what a conversion is compared with."""

import resource
import subprocess
import time
from pathlib import Path

from ...pipeline.conversion.transcode import QUALITY

OPTIONS = {  # the same encoders with the same settings
    "h264": "-c:v libx264 -preset veryfast -profile:v high -crf {q} "
    "-x264-params keyint={g}:min-keyint={g}:scenecut=0:open-gop=0:bframes=1:b-adapt=0:b-pyramid=none:no-mbtree=1:"
    "cpu-independent=1:cabac=0",
    "vp9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -lag-in-frames 0 -auto-alt-ref 0 -row-mt 0 -crf {q} -b:v 0 "
    "-g {g} -keyint_min {g}",
    "hevc": "-c:v libx265 -preset fast -crf {q} -x265-params "
    "keyint={g}:min-keyint={g}:scenecut=0:open-gop=0:bframes=1:b-adapt=0:b-pyramid=0:pools=none:frame-threads=1:log-level=none",
}


def cpu_seconds(ffmpeg: str, codec: str, source: Path, out: Path, size: tuple[int, int]) -> float:
    """CPU-seconds of one transcode by one thread.

    Args:
        ffmpeg: the program.
        codec: one of ``OPTIONS``.
        source, out: files.
        size: width and height of the output, pixels.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _wait([_start(ffmpeg, codec, source, out, size)])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def gain_of_two(ffmpeg: str, source: Path, folder: Path, size: tuple[int, int]) -> float:
    """How much more two processes do than one on this machine, now: 2 when the second core is free."""
    began = time.perf_counter()
    _wait([_start(ffmpeg, "h264", source, folder / "one.mp4", size)])
    one = time.perf_counter() - began
    began = time.perf_counter()
    _wait([_start(ffmpeg, "h264", source, folder / f"{name}.mp4", size) for name in ("one", "two")])
    return 2 * one / (time.perf_counter() - began)


def _start(ffmpeg: str, codec: str, source: Path, out: Path, size: tuple[int, int]) -> subprocess.Popen:
    options = OPTIONS[codec].format(q=QUALITY[codec], g=12).split()
    container = "-movflags frag_keyframe+empty_moov+default_base_moof -threads 1 -an".split()
    scale = ["-vf", f"scale={size[0]}:{size[1]}:flags=bicubic"]
    command = [ffmpeg, "-v", "error", "-y", "-threads", "1", "-filter_threads", "1", "-i", str(source), *scale]
    return subprocess.Popen([*command, *options, *container, str(out)])


def _wait(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)
