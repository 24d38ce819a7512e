"""`unstill bench end_to_end`: a recipe from shards to a checkpoint, at its full clip shape, for a few steps.

Nothing is left out but the size of the batch and the pretrained weights, which nobody downloads here: rendered videos
as large as Kinetics-400's are converted, decoded, augmented and trained on by `unstill train`'s own loop, and the
checkpoint is read back. On a CPU in float32, eager, a clip at a time unless ``--batch-size`` says otherwise.
"""

import json
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...pipeline.loading.device import Device, resolve_device
from ...pipeline.shards.dataset_info import DatasetInfo
from ...trainer.checkpoints.checkpoint import load_model
from ...trainer.config import TrainConfig
from ...trainer.models.huggingface import import_transformers
from ...trainer.monitoring.config import LogConfig
from ...trainer.recipes import RECIPES
from ...trainer.train import train
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Section
from ..harness.synthetic_videos import synthetic_dataset
from ..harness.workload import method_name

VIDEOS = 4

SECTIONS = {
    "end-to-end": Section(
        title="Recipes from shards to a checkpoint",
        text="Steps at a recipe's full clip shape, through the loop of `unstill train`; random weights, small batches.",
        order=72,
    )
}


@dataclass(frozen=True, kw_only=True)
class EndToEndBench:
    """Train a few steps of recipes at their full clip shape."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    recipes: tuple[str, ...] = ("kinetics400_videomae_b", "kinetics400_videomae_b_albar")
    """Recipes to train."""
    steps: int = 3
    """Steps of each."""
    batch_size: int = 1
    """Clips in a step; a recipe's repeated augmentation is kept where it divides them."""
    runs: Path = Path("runs/bench_end_to_end")
    """Folder for the videos' shards, the network's sizes and the runs."""
    device: Device = "cpu"
    """Where to train."""


def run(config: EndToEndBench) -> Path:
    """Train, write the result file and return its path."""
    device = resolve_device(config.device)
    codec = "h264" if device == "cuda" else "vp9"
    shards = synthetic_dataset(config.runs / f"shards_{codec}", videos=VIDEOS, codec=codec, frames=90)
    results = ResultFile("end-to-end", out=config.out, notes=_NOTES, device=device)
    for name in config.recipes:
        results.add(train_row(name, few_steps(config, name, shards, device)))
    results.show("Recipes from shards to a checkpoint")
    return results.finish()


_NOTES = (
    "value: steps whose loss was finite and that are in the checkpoint, which was read back. Videos: rendered, 336x256 "
    "pixels, 90 frames. Weights are random, and the batch is small; clip shape, network, method and augmentations are "
    "those of the recipe.",
    "cpu_seconds: of the process, loading and the checkpoint included. resident_gib: the process's peak so far.",
)


def few_steps(config: EndToEndBench, name: str, shards: Path, device: Device) -> TrainConfig:
    """The recipe for a few steps of this machine."""
    recipe = RECIPES[name]()
    model = replace(recipe.model, weights="none")
    if model.name.startswith("hf:"):
        model = replace(model, name=f"hf:{_videomae_folder(config.runs)}")
    cpu = {"precision": "fp32", "compile": "off"} if device == "cpu" else {}
    repeats = recipe.augment.repeats if config.batch_size % recipe.augment.repeats == 0 else 1
    augment = replace(recipe.augment, repeats=repeats)
    samples = DatasetInfo.read(shards).samples
    return replace(
        recipe,
        data=shards,
        out=config.runs / f"{name}_{time.time_ns()}",
        model=model,
        augment=augment,
        schedule=replace(recipe.schedule, warmup_epochs=None),
        step=replace(recipe.step, **cpu),
        epochs=(config.steps + 0.5) * config.batch_size / (samples * repeats),
        batch_size=config.batch_size,
        device=device,
        log=LogConfig(every=1),
    )


def train_row(name: str, settings: TrainConfig) -> Row:
    """Train, and say how far it came."""
    began, cpu_began = time.monotonic(), time.process_time()
    result = train(settings)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    _, _, classes = load_model(result.checkpoint)
    records = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    clip = settings.clip
    facts = {
        "recipe": name,
        "method": method_name(settings),
        "clip": f"{clip.frames}x{clip.size}x{clip.size}, stride {clip.stride}",
        "batch": settings.batch_size,
        "repeats": settings.augment.repeats,
        "precision": settings.step.precision,
        "losses": ", ".join(f"{loss:.3f}" for loss in losses),
        "classes": len(classes),
        "cpu_seconds": cpu_seconds,
        "seconds": seconds,
        "resident_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    good = int(np.isfinite(losses).sum()) if len(losses) == result.steps else 0
    return Row(title=f"{name}, full clip shape: steps", value=good, unit="steps", at_least=result.steps, facts=facts)


def _videomae_folder(runs: Path) -> Path:
    """A folder with VideoMAE-B's sizes, which are the defaults of transformers, and no weights."""
    folder = runs / "videomae-base"
    if not (folder / "config.json").exists():
        import_transformers().VideoMAEConfig().save_pretrained(folder)
    return folder
