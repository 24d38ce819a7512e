"""The ffmpeg command line with the encoder settings of ``unstill convert``: what a conversion is compared with."""

import os
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


def version(ffmpeg: str) -> str:
    """``ffmpeg version 7.1`` and the like."""
    line = subprocess.run([ffmpeg, "-version"], stdout=subprocess.PIPE, text=True, check=True).stdout.partition("\n")[0]
    return line.partition(" Copyright")[0]


def gain_of_two(ffmpeg: str, source: Path, folder: Path, size: tuple[int, int]) -> float:
    """How much more two processes of one core each do than one, now: 2 on a machine that is free and shares nothing.

    Left alone, one ffmpeg decodes, scales and encodes on several cores.
    """
    cores = sorted(os.sched_getaffinity(0))

    def seconds(names: list[str]) -> float:
        began = time.perf_counter()
        processes = [_start(ffmpeg, "h264", source, folder / f"{name}.mp4", size) for name in names]
        for process, core in zip(processes, cores, strict=False):
            os.sched_setaffinity(process.pid, {core})
        _wait(processes)
        return time.perf_counter() - began

    return 2 * seconds(["one"]) / seconds(["one", "two"])


def _start(ffmpeg: str, codec: str, source: Path, out: Path, size: tuple[int, int]) -> subprocess.Popen:
    options = OPTIONS[codec].format(q=QUALITY[codec], g=12).split()
    container = "-movflags frag_keyframe+empty_moov+default_base_moof -threads 1 -an".split()
    scale = ["-vf", f"scale={size[0]}:{size[1]}:flags=bicubic+bitexact"]
    command = [ffmpeg, "-v", "error", "-y", "-threads", "1", "-filter_threads", "1", "-i", str(source), *scale]
    return subprocess.Popen([*command, *options, *container, str(out)])


def _wait(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)
