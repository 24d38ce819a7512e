"""How far the scene alone gives the class away: B_scene = ln(M / M_rand) (Choi et al., arXiv 1912.05534).

M is the accuracy of a linear classifier on frozen features of single frames, M_rand = 1 / number of classes. With the
features of a Places365 network it is a property of a dataset (UCF101: ln(59.7 / 1.0) = 4.09); with a trained model's
own features of static clips it says how much of the class that model can still be read from a still frame.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ...pipeline.atomic_files import atomic_path
from ...pipeline.errors import InputError
from ...pipeline.loading.device import resolve_device
from .config import SceneBiasConfig, SceneLabelConfig
from .frame_features import FrameFeatures, FrameModel, frame_features, places365, still_clips_of


@dataclass(frozen=True)
class SceneBias:
    """Shares in [0,1], and B_scene in nats: 0 where frames tell nothing."""

    accuracy: float
    chance: float
    bias: float


def measure_scene_bias(config: SceneBiasConfig) -> SceneBias:
    """Train the linear classifier on frozen frame features, and test it.

    Raises:
        InputError: the two datasets have different classes, or something cannot be read.
    """
    device = resolve_device(config.device)
    if config.run is not None:
        model = still_clips_of(config.run, device, trust_model_code=config.trust_model_code)
    elif config.places is not None:
        model = places365(config.places, device)
    else:
        raise InputError("give either --places or --run, whose features are to be used")
    train, test = (
        frame_features(path, model, frames=config.frames, device=device) for path in (config.train, config.test)
    )
    if train.classes != test.classes:
        raise InputError(f"{config.test}: its classes are not those of {config.train}; convert it with --classes")
    return probe(train, test, config.decay)


def probe(train: FrameFeatures, test: FrameFeatures, decay: float = 1e-3) -> SceneBias:
    """B_scene of features that are there already."""
    logits = linear_classifier(train.features, train.labels, test.features, len(train.classes), decay)
    accuracy = float((logits.argmax(1) == test.labels).mean())
    return SceneBias(accuracy, 1 / len(train.classes), scene_bias(accuracy, len(train.classes)))


def scene_bias(accuracy: float, classes: int) -> float:
    """ln(accuracy / (1 / classes)); minus infinity at accuracy 0."""
    return math.log(accuracy * classes) if accuracy > 0 else -math.inf


def linear_classifier(x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: int, decay: float) -> np.ndarray:
    """Logits (M,C) of multinomial logistic regression, fitted to the end by L-BFGS in float64; no random numbers.

    Args:
        x: (N,D); standardised by its own mean and deviation.
        y: int64 (N,).
        test: (M,D).
        classes: C.
        decay: of the squared weights.
    """
    mean, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-6, spread, 1)
    features, shown = (torch.from_numpy(((v - mean) / spread).astype(np.float64)) for v in (x, test))
    target = torch.from_numpy(y)
    weight = torch.zeros(features.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(features @ weight + bias, target) + decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        return (shown @ weight + bias).numpy()


def write_scene_labels(config: SceneLabelConfig, model: FrameModel | None = None) -> Path:
    """Write keys and probabilities; ``model`` replaces the Places365 network. Returns the file."""
    device = resolve_device(config.device)
    model = model or places365(config.places, device)
    found = frame_features(config.data, model, frames=config.frames, device=device)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(config.out) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, keys=np.array(found.keys), probabilities=found.probabilities)
    return config.out
