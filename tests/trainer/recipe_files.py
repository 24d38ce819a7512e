"""Files that recipes name, small, for the 24 videos of ``synthetic_run``, and recipes that use them."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from unstill.trainer.augmentations import StillMix
from unstill.trainer.config import TrainConfig
from unstill.trainer.methods import Sdn


def make_recipe_files(folder: Path) -> Path:
    """Boxes of people, scenes of the videos v00 to v23, and a bank of stills."""
    lines = [f"v{n:02},{t},.2,.2,.7,.9" for n in range(24) for t in range(9)]
    (folder / "boxes.csv").write_text("\n".join(["video,frame,left,top,right,bottom", *lines]))
    (folder / "scenes.csv").write_text("\n".join(["key,scene", *(f"v{n:02},{n % 3}" for n in range(24))]))
    save_file({"stills": torch.zeros(5, 3, 32, 32, dtype=torch.uint8)}, folder / "stills.safetensors")
    return folder


def with_files(config: TrainConfig, folder: Path) -> TrainConfig:
    """The recipe with files that exist in place of those that it names."""

    def files_of(method):
        if hasattr(method, "scenes"):
            method = replace(method, scenes=folder / "scenes.csv")
        if getattr(method, "base", None) is not None:
            method = replace(method, base=files_of(method.base))
        return replace(method, first_stage=None) if isinstance(method, Sdn) else method

    method = files_of(config.method)
    augmentation = config.augmentation
    if isinstance(augmentation, StillMix) and augmentation.bank is not None:
        augmentation = replace(augmentation, bank=folder / "stills.safetensors")
    inputs = config.inputs if config.inputs.people is None else replace(config.inputs, people=folder / "boxes.csv")
    return replace(config, data=folder / "data", method=method, augmentation=augmentation, inputs=inputs)
