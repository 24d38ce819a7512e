"""What a recipe costs, counted on any machine: operations and memory of a step, and the clips/s to expect of a GPU."""

import json
from dataclasses import replace

import torch
from torch import nn

from ...pipeline.shards.dataset_info import DatasetInfo
from ...trainer.build import build_networks
from ...trainer.config import TrainConfig
from ...trainer.memory_check import fewest_static_parts
from ...trainer.memory_plan import MemoryPlan, plan_memory
from ...trainer.methods import Baseline
from ...trainer.models.network import head_of
from ...trainer.monitoring.flops import PEAK_BF16, step_flops
from ...trainer.optimisers.batch_rule import base_rate
from ..report.scaling import ASSUMED_SHARE, layered_frames, per_clip
from .row import Role, Row
from .workload import method_name

GIB = 1 << 30
# card -> GiB that torch can use of it: what it reports less 1 GiB for the CUDA context and workspaces of libraries
CARDS = {"8 GB": 6.6, "24 GB": 22.6, "80 GB": 78.1}
FITS = {"own_small": "8 GB", "own_small_albar": "8 GB", "own": "24 GB", "own_albar": "24 GB"}  # as the recipes say
H264_FRAMES = 11_900  # decoded frames/s of an H100, see SCALING.md
COLUMNS = (
    "batch_of_a_process",
    "gib_of_a_step",
    *(f"clips_on_{card.replace(' ', '_').lower()}" for card in CARDS),
    "h100_clips_per_s",
    "decoder_clips_per_s",
)
NOTES = (
    "tflop (value): operations of one clip's part of a step, the mean over the period of the penalty, counted; see "
    "trainer/monitoring/flops.py. gib_of_a_step, clips_on: by the plan of trainer/memory_plan.py, eager, in the "
    "recipe's precision, as on a GPU, static clips in one part; clips_on: the most clips of a process on a card of "
    f"which torch can use {', '.join(f'{gib} GiB ({card})' for card, gib in CARDS.items())}.",
    f"h100_clips_per_s: {ASSUMED_SHARE} x the peak of an H100 in dense bf16 / operations; the share is assumed, no GPU "
    f"was measured. decoder_clips_per_s: {H264_FRAMES:,} frames/s (H.264) / frames to decode for a clip of a "
    "video of 300 frames, in shards with layers where the stride is 2. The lower of the two is to be expected.",
    "batch_of_a_process: the recipe's batch on one GPU, or the most that fits on 80 GB where that is less: then "
    "several GPUs, or --step.accumulate, make up the batch.",
)


def plan_rows(name: str, recipe: TrainConfig) -> list[Row]:
    """What a recipe costs, and whether it fits the card that it says it is for.

    Args:
        name: of the recipe.
        recipe: what it says; neither data nor weights are read.
    """
    config, networks, classes = _without_files(recipe)
    plan = _plan(config, networks, classes)
    largest = {card: plan.largest_batch(gib * GIB) for card, gib in CARDS.items()}
    clips = min(recipe.batch_size, largest["80 GB"])
    model, module = networks
    tflop = 1e-12 * step_flops(
        *(model, recipe.method, recipe.clip.frames, recipe.clip.size), head=head_of(model), method_module=module
    )
    compute, decode = ASSUMED_SHARE * PEAK_BF16["H100"] / (tflop * 1e12), H264_FRAMES / _frames(recipe)
    shape = f"{recipe.clip.frames}x{recipe.clip.size}x{recipe.clip.size}"
    facts = {
        "recipe": name,
        "model": recipe.model.name,
        "method": method_name(recipe),
        "clip": shape,
        "precision": recipe.step.precision,
        "million_parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "recipe_batch": recipe.batch_size,
        "learning_rate": base_rate(recipe.optimiser, recipe.batch_size),
        "batch_of_a_process": clips,
        "gib_of_a_step": plan.peak(clips) / GIB,
        "gib_of_a_clip": plan.per_clip / GIB,
        "gib_fixed": plan.fixed / GIB,
        **{f"clips_on_{card.replace(' ', '_').lower()}": most for card, most in largest.items()},
        "h100_clips_per_s": compute,
        "decoder_clips_per_s": decode,
        "expected_clips_per_s": min(compute, decode),
    }
    role: Role = "peer" if isinstance(recipe.method, Baseline) else "ours"
    detail = f"{method_name(recipe)} on {recipe.model.name}, {shape}"
    rows = [
        Row(
            title=f"arithmetic of a clip in {name}",
            value=tflop,
            unit="TFLOP",
            better="lower",
            figure="plan",
            label=name,
            role=role,
            detail=detail,
            facts=facts,
        )
    ]
    return rows + ([_fit_row(name, config, networks, classes, plan)] if name in FITS else [])


def _fit_row(
    name: str, config: TrainConfig, networks: tuple[nn.Module, nn.Module | None], classes: int, plan: MemoryPlan
) -> Row:
    """The recipe's step as it says it, on the card that it says."""
    card = FITS[name]
    available, parts = CARDS[card] * GIB, None
    if plan.peak(config.batch_size) > available and config.method.static_pass:
        in_parts = lambda parts: _plan(config, networks, classes, parts)  # noqa: E731
        parts = fewest_static_parts(config, config.batch_size, available, in_parts)
        plan = in_parts(parts) if parts else plan
    facts = {"recipe": name, "card": card, "recipe_batch": config.batch_size, "static_parts": parts or 1}
    title = f"{name}: memory of a step of {config.batch_size} clips, for a card of {card}"
    peak = plan.peak(config.batch_size) / GIB
    return Row(title=title, value=peak, unit="GiB", at_most=CARDS[card], target=f"fits {card}", facts=facts)


def _plan(
    config: TrainConfig, networks: tuple[nn.Module, nn.Module | None], classes: int, parts: int | None = None
) -> MemoryPlan:
    return plan_memory(config, *networks, classes=classes, static_parts=parts, cuda=True)


def _without_files(recipe: TrainConfig) -> tuple[TrainConfig, tuple[nn.Module, nn.Module | None], int]:
    """The recipe with random weights, its networks on the CPU, and how many classes it has."""
    architecture = ""
    if recipe.model.name == "hf:MCG-NJU/videomae-base":
        architecture = json.dumps({"model_type": "videomae"})  # transformers' defaults are VideoMAE-B
    model = replace(recipe.model, weights="none", architecture=architecture)
    config = replace(recipe, model=model, device="cpu")
    classes = 400 if "kinetics400" in recipe.data.parts else 51
    data = DatasetInfo(samples=1, classes=tuple(f"class {n}" for n in range(classes)), digest="")
    layers_of_a_gpu = replace(config, device="cuda")  # a CPU's convolutions in bf16 are others
    return config, build_networks(layers_of_a_gpu, data, torch.device("cpu"), {}), classes


def _frames(recipe: TrainConfig) -> float:
    """Frames to decode for a clip, on average."""
    return layered_frames(recipe.clip) if recipe.clip.stride == 2 else per_clip(recipe.clip)[1]
