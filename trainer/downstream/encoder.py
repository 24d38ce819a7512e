"""The network whose features a downstream task uses: a run, an exported folder, or a pretrained ``hf:`` network."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from torch import nn

from ...pipeline.loading.sampler import ClipConfig
from ..inference.classifier import Classifier, Facts, load_classifier
from ..inputs.config import IMAGENET_MEAN, IMAGENET_STD
from ..models.huggingface import FAMILIES, PREFIX, read_source
from ..models.network import normalisation_of
from ..models.registry import build_model


def load_encoder(model: str, *, trust_model_code: bool = False) -> tuple[Classifier, Facts]:
    """A network on the CPU in evaluation mode, and the clips that it takes.

    Args:
        model: run folder, RUN/best, RUN/step-500, exported folder, or ``hf:ORG/NAME``, ``hf:FOLDER`` with the weights
            that are there and a last layer of one class, which features do not see.
        trust_model_code: allow a file to name a ``module:function``, whose code then runs.

    Raises:
        InputError: there is none, it is damaged, or it names code that is not trusted.
    """
    if not model.startswith(PREFIX):
        return load_classifier(Path(model), trust_model_code=trust_model_code)
    source = read_source(model)
    fields = json.loads(source.architecture)
    network = build_model(model, 1, "pretrained", architecture=source.architecture)
    family, config = FAMILIES[fields["model_type"]], network.network.config  # pyright: ignore[reportAttributeAccessIssue]
    size = getattr(config, family.size)
    clip = ClipConfig(
        frames=getattr(config, family.frames), stride=1, size=size if isinstance(size, int) else int(size[0])
    )
    mean, std = normalisation_of(network) or (IMAGENET_MEAN, IMAGENET_STD)
    facts = Facts(model, ("",), clip, mean, std, architecture=source.architecture)
    return Classifier(network, mean, std).eval(), facts


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers with their names."""
    digest = sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
