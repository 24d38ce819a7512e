"""A training step as the benchmarks compute it: on fixed random clips, in one of several ways."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from ...trainer.batch import Batch
from ...trainer.loss_module import LossModule, compile_loss
from ...trainer.methods import Albar, Baseline
from ...trainer.models.closed_network import ClosedLayers, close_network
from ...trainer.models.position_bias import look_up_position_biases
from ...trainer.models.registry import build_model
from ...trainer.passes import Pass, backward_in_passes, step_passes
from .planned_seconds import COMPILE_SECONDS, START_SECONDS

SHAPES = {"swin3d_t": (32, 224), "r3d_18": (16, 112), "reduced_swin": (8, 56)}
STEP_SECONDS = {"swin3d_t": 1.0, "r3d_18": 0.5, "reduced_swin": 0.2}  # eager float32 is the slowest


@dataclass(frozen=True)
class Variant:
    """One way to compute a step."""

    name: str
    model: str
    batch: int
    kind: str = "albar"  # albar, cross_entropy, reference
    precision: str = "fp32"  # fp32, bf16, fp64
    compiled: bool = False
    closed_conv: bool = False
    channels_last: bool = False
    joint: bool = False
    recompute: bool = False
    closed_layers: ClosedLayers | Literal["auto"] = "off"  # as --step.closed-layers
    one_backward: bool = False  # both forwards before one backward, as the official code: a reference, not an option
    clip: tuple[int, int] | None = None  # frames and side in pixels, where not those of the model's recipe

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and side of its clips, pixels."""
        return self.clip or SHAPES[self.model]

    def estimate(self, steps: int) -> float:
        """Seconds that it should take on a GPU of the H100's class: start, compilation, steps, counting operations."""
        compiling = COMPILE_SECONDS.get((self.model, self.kind == "albar"), 60) if self.compiled else 0
        return START_SECONDS + compiling * (1.3 if self.recompute else 1) + (steps + 4) * STEP_SECONDS[self.model]


def network(name: str) -> nn.Module:
    """The model of a benchmark, random weights."""
    torch.manual_seed(0)
    if name == "reduced_swin":
        return SwinTransformer3d([2, 4, 4], 48, [2, 2], [3, 6], [8, 7, 7], stochastic_depth_prob=0.0, num_classes=51)
    return build_model(name, 51)


def make_step(variant: Variant, device: str) -> tuple[Callable[[], object], nn.Module, Albar | Baseline]:
    """A function that trains one step on fixed random clips, its network, and its method."""
    frames, size = variant.shape
    dtype = torch.float64 if variant.precision == "fp64" else torch.float32
    model = network(variant.model).to(device, dtype).train()
    layout = torch.channels_last_3d if variant.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    if variant.kind != "reference":  # which keeps the published network as it is
        look_up_position_biases(model)
    motion = torch.randn(variant.batch, 3, frames, size, size, device=device, dtype=dtype).contiguous(
        memory_format=layout
    )
    middle = motion[:, :, frames // 2 : frames // 2 + 1]
    static = middle.expand_as(motion).contiguous(memory_format=layout)
    target = torch.arange(variant.batch, device=device) % 51
    method = Baseline() if variant.kind == "cross_entropy" else Albar(forward="joint" if variant.joint else "two")
    switch = "on" if variant.closed_conv else "off"
    close_network(model, switch, variant.closed_layers, penalty=method.twice_differentiable)
    if variant.kind == "reference":
        weights = Albar()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05)
        return lambda: reference_step(model, optimiser, motion, static, target, weights), model, method
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    loss_module = LossModule(model, method, torch.bfloat16 if variant.precision == "bf16" else None)
    compile_loss(loss_module, "default" if variant.compiled else "off", variant.recompute)
    adversarial = variant.kind == "albar"

    def step():
        batch = Batch(motion, middle if adversarial else None, target)
        passes = step_passes(method, len(batch), adversarial)
        backward_in_passes(loss_module, batch, one_pass(len(batch)) if variant.one_backward else passes)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step, model, method


def one_pass(clips: int) -> list[Pass]:
    """The old order of a step: motion and static clips both forward, then one backward of the sum."""
    return [Pass("all", slice(0, clips), 1.0, penalise=True, static=True, last=True)]


def reference_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, motion: Tensor, static: Tensor, target: Tensor, weights: Albar
) -> float:
    """One step with the official code's arithmetic (github.com/UCF-CRCV/ALBAR), in our words."""
    static = static.detach().requires_grad_(True)
    logits, static_logits = model(motion), model(static)
    p = F.softmax(static_logits, 1)
    entropy = (p * F.log_softmax(static_logits, 1)).sum(1).mean()
    ones = torch.ones_like(static_logits)
    (g,) = torch.autograd.grad(static_logits, static, ones, create_graph=True, retain_graph=True)
    penalty = (g.square().sum((1, 2, 3)) + 1e-12).sqrt().mean()
    loss = (
        F.cross_entropy(logits, target)
        - weights.w_adv * F.cross_entropy(static_logits, target)
        + weights.w_ent * entropy
        + weights.w_gp * penalty
    )
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
