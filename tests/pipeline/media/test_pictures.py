"""convert, predict and ood see a video as people do, and alike: upright, square pixels, deinterlaced, without HDR."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter

from unstill.pipeline.conversion.convert import ConvertConfig
from unstill.pipeline.conversion.sandbox.pictures import shown_frames
from unstill.pipeline.conversion.transcode import Transcoded, transcode
from unstill.pipeline.errors import InputError
from unstill.pipeline.media.pictures import Pictures
from unstill.pipeline.media.tone_mapping import HLG, KNEE, PQ, REFERENCE_WHITE, to_sdr
from unstill.pipeline.ood.video_files import read_frames


def corners(width=96, height=64) -> np.ndarray:
    """uint8 (H, W, 3): one colour in each corner, so that turns and flips show."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = (200, 40, 40), (40, 180, 60)
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = (50, 60, 210), (128, 128, 128)
    return picture


def write(path: Path, pictures, *, codec="libx264", pix_fmt="yuv420p", tags=None, rotate=0, aspect=None, options=None):
    """A video file; ``tags`` are attributes of the encoder and of each frame (colour space, range, transfer)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {"crf": "8", "preset": "ultrafast"})
        first = pictures[0]
        stream.height, stream.width = (
            (first.height, first.width) if isinstance(first, av.VideoFrame) else first.shape[:2]
        )
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        for name, value in (tags or {}).items():
            setattr(context, name, value)
        if aspect:
            context.sample_aspect_ratio = aspect
        if rotate:
            stream.set_display_rotation(rotate)
        for picture in pictures:
            frame = (
                picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture, format="rgb24")
            )
            if frame.format.name == "rgb24":
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace=(tags or {}).get("colorspace"),
                    dst_color_range=(tags or {}).get("color_range"),
                )
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def converted(path: Path, **changes) -> tuple[np.ndarray, Transcoded]:
    """The frames of what convert makes of it, RGB, and the conversion."""
    recipe = replace(ConvertConfig(source="", out="", codec="h264", quality=6).recipe(), **changes)
    with open(path, "rb") as file:
        done = transcode(file, recipe)
    with av.open(io.BytesIO(done.mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), done


def seen(path: Path) -> np.ndarray:
    with shown_frames(path) as (frames, _):
        return np.stack(list(frames))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two pictures in levels, away from the edges of the colours."""
    assert a.shape == b.shape
    inner = np.ones(a.shape[:2], bool)
    for axis, size in enumerate(a.shape[:2]):
        index = [slice(None)] * 2
        index[axis] = slice(size // 2 - 6, size // 2 + 6)
        inner[tuple(index)] = False
    return float(np.abs(a.astype(float) - b)[inner].mean())


KINDS = {
    "plain": ({}, {}),
    "phone held upright": ({"rotate": 90}, {}),
    "upside down": ({"rotate": 180}, {}),
    "wide pixels": ({"aspect": Fraction(2)}, {}),
    "wide pixels, turned": ({"aspect": Fraction(2), "rotate": -90}, {}),
    "full range": ({"pix_fmt": "yuvj420p"}, {}),
    "BT.709": ({"tags": {"colorspace": 1}}, {}),
    "10 bit": ({"pix_fmt": "yuv420p10le"}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_parts_of_the_program_see_a_video_alike(tmp_path, kind):
    options = KINDS[kind][0]
    path = write(tmp_path / "v.mp4", [corners()] * 3, **options)
    truth = corners().repeat(2 if "aspect" in options else 1, axis=1)
    truth = np.rot90(truth, options.get("rotate", 0) // 90)
    ours, ood, (convert, _) = seen(path)[1], read_frames(path)[0][1], converted(path)
    np.testing.assert_array_equal(ours, ood)
    assert distance(ours, truth) < 3
    assert distance(convert[1], truth) < 4


def test_damage_is_said_and_not_passed_over(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "v.mp4", list(rng.integers(0, 255, (20, 64, 96, 3), dtype=np.uint8)))
    data = bytearray(path.read_bytes())
    for place in rng.integers(len(data) // 3, len(data) * 2 // 3, 60):
        data[place] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"v\.mp4: cannot be used, corrupt"):
        seen(path)


def interlaced(count=12, height=64, width=96) -> list[np.ndarray]:
    """uint8 frames woven of two fields of a bright bar that moves two pixels from field to field."""

    def field(t: int) -> np.ndarray:
        picture = np.full((height, width, 3), 40, np.uint8)
        picture[:, 10 + 2 * t : 26 + 2 * t] = 220
        return picture

    frames = []
    for k in range(count):
        frame = field(2 * k)
        frame[1::2] = field(2 * k + 1)[1::2]
        frames.append(frame)
    return frames


def comb(frames: np.ndarray) -> float:
    """How much each line differs from the mean of the lines above and below."""
    lines = frames.astype(float)
    return float(np.abs(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2).mean())


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", "mp4", {"crf": "4", "x264-params": "tff=1", "preset": "veryfast"}),
        ("mpeg2video", "mpg", {"q:v": "1", "flags": "+ildct+ilme"}),
    ],
)
def test_interlaced_pictures_are_deinterlaced_unless_kept(tmp_path, codec, suffix, options):
    path = write(tmp_path / f"v.{suffix}", interlaced(), codec=codec, options=options)
    kept, done = converted(path, keep_interlaced=True)
    assert done.notes == () and len(kept) == 12
    clean, done = converted(path)
    assert done.notes == ("deinterlaced",) and len(clean) == 12
    assert comb(clean) < 0.2 * comb(kept)
    # the bar is where it was: frames are neither lost nor shifted
    middle = [np.flatnonzero(frame[32, :, 0] > 130).mean() for frame in clean]
    assert np.abs(np.diff(middle) - 4).max() < 1.1
    assert min(abs(middle[3] - (17.5 + 2 * t)) for t in (6, 7)) < 0.6  # as one of its two fields has it
    np.testing.assert_array_equal(len(seen(path)), 12)


def hdr_frame(code: int, transfer: int) -> av.VideoFrame:
    """A grey picture of one 10-bit luma code value, limited range."""
    frame = av.VideoFrame(96, 64, "yuv420p10le")
    for plane, value in zip(frame.planes, (code, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16))
    frame.color_trc, frame.color_primaries, frame.colorspace = transfer, 9, 9
    return frame


def pq_code(nits: float) -> float:
    """SMPTE ST 2084, inverse: code value from 0 to 1."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (nits / 10_000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def test_the_stated_curve():
    nits = np.array([0, 10, 50, 0.7 * REFERENCE_WHITE, REFERENCE_WHITE, 1000, 10_000])
    codes = np.round(65535 * np.array([pq_code(n) for n in nits])).astype(np.uint16)
    found = to_sdr(codes[None, :, None].repeat(3, 2), PQ)[0, :, 1]
    light = nits / REFERENCE_WHITE
    light = np.where(light <= KNEE, light, KNEE + (1 - KNEE) * (1 - np.exp(-(light - KNEE) / (1 - KNEE))))
    assert np.abs(found - 255 * light ** (1 / 2.4)).max() < 2
    assert found[-1] == 255 and found[0] == 0


def test_colours_of_bt2020_move_into_bt709():
    """A BT.709 red, written in BT.2020's primaries, is BT.709's red again; one outside is clipped to it."""
    red = np.array([0.6274, 0.0691, 0.0164]) ** (1 / 2.4)
    found = to_sdr(np.round(65535 * red).astype(np.uint16)[None, None], 14)[0, 0]
    assert found[0] > 253 and (found[1:] < 20).all()
    assert to_sdr(np.array([[[65535, 0, 0]]], np.uint16), 14)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("transfer", "code"), [(PQ, 64 + 876 * pq_code(100)), (HLG, 64 + 876 * 0.5)])
def test_hdr_is_mapped_unless_kept(tmp_path, transfer, code):
    tags = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9}
    pictures = [hdr_frame(round(code), transfer) for _ in range(4)]
    path = write(tmp_path / "v.mkv", pictures, pix_fmt="yuv420p10le", tags=tags)
    mapped, done = converted(path)
    kept, other = converted(path, keep_hdr=True)
    assert done.notes == ("tone-mapped",) and other.notes == ()
    light = {PQ: 100 / 203, HLG: 1000 / 203 * (1 / 12) ** 1.2}[transfer]
    assert abs(mapped.mean() - 255 * light ** (1 / 2.4)) < 4
    assert abs(kept.mean() - mapped.mean()) > 15
    assert abs(seen(path).mean() - mapped.mean()) < 2


@pytest.mark.parametrize("size", [(340, 256), (320, 240), (426, 240), (640, 360)])
def test_pixels_are_those_of_exact_rounding(size):
    """A picture that is only scaled is so without it, in less time: datasets of earlier releases had it."""
    random = np.random.default_rng(0)
    frame = av.VideoFrame.from_ndarray(random.integers(16, 235, (size[1] * 3 // 2, size[0]), np.uint8), "yuv420p")
    exact = VideoReformatter().reformat(
        frame,
        *(336, 256),
        format="yuv420p",
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
    )
    found = Pictures(Fraction(1)).yuv(frame, (336, 256))
    assert np.array_equal(found.to_ndarray(), exact.to_ndarray())
