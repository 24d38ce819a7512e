"""What a recipe is, in one line for people: data, network, method, memory."""

import sys
from collections.abc import Callable, Mapping

from ..config import TrainConfig
from ..methods import Albar, Baseline

DATA = {  # folder below data/ -> name
    "hmdb51": "HMDB51",
    "ucf101": "UCF101",
    "kinetics400": "Kinetics-400",
    "kinetics200": "Kinetics-200",
    "diving48": "Diving48",
    "own": "your own videos",
}
# (network, frames x size x size, method, precision) -> GiB of a step without clips, and of each clip; by the memory
# plan, bench/results/memory-plan.json. An adversary or another branch of its own adds to it.
MEMORY = {
    ("swin3d_t", "32x224x224", "ALBAR", "bf16"): (0.93, 1.98),
    ("swin3d_t", "32x224x224", "ALBAR", "fp32"): (0.93, 3.44),
    ("swin3d_t", "32x224x224", "cross entropy", "bf16"): (0.93, 2.52),
    ("swin3d_t", "32x224x224", "cross entropy", "fp32"): (0.93, 2.66),
    ("r3d_18", "16x112x112", "ALBAR", "bf16"): (1.02, 0.24),
    ("r3d_18", "16x112x112", "ALBAR", "fp32"): (1.02, 0.44),
    ("r3d_18", "16x112x112", "cross entropy", "bf16"): (1.02, 0.096),
    ("r3d_18", "16x112x112", "cross entropy", "fp32"): (1.02, 0.18),
}


def data_of(recipe: Callable[[], TrainConfig]) -> str:
    """A recipe's dataset as people call it: as its module says (``DATA_TITLE``), else by the folder."""
    said = getattr(sys.modules[recipe.__module__], "DATA_TITLE", "")
    data = recipe().data
    return said or next((title for folder, title in DATA.items() if folder in data.parts), str(data))


def by_data(recipes: Mapping[str, Callable[[], TrainConfig]]) -> dict[str, list[str]]:
    """Name of a dataset -> names of the recipes for it, those for one's own videos first."""
    found: dict[str, list[str]] = {DATA["own"]: []}
    for name, recipe in recipes.items():
        found.setdefault(data_of(recipe), []).append(name)
    return {title[0].upper() + title[1:]: names for title, names in found.items() if names}


def in_one_line(make: Callable[[], TrainConfig]) -> str:
    """``HMDB51 (data/hmdb51/train); swin3d_t, 32x2 frames of 224, fp32; ALBAR; batch 6, about 22 GiB.``"""
    recipe = make()
    clip, parts = recipe.clip, [recipe.method.title]
    base = getattr(recipe.method, "base", None)
    parts += [base.title] if base is not None else []
    parts += [recipe.augmentation.title] if recipe.augmentation is not None else []
    network = recipe.model.name.rpartition(":")[2] if recipe.model.name.startswith("unstill.") else recipe.model.name
    shape = f"{clip.frames}x{clip.stride} frames of {clip.size}"
    title = data_of(make)
    data = f"{title[0].upper()}{title[1:]} ({recipe.data})"
    return f"{data}; {network}, {shape}, {recipe.step.precision}; {' + '.join(parts)}; {_memory(recipe)}."


def _memory(recipe: TrainConfig) -> str:
    """Of the batch on all cards together, where the plan knows the network."""
    clip = recipe.clip
    key = (recipe.model.name, f"{clip.frames}x{clip.size}x{clip.size}", recipe.method.title, recipe.step.precision)
    batch = f"batch {recipe.batch_size}"
    if recipe.model.name == "motion_cnn":
        return f"{batch}, below 1 GiB"
    plain = isinstance(recipe.method, Baseline) or (isinstance(recipe.method, Albar) and recipe.method.base is None)
    twice = getattr(recipe.augmentation, "second_share", 0)
    if key not in MEMORY or not plain or twice:
        return f"{batch}, memory is planned before the first step"
    fixed, each = MEMORY[key]
    need = fixed + each * recipe.batch_size
    return f"{batch}, about {need:.0f} GiB" + (" over all cards together" if need > 80 else "")
