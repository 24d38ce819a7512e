"""Video classifiers of Hugging Face transformers, from the Hub (``hf:ORG/NAME``) or a local folder (``hf:FOLDER``).

    source = read_source("hf:MCG-NJU/videomae-base")
    model = build_architecture(source.architecture, 400, frames=16, size=224)
    load_pretrained(model, source, "hf:MCG-NJU/videomae-base")

A folder or repository gives numbers and sizes only, never code: its config.json is read as data, of which the five
families below take their own fields, and nothing else (no quantisation, no attention kernel from the Hub, no remote
code). A run keeps that part as ``model.architecture``, so that it is loaded again without the Hub.

Attention goes through ``F.scaled_dot_product_attention`` where the family can, and so through this project's closed
attention in passes that take a gradient of a gradient (``closed_attention``). TimeSformer and VideoPrism have their own
attention of ordinary operations, which has a double backward as it is.
"""

import importlib.util
import json
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ...pipeline.bounded_files import read_json
from ...pipeline.errors import InputError
from ..inputs.config import IMAGENET_MEAN, IMAGENET_STD
from .hub_address import only_cached
from .network import Triple

log = logging.getLogger(__name__)

PREFIX = "hf:"
_OUR_KERNELS = Path(__file__).resolve().parents[2] / "kernels"
OLDEST = (5, 24)  # earlier versions 5 load VideoMAE's biases of queries and values as 0, without an error
HEAD = "network.classifier"


@dataclass(frozen=True)
class Family:
    """One of transformers' video classifiers.

    Attributes:
        config, network: names of its classes in transformers.
        argument: what its forward calls the clips.
        frames, size: fields of its configuration with the clip's shape.
        attention: transformers' name of the attention that has a double backward here.
        positions_fixed: whether its position embeddings are for one clip shape.
    """

    config: str
    network: str
    argument: str = "pixel_values"
    frames: str = "num_frames"
    size: str = "image_size"
    attention: str = "sdpa"
    positions_fixed: bool = True


FAMILIES = {
    "videomae": Family("VideoMAEConfig", "VideoMAEForVideoClassification"),
    "vivit": Family("VivitConfig", "VivitForVideoClassification"),
    "timesformer": Family("TimesformerConfig", "TimesformerForVideoClassification", attention="eager"),
    "vjepa2": Family(
        *("VJEPA2Config", "VJEPA2ForVideoClassification", "pixel_values_videos", "frames_per_clip", "crop_size"),
        positions_fixed=False,
    ),
    "videoprism_vision_model": Family(
        *("VideoPrismVisionConfig", "VideoPrismForVideoClassification", "pixel_values_videos"), attention="eager"
    ),
}


@dataclass(frozen=True)
class Source:
    """What a folder or repository says of a network.

    Attributes:
        architecture: JSON: ``model_type`` and the fields of its configuration.
        mean, std: of its image processor, in units of the full range.
    """

    architecture: str
    mean: Triple
    std: Triple


class VideoClassifier(nn.Module):
    """A classifier of transformers with this project's axes.

    Args:
        network: one of ``FAMILIES``.
        argument: what its forward calls the clips.
        probe: tokens (B,N,D) -> features (B,D). With it the network is frozen up to its tokens, and in evaluation mode;
            what is trained are the probe and the last layer.
    """

    def __init__(self, network: Any, argument: str, probe: nn.Module | None = None):
        super().__init__()
        self.network, self._argument, self.probe = network, argument, probe
        if probe is not None:
            network.requires_grad_(False)
            network.classifier.requires_grad_(True)

    def train(self, mode: bool = True) -> "VideoClassifier":
        """As ``nn.Module.train``, but for what is frozen."""
        super().train(mode)
        if self.probe is not None:
            self.network.eval()
        return self

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B,3,T,h,w) -> logits (B,classes)."""
        inputs: dict[str, Any] = {self._argument: clips.transpose(1, 2)}
        if self.probe is None:
            return self.network(**inputs).logits.flatten(1)  # VideoPrism's are (B,1,classes)
        if hasattr(self.network.base_model, "predictor"):
            inputs["skip_predictor"] = True
        return self.network.classifier(self.probe(self.network.base_model(**inputs).last_hidden_state))


def read_source(name: str, *, probe: bool = False) -> Source:
    """Read what ``hf:ORG/NAME`` or ``hf:FOLDER`` says of its network; downloads its two small files where they are new.

    Args:
        name: with the prefix.
        probe: whether the network is to be frozen, with an attentive probe; kept in the architecture.

    Raises:
        InputError: there is no such thing, or no video classifier of transformers in it.
    """
    where = name.removeprefix(PREFIX)
    plain = _read_file(where, "config.json")
    if plain is None:
        raise InputError(f"model.name {name}: no config.json there; expected hf:ORG/NAME of the Hub, or hf:FOLDER")
    if plain.get("model_type") == "videoprism":
        plain = plain.get("vision_config") or {}
        plain["model_type"] = "videoprism_vision_model"
    family = _family(plain.get("model_type"), f"model.name {name}")
    known = _fields(family)
    kept = {key: value for key, value in sorted(plain.items()) if key in known}
    mean, std = _normalisation(where)
    probed = {"probe": "attentive"} if probe else {}
    return Source(json.dumps({"model_type": plain["model_type"], **probed, **kept}), mean, std)


def build_architecture(
    architecture: str, classes: int, *, frames: int | None = None, size: int | None = None, name: str = "hf:"
) -> VideoClassifier:
    """A network of random weights.

    Args:
        architecture: of ``Source``.
        classes: number of classes.
        frames, size: T and h = w of the clips that it will see; None: those of the architecture.
        name: for messages.

    Raises:
        InputError: transformers is missing or too old, the architecture is not one of ``FAMILIES``, or clips of this
            shape do not fit it.
    """
    transformers = import_transformers()
    try:
        plain = json.loads(architecture)
        kind = plain.pop("model_type")
        family = _family(kind, f"model {name}")
        config_class = getattr(transformers, family.config)
        fields = {key: value for key, value in plain.items() if key in _fields(family)}
        if not family.positions_fixed:  # rotary positions: the clip's shape says how many there are
            fields |= {family.frames: frames or fields.get(family.frames), family.size: size or fields[family.size]}
        config = config_class(**fields, num_labels=classes)
        _check_shape(config, family, frames, size, name)
        config._attn_implementation = family.attention
        network = getattr(transformers, family.network)(config)
        probe = _attentive_probe(config) if plain.get("probe") == "attentive" else None
        if probe is not None and hasattr(network, "pooler"):
            network.pooler = None  # V-JEPA 2's own, whose place the new one takes
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model {name}: its architecture cannot be built ({type(error).__name__}: {reason})") from None
    return VideoClassifier(_adapted(network), family.argument, probe)


def load_pretrained(model: VideoClassifier, source: Source, name: str) -> None:
    """Give a network the weights of its folder or repository; the last layer only where its classes are as many.

    Raises:
        InputError: they cannot be had, or are of another network.
    """
    transformers, where = import_transformers(), name.removeprefix(PREFIX)
    network: Any = model.network
    kind = json.loads(source.architecture)["model_type"]
    report = logging.getLogger("transformers.modeling_utils")
    level = report.level
    report.setLevel(logging.ERROR)  # what is new is said in one line below
    try:
        loaded, info = getattr(transformers, FAMILIES[kind].network).from_pretrained(
            where,
            config=network.config,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            local_files_only=only_cached(),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model.weights pretrained: those of {name} cannot be loaded ({reason})") from None
    finally:
        report.setLevel(level)
    inner = network.base_model_prefix + "."
    wrong = [key for key in info["missing_keys"] if key.startswith(inner) and ".predictor." not in key]
    wrong += [str(key) for key, *_ in info["mismatched_keys"] if not key.startswith("classifier.")]
    if wrong:
        raise InputError(
            f"model.weights pretrained: {name} lacks {len(wrong)} tensors of its network, first {wrong[0]}"
        )
    new = sorted(set(info["missing_keys"]) | {str(key) for key, *_ in info["mismatched_keys"]})
    if new:
        log.info("%s: starts from its weights, but for %s", name, ", ".join(new))
    state = loaded.state_dict()
    model.network.load_state_dict({key: state[key] for key in model.network.state_dict()})


def import_transformers() -> Any:
    """The module ``transformers``.

    Raises:
        InputError: it is missing, or too old.
    """
    # transformers asks once whether the package `kernels` is there; in a checkout of this project a folder is called so
    hidden = importlib.util.find_spec("kernels") if "kernels" not in sys.modules else None
    ours = hidden is not None and hidden.origin is not None and Path(hidden.origin).parent == _OUR_KERNELS
    try:
        if ours:
            sys.modules["kernels"] = None  # type: ignore[assignment]
        import transformers
        from transformers.utils import is_kernels_available

        is_kernels_available()
    except ImportError:
        raise InputError("model.name hf:...: transformers is missing; pip install 'unstill[hf]'") from None
    finally:
        if ours:
            del sys.modules["kernels"]
    found = re.match(r"(\d+)\.(\d+)", transformers.__version__)
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        raise InputError(
            f"transformers {transformers.__version__} loads VideoMAE without some of its biases; "
            "pip install -U 'unstill[hf]' for 5.24 or newer"
        )
    return transformers


def _family(kind: object, where: str) -> Family:
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{where}: has a network of type {kind!r:.60}; expected one of {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def _fields(family: Family) -> set[str]:
    """The configuration's own fields, without those of every network, which choose code and formats."""
    return set(vars(getattr(import_transformers(), family.config))["__annotations__"]) - {
        "model_type",
        "base_config_key",
    }


def _read_file(where: str, file: str) -> dict[str, Any] | None:
    """A JSON file of a folder or a repository, or None where it has none."""
    path = Path(where) / file
    if not Path(where).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        try:
            path = Path(hf_hub_download(where, file, local_files_only=only_cached()))
        except LocalEntryNotFoundError:
            raise InputError(
                f"model.name hf:{where}: no such folder, not downloaded before, and the Hub cannot be reached"
            ) from None
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise InputError(
                f"model.name hf:{where}: no such folder, and not to be had from the Hub ({str(error).splitlines()[0]})"
            ) from None
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object")
    return found


def _normalisation(where: str) -> tuple[Triple, Triple]:
    """(mean, std) in units of the full range; ImageNet's where the folder says nothing.

    A processor maps a pixel p of 0..255 to (factor p - offset - mean) / std; ViViT's factor is 1/127.5, its offset 1.
    """
    plain = _read_file(where, "preprocessor_config.json") or _read_file(where, "video_preprocessor_config.json")
    if plain is None:
        log.info("hf:%s: has no image processor; clips are normalised as those of ImageNet", where)
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        normalised = plain.get("do_normalize", True)
        mean = plain.get("image_mean") or IMAGENET_MEAN if normalised else (0.0,) * 3
        std = plain.get("image_std") or IMAGENET_STD if normalised else (1.0,) * 3
        full = 255 * float(plain.get("rescale_factor") or 1 / 255)
        full = 1.0 if abs(full - 1) < 1e-3 else full  # factors are written with few digits
        offset = 1.0 if plain.get("offset") else 0.0
        means = [round((offset + float(value)) / full, 6) for value in mean]
        deviations = [round(float(value) / full, 6) for value in std]
        if len(means) != 3 or len(deviations) != 3 or min(deviations) <= 0:
            raise ValueError("expected three numbers each, deviations above 0")
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"hf:{where}: its image processor's mean and std are not readable ({error})") from None
    return (means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2])


def _check_shape(config: Any, family: Family, frames: int | None, size: int | None, name: str) -> None:
    own_frames, own_size = getattr(config, family.frames), getattr(config, family.size)
    if not isinstance(own_size, int):
        if len(set(own_size)) != 1:
            raise InputError(f"model {name}: takes pictures of {own_size}; only square ones are known here")
        own_size = own_size[0]
    if (frames or own_frames, size or own_size) != (own_frames, own_size):
        raise InputError(
            f"model {name} takes clips of {own_frames} frames of {own_size}; got {frames} of {size}: "
            f"set --clip.frames {own_frames} --clip.size {own_size}"
        )
    if not family.positions_fixed and (own_frames % config.tubelet_size or own_size % config.patch_size):
        raise InputError(
            f"model {name} takes clips of a multiple of {config.tubelet_size} frames of a multiple of "
            f"{config.patch_size}; got {own_frames} of {own_size}: set --clip.frames and --clip.size"
        )


def _attentive_probe(config: Any) -> nn.Module:
    """V-JEPA 2's probe: three layers of self-attention over the tokens, then one query that attends to them."""
    from transformers import VJEPA2Config
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler

    own = VJEPA2Config(
        hidden_size=config.hidden_size, num_attention_heads=config.num_attention_heads, num_pooler_layers=3
    )
    own._attn_implementation = "sdpa"
    pooler = VJEPA2AttentivePooler(own)
    for module in pooler.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=own.initializer_range)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(pooler.query_tokens, std=own.initializer_range)
    return pooler


def _adapted(network: Any) -> nn.Module:
    """The network with what training needs changed, in place; names and shapes of its weights stay."""
    if hasattr(network.base_model, "predictor"):
        network.base_model.predictor = None  # V-JEPA 2's, for pretraining; its weights would get no gradient
    for module in list(network.modules()):
        table = vars(module).get("position_embeddings")
        if isinstance(table, Tensor):  # VideoMAE's is no buffer: it would be copied to the device in every step
            del module.position_embeddings
            module.register_buffer("position_embeddings", table, persistent=False)
        for name, child in module.named_children():
            if type(child).__name__ == "VJEPA2DropPath":  # the same draws, which ``sample_dropout`` knows
                setattr(module, name, StochasticDepth(float(child.drop_prob or 0), "row"))
    return network
