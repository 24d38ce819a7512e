"""``unstill predict VIDEO...``: what a trained network sees in single videos.

for found in predict(PredictConfig(videos=(Path("a.mp4"),), model=Path("exported"))):
    print(found)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.bounded_files import check_plain
from ...pipeline.conversion.sandbox.pictures import count_packets, shown_frames
from ...pipeline.errors import InputError
from ...pipeline.loading.device import resolve_device
from ...pipeline.loading.sampler import ClipConfig, clip_strides, frame_numbers
from ...pipeline.safe_text import printable
from ...pipeline.sandbox.process import Sandbox
from .classifier import load_classifier
from .config import PredictConfig
from .export import ONNX_FILE, TORCH_FILE, onnx_runner
from .hub import model_folder


@dataclass(frozen=True)
class Prediction:
    """What was found in one video.

    Attributes:
        video: the file.
        ranked: (class, probability), best first; empty when the file could not be read.
        error: why not, in one line, else None.
    """

    video: Path
    ranked: tuple[tuple[str, float], ...]
    error: str | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return printable(self.error)
        return printable(f"{self.video}: " + ", ".join(f"{name} {100 * p:.1f} %" for name, p in self.ranked))


def predict(config: PredictConfig) -> list[Prediction]:
    """Classify each video; one that cannot be read becomes a ``Prediction`` with its error, and the others go on.

    Raises:
        InputError: the network cannot be loaded, or an option is out of range.
    """
    if config.views < 1 or config.top < 1:
        raise InputError(f"views {config.views}, top {config.top}: expected at least 1")
    config = replace(config, device=resolve_device(config.device), model=model_folder(config.model))
    classifier, facts = load_classifier(config.model, trust_model_code=config.trust_model_code)
    run = _engine(config, classifier)
    found = []
    for video in config.videos:
        try:
            if video.is_dir():
                raise InputError(f"{video}: is a folder; expected video files, such as {video}/*")
            clips = read_clips(video, facts.clip, config.views, config.sandbox)
        except InputError as error:
            found.append(Prediction(video, (), str(error)))
            continue
        with torch.inference_mode():
            probabilities = run(clips.to(config.device)).float().softmax(1).mean(0).cpu()
        best = probabilities.argsort(descending=True)[: config.top].tolist()
        found.append(Prediction(video, tuple((facts.classes[i], float(probabilities[i])) for i in best)))
    return found


def read_clips(video: Path, clip: ClipConfig, views: int, sandbox: Sandbox = "auto") -> Tensor:
    """Decode a video and cut clips from it, as an evaluation does: centred square, short videos by the clip's rule.

    Args:
        video: the file.
        clip: shape of a clip.
        views: number of clips, from the video's start to its end; one from its middle.
        sandbox: fences around the process that decodes.

    Returns:
        uint8 (views, T, size, size, 3).

    Raises:
        InputError: it cannot be decoded, or has no frames.
    """
    # Only the frames of the views are kept, so their numbers must be known before. That there are as many frames as
    # packets is mostly true and costs no decoding; where it was not, the video is decoded once more.
    frames = count_packets(video, sandbox)
    for _ in range(2):
        rows = _rows(clip, views, frames)
        numbers, places = np.unique(rows, return_inverse=True)
        with shown_frames(video, numbers.tolist(), sandbox) as (shown, _):
            small = [_square(torch.from_numpy(picture.copy()), clip.size) for picture in shown]
        if shown.frames == frames:
            return torch.stack(small)[torch.from_numpy(places.reshape(rows.shape))]
        frames = shown.frames or 0
    raise InputError(f"{video}: has another number of frames when it is decoded again")


def _rows(clip: ClipConfig, views: int, frames: int) -> np.ndarray:
    """int64 (views, T): the frames of each view of a video of ``frames`` frames."""
    count = np.array([max(1, frames)])
    stride = clip_strides(clip, count)
    room = max(0, frames - ((clip.frames - 1) * int(stride[0]) + 1))
    starts = [room // 2] if views == 1 else [room * view // (views - 1) for view in range(views)]
    return np.stack([frame_numbers(clip, np.array([start]), stride, count)[0] for start in starts])


def _square(picture: Tensor, size: int) -> Tensor:
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side].permute(2, 0, 1)[None]
    if side != size:  # the same triangle filter as the loader's, so that training and use see alike
        square = F.interpolate(square.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
        square = square.round().clamp(0, 255).to(torch.uint8)
    return square[0].permute(1, 2, 0).contiguous()


def _engine(config: PredictConfig, classifier: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    if config.engine == "torch":
        return classifier.to(config.device)
    if config.engine == "onnx":
        return onnx_runner(config.model / ONNX_FILE)
    if config.engine != "torch_export":
        raise InputError(f"engine is {config.engine!r}; expected torch, torch_export or onnx")
    path = config.model / TORCH_FILE
    if not path.exists():
        raise InputError(f"{path}: no such file; export with --formats torch_export")
    if not config.trust_model_code:
        raise InputError(
            f"{path}: loading it can run any code, because PyTorch unpickles parts of it; if it is your own or its "
            "maker's code is trusted, repeat with --trust-model-code"
        )
    return torch.export.load(check_plain(path)).module()
