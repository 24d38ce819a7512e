"""Makes decoders: DALI, the processor's cores, or both."""

import functools
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from ..shards.index import SampleIndex
from .cores_decoder import CoresDecoder
from .decode import ClipDecoder, picture_sizes
from .encoded_batch import Decoder, EncodedBatch
from .grouped_decoder import GroupedClipDecoder
from .in_flight import RecordedDecoder
from .precautions import Precautions
from .shared_decoder import SharedDecoder

DecoderName = Literal["dali", "cores", "both"]
GROUPED_ON: tuple[str, ...] = ("cuda",)  # kinds of device where DALI decodes several clips as one file


@dataclass(frozen=True)
class DecoderMaker:
    """Everything that decoders of one run share.

    Attributes:
        name: dali, cores (libavcodec on CPU threads), or both, sharing every batch.
        index: the dataset.
        size: side of the delivered frames, pixels.
        device: where clips are delivered; DALI decodes there, too.
        threads: of each DALI pipeline.
        core_threads: of decoding on the cores.
        depth: batches that a decoder works on ahead.
        precautions: against videos that crash a decoder.
    """

    name: DecoderName
    index: SampleIndex
    size: int
    device: torch.device
    threads: int = 1
    core_threads: int = 1
    depth: int = 1
    precautions: Precautions = field(default_factory=Precautions)

    def new(self, batch_size: int, stream: "torch.cuda.Stream | None" = None) -> Decoder:
        """A decoder for batches of up to ``batch_size`` clips; ``stream``: on a GPU, where results are ready."""
        if self.name == "cores":
            return self._cores(self.core_threads)
        pictures = picture_sizes(self.index)
        # a pipeline of DALI that runs out of work ends; with a queue of one batch it is asked for no more than it has
        depth = self.depth if self.name == "dali" else 1
        kind = GroupedClipDecoder if self.device.type in GROUPED_ON else ClipDecoder
        dali: Decoder = kind(batch_size, self.size, self.device, self.threads, depth, pictures)
        if self.precautions.in_flight is not None:
            dali = RecordedDecoder(dali, self.precautions.in_flight)
        if self.name == "dali":
            return dali
        return SharedDecoder(((dali, depth), (self._cores(self.core_threads), self.depth)), stream)

    def close(self) -> None:
        """Stop what ``alone`` keeps."""
        kept = self.__dict__.pop("_alone_in_a_child", None)
        if kept is not None:
            kept.close()

    def _cores(self, threads: int) -> CoresDecoder:
        return CoresDecoder(self.index, self.size, self.device, threads, self.precautions)

    @functools.cached_property
    def _alone_in_a_child(self) -> CoresDecoder:
        """Kept from clip to clip: a child takes half a second to start."""
        return self._cores(1)

    def alone(self, clip: EncodedBatch) -> torch.Tensor:
        """Decode a batch of one clip with a decoder of its own: uint8 (1, T, size, size, 3).

        Where two decoders share the work it is always the cores, so that no clip is good or bad by chance.

        Raises:
            RuntimeError: it cannot be decoded.
        """
        if self.precautions.isolation is not None:
            self._alone_in_a_child.submit(clip)
            return self._alone_in_a_child.collect()
        name: DecoderName = "cores" if self.name == "both" else self.name
        decoder = replace(self, name=name, threads=1, core_threads=1, depth=1).new(1)
        try:
            decoder.submit(clip)
            return decoder.collect()
        finally:
            decoder.close()
