"""How hard the loader works."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..options import at_least, between, check_options


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How hard the loader works; none of it changes what is delivered, except ``max_bad_fraction`` and
    (within 2 levels on average) ``decoder``."""

    decoder: Literal["auto", "dali", "cores", "both"] = "auto"
    """What decodes. dali: the GPU's decoders, on a CPU VP9 only. cores: libavcodec on the processor, any codec, for a
    CPU or a GPU. both: the two share every batch by their speed; pixels then repeat only within what they differ by.
    auto: dali where it decodes the dataset, else cores."""
    isolate: bool = False
    """Decode in fenced processes, one for each of `core_threads`: a video that crashes or takes over the decoder costs
    a clip and not the run. With `decoder` cores, which auto then means."""
    decode_threads: int = 0
    """DALI threads per pipeline; 0: on a GPU a process's share of the cores less 4, from 4 to 12 in all; on a CPU its
    share, at most 4."""
    core_threads: int = 0
    """Threads that decode with libavcodec; 0: on a CPU the cores but at most 4, with a GPU all cores of a process but
    one."""
    pipelines: int = 0
    """DALI pipelines that take batches in turn; 0: two on a GPU where a batch has fewer clips than there are threads,
    which they then share; one elsewhere, or where `decode_threads` is given."""
    depth: int = 2
    """Batches each DALI pipeline works on ahead."""
    read_threads: int = 0
    """Threads that read and check bytes; 0: 4 on a GPU, 1 on a CPU."""
    read_ahead: int = 4
    """Batches whose bytes are read before the decoder asks for them."""
    ready: int = 2
    """Finished batches kept waiting for the training loop."""
    remote: Literal["ranges", "shards"] = "ranges"
    """How a remote dataset is read. ranges: the bytes of each clip, many requests at a time, kept in blocks. shards:
    whole shards, checked against their SHA-256 before they are used: for a run that needs all of them soon."""
    remote_requests: int = 32
    """Ranges that are fetched at a time."""
    cache: Path = Path("~/.cache/unstill")
    """Folder for what was fetched of a remote dataset."""
    cache_gb: float = 200.0
    """Largest total size of one dataset's shards in the cache, in 10^9 bytes."""
    max_bad_fraction: float | None = None
    """Share of samples that may turn out damaged before the run stops; by default 0.001 in training (at least one
    sample) and 0 in an evaluation, which must not shrink silently."""

    leave_out: Path | None = None
    """Text file with the keys of samples that are not decoded, one a line; others take their places. A run that was
    killed leaves such a list of what it was decoding, clips_in_flight.txt."""

    def __post_init__(self):
        check_options(
            self,
            "loader.",
            decode_threads=at_least(0),
            core_threads=at_least(0),
            remote_requests=at_least(1),
            pipelines=at_least(0),
            depth=at_least(1),
            read_threads=at_least(0),
            read_ahead=at_least(1),
            ready=at_least(1),
            max_bad_fraction=between(0, 1, "a share of the samples"),
        )
        if self.isolate and self.decoder not in ("auto", "cores"):
            raise InputError(
                f"loader.decoder is {self.decoder} with loader.isolate, expected cores: DALI decodes in this process"
            )
