"""Which clip, from which frame, cut how: a pure function of (seed, position), so that there is no state to save.

    position p  ->  epoch p // N, place p % N  ->  permutation of that epoch  ->  sample
                ->  hash of (seed, p, attempt) ->  start frame, crop, flip, static frame, draws

The global batch of step s is positions [s * G, (s + 1) * G), whatever the number of GPUs; rank r of w takes the r-th of
w equal parts. Resuming is "continue at step s".
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from ..errors import InputError
from ..options import at_least, between, check_options
from ..shards.index import SampleIndex
from .counter_random import fold, permute, uniform_columns

ShortVideo = Literal["repeat_last", "loop", "halve_stride"]

DRAWS = 8  # uniform numbers handed to the methods with every clip
_CROP_TRIES = 10  # as torchvision's RandomResizedCrop
_PERMUTE, _DRAW = 1, 2  # what a hash is for, so that two uses never share bits


MOST_PIXELS = 1 << 28  # of one clip: 0.8 GB of frames, 3 GB as float32


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What one clip is."""

    frames: int = 32
    """Frames in a clip."""
    stride: int = 2
    """Video frames from one clip frame to the next."""
    size: int = 224
    """Side of the square frames that are delivered, in pixels."""
    short_video: ShortVideo = "repeat_last"
    """When a video is shorter than the clip: repeat its last frame, loop from its first frame, or halve the stride
    until it fits (then repeat the last frame)."""

    def __post_init__(self):
        # upper ends: a configuration may come from a file, and asks for memory
        check_options(self, "clip.", frames=between(1, 4096), stride=between(1, 4096), size=between(1, 4096))
        if self.frames * self.size**2 > MOST_PIXELS:
            raise InputError(
                f"clip.frames {self.frames}, clip.size {self.size}: a clip of more than {MOST_PIXELS} pixels"
            )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training clips are varied."""

    crop: Literal["random_resized", "none"] = "random_resized"
    """Random area and aspect ratio ("Inception" crop), or the largest centred square."""
    min_area: float = 0.08
    """Smallest share of the picture that a random crop may take."""
    flip: float = 0.5
    """Probability of a left-right flip. Set 0 where left and right carry the label."""
    static_frame: Literal["first", "middle", "last", "random"] = "middle"
    """Which frame of the clip the static clip repeats. A fixed one is safe only where no motion has a look of its own
    at a known time, such as being large at the end of a zoom."""
    starts: Literal["auto", "even", "all"] = "auto"
    """Where clips with an even stride start. even: at even frames, so that half as many frames are decoded where the
    videos have layers (`unstill convert --layers 2`); every clip that is lost is one frame away from one that is kept.
    all: anywhere. auto: even in videos with layers, anywhere in others."""
    repeats: int = 1
    """Clips of each video in a batch, each with a start, crop and flip of its own (repeated augmentation, Hoffer et al.
    2020, arXiv 1901.09335). They follow each other, and an epoch has that many clips of every video."""

    def __post_init__(self):
        area = between(0, 1, "a share of the picture", without_low=True)
        check_options(self, "augment.", min_area=area, flip=between(0, 1, "a probability"), repeats=at_least(1))


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Which clips of a video are shown in an evaluation."""

    temporal: int = 1
    """Clips per video, spread evenly from its start to its end."""
    spatial: Literal[1, 3] = 1
    """Crops per clip: the centre, or start, centre and end of the longer side."""
    anchor: Literal["first", "centre"] = "centre"
    """With one clip per video: from its first frame, or from its middle."""
    crop_share: float = 1.0
    """Side of the crop as a share of the shorter side: 0.875 is "resize to 256, crop 224"."""
    spread: Literal["ends", "middles"] = "ends"
    """With several clips per video: the first at its start and the last at its end, or each in the middle of its share
    of the start frames, as MMAction has them."""
    squeeze: bool = False
    """Show the complete picture, squeezed to a square, instead of a square crop of it."""

    def __post_init__(self):
        share = between(0, 1, "a share of the picture's side", without_low=True)
        check_options(self, "views.", temporal=at_least(1), crop_share=share)
        if self.squeeze and (self.spatial != 1 or self.crop_share != 1):
            raise InputError("views.squeeze shows the complete picture: without views.spatial and views.crop-share")


@dataclass
class ClipRequests:
    """n clips to fetch, one array a column.

    Attributes:
        position: int64 (n,), place in the endless stream of clips.
        sample: int64 (n,), row of the index.
        start_frame: int64 (n,).
        stride: int64 (n,), after ``halve_stride``.
        top, left, height, width: int64 (n,), the region to cut, in pixels of the video.
        flip: bool (n,); not applied here, for ``clip_prep`` does it for free.
        static_index: int64 (n,), in [0, frames).
        draws: float32 (n, 8), uniform in [0, 1), for the methods.
    """

    position: np.ndarray
    sample: np.ndarray
    start_frame: np.ndarray
    stride: np.ndarray
    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flip: np.ndarray
    static_index: np.ndarray
    draws: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    @classmethod
    def join(cls, parts: "list[ClipRequests]") -> "ClipRequests":
        """All rows of all parts, in order."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def take(self, rows) -> "ClipRequests":
        """Some rows, by numbers, slice or mask."""
        return ClipRequests(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def put(self, row: int, other: "ClipRequests") -> None:
        """Replace one row by the only row of ``other``."""
        for field in fields(self):
            getattr(self, field.name)[row] = getattr(other, field.name)[0]


def clip_strides(clip: ClipConfig, video_frames: np.ndarray) -> np.ndarray:
    """int64 (n,): the stride for videos of these lengths under ``clip.short_video``."""
    stride = np.full(len(video_frames), clip.stride, np.int64)
    if clip.short_video == "halve_stride":
        # frames x stride, as in ALBAR's code, although the last stride is not needed
        while (too_long := (stride > 1) & (clip.frames * stride > video_frames)).any():
            stride[too_long] //= 2
    return stride


def frame_numbers(clip: ClipConfig, start: np.ndarray, stride: np.ndarray, video_frames: np.ndarray) -> np.ndarray:
    """int64 (n, T): which frame of its video each clip frame is."""
    number = start[:, None] + stride[:, None] * np.arange(clip.frames)
    if clip.short_video == "loop":
        return number % video_frames[:, None]
    return np.minimum(number, video_frames[:, None] - 1)


class TrainSampler:
    """Random clips of a dataset, each a pure function of (seed, position).

    Args:
        index: the dataset.
        clip: shape of a clip.
        augment: how clips are varied.
        seed: any integer; another seed gives another order and other crops.
    """

    def __init__(self, index: SampleIndex, clip: ClipConfig, augment: AugmentConfig, seed: int):
        self.clip, self.augment, self.seed, self.size = clip, augment, seed, len(index)
        self.clips_per_epoch = self.size * augment.repeats
        self._frames, self._width, self._height = _geometry(index)
        layered = np.asarray(index.layers) == 2
        self._even = {"auto": layered, "even": np.ones_like(layered), "all": np.zeros_like(layered)}[augment.starts]

    def draw(self, positions: np.ndarray, attempt: int = 0) -> ClipRequests:
        """The clips at some positions.

        Args:
            positions: int64 (n,), from 0 up; N positions are an epoch in which every sample comes exactly once. With
                ``augment.repeats`` k it has k N, and each sample comes k times in a row.
            attempt: 0, or the number of clips that were bad at this position: another clip, and a random sample.

        Returns:
            ``ClipRequests`` of n rows.
        """
        positions = np.atleast_1d(np.asarray(positions, dtype=np.int64))
        key = fold(self.seed, _DRAW, positions, attempt)
        u = uniform_columns(key, 6 + 2 * _CROP_TRIES + DRAWS)
        if attempt == 0:
            place = positions // self.augment.repeats
            sample = permute(place % self.size, self.size, fold(self.seed, _PERMUTE, place // self.size))
        else:
            sample = _pick(u[:, 5], self.size)

        clip, video_frames = self.clip, self._frames[sample]
        stride = clip_strides(clip, video_frames)
        room = np.maximum(video_frames - ((clip.frames - 1) * stride + 1), 0)
        top, left, height, width = self._crop(sample, u)
        return ClipRequests(
            position=positions,
            sample=sample,
            start_frame=self._start(sample, stride, room, u[:, 0]),
            stride=stride,
            top=top,
            left=left,
            height=height,
            width=width,
            flip=u[:, 1] < self.augment.flip,
            static_index=self._static_index(u[:, 2]),
            # rounded down to 24 bits, or the float32 could become 1
            draws=(np.floor(u[:, -DRAWS:] * 2.0**24) * 2.0**-24).astype(np.float32),
        )

    def _start(self, sample: np.ndarray, stride: np.ndarray, room: np.ndarray, u: np.ndarray) -> np.ndarray:
        even = self._even[sample] & (stride % 2 == 0)
        # not a start made even afterwards: where room is even, the last one would come half as often as the others
        return np.where(even, 2 * _pick(u, room // 2 + 1), _pick(u, room + 1))

    def _static_index(self, u: np.ndarray) -> np.ndarray:
        last = self.clip.frames - 1
        if self.augment.static_frame == "random":
            return _pick(u, last + 1)
        fixed = {"first": 0, "middle": (last + 1) // 2, "last": last}[self.augment.static_frame]
        return np.full(len(u), fixed, np.int64)

    def _crop(self, sample: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, ...]:
        height, width = self._height[sample], self._width[sample]
        if self.augment.crop == "none":
            return _square(height, width, 1.0, 0.5)
        # torchvision's RandomResizedCrop: of ten tries at an area and a log-uniform aspect ratio, the first that fits;
        # else the centre, with the ratio clamped
        tries = u[:, 6 : 6 + 2 * _CROP_TRIES].reshape(len(u), 2, _CROP_TRIES)
        least = self.augment.min_area
        area = (height * width)[:, None] * (least + (1 - least) * tries[:, 0])
        ratio = np.exp(np.log(3 / 4) + (np.log(4 / 3) - np.log(3 / 4)) * tries[:, 1])
        w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
        first, rows = fits.argmax(1), np.arange(len(u))
        w, h, found = w[rows, first], h[rows, first], fits.any(1)
        top, left = _pick(u[:, 3], height - h + 1), _pick(u[:, 4], width - w + 1)
        if not found.all():
            w_centre = np.minimum(width, np.rint(height * (4 / 3))).astype(np.int64)
            h_centre = np.minimum(height, np.rint(width / (3 / 4))).astype(np.int64)
            w, h = np.where(found, w, w_centre), np.where(found, h, h_centre)
            top = np.where(found, top, (height - h) // 2)
            left = np.where(found, left, (width - w) // 2)
        return top, left, h, w


class EvalSampler:
    """Every sample in row order, ``temporal x spatial`` views each: position p is view p % V of sample p // V.

    Args:
        index: the dataset.
        clip: shape of a clip.
        views: which clips of a video are shown.
        seed: for ``draws`` only.
    """

    def __init__(self, index: SampleIndex, clip: ClipConfig, views: ViewConfig, seed: int = 0):
        self.clip, self.views, self.seed = clip, views, seed
        self.views_per_sample = views.temporal * views.spatial
        self.size = len(index) * self.views_per_sample
        self._frames, self._width, self._height = _geometry(index)

    def draw(self, positions: np.ndarray) -> ClipRequests:
        """The clips at some positions, int64 (n,), in [0, size)."""
        positions = np.atleast_1d(np.asarray(positions, dtype=np.int64))
        sample, view = np.divmod(positions, self.views_per_sample)
        at_time, at_place = np.divmod(view, self.views.spatial)
        clip, video_frames = self.clip, self._frames[sample]
        stride = clip_strides(clip, video_frames)
        room = np.maximum(video_frames - ((clip.frames - 1) * stride + 1), 0)
        if self.views.temporal > 1:
            start = self._spread(clip, stride, video_frames, room, at_time)
        else:
            start = room // 2 if self.views.anchor == "centre" else np.zeros_like(room)
        along = at_place / 2 if self.views.spatial == 3 else np.full(len(positions), 0.5)
        if self.views.squeeze:
            top = left = np.zeros_like(sample)
            height, width = self._height[sample], self._width[sample]
        else:
            top, left, height, width = _square(self._height[sample], self._width[sample], self.views.crop_share, along)
        draws = uniform_columns(fold(self.seed, _DRAW, positions), DRAWS)
        return ClipRequests(
            position=positions,
            sample=sample,
            start_frame=start,
            stride=stride,
            top=top,
            left=left,
            height=height,
            width=width,
            flip=np.zeros(len(positions), bool),
            static_index=np.full(len(positions), clip.frames // 2, np.int64),
            draws=(np.floor(draws * 2.0**24) * 2.0**-24).astype(np.float32),
        )

    def _spread(self, clip: ClipConfig, stride: np.ndarray, video_frames: np.ndarray, room: np.ndarray, at_time):
        """int64 (n,): the start frame of clip ``at_time`` of each video."""
        if self.views.spread == "ends":
            return room * at_time // (self.views.temporal - 1)
        starts = np.maximum(video_frames - clip.frames * stride + 1, 0)
        return ((2 * at_time + 1) * starts) // (2 * self.views.temporal)


def step_positions(step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """int64 (batch_size / world_size,): the positions that one rank takes of the global batch of a step."""
    share = batch_size // world_size
    return step * batch_size + rank * share + np.arange(share, dtype=np.int64)


def _geometry(index: SampleIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frames, width, height = (np.asarray(column, dtype=np.int64) for column in (index.frames, index.width, index.height))
    return frames, width, height


def _pick(u: np.ndarray, count) -> np.ndarray:
    """int64 in [0, count), from uniform numbers in [0, 1)."""
    return np.minimum((u * count).astype(np.int64), np.asarray(count, dtype=np.int64) - 1)


def _square(height: np.ndarray, width: np.ndarray, share: float, along) -> tuple[np.ndarray, ...]:
    """A square of ``share`` of the shorter side: centred on it, and at ``along`` (0 to 1) of the longer side."""
    side = np.maximum(1, np.rint(np.minimum(height, width) * share)).astype(np.int64)
    spare_height, spare_width = height - side, width - side
    top = np.where(height > width, (spare_height * along).astype(np.int64), spare_height // 2)
    left = np.where(width > height, (spare_width * along).astype(np.int64), spare_width // 2)
    return top, left, side, side.copy()
