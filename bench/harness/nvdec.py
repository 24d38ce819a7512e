"""The GPU's video decoders: is their library there, how busy are they, and how fast can they be at best?"""

import itertools
import shutil
import subprocess
import time

import numpy as np
import torch
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType

from ...pipeline.loading import nvdec_limits


def missing_library() -> str | None:
    """Why NVDEC cannot be used here, or None."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    return nvdec_limits.missing_library()


class DecoderUse:
    """Percent of time that NVDEC was busy while the block ran, sampled five times a second by nvidia-smi.

    Attributes:
        percent: the mean, or None where nvidia-smi does not tell.
    """

    percent: float | None = None

    def __enter__(self) -> "DecoderUse":
        query = [
            "nvidia-smi",
            "--query-gpu=utilization.decoder",
            "--format=csv,noheader,nounits",
            "-lms",
            "200",
            "-i",
            "0",
        ]
        self._process = None
        if shutil.which("nvidia-smi"):
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, *_) -> None:
        if self._process is None:
            return
        self._process.terminate()
        lines, _ = self._process.communicate()
        values = [float(line) for line in lines.split() if line.strip().isdigit()]
        self.percent = float(np.mean(values)) if values else None


def sequential_rate(videos: list[np.ndarray], threads: int, seconds: float) -> tuple[float, float | None]:
    """Frames per second when whole videos are decoded from first to last frame, nothing skipped: the physical limit.

    Args:
        videos: the files' bytes, uint8.
        threads: DALI threads, which is the number of decoder sessions in use at a time.
        seconds: how long to measure.

    Returns:
        ``(frames/s, NVDEC use in percent or None)``.
    """
    batch, endless = 2 * threads, itertools.cycle(videos)

    pipeline = Pipeline(batch_size=batch, num_threads=threads, device_id=0, prefetch_queue_depth=2)
    with pipeline:
        encoded = fn.external_source(
            source=lambda: list(itertools.islice(endless, batch)), dtype=DALIDataType.UINT8, ndim=1
        )
        pipeline.set_outputs(fn.decoders.video(encoded, device="mixed", affine=False))
    pipeline.build()
    for _ in range(2):
        pipeline.run()
    frames = 0
    with DecoderUse() as use:
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            (clips,) = pipeline.run()
            frames += sum(shape[0] for shape in clips.shape())
    return frames / elapsed, use.percent
