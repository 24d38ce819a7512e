"""Video classifiers by name: torchvision's, a small one, Hugging Face's ``hf:``, and anyone's ``module:function``.

    model = build_model("swin3d_t", classes=51, weights="kinetics400")
    logits = model(clips)        # (B,3,T,h,w) -> (B,51)

Every named model has a double backward (tests/trainer/models/test_registry.py), which the gradient penalty needs.
"""

import importlib
import inspect
import os
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torchvision.models.video as zoo
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model_weights

from ...pipeline.errors import InputError
from ..checkpoints.files import find_checkpoint, names_checkpoint, verify_checkpoint, weights_file
from .huggingface import HEAD as HUGGINGFACE_HEAD
from .huggingface import PREFIX, Source, build_architecture, load_pretrained, read_source
from .inflation import inflated, is_picture_swin
from .motion_cnn import MotionCNN
from .motion_resnet import MotionResNet
from .network import Network, keep_facts

# name -> the layer that ends in class logits
_HEADS = {
    "motion_cnn": "head",
    "motion_resnet": "head",
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
_SMALL = {"motion_cnn": MotionCNN, "motion_resnet": MotionResNet}  # our own, for small clips; no weights to download
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
    architecture: str = "",
    named_in: Path | None = None,
    trust_code: bool = False,
) -> nn.Module:
    """Build a classifier from clips (B,3,T,h,w) to logits (B,classes).

    Args:
        name: one of ``MODELS``, ``hf:ORG/NAME``, ``hf:FOLDER``, or ``module:function``.
        classes: number of classes.
        weights: "none", "kinetics400", "imagenet", "pretrained" or a file, see ``ModelConfig``.
        frames, size: T and h = w of the clips that it will see; checked where the network has but one clip shape.
        architecture: of an ``hf:`` network, see ``ModelConfig``; "": it is read from the folder or the Hub.
        named_in: the file that ``name`` was read from; None where a person gave it (a command line, a recipe, a call).
        trust_code: allow a ``module:function`` from a file: importing and calling it runs whatever code it holds.

    Raises:
        InputError: an unknown name, a ``module:function`` from a file that is not trusted, or weights that are
            missing, unreadable or of another network.
    """
    if name.startswith(PREFIX):
        return keep_facts(_huggingface(name, classes, weights, frames, size, architecture, named_in))
    if ":" in name:
        if named_in is not None and not trust_code and name not in _OWN:
            module = name.partition(":")[0]
            raise InputError(
                f"{named_in}: names the network {name!r}, which runs code of the module {module!r}; if you know that "
                "code and trust it, repeat with --trust-model-code"
            )
        network = _call(name, classes)
        if name in _OWN:
            network = replace(network, head=_OWN[name])
    elif name in _SMALL:
        network = Network(module=_SMALL[name](classes), head=_HEADS[name])
    elif name in _HEADS:
        network = Network(module=_torchvision_model(name, classes, frames, size), head=_HEADS[name])
    else:
        raise InputError(
            f"model.name is {name!r}; expected one of {', '.join(MODELS)}, hf:ORG/NAME, hf:FOLDER, or module:function"
        )
    if weights != "none":
        downloads = {"kinetics400": _kinetics_weights, "imagenet": _imagenet_weights}
        state = downloads[weights](name) if weights in downloads else _read_weights(Path(weights))
        if name.startswith("swin3d") and is_picture_swin(state):
            state = inflated(state, network.module.state_dict())
        _load_backbone(network.module, state, network.head or None, f"{name} from {weights}")
    return keep_facts(network)


def _huggingface(
    name: str,
    classes: int,
    weights: str,
    frames: int | None,
    size: int | None,
    architecture: str,
    named_in: Path | None,
) -> Network:
    if named_in is not None and not architecture:
        # a file must not make this machine fetch or read what it names
        raise InputError(f"{named_in}: names the network {name!r} without its architecture; use another file")
    source = None
    if named_in is None and (not architecture or weights == "pretrained"):
        source = read_source(name)
    model = build_architecture(
        *(architecture or (source.architecture if source else ""), classes), frames=frames, size=size, name=name
    )
    if weights == "pretrained":
        assert isinstance(source, Source), "weights are asked for by a person, not by a file"
        load_pretrained(model, source, name)
    elif weights in ("kinetics400", "imagenet"):
        raise InputError(f"model.weights {weights}: {name} comes with its own weights; use pretrained")
    elif weights != "none":
        _load_backbone(model, _read_weights(Path(weights)), HUGGINGFACE_HEAD, f"{name} from {weights}")
    facts = {"mean": source.mean, "std": source.std} if source else {}
    return Network(module=model, head=HUGGINGFACE_HEAD, **facts)


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


def _call(name: str, classes: int) -> Network:
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not look there; last, so that it hides nothing
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        way = f"give its folder: PYTHONPATH=FOLDER unstill ... (folder now: {os.getcwd()})" if missing else ""
        raise InputError(
            f"model.name {name!r}: cannot import it ({error}); {way or 'expected module:function'}"
        ) from None
    found = make(**{"num_classes": classes}) if _wants_keyword(make) else make(classes)
    if isinstance(found, nn.Module):
        found = Network(module=found)
    if not isinstance(found, Network):
        raise InputError(
            f"model.name {name!r} returned {type(found).__name__}; expected a torch.nn.Module, or a Network of it"
        )
    if found.head and not hasattr(dict(found.module.named_modules()).get(found.head), "weight"):
        raise InputError(f"model.name {name!r}: its head {found.head!r} is no layer with weights of the module")
    return found


def _wants_keyword(make: object) -> bool:
    """Whether a function takes the number of classes as ``num_classes=``, as torchvision's and timm's do."""
    try:
        parameters = inspect.signature(make).parameters.values()  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return False
    if any(p.name == "num_classes" for p in parameters):
        return True
    positional = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    return not positional and any(p.kind is p.VAR_KEYWORD for p in parameters)


def _kinetics_weights(name: str) -> dict[str, torch.Tensor]:
    if name in _SMALL or name not in _HEADS:
        raise InputError(f"model.weights kinetics400: there are none for {name}; give a file or none")
    return _torchvisions(name, "KINETICS400_V1", "kinetics400")


def _imagenet_weights(name: str) -> dict[str, torch.Tensor]:
    if not name.startswith("swin3d"):
        raise InputError(f"model.weights imagenet: there are none for {name}, only for swin3d_t, swin3d_s and swin3d_b")
    return _torchvisions(name.replace("swin3d", "swin"), "IMAGENET1K_V1", "imagenet")


def _torchvisions(name: str, which: str, said: str) -> dict[str, torch.Tensor]:
    try:
        return get_model_weights(name)[which].get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError is one
        raise InputError(
            f"model.weights {said}: cannot download {name}'s weights ({error}); "
            "download them elsewhere and give the file's path instead"
        ) from None


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if path.is_dir() or names_checkpoint(path):
        checkpoint = find_checkpoint(path)
        verify_checkpoint(checkpoint)
        path = weights_file(checkpoint)
    if not path.is_file():
        raise InputError(
            f"model.weights {path}: no such file; expected none, kinetics400, imagenet, a run (RUN, RUN/best, "
            "RUN/step-500), or a .safetensors, .pt or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        # torch's own message advises to load the file in a way that runs what is in it
        code = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        reason = f"it asks for {code[1]}, which is code" if code else "it is damaged, or something else"
        raise InputError(
            f"model.weights {path}: not readable as plain tensors ({reason}); expected what torch.save or safetensors "
            "writes of a state_dict"
        ) from None
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
