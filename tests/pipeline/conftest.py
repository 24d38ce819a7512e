"""Small real datasets: videos encoded here and written to shards with their index, one fragment per GOP."""

import io
import itertools
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.loading.nvdec_limits import SIZES
from unstill.pipeline.shards.fragments import fragment_table
from unstill.pipeline.shards.index import CODECS, INDEX_NAME, SampleIndex

ENCODERS = {"vp9": "libvpx-vp9", "mjpeg": "mjpeg", "h264": "libx264", "hevc": "libx265"}
OPTIONS = {
    "vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0", "auto-alt-ref": "0", "lag-in-frames": "0"},
    "mjpeg": {"q:v": "4"},
    "h264": {"preset": "ultrafast", "bf": "0", "sc_threshold": "0"},
    "hevc": {"preset": "ultrafast", "x265-params": "bframes=0:open-gop=0:scenecut=0:log-level=none"},
}


def moving_picture(frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """uint8 (frames, height, width, 3): smooth drifting colours, so that frames differ and survive compression."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, 6)
    t, y, x = np.arange(frames)[:, None, None, None], np.arange(height)[:, None, None], np.arange(width)[:, None]
    along, across = 0.11 * x + 0.35 * t + phase[:3], 0.13 * y - 0.23 * t + phase[3:]
    return np.clip(127 + 80 * np.sin(along) + 40 * np.cos(across), 0, 255).astype(np.uint8)


def encode_video(pictures: np.ndarray, codec: str, gop: int) -> bytes:
    """A fragmented MP4 with one fragment per GOP."""
    file = io.BytesIO()
    flags = "frag_keyframe+empty_moov+default_base_moof+skip_trailer"
    with av.open(file, "w", format="mp4", options={"movflags": flags, "strict": "unofficial"}) as container:
        stream = container.add_stream(ENCODERS[codec], rate=30)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"g": str(gop), "keyint_min": str(gop)} | OPTIONS.get(codec, {})
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def decode_with_pyav(mp4: bytes) -> torch.Tensor:
    """float64 (n, H, W, 3) in [0, 255]: PyAV's planes, chroma enlarged bilinearly, BT.601 in full or limited range."""
    with av.open(io.BytesIO(mp4)) as container:
        return torch.stack([_rgb(frame) for frame in container.decode(video=0)])


def _rgb(frame: av.VideoFrame) -> torch.Tensor:
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width]
        planes.append(torch.from_numpy(rows.astype(np.float64)))
    luma, *chroma = planes
    cb, cr = (
        torch.nn.functional.interpolate(c[None, None], size=luma.shape, mode="bilinear")[0, 0] - 128 for c in chroma
    )
    if frame.format.name == "yuv420p":  # limited range; yuvj420p is full
        luma, cb, cr = (luma - 16) * 255 / 219, cb * 255 / 224, cr * 255 / 224
    rgb = [luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb]
    return torch.stack(rgb, dim=-1).clamp(0, 255)


@dataclass
class Video:
    """One sample to be: its MP4, and what the index says of it whether it is true or not."""

    mp4: bytes
    codec: str
    frames: int
    height: int
    width: int
    gop: int
    label: int = 0
    table: tuple[int, np.ndarray] | None = None
    layers: int = 1


def make_video(frames=20, height=64, width=96, codec="vp9", gop=6, seed=0, label=0) -> Video:
    """A video of moving colours."""
    mp4 = encode_video(moving_picture(frames, height, width, seed), codec, gop)
    return Video(mp4, codec, frames, height, width, 1 if codec == "mjpeg" else gop, label)


def make_gpu_video(frames=20, height=160, width=176, codec="h264", gop=6, seed=0, label=0) -> Video:
    """As ``make_video``, of a size that NVDEC decodes."""
    least = SIZES[codec].least
    if width < least[0] or height < least[1]:
        raise ValueError(f"{codec} {width}x{height}: NVDEC decodes none below {least[0]}x{least[1]}")
    return make_video(frames, height, width, codec, gop, seed, label)


def pytest_collection_modifyitems(items):
    # who needs a GPU is not run here: this is the only place where a video that NVDEC refuses can be noticed
    small = {"video", "small_dataset", "class_folders"}
    for item in items:
        if item.get_closest_marker("gpu") and (found := small & {*item.fixturenames}):
            raise pytest.UsageError(f"{item.nodeid} is marked gpu and uses {found.pop()}: take gpu_video")


def write_dataset(root: Path, videos: list[Video], per_shard: int = 4, classes=("a", "b", "c", "d")) -> Path:
    """Shards and their index."""
    (root / "shards").mkdir(parents=True)
    rows, ends, crcs, names = [], [], [], []
    for first in range(0, len(videos), per_shard):
        names.append(f"shards/{len(names):05d}.tar")
        with tarfile.open(root / names[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, video in enumerate(videos[first : first + per_shard], first):
                member = tarfile.TarInfo(f"video_{number}.mp4")
                member.size = len(video.mp4)
                offset = tar.offset + 512
                tar.addfile(member, io.BytesIO(video.mp4))
                init, offsets = video.table or fragment_table(video.mp4)
                rows.append((len(names) - 1, offset, len(video.mp4), init, zlib.crc32(video.mp4[:init])))
                ends.append(offsets[1:])
                crcs += [zlib.crc32(video.mp4[a:b]) for a, b in itertools.pairwise(offsets)]
    shard, offset, size, init, init_crc = np.array(rows, dtype=np.int64).T
    keys = [f"video_{number}".encode() for number in range(len(videos))]

    def column(values, dtype):
        return np.array(list(values), dtype=dtype)

    SampleIndex(
        shard=shard.astype(np.int32),
        mp4_offset=offset,
        mp4_bytes=size.astype(np.uint32),
        init_bytes=init.astype(np.uint32),
        init_crc=init_crc.astype(np.uint32),
        frames=column((v.frames for v in videos), np.int32),
        fps_milli=np.full(len(videos), 30000, np.int32),
        label=column((v.label for v in videos), np.int32),
        gop=column((v.gop for v in videos), np.uint16),
        width=column((v.width for v in videos), np.uint16),
        height=column((v.height for v in videos), np.uint16),
        codec=column((CODECS.index(v.codec) for v in videos), np.uint8),
        fragment_row=np.cumsum([0, *map(len, ends)], dtype=np.int64),
        fragment_end=np.concatenate(ends).astype(np.uint32),
        fragment_crc=np.array(crcs, dtype=np.uint32),
        key_end=np.cumsum([len(key) for key in keys], dtype=np.int64),
        key_text=np.frombuffer(b"".join(keys), np.uint8),
        shard_names=tuple(names),
        classes=classes,
        layers=column((v.layers for v in videos), np.uint8),
    ).save(root / INDEX_NAME)
    return root


@pytest.fixture(scope="session")
def video():
    """The function ``make_video``."""
    return make_video


@pytest.fixture(scope="session")
def gpu_video():
    """The function ``make_gpu_video``, for tests that are marked gpu."""
    return make_gpu_video


@pytest.fixture(scope="session")
def dataset():
    """The function ``write_dataset``."""
    return write_dataset


@pytest.fixture(scope="session")
def pyav_frames():
    """The function ``decode_with_pyav``."""
    return decode_with_pyav


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory) -> Path:
    """Ten VP9 videos of 8 to 35 frames in two sizes, three shards; read-only."""
    videos = [
        make_video(frames=8 + 3 * n, height=64 if n % 3 else 48, width=96 if n % 3 else 64, seed=n, label=n % 4)
        for n in range(10)
    ]
    return write_dataset(tmp_path_factory.mktemp("small") / "data", videos)


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory) -> Path:
    """Source folder of two classes: seven VP9 videos of 5 to 11 frames and a web page named .mp4; read-only."""
    root = tmp_path_factory.mktemp("source")
    for number in range(7):
        folder = root / ("hop" if number % 2 else "skip") / ("deep" if number == 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03d}.mp4").write_bytes(make_video(frames=5 + number, height=48, width=64, seed=number).mp4)
    (root / "hop" / "page.mp4").write_text("<html>not found</html>")
    return root


@pytest.fixture(scope="session")
def convert_config():
    """Makes a ``ConvertConfig`` for small VP9 videos: three a shard, GOPs of four."""

    def make(source: Path, out: Path, **changes) -> ConvertConfig:
        options = {"codec": "vp9", "short_side": 32, "gop": 4, "samples_per_shard": 3, "workers": 1}
        return ConvertConfig(source=source, out=out, **{**options, **changes})

    return make


@pytest.fixture(scope="session")
def converted(class_folders, convert_config, tmp_path_factory) -> Path:
    """The dataset that ``class_folders`` converts to: three shards, one video quarantined; read-only."""
    out = tmp_path_factory.mktemp("converted") / "data"
    report = convert(convert_config(class_folders, out))
    assert (report.planned, report.converted, report.quarantined) == (8, 7, 1)
    return out
