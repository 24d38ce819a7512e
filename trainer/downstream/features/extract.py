"""``unstill features``: each video walked through once, its windows through the network, one file a video.

    OUT/NAME.npy         (T, crops, D), (T, D) with the flat layout, (T, crops, places, D) with tokens
    OUT/features.json    see ``record.py``

Row k is of frames k * stride to k * stride + window - 1.

Files appear complete or not at all, and a video's batches do not depend on other videos: a run that was killed and is
started again writes the same bytes on the same machine. An existing file is kept where the record is of the same
options and model.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....pipeline.atomic_files import make_folder, sweep_partials, write_atomic
from ....pipeline.errors import InputError
from ....pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ....pipeline.loading.device import resolve_device
from ....pipeline.loading.frame_walk import BadVideo, FrameWalk, WalkedVideo
from ....pipeline.loading.loader_config import LoaderConfig
from ....pipeline.progress import Progress
from ....pipeline.shards.index import SampleIndex
from ...diagnostics.feature_maps import places, pooled
from ...inference.classifier import Classifier, Facts
from ...models.huggingface import PREFIX
from ..encoder import load_encoder
from .config import FeaturesConfig
from .crops import crop_regions
from .file_names import file_names
from .record import write_record
from .windows import shown_frames, window_frames, windows

Runner = Callable[[Tensor], Tensor]  # uint8 clips (B,T,h,w,3) -> float32 (B,D) or (B,places,D)


@dataclass(frozen=True)
class Extracted:
    """What a call did.

    Attributes:
        videos: of the dataset that are this process's.
        made: of them, files written now; the others were there.
    """

    videos: int
    made: int


def extract_features(config: FeaturesConfig) -> Extracted:
    """Write the files named at the top of this module.

    Raises:
        InputError: the model, the dataset or OUT cannot be used. Damaged videos get no file and are named once all
            others have theirs.
    """
    classifier, facts = load_encoder(config.model, trust_model_code=config.trust_model_code)
    shown = shown_frames(config.window, config.frames, facts.clip.frames)
    _check_frames(facts, len(shown))
    device = own_device(config.device)
    classifier.to(device)
    make_folder(config.out)
    sweep_partials(config.out)
    bad: list[str] = []
    made = 0
    with (
        FrameWalk(
            config.data,
            facts.clip.size,
            threads=config.core_threads,
            device=device.type,
            config=LoaderConfig(isolate=config.isolate),
        ) as walk,
        leave_a_core_for_decoding(device),
    ):
        index = walk.index
        names = file_names(index, config.names)
        write_record(config, index, names, classifier.model, facts, len(shown))
        own = own_share(index.frames, *_place_among_processes())
        missing = [sample for sample in own if not (config.out / f"{names[sample]}.npy").exists()]
        wanted = _Wanted(index, config, shown)
        with Progress("features", len(own), "videos") as progress:
            progress.advance(len(own) - len(missing))
            for video in walk.videos(missing, wanted.frames, wanted.regions):
                try:
                    values = video_features(video, wanted, lambda clips: _run(classifier, clips, config, device))
                except BadVideo as error:
                    bad.append(f"{index.key(video.sample)} ({error})")
                else:
                    write_atomic(config.out / f"{names[video.sample]}.npy", _npy(values, config))
                    made += 1
                progress.advance(1)
    if bad:
        raise InputError(
            f"{config.data}: {len(bad)} videos are damaged and have no features, first {bad[0]}; repair or drop them "
            "and run the same command again"
        )
    return Extracted(len(own), made)


def own_share(frames: np.ndarray, rank: int, processes: int) -> list[int]:
    """Rows of the index that a process takes: the longest videos first, dealt in turn, so that all end together."""
    return np.argsort(-np.asarray(frames, np.int64), kind="stable")[rank::processes].tolist()


def own_device(device: str) -> torch.device:
    """The device of this process, by LOCAL_RANK where there are several."""
    kind = resolve_device(device)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device(kind)


def video_features(video: WalkedVideo, wanted: "_Wanted", run: Runner) -> np.ndarray:
    """float32 (T, crops, ...) of one video.

    Raises:
        BadVideo: it is damaged.
    """
    crops, rows = wanted.crops(video.sample), wanted.windows(video.sample)
    total = len(rows) * len(crops)
    # both made once a video: small results kept between large temporary blocks hinder the heap from being given back
    batch = values = np.empty(0)
    filled = done = 0
    for frames, chosen in windows(video.parts, rows):
        for place, mirrored in crops:
            if not len(batch):
                batch = np.empty((min(wanted.batch_size, total), len(chosen), *frames.shape[2:]), np.uint8)
            clip = frames[chosen, place]
            batch[filled] = clip[:, :, ::-1] if mirrored else clip
            filled += 1
            if filled == len(batch) or done + filled == total:
                found = run(torch.from_numpy(batch[:filled])).cpu().numpy()
                if not done:
                    values = np.empty((total, *found.shape[1:]), np.float32)
                values[done : done + filled] = found
                done, filled = done + filled, 0
    return values.reshape(len(rows), len(crops), *values.shape[1:])


class _Wanted:
    """Frames, regions and windows of each video, for one set of options."""

    def __init__(self, index: SampleIndex, config: FeaturesConfig, shown: np.ndarray):
        self._index, self._config, self._shown, self.batch_size = index, config, shown, config.batch_size

    def windows(self, sample: int) -> np.ndarray:
        """int64 (W, T), see ``window_frames``."""
        return window_frames(int(self._index.frames[sample]), self._config.window, self._config.stride, self._shown)

    def frames(self, sample: int) -> np.ndarray:
        """int64 (n,): those of all windows, each once."""
        return np.unique(self.windows(sample))

    def _regions(self, sample: int):
        height, width = int(self._index.height[sample]), int(self._index.width[sample])
        return crop_regions(height, width, self._config.crops, self._config.crop_share)

    def regions(self, sample: int) -> list[tuple[int, int, int, int]]:
        """Regions to cut; a mirror image is not cut again."""
        return list(dict.fromkeys(region for region, _ in self._regions(sample)))

    def crops(self, sample: int) -> list[tuple[int, bool]]:
        """Place in ``regions`` of each crop, and whether it is mirrored."""
        own = self.regions(sample)
        return [(own.index(region), mirrored) for region, mirrored in self._regions(sample)]


def _place_among_processes() -> tuple[int, int]:
    """(rank, processes) as torchrun gives them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _check_frames(facts: Facts, count: int) -> None:
    """Refuse windows that a network with fixed positions cannot take."""
    fixed = facts.model.startswith((PREFIX, "mvit"))
    if fixed and count != facts.clip.frames:
        own = facts.clip.frames
        raise InputError(
            f"model {facts.model} takes {own} frames, {count} of a window are shown; give --window {own} or more, and "
            f"--frames {own}"
        )


def _run(classifier: Classifier, clips: Tensor, config: FeaturesConfig, device: torch.device) -> Tensor:
    """float32 (B,D), or (B,places,D) with tokens: the layer's output for uint8 clips (B,T,h,w,3)."""
    with torch.inference_mode():
        pixels = clips.to(device).permute(0, 4, 1, 2, 3).float() * classifier.scale + classifier.shift
        if config.pool == "tokens":
            return places(classifier.model, pixels, config.layer).flatten(2).transpose(1, 2)
        return pooled(classifier.model, pixels, [config.layer])[config.layer]


def _npy(values: np.ndarray, config: FeaturesConfig) -> bytes:
    buffer = io.BytesIO()
    values = values[:, 0] if config.layout == "flat" else values
    np.save(buffer, values.astype(config.dtype), allow_pickle=False)
    return buffer.getvalue()
