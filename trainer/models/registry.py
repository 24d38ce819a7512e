"""Video classifiers by name: torchvision's, a small one, and anyone's ``module:function``.

    model = build_model("swin3d_t", classes=51, weights="kinetics400")
    logits = model(clips)        # (B,3,T,h,w) -> (B,51)

Every named model has a double backward (tests/trainer/models/test_registry.py), which the gradient penalty needs.
"""

import importlib
import os
import pickle
import sys
from pathlib import Path

import torch
import torchvision.models.video as zoo
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model_weights

from ...pipeline.errors import InputError
from ..checkpoints.files import find_checkpoint, names_checkpoint, verify_checkpoint, weights_file
from .motion_cnn import MotionCNN

# name -> the layer that ends in class logits
_HEADS = {
    "motion_cnn": "head",
    "swin3d_t": "head",
    "swin3d_s": "head",
    "swin3d_b": "head",
    "r3d_18": "fc",
    "mc3_18": "fc",
    "r2plus1d_18": "fc",
    "s3d": "classifier.1",
    "mvit_v1_b": "head.1",
    "mvit_v2_s": "head.1",
}
MODELS = tuple(_HEADS)
# networks of single frames, for StillMix, with their last layers: our own code, whoever names it
_OWN = {
    f"unstill.trainer.models.frame_net:{name}": f"picture.{head}"
    for name, head in (("resnet18", "fc"), ("resnet50", "fc"), ("swin_t", "head"))
}


def build_model(
    name: str,
    classes: int,
    weights: str = "none",
    *,
    frames: int | None = None,
    size: int | None = None,
    named_in: Path | None = None,
    trust_code: bool = False,
) -> nn.Module:
    """Build a classifier from clips (B,3,T,h,w) to logits (B,classes).

    Args:
        name: one of ``MODELS``, or ``module:function``.
        classes: number of classes.
        weights: "none", "kinetics400" or a file, see ``ModelConfig``.
        frames, size: T and h = w of the clips that it will see; checked where the network has but one clip shape.
        named_in: the file that ``name`` was read from; None where a person gave it (a command line, a recipe, a call).
        trust_code: allow a ``module:function`` from a file: importing and calling it runs whatever code it holds.

    Raises:
        InputError: an unknown name, a ``module:function`` from a file that is not trusted, or weights that are
            missing, unreadable or of another network.
    """
    if ":" in name:
        if named_in is not None and not trust_code and name not in _OWN:
            module = name.partition(":")[0]
            raise InputError(
                f"{named_in}: names the network {name!r}, which runs code of the module {module!r}; if you know that "
                "code and trust it, repeat with --trust-model-code"
            )
        model, head = _call(name, classes), _OWN.get(name)
    elif name == "motion_cnn":
        model, head = MotionCNN(classes), _HEADS[name]
    elif name in _HEADS:
        model, head = _torchvision_model(name, classes, frames, size), _HEADS[name]
    else:
        raise InputError(f"model.name is {name!r}; expected one of {', '.join(MODELS)}, or module:function")
    if weights != "none":
        state = _kinetics_weights(name) if weights == "kinetics400" else _read_weights(Path(weights))
        _load_backbone(model, state, head, f"{name} from {weights}")
    return model


def head_name(name: str) -> str:
    """Prefix of the classifier's parameters in ``build_model(name)``; empty for a ``module:function`` of others."""
    return _HEADS.get(name) or _OWN.get(name, "")


def _torchvision_model(name: str, classes: int, frames: int | None, size: int | None) -> nn.Module:
    if name.startswith("mvit") and (frames or 16, size or 224) != (16, 224):
        # its positions are learned for one shape, which torchvision's builders fix
        raise InputError(
            f"model {name} takes clips of 16 frames of 224; got {frames} of {size}: set clip.frames and clip.size"
        )
    model = getattr(zoo, name)(num_classes=classes)
    if hasattr(model, "avgpool"):
        # The same mean, but with a deterministic backward on CUDA, which adaptive pooling lacks. s3d averages windows
        # of (2,7,7), which needs clips of at least 16x224; equal at that shape.
        model.avgpool = GlobalAverage()
    return model


class GlobalAverage(nn.Module):
    """(B,C,T,h,w) -> (B,C,1,1,1)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over time and space."""
        return x.mean((2, 3, 4), keepdim=True)


def _call(name: str, classes: int) -> nn.Module:
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not look there; last, so that it hides nothing
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"model.name {name!r}: cannot import it ({error}); expected module:function") from None
    model = make(classes)
    if not isinstance(model, nn.Module):
        raise InputError(f"model.name {name!r} returned {type(model).__name__}; expected a torch.nn.Module")
    return model


def _kinetics_weights(name: str) -> dict[str, torch.Tensor]:
    if name == "motion_cnn" or name not in _HEADS:
        raise InputError(f"model.weights kinetics400: there are none for {name}; give a file or none")
    try:
        return get_model_weights(name)["KINETICS400_V1"].get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError is one
        raise InputError(
            f"model.weights kinetics400: cannot download {name}'s weights ({error}); "
            "download them elsewhere and give the file's path instead"
        ) from None


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if path.is_dir() or names_checkpoint(path):
        checkpoint = find_checkpoint(path)
        verify_checkpoint(checkpoint)
        path = weights_file(checkpoint)
    if not path.is_file():
        raise InputError(
            f"model.weights {path}: no such file; expected none, kinetics400, a run (RUN, RUN/best, RUN/step-500), "
            "or a .safetensors, .pt or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model.weights {path}: not readable as plain tensors ({reason})") from None
    for key in ("state_dict", "model", "model_state_dict"):  # what common trainers wrap the weights in
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_backbone(model: nn.Module, state: dict[str, torch.Tensor], head: str | None, what: str) -> None:
    own = model.state_dict()
    if not own.keys() & state.keys():  # a picture network's own weights, for a network of frames
        state = {f"picture.{k}": v for k, v in state.items()} if f"picture.{next(iter(state), '')}" in own else state
    if head is not None:
        state = {k: v for k, v in state.items() if not k.startswith(head + ".") or own.get(k, v).shape == v.shape}
    wrong = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    unknown = [k for k in state if k not in own]
    missing = [k for k in own if k not in state and not (head and k.startswith(head + "."))]
    for fault, keys in (("of another shape", wrong), ("unknown", unknown), ("missing", missing)):
        if keys:
            raise InputError(f"{what}: {len(keys)} tensors are {fault}, first {keys[0]}; give this model's weights")
    model.load_state_dict(state, strict=False)
    if head and not any(key.startswith(head + ".") for key in state):
        layer = model.get_submodule(head)
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()  # a new head starts as nn.Linear does, as in ALBAR's code
