"""`unstill bench recipes`: what a step of each published recipe costs, at its full clip shape.

On a GPU: compiled bf16 at the recipe's batch. On a CPU: one clip, eager float32, one thread; its time says little of a
GPU, but the memory that one clip's step keeps is the network's, and the operations are counted.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from ...pipeline.errors import InputError
from ...pipeline.progress import Progress
from ...trainer.methods import Albar
from ...trainer.monitoring.flops import step_flops
from ...trainer.recipes import RECIPES
from ..harness.record import record, show
from .step import SHAPES, Variant, measure, network

SAME = {  # recipes that differ in data alone
    "hmdb51_albar": "hmdb51_albar, ucf101_albar, kinetics400_albar",
    "hmdb51_baseline": "hmdb51_baseline, ucf101_baseline, kinetics400_baseline",
}


@dataclass(frozen=True, kw_only=True)
class RecipeBench:
    """Measure a training step of each recipe at its full clip shape."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    recipes: tuple[str, ...] = ("hmdb51_albar", "hmdb51_baseline", "kinetics400_scratch", "choi_r3d18")
    """Recipes whose model is swin3d_t or r3d_18."""
    steps: int = 1
    """Timed steps; on a CPU one of ALBAR on swin3d_t takes about half a minute."""


def run(config: RecipeBench | None = None) -> Path:
    """Measure, print the table, write the result file and return its path.

    Raises:
        InputError: a recipe that is not known, or that this benchmark cannot measure.
    """
    config = config or RecipeBench()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = [(name, _variant(name, device)) for name in config.recipes]
    rows = []
    with Progress("recipes", len(chosen), "recipes") as progress:
        for name, variant in chosen:
            (found,) = measure([variant], config.steps, device)
            frames, size = SHAPES[variant.model]
            row = {"recipes": SAME.get(name, name), "model": variant.model, "clip": f"{frames}x{size}x{size}"}
            row |= {name: found[name] for name in _KEPT if name in found}
            row["tflop_per_clip"] = step_flops(network(variant.model), RECIPES[name]().method, frames, size) / 1e12
            rows.append(row)
            progress.advance()
    show("A training step of each recipe", rows, notes=_NOTES)
    return record("recipes", rows, out=config.out, notes=_NOTES)


_KEPT = "batch precision compiled p20 p50 p80 unit clips_per_s peak_mib resident_mib mfu error".split()
_NOTES = (
    "A step is forward, backward and AdamW on clips that are prepared already, random weights. peak_mib: the "
    "allocator's peak, on a CPU above what was allocated before the step; resident_mib: the same of resident memory. "
    "tflop_per_clip is counted, see trainer/monitoring/flops.py.",
)


def _variant(name: str, device: str) -> Variant:
    if name not in RECIPES:
        raise InputError(f"recipe {name!r} is not known; expected one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    shape = (recipe.clip.frames, recipe.clip.size)
    if SHAPES.get(recipe.model.name) != shape:
        raise InputError(f"recipe {name}: {recipe.model.name} at {shape[0]}x{shape[1]} is not measured here")
    kind = "albar" if isinstance(recipe.method, Albar) else "cross_entropy"
    if device == "cuda":
        return Variant(name, recipe.model.name, recipe.batch_size, kind=kind, precision="bf16", compiled=True)
    return Variant(name, recipe.model.name, 1, kind=kind)
