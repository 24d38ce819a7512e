"""Which codecs the decoder of a device understands, found out before the first step.

DALI reports a codec that it lacks in the same words as a damaged file; without this check a run on the wrong device
would put its whole dataset on the list of bad clips.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..errors import InputError
from ..shards.index import CODECS, SampleIndex
from .decode import ClipDecoder, EncodedBatch, decoder_message, picture_sizes
from .gop_reader import BadClip, GopReader
from .nvdec_limits import SIZES, check_nvdec
from .sampler import ClipRequests

CPU_CODECS = ("vp9", "vp8", "mjpeg")  # the libavcodec inside DALI 2.4 has no other decoder
GPU_CODECS = tuple(SIZES)
_PROBE_SIZE = 16  # pixels
_PROBES = 3  # intact samples that must fail before the codec is blamed


def codec_for(device: str | torch.device) -> Literal["h264", "vp9"]:
    """The codec to convert to for decoding on a device: VP9 for DALI's CPU decoder, H.264 for a GPU's."""
    return "h264" if torch.device(device).type == "cuda" else "vp9"


def first_frame(index: SampleIndex, reader: GopReader, sample: int) -> EncodedBatch:
    """A batch of one clip: the first frame of one sample, whole. Raises BadClip as ``GopReader.clip``."""
    one, none = np.ones(1, np.int64), np.zeros(1, np.int64)
    requests = ClipRequests(
        position=none,
        sample=none + sample,
        start_frame=none,
        stride=one,
        top=none,
        left=none,
        height=none + int(index.height[sample]),
        width=none + int(index.width[sample]),
        flip=np.zeros(1, bool),
        static_index=none,
        draws=np.zeros((1, 8), np.float32),
    )
    clip = reader.clip(sample, none)
    return EncodedBatch(requests, [clip.mp4], clip.frames[None], none, none + clip.bytes_read)


def check_codecs(index: SampleIndex, reader: GopReader, device: torch.device, root: str | Path) -> int | None:
    """Decode one frame of every codec in the dataset; on a GPU, first see that NVDEC takes its sizes.

    Returns:
        A sample that decodes here, to tell a broken decoder from a broken clip later; None if none was found.

    Raises:
        InputError: the device cannot decode a codec of the dataset, or a size; says what to convert to.
    """
    gpu, good = device.type == "cuda", None
    if gpu:
        check_nvdec(index, root)
    known = GPU_CODECS if gpu else CPU_CODECS
    remedy = codec_for(device)
    codec = np.asarray(index.codec)
    for number in np.unique(codec).tolist():
        name = CODECS[number] if number < len(CODECS) else f"codec {number}"
        refusal = f"{root}: its videos are {name}, which DALI cannot decode on {device}"
        if name not in known:
            raise InputError(f"{refusal}; run `unstill convert` with --codec {remedy}")
        errors = []
        for sample in np.flatnonzero(codec == number)[:_PROBES].tolist():
            try:
                probe = first_frame(index, reader, sample)
            except BadClip:
                continue  # damaged: says nothing about the codec
            try:
                decode_alone(probe, _PROBE_SIZE, device, picture_sizes(index))
            except RuntimeError as error:
                errors.append(error)
            else:
                good = sample
                errors.clear()
                break
        if errors:
            driver = ", or check the GPU's driver" if gpu else ""
            reason = decoder_message(errors[0])
            raise InputError(f"{refusal} ({reason}); run `unstill convert` with --codec {remedy}{driver}")
    return good


def decode_alone(clip: EncodedBatch, size: int, device: torch.device, pictures: np.ndarray) -> torch.Tensor:
    """Decode a batch of one clip in a pipeline of its own: uint8 (1, T, size, size, 3); raises as ``ClipDecoder``."""
    decoder = ClipDecoder(1, size, device, threads=1, depth=1, pictures=pictures)
    decoder.submit(clip)
    return decoder.collect()
