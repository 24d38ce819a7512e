"""A trained network with all that it needs: normalisation inside, class names and clip shape in a file.

exported/
    config.json            clip shape, normalisation, classes, the network's name
    labels.txt             class names, one a line
    model.safetensors      weights
    model.pt2, model.onnx  the same network for torch.export and ONNX runtimes, where asked for
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ...pipeline.bounded_files import read_json
from ...pipeline.errors import InputError
from ...pipeline.loading.sampler import ClipConfig
from ..checkpoints.checkpoint import load_model, load_weights
from ..models.clip_view import add_view
from ..models.config import ClipViewConfig
from ..models.registry import build_model

# 2: with a view of the clips, which a reader of format 1 would leave out
FORMATS = (1, 2)
CONFIG, LABELS, WEIGHTS = "config.json", "labels.txt", "model.safetensors"


class Classifier(nn.Module):
    """uint8 frames in, logits out: nothing about the training can be got wrong by who uses it.

    Args:
        model: clips (B,3,T,h,w) -> logits (B,C).
        mean, std: per channel, in units of the full range.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.model = model
        shape = (1, 3, 1, 1, 1)
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in std]).view(shape), persistent=False)
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("shift", torch.tensor(shift).view(shape), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (B,T,h,w,3) -> float32 (B,C)."""
        return self.model(frames.permute(0, 4, 1, 2, 3).float() * self.scale + self.shift)


@dataclass(frozen=True)
class Facts:
    """What goes with exported weights.

    Attributes:
        model: the network's name, for ``build_model``.
        classes: class names, in the order of the logits.
        clip: shape of the clips it was trained on.
        mean, std: of its normalisation, in units of the full range.
        view: what it sees of a clip, as it was trained.
        architecture: of an ``hf:`` network, see ``ModelConfig``.
    """

    model: str
    classes: tuple[str, ...]
    clip: ClipConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: ClipViewConfig = field(default_factory=ClipViewConfig)
    architecture: str = ""

    def save(self, folder: Path) -> None:
        """Write config.json and labels.txt."""
        number = 1 if self.view == ClipViewConfig() else 2
        record = {"format": number, "input": "uint8 frames (batch, time, height, width, RGB)"} | asdict(self)
        (folder / CONFIG).write_text(json.dumps(record, indent=1) + "\n")
        (folder / LABELS).write_text("".join(f"{name}\n" for name in self.classes))

    @classmethod
    def load(cls, folder: Path) -> "Facts":
        """Read config.json.

        Raises:
            InputError: missing, damaged, or of a newer format.
        """
        try:
            record = read_json(folder / CONFIG)
            if record["format"] not in FORMATS:
                known = " and ".join(map(str, FORMATS))
                raise InputError(f"{folder}: exported in format {record['format']}, this version reads {known}")
            mean, std = (_three(record[name]) for name in ("mean", "std"))
            if min(std) <= 0:
                raise ValueError("a standard deviation that is not above 0")
            model, classes = record["model"], record["classes"]
            if not isinstance(model, str) or not all(isinstance(name, str) for name in classes):
                raise ValueError("model and classes are not names")
            clip, view = ClipConfig(**record["clip"]), record.get("view", {})
            view = ClipViewConfig(**view | ({"fade": tuple(view["fade"])} if "fade" in view else {}))
            return cls(model, tuple(classes), clip, mean, std, view, str(record.get("architecture", "")))
        except FileNotFoundError:
            raise InputError(f"{folder}: no {CONFIG} in it; expected a folder made by `unstill export`") from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
            raise InputError(f"{folder / CONFIG}: damaged ({type(error).__name__}: {error}); export again") from None


def _three(values: list[float]) -> tuple[float, float, float]:
    """Three finite numbers."""
    r, g, b = (float(value) for value in values)
    if not all(math.isfinite(value) for value in (r, g, b)):
        raise ValueError("a number that is not finite")
    return r, g, b


def load_classifier(path: Path, *, trust_model_code: bool = False) -> tuple[Classifier, Facts]:
    """Load a network from an exported folder, a run, or a checkpoint; on the CPU, in evaluation mode.

    Args:
        path: the folder.
        trust_model_code: allow its config.json to name a ``module:function``, whose code then runs.

    Raises:
        InputError: there is none, it is damaged, or it names code that is not trusted.
    """
    if (path / LABELS).exists():
        facts = Facts.load(path)
        model = build_model(
            facts.model,
            len(facts.classes),
            frames=facts.clip.frames,
            size=facts.clip.size,
            architecture=facts.architecture,
            named_in=path / CONFIG,
            trust_code=trust_model_code,
        )
        load_weights(model, path / WEIGHTS)
        add_view(model, facts.view)
    else:
        model, config, classes = load_model(path, trust_model_code=trust_model_code)
        facts = Facts(
            *(config.model.name, tuple(classes), config.clip, config.inputs.mean, config.inputs.std),
            *(config.model.view, config.model.architecture),
        )
    return Classifier(model, facts.mean, facts.std).eval(), facts
