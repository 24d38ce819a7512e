"""What a network makes of single frames of a dataset's videos: features, and probabilities over its classes."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from ...kernels import clip_prep
from ...pipeline.errors import InputError
from ...pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.sampler import ClipConfig, ViewConfig
from ...pipeline.progress import Progress
from ..inputs.config import IMAGENET_MEAN, IMAGENET_STD

# frames (B,3,1,h,w), normalised -> features (B,D) and logits (B,K)
FrameNetwork = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FrameModel:
    """A network of frames, and how it wants them.

    Attributes:
        network: frames (B,3,1,h,w) -> features (B,D), logits (B,K).
        size: h = w.
        mean, std: of the normalisation, in units of the full range.
    """

    network: FrameNetwork
    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class FrameFeatures:
    """Means over a few frames of each video.

    Attributes:
        keys: N names.
        labels: int64 (N,), positions in ``classes``.
        classes: class names of the dataset.
        features: float32 (N,D).
        probabilities: float32 (N,K), over the network's classes.
    """

    keys: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    features: np.ndarray
    probabilities: np.ndarray


def places365(weights: Path, device: str) -> FrameModel:
    """A ResNet-18 or -50 with Places365 weights, as its authors distribute them (``resnet50_places365.pth.tar``).

    Raises:
        InputError: no such file, or weights of another network.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        state = {name.removeprefix("module."): value for name, value in state.get("state_dict", state).items()}
        classes, width = state["fc.weight"].shape
        model = (zoo.resnet50 if width == 2048 else zoo.resnet18)(num_classes=classes)
        model.load_state_dict(state)
    except (OSError, RuntimeError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{weights}: not the weights of a ResNet-18 or -50 ({reason}); download resnet50_places365.pth.tar from "
            "places2.csail.mit.edu"
        ) from None
    model = model.eval().to(device)
    head = model.fc
    model.register_module("fc", nn.Identity())

    def network(frames: Tensor) -> tuple[Tensor, Tensor]:
        features = model(frames[:, :, 0])
        return features, head(features)

    return FrameModel(network, 224)


def frame_features(
    dataset: Path, model: FrameModel, *, frames: int, device: str, batch_size: int = 64
) -> FrameFeatures:
    """Run a network over ``frames`` frames of each video, spread evenly from its start to its end.

    Raises:
        InputError: the dataset cannot be read.
    """
    clip = ClipConfig(frames=1, stride=1, size=model.size)
    views = ViewConfig(temporal=frames)
    sums: dict[str, np.ndarray] = {}
    with (
        ClipLoader(dataset, clip=clip, batch_size=batch_size, views=views, device=torch.device(device)) as loader,
        torch.inference_mode(),
        Progress("reading frames", len(loader.index) * frames, "frames") as progress,
        leave_a_core_for_decoding(device),
    ):
        index = loader.index
        for clips in loader:
            pixels = clip_prep(clips.frames, mean=model.mean, std=model.std)[0]
            features, logits = model.network(pixels)
            rows = clips.sample.cpu().numpy()
            for name, value in (("features", features), ("probabilities", logits.softmax(1))):
                found = value.float().cpu().numpy()
                total = sums.setdefault(name, np.zeros((len(index), found.shape[1]), np.float64))
                np.add.at(total, rows, found)
            progress.advance(len(rows))
    means = {name: (total / frames).astype(np.float32) for name, total in sums.items()}
    return FrameFeatures(tuple(index.keys()), np.asarray(index.label, np.int64), tuple(index.classes), **means)
