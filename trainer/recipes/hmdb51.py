"""Recipes on HMDB51: the rows of the published table, by name.

ALBAR and its cross entropy are trained as its authors train them (``finetune``), the methods that it is compared with
as StillMix's authors do (``stillmix_finetune``), from whose table they come. For SDN and two streams on Swin-T no
settings are known to us: their losses have the defaults of their own papers' code, or ours.

Files that these need, and how they are made, are in examples/hmdb51.sh: the boxes of people (``people.csv``), the
scenes (``scenes.npz``) and StillMix's bank (``stills.safetensors``) in data/hmdb51.
"""

from dataclasses import replace

from ..augmentations import ActorCutMix, BackgroundErasing, Fame, Mixup, StillMix, VideoMix
from ..config import TrainConfig
from ..methods import Albar, Baseline, Sdn, TwoStreams
from .finetune import bf16, finetune, finetune_recast, stillmix_finetune, stillmix_reference
from .places import DATA, OUT

HMDB51 = DATA / "hmdb51"


def hmdb51_albar() -> TrainConfig:
    """ALBAR on HMDB51, the paper's settings."""
    return finetune("hmdb51_albar", Albar())


def hmdb51_albar_bf16() -> TrainConfig:
    """ALBAR on HMDB51 under bf16 autocast: faster, and not what the paper trained with."""
    return bf16(hmdb51_albar())


def hmdb51_baseline() -> TrainConfig:
    """Cross entropy on HMDB51, everything else as ``hmdb51_albar``."""
    return finetune("hmdb51_baseline", Baseline())


def hmdb51_albar_stillmix() -> TrainConfig:
    """ALBAR with StillMix's random stills on HMDB51, as in ALBAR's code."""
    return replace(hmdb51_albar(), out=OUT / "hmdb51_albar_stillmix", augmentation=StillMix(prob=0.75))


def hmdb51_recast() -> TrainConfig:
    """Recast with ALBAR's static terms on HMDB51, everything else as ``hmdb51_albar``."""
    return finetune_recast("hmdb51_recast")


def hmdb51_cross_entropy() -> TrainConfig:
    """Cross entropy on HMDB51 by StillMix's settings: the first row of its table."""
    return stillmix_finetune("hmdb51_cross_entropy")


def hmdb51_mixup() -> TrainConfig:
    """Mixup on HMDB51 by StillMix's settings."""
    return stillmix_finetune("hmdb51_mixup", Mixup(prob=0.75))


def hmdb51_videomix() -> TrainConfig:
    """VideoMix, spatial, on HMDB51 by StillMix's settings."""
    return stillmix_finetune("hmdb51_videomix", VideoMix(prob=0.25))


def hmdb51_be() -> TrainConfig:
    """BE, background erasing, on HMDB51 by StillMix's settings."""
    return stillmix_finetune("hmdb51_be", BackgroundErasing(prob=0.25))


def hmdb51_actor_cutmix() -> TrainConfig:
    """ActorCutMix on HMDB51 by StillMix's settings; boxes of people with a score above 0.4 in people.csv."""
    return _with_people(stillmix_finetune("hmdb51_actor_cutmix", ActorCutMix(prob=0.25)))


def hmdb51_fame() -> TrainConfig:
    """FAME on HMDB51 by StillMix's settings."""
    return stillmix_finetune("hmdb51_fame", Fame(prob=0.5))


def hmdb51_stillmix() -> TrainConfig:
    """StillMix on HMDB51 by its authors' settings; its bank is made by ``hmdb51_reference`` and --tau 0.1."""
    return stillmix_finetune("hmdb51_stillmix", StillMix(prob=0.75, bank=HMDB51 / "stills.safetensors"))


def hmdb51_reference() -> TrainConfig:
    """The network of single frames that chooses StillMix's stills; give ImageNet's weights with --model.weights."""
    return stillmix_reference("hmdb51_reference")


def hmdb51_sdn() -> TrainConfig:
    """SDN on HMDB51 by StillMix's settings, adversary and people painted over in one stage; our own choice."""
    recipe = stillmix_finetune("hmdb51_sdn", method=Sdn(scenes=HMDB51 / "scenes.npz", w_mask=1.0))
    return _with_people(recipe)


def hmdb51_two_streams() -> TrainConfig:
    """Two independent streams on HMDB51 by StillMix's settings; the weights are our own choice."""
    return stillmix_finetune("hmdb51_two_streams", method=TwoStreams())


def _with_people(recipe: TrainConfig) -> TrainConfig:
    return replace(recipe, inputs=replace(recipe.inputs, people=HMDB51 / "people.csv"))


RECIPES = (
    hmdb51_albar,
    hmdb51_albar_bf16,
    hmdb51_recast,
    hmdb51_baseline,
    hmdb51_albar_stillmix,
    hmdb51_cross_entropy,
    hmdb51_mixup,
    hmdb51_videomix,
    hmdb51_be,
    hmdb51_actor_cutmix,
    hmdb51_fame,
    hmdb51_stillmix,
    hmdb51_reference,
    hmdb51_sdn,
    hmdb51_two_streams,
)
