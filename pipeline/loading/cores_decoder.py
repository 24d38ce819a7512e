"""Decoding on the processor with libavcodec, one clip per thread at a time (``frame_decoder.py``).

<<<<<<< HEAD
Packets are cut from the slice by its table and go straight into a decoder that is kept from clip to clip, so there is
no demuxer. Only wanted frames are converted: cut, scaled and turned to RGB by one chain of swscale. Measured against
torchcodec and others on the same files in `bench/results/loader-cpu.json`.

Frames agree with DALI's up to rounding and the border of the crop, where DALI filters with pixels beyond it
=======
Measured beside torchcodec and others on the same files in `bench/results/loader-cpu.json`. Frames agree with DALI's up
to rounding and the border of the crop, where DALI filters with pixels beyond it
>>>>>>> safe
(`tests/pipeline/loading/test_cores_decoder.py` states the levels).
"""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import av.error
import numpy as np
import torch

from ..shards.index import CODECS, SampleIndex
from .decode import picture_sizes
from .encoded_batch import EncodedBatch
from .frame_decoder import CORES_CODECS, CannotDecode, KeptDecoders
from .isolated_decoder import FrameDecoder
from .precautions import Precautions


class CoresDecoder:
    """``Decoder`` on CPU threads, for clips in the processor's memory or, through pinned memory, on a GPU.

    Args:
        index: the dataset; says the codec and the size of each sample.
        size: side of the delivered frames, pixels.
        device: where the clips go.
        threads: clips that are decoded at a time.
        precautions: with isolation each thread decodes in a process of its own.
    """

    def __init__(
        self,
        index: SampleIndex,
        size: int,
        device: torch.device,
        threads: int,
        precautions: Precautions | None = None,
    ):
        self._device, self._size = device, size
        self._isolation = precautions.isolation if precautions else None
        self._in_flight = precautions.in_flight if precautions and not self._isolation else None
        self._made: list[FrameDecoder] = []
        self._codec, self._pictures = np.asarray(index.codec), picture_sizes(index)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="clip-decoder")
        self._own = threading.local()
        self._queue: deque[tuple[torch.Tensor, list[Future]]] = deque()

    def submit(self, batch: EncodedBatch) -> None:
        """Queue a batch; its clips are decoded as threads become free."""
        shape = (*batch.frames.shape, self._size, self._size, 3)
        clips = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        out = clips.numpy()
        self._queue.append((clips, [self._pool.submit(self._decode, batch, row, out) for row in range(len(batch))]))

    def collect(self, stream: "torch.cuda.Stream | None" = None) -> torch.Tensor:
        """The clips of the oldest batch, see ``Decoder``."""
        clips, parts = self._queue.popleft()
        errors = [error for part in parts if (error := part.exception()) is not None]  # waits for all of them
        if errors:
            raise errors[0]
        if self._device.type == "cpu":
            return clips
        with torch.cuda.stream(stream):
            return clips.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Stop the threads, and the processes of theirs."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for decoder in self._made:
            decoder.close()
        self._made.clear()

    def _new_decoder(self) -> FrameDecoder:
        decoder = KeptDecoders(self._size) if self._isolation is None else self._isolation.decoder(self._size)
        self._made.append(decoder)
        return decoder

    def _decode(self, batch: EncodedBatch, row: int, out: np.ndarray) -> None:
        if not hasattr(self._own, "decoder"):
            self._own.decoder = self._new_decoder()
        r = batch.requests
        sample = int(r.sample[row])
        number, (height, width) = int(self._codec[sample]), self._pictures[sample].tolist()
        top, left = (min(max(int(v[row]), 0), most - 1) for v, most in ((r.top, height), (r.left, width)))
        region = (top, left, min(int(r.height[row]), height - top), min(int(r.width[row]), width - left))
        name = CORES_CODECS.get(CODECS[number] if number < len(CODECS) else "")
        if name is None:
            raise CannotDecode(f"codec {number} of the index has no decoder in libavcodec")
        slot = self._in_flight.begin(sample) if self._in_flight is not None else None
        try:
            self._own.decoder.clip(
                name, batch.encoded[row], batch.tables[row], batch.frames[row], (width, height), region, out[row]
            )
        except (av.error.FFmpegError, ValueError) as error:
            self._own.decoder.forget()
            raise CannotDecode(" ".join(str(error).split()) or type(error).__name__) from error
<<<<<<< HEAD


class KeptDecoders:
    """The decoders and scalers of one thread.

    Args:
        size: side of the delivered frames, pixels.
    """

    def __init__(self, size: int):
        self._size = size
        self._contexts: OrderedDict[tuple[str, bytes], av.VideoCodecContext] = OrderedDict()
        self._scalers: OrderedDict[tuple, _Scaler] = OrderedDict()

    def forget(self) -> None:
        """After an error, start with new decoders."""
        self._contexts.clear()

    def clip(
        self,
        codec: str,
        mp4: np.ndarray,
        table: SliceTable,
        frames: np.ndarray,
        picture: tuple[int, int],
        region: tuple[int, int, int, int],
        out: np.ndarray,
    ) -> None:
        """Decode the frames numbered ``frames`` in the order shown into ``out``, uint8 (T, size, size, 3).

        Raises:
            ValueError, av.error.FFmpegError: that is not possible.
        """
        context = self.context(codec, decoder_parameters(table.track.description))
        rows: dict[int, int] = {}
        for row, number in enumerate(frames.tolist()):
            rows.setdefault(number, row)
        missing = len(rows)
        for frame in decoded_frames(context, mp4, table):
            row = rows.get(frame.pts if frame.pts is not None else -1)
            if row is None:
                continue
            if frame.is_corrupt:
                raise ValueError("a frame is damaged")
            if (frame.width, frame.height) != picture:
                raise ValueError(
                    f"its pictures are {frame.width}x{frame.height}, the index says {picture[0]}x{picture[1]}"
                )
            self._scaler(frame, region).scale(frame, region, out[row])
            missing -= 1
            if not missing:
                break
        if missing:
            raise ValueError(f"{missing} of its frames do not come out of the decoder")
        for row, number in enumerate(frames.tolist()):
            if rows[number] != row:  # a short video, whose frames are repeated
                out[row] = out[rows[number]]

    def context(self, codec: str, parameters: bytes) -> av.VideoCodecContext:
        """A decoder at its beginning, by its name in libavcodec and what ``decoder_parameters`` found."""
        key = (codec, parameters)
        context = self._contexts.get(key)
        if context is not None:
            context.flush_buffers()
            self._contexts.move_to_end(key)
            return context
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_count, context.thread_type = 1, "NONE"
        context.options = {"err_detect": "explode"}  # an error instead of a guessed picture
        if parameters:
            context.extradata = parameters
        return _keep(self._contexts, key, context)

    def _scaler(self, frame: av.VideoFrame, region: tuple[int, int, int, int]) -> "_Scaler":
        full = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
        top, left, height, width = (n % 2 for n in region)
        rows, columns = (_CHROMA + _ODD_START * a + _ODD_SIZE * b for a, b in ((top, height), (left, width)))
        key = (frame.width, frame.height, frame.format.name, full, rows, columns)
        if key not in self._scalers:
            return _keep(self._scalers, key, _Scaler(*key, self._size))
        self._scalers.move_to_end(key)
        return self._scalers[key]


class _Scaler:
    """Cuts a region of frames of one size, scales it to a square of RGB; the chain of filters is kept.

    Through planar RGB, for which swscale has vector code and colours at every pixel: 55 us for 112x112, 75 us and half
    the resolution in colours when it writes RGB pixels at once.
    """

    def __init__(self, width: int, height: int, form: str, full: bool, rows: int, columns: int, size: int):
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(form), time_base=Fraction(1, 30)
        )
        self._crop = self._graph.add("crop", f"w={width}:h={height}:x=0:y=0:exact=1")
        # DALI takes every video for BT.601, and the converter makes it so
        colours = f"in_color_matrix=bt601:in_range={'pc' if full else 'tv'}:out_range=pc"
        place = f"in_h_chr_pos={columns}:in_v_chr_pos={rows}"
        chain = [
            source,
            self._crop,
            self._graph.add("scale", f"{size}:{size}:flags={_FILTER}:{colours}:{place}"),
            self._graph.add("format", "pix_fmts=gbrp"),
            self._graph.add("scale", f"{size}:{size}"),
            self._graph.add("format", "pix_fmts=rgb24"),
            self._graph.add("buffersink"),
        ]
        self._graph.link_nodes(*chain).configure()
        self._region = (0, 0, height, width)

    def scale(self, frame: av.VideoFrame, region: tuple[int, int, int, int], out: np.ndarray) -> None:
        """Put ``region`` (top, left, height, width) of a frame into ``out``, uint8 (size, size, 3)."""
        if region != self._region:
            self._aim(*region)
        self._graph.vpush(frame)
        plane = self._graph.vpull().planes[0]
        side = out.shape[0]
        out[:] = (
            np.frombuffer(memoryview(plane), np.uint8).reshape(side, plane.line_size)[:, : 3 * side].reshape(out.shape)
        )

    def _aim(self, top: int, left: int, height: int, width: int) -> None:
        # the position goes to 0 first: the filter checks the region at every command
        for name, value in (("x", 0), ("y", 0), ("w", width), ("h", height), ("x", left), ("y", top)):
            self._crop.process_command(name, str(value), 0)
        self._region = (top, left, height, width)


def decoded_frames(context: av.VideoCodecContext, mp4: np.ndarray, table: SliceTable):
    """All frames; ``pts`` is the place in the order shown."""
    data, position = mp4.data, len(mp4) - sum(table.sizes)
    for size, place in zip(table.sizes, table.shown, strict=True):
        packet = av.Packet(bytes(data[position : position + size]))
        packet.pts = place
        position += size
        yield from context.decode(packet)
    yield from context.decode(None)


def decoder_parameters(description: bytes) -> bytes:
    """The decoder's part of the sample description; empty for codecs that need nothing."""
    position = _ENTRY
    while position + 8 <= len(description):
        size, kind = struct.unpack_from(">I4s", description, position)
        if kind in _CONFIGURATION:
            return description[position + 8 : position + size]
        if size < 8:
            break
        position += size
    return b""


def _keep(kept: OrderedDict, key, value):
    kept[key] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
    return value
=======
        finally:
            if self._in_flight is not None:
                self._in_flight.end(slot)
>>>>>>> safe
