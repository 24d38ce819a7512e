"""The methods that are compared on the procedural dataset, and the settings that each is tuned over."""

from collections.abc import Mapping
from dataclasses import replace

from ....trainer.config import TrainConfig
from ....trainer.demo import recipes

METHODS = {
    "baseline": recipes.demo_baseline,
    "mixup": recipes.demo_mixup,
    "videomix": recipes.demo_videomix,
    "sdn": recipes.demo_sdn,
    "be": recipes.demo_be,
    "actor_cutmix": recipes.demo_actor_cutmix,
    "fame": recipes.demo_fame,
    "stillmix": recipes.demo_stillmix,
    "two_streams": recipes.demo_two_streams,
    "albar": recipes.demo_albar,
    "albar_stillmix": recipes.demo_albar_stillmix,
}
TITLES = {
    "baseline": "cross entropy",
    "mixup": "Mixup",
    "videomix": "VideoMix",
    "sdn": "SDN",
    "be": "BE",
    "actor_cutmix": "ActorCutMix",
    "fame": "FAME",
    "stillmix": "StillMix",
    "two_streams": "two streams (HSIC)",
    "albar": "ALBAR",
    "albar_stillmix": "ALBAR + StillMix",
}
# Three settings a method: its main constant at two values, and the first of them at half the learning rate. Values of
# the other methods are among their authors'; ALBAR's published weights collapse to chance on so small a network, and
# the weights of two_streams are not known to us.
RATE, LOWER_RATE = 4e-3, 2e-3
MAIN_CONSTANT = {
    "mixup": ("augmentation.prob", 0.5, 0.25),
    "videomix": ("augmentation.prob", 0.75, 0.25),
    "sdn": ("method.alpha", 0.5, 1.0),
    "be": ("augmentation.prob", 0.5, 0.25),
    "actor_cutmix": ("augmentation.prob", 0.25, 0.5),
    "fame": ("augmentation.prob", 0.25, 0.5),
    "stillmix": ("augmentation.prob", 1.0, 0.5),
    "two_streams": ("method.w_hsic", 1.0, 3.0),
    "albar": ("method.w_adv", 0.3, 0.1),
    "albar_stillmix": ("augmentation.prob", 0.5, 0.25),
}
Setting = Mapping[str, float]
GRIDS: Mapping[str, tuple[Setting, ...]] = {
    "baseline": tuple({"optimiser.lr": rate} for rate in (LOWER_RATE, RATE, 2 * RATE))
} | {
    name: tuple({constant: value, "optimiser.lr": rate} for value, rate in ((a, RATE), (b, RATE), (a, LOWER_RATE)))
    for name, (constant, a, b) in MAIN_CONSTANT.items()
}


def with_setting(recipe: TrainConfig, setting: Setting) -> TrainConfig:
    """The recipe with some of its constants changed, named as on the command line."""
    for constant, value in setting.items():
        part, name = constant.split(".")
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **{name: value})})
    return recipe


def setting_words(setting: Setting) -> str:
    """What tables call a setting: ``prob 0.5, lr 0.004``."""
    return ", ".join(f"{constant.split('.')[1]} {value:g}" for constant, value in setting.items())
