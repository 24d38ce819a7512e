"""How far the scene alone gives the class away: B_scene = ln(M / M_rand) (Choi et al., arXiv 1912.05534).

M is the accuracy of a linear classifier on frozen features of single frames, M_rand = 1 / number of classes. With the
features of a Places365 network it is a property of a dataset: 59.7 % on UCF101's 101 classes is ln(0.597 * 101) = 4.10;
the paper rounds guessing to 1.0 % and prints 4.09. With a trained model's own features of static clips it says how much
of the class can still be read from a still frame in that model, whichever way its last layer turns it.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...pipeline.atomic_files import atomic_path
from ...pipeline.errors import InputError
from ...pipeline.loading.device import resolve_device
from ..evaluation.config import EvaluateOptions
from ..evaluation.derived_clips import still
from ..evaluation.facts import describe_dataset, describe_runs
from ..evaluation.linear_probe import fit
from ..evaluation.protocols import Share, share
from ..evaluation.subject import load_subject
from .clip_features import clip_features
from .config import SceneBiasConfig, SceneLabelConfig
from .feature_maps import PENULTIMATE
from .frame_features import FrameFeatures, FrameModel, frame_features, places365
from .presentation import Bar, Chart, Diagnosis, Table, interval, number


@dataclass(frozen=True)
class SceneBias:
    """Shares in [0,1], and B_scene in nats: 0 where frames tell nothing.

    Attributes:
        accuracy: M.
        chance: M_rand.
        bias: ln(accuracy / chance).
        interval: 95 % interval of the accuracy in percent, clustered by source video.
    """

    accuracy: float
    chance: float
    bias: float
    interval: Share


def diagnose_scene_bias(config: SceneBiasConfig) -> Diagnosis:
    """Measure it, in tables and pictures."""
    found = measure_scene_bias(config)
    of = f"features of {config.run}" if config.run is not None else "a Places365 network's features"
    cells = [found.bias, 100 * found.accuracy, 100 * found.chance]
    low, high = (scene_bias(end / 100, round(1 / found.chance)) for end in (found.interval.low, found.interval.high))
    frames = config.frames or (1 if config.run is not None else 3)
    drawn = "at random" if config.run is not None else "spread evenly"
    return Diagnosis(
        name="scene-bias",
        title="How far do still frames give the class away?",
        shows=(
            "B_scene is the logarithm of a linear classifier's accuracy on frozen features of still frames, over "
            "guessing: 0 where frames tell nothing, ln C where they tell all.",
            "It says what the features hold, not what a model's last layer does with it, and still frames hold more "
            "than the scene: people, objects and poses, too.",
        ),
        content=asdict(found),
        charts=[
            Chart(
                "Accuracy from still frames, percent",
                [Bar("", "linear classifier", 100 * found.accuracy, found.interval.low, found.interval.high)],
                100.0,
                reference=(100 * found.chance, "guessing"),
            )
        ],
        tables=[
            Table(
                f"Scene bias by {of}",
                ("measure", "value", "95 % interval"),
                [
                    ("B_scene, nats", number(cells[0]), interval(cells[0], low, high)),
                    ("accuracy, %", number(cells[1]), interval(cells[1], found.interval.low, found.interval.high)),
                    ("guessing, %", number(cells[2]), ""),
                ],
            )
        ],
        facts={
            **(describe_runs([config.run]) if config.run is not None else {}),
            "trained on": describe_dataset(config.train),
            "tested on": describe_dataset(config.test),
            "frames": f"{frames} a video, {drawn}",
            "L2 penalty": f"{config.decay:g}",
        },
    )


def measure_scene_bias(config: SceneBiasConfig) -> SceneBias:
    """Train the linear classifier on frozen frame features, and test it.

    Raises:
        InputError: the two datasets have different classes, or something cannot be read.
    """
    device = resolve_device(config.device)
    if config.run is not None:
        train, test = (_still_features(config, config.run, path) for path in (config.train, config.test))
    elif config.places is not None:
        model, frames = places365(config.places, device), config.frames or 3
        train, test = (
            frame_features(path, model, frames=frames, device=device) for path in (config.train, config.test)
        )
    else:
        raise InputError("give either --places or --run, whose features are to be used")
    if train.classes != test.classes:
        raise InputError(f"{config.test}: its classes are not those of {config.train}; convert it with --classes")
    return probe(train, test, config.decay)


def _still_features(config: SceneBiasConfig, run: Path, data: Path) -> FrameFeatures:
    """Features of static clips: a frame that the video's key and the seed choose, repeated; averaged over several."""
    subject = load_subject(run, trust_model_code=config.trust_model_code)
    draws = {str(n): lambda frames, keys, n=n: still(frames, keys, config.seed + n) for n in range(config.frames or 1)}
    options = EvaluateOptions(device=config.device)
    found = clip_features([subject], data, draws, options, [PENULTIMATE])[subject.name]
    mean = np.mean(list(found.values.values()), 0)
    return FrameFeatures(found.keys, found.labels, found.classes, mean, np.zeros((len(mean), 0), np.float32))


def probe(train: FrameFeatures, test: FrameFeatures, decay: float = 1e-3) -> SceneBias:
    """B_scene of features that are there already."""
    classes = len(train.classes)
    said = fit(train.features, train.labels, classes, decay).log_probabilities(test.features).argmax(1)
    correct = said == test.labels
    accuracy = float(correct.mean())
    return SceneBias(accuracy, 1 / classes, scene_bias(accuracy, classes), share(correct, test.keys))


def scene_bias(accuracy: float, classes: int) -> float:
    """ln(accuracy / (1 / classes)); minus infinity at accuracy 0."""
    return math.log(accuracy * classes) if accuracy > 0 else -math.inf


def write_scene_labels(config: SceneLabelConfig, model: FrameModel | None = None) -> Path:
    """Write keys and probabilities; ``model`` replaces the Places365 network. Returns the file."""
    device = resolve_device(config.device)
    model = model or places365(config.places, device)
    found = frame_features(config.data, model, frames=config.frames, device=device)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(config.out) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, keys=np.array(found.keys), probabilities=found.probabilities)
    return config.out
