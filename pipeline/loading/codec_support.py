"""Which decoder a dataset gets on this machine, determined by decoding before the first step.

DALI reports a codec that it lacks in the same words as a damaged file; without this check a run on the wrong device
would put its whole dataset on the list of bad clips.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..errors import InputError
from ..shards.index import CODECS, SampleIndex
from .decode import ClipDecoder, decoder_message
from .decoders import DecoderMaker, DecoderName
from .encoded_batch import EncodedBatch
from .frame_decoder import CORES_CODECS
from .gop_reader import BadClip, GopReader
from .nvdec_limits import SIZES, check_nvdec
from .precautions import Precautions
from .sampler import ClipRequests

CPU_CODECS = ("vp9", "vp8", "mjpeg")  # the libavcodec inside DALI 2.4 has no other decoder
GPU_CODECS = tuple(SIZES)
_PROBE_SIZE = 16  # pixels
_PROBES = 3  # intact samples that must fail before the codec is blamed
_NONE = Precautions()
_SAID = {"dali": "DALI", "cores": "libavcodec"}


@dataclass(frozen=True)
class DecoderChoice:
    """The decoder of a run.

    Attributes:
        name: dali, cores or both.
        reason: why, a few words.
        known_good: a sample that it decodes here, to tell a broken decoder from a broken clip later; None if none was
            found.
    """

    name: DecoderName
    reason: str
    known_good: int | None


def codec_for(device: str | torch.device) -> Literal["h264", "vp9"]:
    """The codec to convert to for decoding with DALI on a device: VP9 for its CPU decoder, H.264 for a GPU's."""
    return "h264" if torch.device(device).type == "cuda" else "vp9"


def choose_decoder(
    index: SampleIndex,
    reader: GopReader,
    device: torch.device,
    root: str | Path,
    wanted: Literal["auto", "dali", "cores", "both"],
    precautions: Precautions = _NONE,
) -> DecoderChoice:
    """The decoder that is asked for, or the best one here.

    Args:
        index, reader: the dataset.
        device: where clips go.
        root: the dataset's name, for messages.
        wanted: which.
        precautions: with isolation it is the cores.

    Raises:
        InputError: it does not decode a codec of the dataset here; says what to do.
    """
    if precautions.isolation is not None:
        good = check_codecs(index, reader, device, root, "cores", precautions)
        return DecoderChoice("cores", "in processes of their own", good)
    if wanted == "both":
        check_codecs(index, reader, device, root, "dali", precautions)
    if wanted != "auto":
        name: DecoderName = "dali" if wanted == "dali" else "cores"
        return DecoderChoice(wanted, "as configured", check_codecs(index, reader, device, root, name, precautions))
    refused: InputError | None = None
    known = GPU_CODECS if device.type == "cuda" else CPU_CODECS
    names = [_codec_name(number) for number in np.unique(np.asarray(index.codec)).tolist()]
    lacking = [name for name in names if name not in known]
    if lacking:
        reason = f"DALI cannot decode {', '.join(lacking)} on {device.type}"
    else:
        where = "the GPU's decoders" if device.type == "cuda" else "the processor"
        try:
            good = check_codecs(index, reader, device, root, "dali", precautions)
            return DecoderChoice("dali", f"DALI decodes {', '.join(names)} on {where}", good)
        except InputError as error:
            refused = error
            reason = f"DALI fails on {device.type}"
    try:
        return DecoderChoice("cores", reason, check_codecs(index, reader, device, root, "cores", precautions))
    except InputError:
        if refused is None:
            raise
        raise refused from None


def first_frames(index: SampleIndex, reader: GopReader, sample: int) -> EncodedBatch:
    """A batch of one clip: the first two frames of one sample, whole pictures. Raises BadClip as ``GopReader.clip``.

    Two, so that a device on which the check of ``clip_groups`` fails is found out before the first step.
    """
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
    clip = reader.clip(sample, np.arange(min(2, int(index.frames[sample]))))
    return EncodedBatch(
        requests, [clip.mp4], clip.frames[None], none, none + clip.bytes_read, [clip.table] if clip.table else []
    )


def check_codecs(
    index: SampleIndex,
    reader: GopReader,
    device: torch.device,
    root: str | Path,
    decoder: Literal["dali", "cores"] = "dali",
    precautions: Precautions = _NONE,
) -> int | None:
    """Decode two frames of a video of every codec in the dataset; for NVDEC, first see that it takes its sizes.

    Returns:
        A sample that decodes here, to tell a broken decoder from a broken clip later; None if none was found.

    Raises:
        InputError: the decoder lacks a codec of the dataset, or a size; names another decoder and another codec.
    """
    gpu, good = device.type == "cuda", None
    if gpu and decoder == "dali":
        check_nvdec(index, root)
    known = CORES_CODECS if decoder == "cores" else GPU_CODECS if gpu else CPU_CODECS
    remedy = _remedy(decoder, device)
    codec = np.asarray(index.codec)
    maker = DecoderMaker(decoder, index, _PROBE_SIZE, device, precautions=precautions)
    with contextlib.closing(maker):
        for number in np.unique(codec).tolist():
            name = _codec_name(number)
            refusal = f"{root}: its videos are {name}, which {_SAID[decoder]} cannot decode on {device}"
            if name not in known:
                raise InputError(f"{refusal}; {remedy}")
            samples = np.setdiff1d(np.flatnonzero(codec == number), list(precautions.left_out))[:_PROBES].tolist()
            decoded, errors = _probe(maker, reader, samples)
            good = decoded if decoded is not None else good
            if errors:
                raise InputError(f"{refusal} ({decoder_message(errors[0])}); {remedy}")
    return good


def _probe(maker: DecoderMaker, reader: GopReader, samples: list[int]) -> tuple[int | None, list[RuntimeError]]:
    """The first of some samples that decodes; or the errors of those that do not."""
    errors = []
    for sample in samples:
        try:
            probe = first_frames(maker.index, reader, sample)
        except BadClip:
            continue  # damaged: says nothing about the codec
        try:
            maker.alone(probe)
        except RuntimeError as error:
            errors.append(error)
        else:
            return sample, []
    return None, errors


def decode_alone(clip: EncodedBatch, size: int, device: torch.device, pictures: np.ndarray) -> torch.Tensor:
    """Decode a batch of one clip with DALI: uint8 (1, T, size, size, 3); raises as ``ClipDecoder``."""
    decoder = ClipDecoder(1, size, device, threads=1, depth=1, pictures=pictures)
    decoder.submit(clip)
    return decoder.collect()


def _codec_name(number: int) -> str:
    return CODECS[number] if number < len(CODECS) else f"codec {number}"


def _remedy(decoder: Literal["dali", "cores"], device: torch.device) -> str:
    """Another decoder, or another codec."""
    other = "--loader.decoder cores (libavcodec on the processor)" if decoder == "dali" else "--loader.decoder dali"
    driver = ", or check the GPU's driver" if device.type == "cuda" else ""
    codec = codec_for(device) if decoder == "dali" else "h264"
    return f"give {other}, or run `unstill convert` with --codec {codec}{driver}"
