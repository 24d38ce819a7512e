"""`unstill bench recipes`: what a step of each recipe costs, at its full clip shape: FLOPs, memory, expected clips/s.

First what can be counted of every recipe that a user is sent to, on any machine (``harness/recipe_plan.py``). Then
steps that are computed. On a GPU: compiled bf16 at the recipe's batch. On a CPU: one clip, eager float32, one thread;
its time says little of a GPU, but the memory that one clip's step keeps is the network's.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...pipeline.errors import InputError
from ...pipeline.progress import Progress
from ...trainer.config import TrainConfig
from ...trainer.methods import Baseline
from ...trainer.models.closed_network import close_network
from ...trainer.models.position_bias import look_up_position_biases
from ...trainer.monitoring.flops import step_flops
from ...trainer.recipes import RECIPES
from ..harness.recipe_plan import COLUMNS, NOTES, plan_rows
from ..harness.record import ResultFile
from ..harness.row import Role, Row
from ..harness.section import Chart, Section
from ..harness.step_process import measure
from ..harness.training_step import SHAPES, Variant, network
from ..harness.workload import method_name

SAME = {  # recipes that differ in data alone
    "hmdb51_albar": "hmdb51_albar, ucf101_albar, kinetics400_albar",
    "hmdb51_baseline": "hmdb51_baseline, ucf101_baseline, kinetics400_baseline",
}


PLANNED = (
    *("own_small", "own_small_albar", "own", "own_albar"),
    *("kinetics400_videomae_b", "kinetics400_videomae_b_albar", "kinetics400_swin_t", "kinetics400_swin_t_albar"),
    *("kinetics400_r3d18", "kinetics400_r3d18_albar", "hmdb51_baseline", "hmdb51_albar"),
)

SECTIONS = {
    "recipes-plan": Section(
        title="What the recipes cost, counted",
        text="Operations, and memory as on a GPU, of one clip's part of a step; no GPU was asked.",
        order=69,
        charts={
            "plan": Chart(title="Arithmetic of a recipe's step", reading="Forward, backward, and ALBAR's penalty."),
        },
    ),
    "recipes": Section(
        title="The recipes' steps",
        text="What a step of each published recipe costs, for one clip of its full shape.",
        order=70,
        picture="training",
        charts={
            "step": Chart(
                title="Arithmetic of a recipe's step",
                reading="Forward, backward and update.",
                column="tflop_per_clip",
                unit="TFLOP a clip",
                better="lower",
            ),
            "memory": Chart(
                title="Memory of a recipe's step",
                reading="Forward, backward and update.",
                main=False,
                column="peak_mib",
                of="step",
                unit="MiB",
                better="lower",
            ),
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class RecipeBench:
    """Measure a training step of each recipe at its full clip shape."""

    out: Path | None = None
    """Folder of the result files; bench/results by default."""
    planned: tuple[str, ...] = PLANNED
    """Recipes to count, without a step: operations, memory on cards, expected clips/s. Into recipes-plan.json."""
    measure: bool = True
    """Then compute steps of `recipes`. Into recipes-cpu.json, or that of the GPU."""
    recipes: tuple[str, ...] = ("hmdb51_albar", "hmdb51_baseline", "kinetics400_scratch", "choi_r3d18")
    """Recipes to measure: of cross entropy or ALBAR, whose model is swin3d_t or r3d_18."""
    steps: int = 1
    """Timed steps; on a CPU one of ALBAR on swin3d_t takes about half a minute."""


def run(config: RecipeBench) -> Path:
    """Count, measure, print the tables, write the result files and return the path of the last.

    Raises:
        InputError: a recipe that is not known, or that this benchmark cannot measure.
    """
    planned = _plan(config) if config.planned else None
    if planned is not None and not config.measure:
        return planned
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = [(name, _variant(name, device)) for name in config.recipes]
    results = ResultFile("recipes", out=config.out, notes=_NOTES)
    with Progress("recipes", len(chosen), "recipes") as progress:
        for name, variant in chosen:
            (found,) = measure([variant], config.steps, device)
            frames, size = SHAPES[variant.model]
            model, method = network(variant.model), RECIPES[name]().method
            look_up_position_biases(model)
            switch = "on" if variant.closed_conv else "off"
            close_network(model, switch, variant.closed_layers, penalty=method.twice_differentiable)
            flops = step_flops(model, method, frames, size)
            results.add(recipe_row(name, RECIPES[name](), found, flops / 1e12))
            progress.advance()
    results.show("A training step of each recipe")
    return results.finish()


def _plan(config: RecipeBench) -> Path:
    for name in config.planned:
        _recipe(name)
    results = ResultFile("recipes-plan", out=config.out, notes=NOTES, file_name="recipes-plan.json")
    with Progress("recipes counted", len(config.planned), "recipes") as progress:
        for name in config.planned:
            results.add(*plan_rows(name, _recipe(name)))
            progress.advance(note=name)
    results.show("What the recipes cost", COLUMNS)
    return results.finish()


def recipe_row(name: str, recipe: TrainConfig, step: Row, tflop: float) -> Row:
    """A recipe's row.

    Args:
        name: of the recipe.
        recipe: what it says.
        step: the measured step, of one clip on a CPU.
        tflop: of one clip's part of a step, counted.
    """
    clip = f"{recipe.clip.frames}x{recipe.clip.size}x{recipe.clip.size}"
    batch = step.facts["batch"]
    facts = {"recipes": SAME.get(name, name), "model": recipe.model.name, "method": method_name(recipe), "clip": clip}
    facts |= {name: step.facts[name] for name in _KEPT if name in step.facts} | {"tflop_per_clip": tflop}
    first, *others = SAME.get(name, name).split(", ")
    role: Role = "peer" if isinstance(recipe.method, Baseline) else "ours"
    computed = f"{step.facts['precision']}, {'compiled' if step.facts['compiled'] else 'eager'}"
    return Row(
        title=f"a step of {name}",
        value=step.value,
        p20=step.p20,
        p80=step.p80,
        unit="ms",
        better="lower",
        figure="step",
        label=f"{first} and {len(others)} more" if others else first,
        role=role,
        detail=f"{method_name(recipe)} on {recipe.model.name}, {clip}, batch {batch}, {computed}",
        facts=facts,
    )


_KEPT = "batch precision compiled clips_per_s peak_mib resident_mib mfu error".split()
_NOTES = (
    "A step is forward, backward and AdamW on clips that are prepared already, random weights. peak_mib: the "
    "allocator's peak, on a CPU above what was allocated before the step; resident_mib: the same of resident memory. "
    "tflop_per_clip is counted, see trainer/monitoring/flops.py.",
)


def _recipe(name: str) -> TrainConfig:
    if name not in RECIPES:
        raise InputError(f"recipe {name!r} is not known; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def _variant(name: str, device: str) -> Variant:
    recipe = _recipe(name)
    shape = (recipe.clip.frames, recipe.clip.size)
    if SHAPES.get(recipe.model.name) != shape:
        raise InputError(f"recipe {name}: {recipe.model.name} at {shape[0]}x{shape[1]} is not measured here")
    kind = {"cross entropy": "cross_entropy", "albar": "albar"}.get(method_name(recipe))
    if kind is None:  # its step would be another one than the recipe's
        raise InputError(f"recipe {name}: the step of {method_name(recipe)} is not measured here")
    step = recipe.step
    closed_conv = step.closed_conv == "on" or (step.closed_conv == "auto" and recipe.method.twice_differentiable)
    one = Variant(name, recipe.model.name, 1, kind=kind, closed_conv=closed_conv, closed_layers=step.closed_layers)
    if device == "cuda":
        return replace(one, batch=recipe.batch_size, precision="bf16", compiled=True)
    return one
