"""What the benchmarks of a whole training train: a recipe, and shards for it."""

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import torch

from ...pipeline.conversion.convert import ConvertConfig, convert
from ...pipeline.errors import InputError
from ...pipeline.loading.codec_support import codec_for
from ...pipeline.loading.loader_config import LoaderConfig
from ...trainer.checkpoints.config import CheckpointConfig
from ...trainer.config import TrainConfig
from ...trainer.demo.motions.files import write_motions
from ...trainer.demo.motions.world import MotionsConfig
from ...trainer.methods import Baseline, Method
from ...trainer.recipes import RECIPES
from .nvdec import missing_library
from .planned_seconds import COMPILE_SECONDS
from .synthetic_videos import synthetic_dataset

MOTIONS = 256  # videos of the procedural dataset, 8 frames of 64x64 each
VIDEOS, VIDEO_FRAMES = 32, 128  # other synthetic videos: enough of them that no two clips are alike


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A recipe and its data; the defaults suit the device that is found."""

    recipe: str | None = None
    """A recipe of `unstill train`, from random weights; by default hmdb51_albar_bf16 on a GPU, demo_albar on a CPU.
    On a CPU what is bf16 is computed in fp32."""
    data: Path | None = None
    """Dataset folder made by `unstill convert`; by default synthetic videos are made."""
    videos: Path | None = None
    """Where to keep the synthetic dataset; a temporary folder by default."""
    batch_size: int | None = None
    """Clips in a step; by default the recipe's."""
    frames: int | None = None
    """Frames in a clip; by default the recipe's."""
    size: int | None = None
    """Side of a clip in pixels; by default the recipe's."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] | None = None
    """torch.compile's mode; by default the recipe's."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """How hard the loader works."""
    device: Literal["cpu", "cuda"] | None = None
    """Where to decode and train; by default what there is."""

    def resolved_device(self) -> str:
        """cpu or cuda."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def recipe_name(self) -> str:
        """The recipe's name."""
        return self.recipe or ("hmdb51_albar_bf16" if self.resolved_device() == "cuda" else "demo_albar")

    def without_nvdec(self, notes: list[str]) -> "Workload":
        """This, decoded on the processor where the GPU cannot decode; adds the reason to ``notes``."""
        if self.resolved_device() == "cuda" and self.loader.decoder != "cores" and (reason := missing_library()):
            notes.append(f"NVDEC left out: {reason}; decoded on the processor's cores, trained on the GPU")
            return replace(self, loader=replace(self.loader, decoder="cores"))
        return self

    def train_config(self, folder: Path, *, with_data: bool = True) -> TrainConfig:
        """The run: made ready in ``folder``, with data that exists.

        Args:
            folder: for the run, and for synthetic videos where none is named.
            with_data: make the synthetic videos; without, the configuration is for reading alone.

        Raises:
            InputError: no such recipe or dataset.
        """
        device, name = self.resolved_device(), self.recipe_name()
        if name not in RECIPES:
            raise InputError(f"no recipe named {name!r}; expected one of: {', '.join(RECIPES)}")
        recipe, kept = RECIPES[name](), self.videos or folder
        small = fits_motions(recipe)
        data = self.data or ((_motions if small else _videos)(kept, device) if with_data else kept)
        if self.data is None and small and getattr(recipe.method, "scenes", None) is not None:
            recipe = replace(recipe, method=replace(recipe.method, scenes=kept / "motions" / "truth" / "train.csv"))
        # most CPUs emulate bf16: with the recipes' bf16 and layout r3d_18 on 8x64 did not end in ten minutes
        slow = device == "cpu" and recipe.step.precision == "bf16"
        on_device = {"precision": "fp32", "channels_last": False} if slow else {}
        return replace(
            recipe,
            data=data,
            out=folder / "run",
            model=replace(recipe.model, weights="none"),  # a benchmark downloads nothing
            clip=replace(recipe.clip, frames=self.frames or recipe.clip.frames, size=self.size or recipe.clip.size),
            step=replace(recipe.step, compile=self.compile or recipe.step.compile, **on_device),
            batch_size=self.batch_size or recipe.batch_size,
            device=device,
            loader=self.loader,
            validation=None,
            checkpoint=CheckpointConfig(every=0, resume="never"),
        )


def compile_seconds(config: TrainConfig) -> float:
    """A guess of how long the step of a run compiles on a GPU machine; 60 s for a network that has no entry."""
    if config.step.compile == "off":
        return 0.0
    return COMPILE_SECONDS.get((config.model.name, config.method.twice_differentiable), 60)


def clip_name(config: TrainConfig) -> str:
    """Frames x stride x side."""
    return f"{config.clip.frames}x{config.clip.stride}x{config.clip.size}"


def method_name(config: TrainConfig) -> str:
    """The method, the method below it and the augmentation: ``albar + sdn + stillmix``; cross entropy by that name."""
    parts, method = [], config.method
    while method is not None:
        if parts and isinstance(method, Baseline):
            break  # what another method uses by default
        parts.append("cross entropy" if isinstance(method, Baseline) else _words(method))
        below = [getattr(method, field.name) for field in fields(method)]
        method = next((value for value in below if isinstance(value, Method)), None)
    return " + ".join(parts + ([] if config.augmentation is None else [_words(config.augmentation)]))


def _words(part: object) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(part).__name__).lower()


def fits_motions(config: TrainConfig) -> bool:
    """Whether the procedural videos are long and large enough for a recipe's clips."""
    videos, clip = MotionsConfig(), config.clip
    return (clip.frames - 1) * clip.stride < videos.frames and clip.size <= videos.size


def _motions(folder: Path, device: str) -> Path:
    codec = codec_for(device)
    out = folder / f"motions_{codec}"
    if not (out / "dataset.json").exists():
        videos = MotionsConfig(out=folder / "motions", train=MOTIONS, splits=("train",))
        write_motions(videos)
        convert(ConvertConfig(source=videos.out / "train", out=out, codec=codec, short_side=videos.size))
    return out


def _videos(folder: Path, device: str) -> Path:
    codec = codec_for(device)
    return synthetic_dataset(
        folder / f"{codec}_320x256", videos=VIDEOS, codec=codec, frames=VIDEO_FRAMES, height=256, width=320
    )
