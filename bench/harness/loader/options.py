"""Options of `unstill bench loader`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ....pipeline.loading.sampler import ClipConfig


@dataclass(frozen=True, kw_only=True)
class LoaderBench:
    """Measure the clip loader beside its peers, or find the best setting for your own shards (``--data``)."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    data: str | None = None
    """Your own shards, a folder or an address: only they are measured, over decoders, threads and queues, and the best
    setting is printed as flags of `unstill train`."""
    clip: ClipConfig = field(default_factory=lambda: ClipConfig(frames=16, stride=2))
    """With --data: the clips."""
    batch: int = 16
    """With --data: clips in a batch."""
    videos: Path | None = None
    """Where to keep the synthetic datasets; a temporary folder by default."""
    rounds: int = 5
    """Times every path is measured, in turns."""
    clips: int = 24
    """Clips per path and round on the CPU."""
    seconds: float = 5.0
    """Duration of each measurement on the GPU, and with --data."""
    device: str | None = None
    """cpu or cuda; by default what there is."""
    codecs: tuple[Literal["h264", "hevc"], ...] = ("h264",)
    """GPU: codecs of the videos. NVDEC of the Hopper generation decodes HEVC faster than H.264."""
    count: int = 128
    """GPU: videos of each codec."""
    threads: tuple[int, ...] = (7, 14, 16, 28)
    """GPU: DALI threads to try, which are decoder sessions; an H100 has 7 decoders."""
    pipelines: tuple[int, ...] = (1, 2)
    """GPU: DALI pipelines to try with each number of threads."""
    peers: bool = True
    """GPU: also the other loaders, and clips by where they start."""
