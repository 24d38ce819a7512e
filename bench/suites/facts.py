"""`unstill bench facts`: what this machine must have before anything else can work: driver, decoder library, codecs.

Each is a row with its target, so that a machine on which all else would fail says why in its first seconds.
"""

import io
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

from ...pipeline.loading.codec_support import decode_alone
from ...pipeline.loading.decode import decoder_message
from ...pipeline.loading.encoded_batch import EncodedBatch
from ...pipeline.loading.sampler import ClipRequests
from ..harness.failures import one_line
from ..harness.nvdec import missing_library
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Section

LEAST_DRIVER = 580  # of CUDA 13, for which torch and DALI are built
SIDE, FRAMES = 176, 4  # pixels: at least the smallest that NVDEC decodes of each codec, a multiple of 16
ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
FASTEST = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
}

SECTIONS = {
    "facts": Section(title="The machine", text="What it must have before anything else can work.", order=5),
}


@dataclass(frozen=True, kw_only=True)
class FactsBench:
    """Check the driver, the video-decode library, and which codecs are decoded."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""


def run(config: FactsBench) -> Path:
    """Check, print the table, write the result file and return its path."""
    results = ResultFile("facts", out=config.out)
    gpu, version = torch.cuda.is_available(), _driver()
    if gpu or version != "unknown":  # with an old driver torch finds no GPU
        results.add(driver_row(version))
    if gpu:
        reason = missing_library()
        results.add(yes_or_no("video-decode library (libnvcuvid)", reason is None, detail=reason or ""))
        free, total = torch.cuda.mem_get_info()
        facts = {"total_gib": total / 2**30}
        results.add(Row(title="free GPU memory", value=free / 2**30, unit="GiB", better="higher", facts=facts))
    else:
        results.note("torch finds no GPU here")
    device = torch.device("cuda" if gpu else "cpu")
    for codec in ENCODERS:
        error = decoding_error(codec, device)
        wanted = codec in (("h264", "hevc", "vp9") if gpu else ("vp9",))
        results.add(yes_or_no(f"{codec} decodes on {device.type}", error is None, detail=error or "", target=wanted))
    results.show("what this machine has")
    return results.finish()


def planned(config: FactsBench) -> float:
    """Seconds that a GPU machine should need at most."""
    return 20 + 5 * len(ENCODERS)


def driver_row(version: str) -> Row:
    """The NVIDIA driver, as in ``580.65.06``."""
    number = float(".".join(version.split(".")[:2])) if version[:1].isdigit() else None
    facts = {"driver": version, "remedy": f"install a driver of {LEAST_DRIVER} or newer: torch and DALI need CUDA 13"}
    return Row(title="NVIDIA driver", value=number, unit="version", at_least=LEAST_DRIVER, facts=facts)


def yes_or_no(title: str, yes: bool, *, detail: str = "", target: bool = True) -> Row:
    """A row that is 1 for yes; ``target``: whether it must be."""
    facts = {"why": detail} if detail else {}
    return Row(title=title, value=int(yes), unit="1 = yes", at_least=1 if target else None, facts=facts)


def decoding_error(codec: str, device: torch.device) -> str | None:
    """Decode a few frames of a new video and compare them; why it failed, or None."""
    try:
        video, mean = _video(codec)
    except Exception as error:  # an encoder that this build of FFmpeg lacks says nothing of the decoder
        return f"not tried, no encoder: {one_line(error)}"
    zero, side = np.zeros(1, np.int64), np.full(1, SIDE)
    requests = ClipRequests(zero, zero, zero, zero + 1, zero, zero, side, side, zero > 0, zero, np.zeros((1, 8), "f4"))
    try:
        batch = EncodedBatch(requests, [video], np.arange(FRAMES)[None], zero, zero + len(video))
        clip = decode_alone(batch, SIDE, device, np.array([[SIDE, SIDE]]))
    except RuntimeError as error:
        return decoder_message(error)
    off = (clip[0].float().mean((1, 2, 3)).cpu().numpy() - mean) if len(clip) else np.full(1, np.inf)
    return None if np.abs(off).max() < 3 else f"decoded frames are {np.abs(off).max():.0f} levels off"


def _video(codec: str) -> tuple[np.ndarray, np.ndarray]:
    """An MP4 file, uint8, of grey ramps that get brighter, and the mean level of each frame."""
    os.environ.setdefault("SVT_LOG", "1")  # else the AV1 encoder prints a page
    file = io.BytesIO()
    ramp = np.broadcast_to(np.linspace(0, 60, SIDE)[None, :, None], (SIDE, SIDE, 3))
    frames = [(ramp + 40 * n + 20).astype(np.uint8) for n in range(FRAMES)]
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(ENCODERS[codec], rate=30, options=FASTEST.get(ENCODERS[codec], {}))
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return np.frombuffer(file.getvalue(), np.uint8), np.array([frame.mean() for frame in frames])


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
