"""Other ways to get the same clips from the same shards, for comparison in the same run.

Each decoder turns the bytes of a whole video and frame numbers into uint8 (T, H, W, 3); crop and resize follow in
torchvision. ``unavailable`` says why a peer cannot run here.
"""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import nvidia.dali as dali
import torch
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import resized_crop

from ....pipeline.loading.gop_reader import ClipFile, GopReader
from ....pipeline.loading.sampler import TrainSampler, frame_numbers
from ....pipeline.shards.index import SampleIndex

Decode = Callable[[bytes, np.ndarray], torch.Tensor]


def decode_pyav(mp4: bytes, numbers: np.ndarray) -> torch.Tensor:
    """Seek to the key frame before the first frame, decode to the last one."""
    wanted = {int(n): [] for n in numbers}
    for row, n in enumerate(numbers.tolist()):
        wanted[n].append(row)
    out: dict[int, torch.Tensor] = {}
    last = int(numbers.max())
    with av.open(io.BytesIO(mp4), "r") as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        assert stream.average_rate and stream.time_base, "every converted video has a rate"
        step = 1 / (stream.average_rate * stream.time_base)
        container.seek(int(int(numbers.min()) * step), stream=stream)
        for frame in container.decode(stream):
            n = round((frame.pts or 0) / step)
            for row in wanted.get(n, ()):
                out[row] = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            if n >= last:
                break
    return torch.stack([out[row] for row in range(len(numbers))])


def decode_torchcodec(mp4: bytes, numbers: np.ndarray) -> torch.Tensor:
    """torchcodec on the CPU, approximate seeking (its faster mode)."""
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]  (optional)

    decoder = VideoDecoder(mp4, dimension_order="NHWC", seek_mode="approximate", num_ffmpeg_threads=1)
    return decoder.get_frames_at(numbers.tolist()).data


def decode_decord(mp4: bytes, numbers: np.ndarray) -> torch.Tensor:
    """decord on the CPU."""
    import decord  # pyright: ignore[reportMissingImports]  (optional)

    reader = decord.VideoReader(io.BytesIO(mp4), ctx=decord.cpu(0), num_threads=1)
    return torch.from_numpy(reader.get_batch(numbers.tolist()).asnumpy())


DECODERS: dict[str, Decode] = {
    "PyAV + DataLoader": decode_pyav,
    "torchcodec + DataLoader": decode_torchcodec,
    "decord + DataLoader": decode_decord,
}


def unavailable(decode: Decode) -> str | None:
    """Why a decoder cannot be used here, or None. It decodes two frames: torchcodec misses FFmpeg only then."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    try:
        decode(file.getvalue(), np.arange(2))
    except Exception as error:  # not installed, or without its libraries; each package has errors of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        wanted = "; pip install 'unstill[bench]'" if isinstance(error, ModuleNotFoundError) else ""
        return f"{type(error).__name__}: {reason}{wanted}"
    return None


class PeerDataset(Dataset):
    """The clips of a sampler, decoded one at a time by a peer: uint8 (T, size, size, 3).

    Args:
        root: dataset folder.
        sampler: says which clip a position is.
        positions: item n is the clip at ``positions[n]``.
        decode: one of ``DECODERS``.
    """

    def __init__(self, root: Path, sampler: TrainSampler, positions: np.ndarray, decode: Decode):
        self.root, self.sampler, self.positions, self.decode = root, sampler, positions, decode
        self.index: SampleIndex | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int) -> torch.Tensor:
        if self.index is None:  # opened in the worker process
            torch.set_num_threads(1)
            self.index = SampleIndex.load(self.root)
            self._files = [os.open(self.root / name, os.O_RDONLY) for name in self.index.shard_names]
        r, clip = self.sampler.draw(self.positions[item : item + 1]), self.sampler.clip
        sample = int(r.sample[0])
        mp4 = os.pread(
            self._files[int(self.index.shard[sample])],
            int(self.index.mp4_bytes[sample]),
            int(self.index.mp4_offset[sample]),
        )
        frames = np.asarray(self.index.frames[r.sample], np.int64)
        video = self.decode(mp4, frame_numbers(clip, r.start_frame, r.stride, frames)[0])
        top, left, height, width = (int(v[0]) for v in (r.top, r.left, r.height, r.width))
        size = [clip.size, clip.size]
        return resized_crop(video.permute(0, 3, 1, 2), top, left, height, width, size, antialias=True).permute(
            0, 2, 3, 1
        )


def peer_batches(dataset: PeerDataset, batch_size: int, workers: int) -> Iterator[torch.Tensor]:
    """uint8 (B, T, size, size, 3) from a DataLoader, as most training code does it."""
    context = "spawn" if workers else None  # forking a process that has CUDA or DALI threads is not safe
    yield from DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, multiprocessing_context=context, pin_memory=workers > 0
    )


def torchcodec_slices(
    slices: list[tuple[int, ClipFile, tuple[int, int, int, int]]], size: int
) -> Iterator[torch.Tensor]:
    """uint8 (1, T, size, size, 3) of our slices, decoded by torchcodec, cut and resized by torchvision."""
    for _, clip, (top, left, height, width) in slices:
        video = decode_torchcodec(clip.mp4.tobytes(), clip.frames).permute(0, 3, 1, 2)
        cut = resized_crop(video, top, left, height, width, [size, size], antialias=True)
        yield cut.permute(0, 2, 3, 1)[None]


def webdataset_batches(dataset: PeerDataset, batch_size: int) -> Iterator[torch.Tensor]:
    """The webdataset library reading the tars from end to end, PyAV decoding; as many clips as ``dataset`` has."""
    from webdataset.compat import WebDataset

    index, clip = SampleIndex.load(dataset.root), dataset.sampler.clip
    row = {key: n for n, key in enumerate(index.keys())}
    draws = dataset.sampler.draw(dataset.positions)
    turn = iter(range(len(dataset)))

    def decode(sample: dict) -> torch.Tensor:
        n, r = row[sample["__key__"]], draws.take([next(turn)])
        frames = int(index.frames[n])
        start = np.minimum(r.start_frame, max(0, frames - (clip.frames - 1) * clip.stride - 1))
        video = dataset.decode(sample["mp4"], frame_numbers(clip, start, r.stride, np.array([frames]))[0])
        side = min(video.shape[1:3])
        clips = resized_crop(video.permute(0, 3, 1, 2), 0, 0, side, side, [clip.size, clip.size], antialias=True)
        return clips.permute(0, 2, 3, 1)

    shards = [str(dataset.root / name) for name in index.shard_names]
    endless: Any = WebDataset(shards, shardshuffle=False, empty_check=False).repeat()  # typed without `map`
    clips = endless.map(decode)
    batch: list[torch.Tensor] = []
    for clip_number, one in enumerate(clips, 1):
        batch.append(one)
        if len(batch) == batch_size or clip_number == len(dataset):
            yield torch.stack(batch)
            batch = []
        if clip_number == len(dataset):
            return


class WholeFileReader(GopReader):
    """Reads whole videos instead of the GOPs that are needed: DALI's decoder fed the usual way."""

    def spans(self, sample: np.ndarray, first_frame: np.ndarray, last_frame: np.ndarray) -> np.ndarray:
        """int64 (n, 2): all fragments of each sample."""
        row = np.asarray(self.index.fragment_row)
        return np.stack([np.zeros(len(sample), np.int64), row[sample + 1] - row[sample]], axis=1)

    def clip(self, sample: int, frames: np.ndarray) -> ClipFile:
        """The whole video as it is in the shard."""
        row = self.index.fragment_row
        mp4 = self.read(sample, 0, int(row[sample + 1] - row[sample]))
        return ClipFile(mp4, frames, len(mp4))


def dali_webdataset_batches(
    root: Path, frames: int, stride: int, size: int, batch_size: int, threads: int, device: str
) -> Iterator[torch.Tensor]:
    """DALI alone: its own webdataset reader, whole files, a random start, endless; uint8 (B, T, size, size, 3)."""
    index, gpu = SampleIndex.load(root), device == "cuda"
    pipeline = Pipeline(
        batch_size=batch_size, num_threads=threads, device_id=0 if gpu else None, prefetch_queue_depth=2
    )
    with pipeline:
        mp4, table = fn.readers.webdataset(  # pyright: ignore[reportGeneralTypeIssues]  (DALI types one output only)
            paths=[str(root / name) for name in index.shard_names],
            ext=["mp4", "gops"],
            dtypes=[DALIDataType.UINT8, DALIDataType.INT32],
            random_shuffle=True,
            initial_fill=256,
            missing_component_behavior="error",
        )
        room = dali.math.max(table[0] - ((frames - 1) * stride + 1), 0) + 1
        start = fn.cast(
            dali.math.floor(fn.random.uniform(range=[0.0, 1.0]) * fn.cast(room, dtype=DALIDataType.FLOAT)),
            dtype=DALIDataType.INT32,
        )
        clip = fn.decoders.video(
            mp4,
            device="mixed" if gpu else "cpu",
            start_frame=dali.math.min(start, room - 1),
            stride=stride,
            sequence_length=frames,
            pad_mode="edge",
        )
        pipeline.set_outputs(fn.resize(clip, size=[size, size]))
    pipeline.build()
    while True:
        yield torch.from_dlpack(pipeline.run()[0].as_tensor())
