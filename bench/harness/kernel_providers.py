"""Every way to compute what the kernels compute, on the same inputs: the kernel itself, eager torch, and a form that
torch.compile can fuse.

Clips are bfloat16 (B, 3, T, h, w) of uint8 frames (B, T, H, W, 3); losses are of bfloat16 logits (R, C).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import weighted_losses

MEAN, STD = (0.43, 0.39, 0.35), (0.22, 0.21, 0.25)


@dataclass(frozen=True)
class ClipInputs:
    """One batch of frames and its crops, on the device and, for eager slicing, on the host."""

    frames: Tensor
    top: Tensor
    left: Tensor
    flip: Tensor
    t_idx: Tensor
    size: int
    host: list[tuple[int, int, bool]]

    @classmethod
    def draw(cls, device: torch.device, *, batch: int, frames: int, height: int, width: int, size: int) -> "ClipInputs":
        """Random frames of ``height`` x ``width``, and crops of ``size`` x ``size``, every second one mirrored."""
        torch.manual_seed(0)
        pixels = torch.randint(0, 256, (batch, frames, height, width, 3), dtype=torch.uint8, device=device)
        top = torch.randint(0, height - size + 1, (batch,))
        left = torch.randint(0, width - size + 1, (batch,))
        flip = torch.arange(batch) % 2 == 1
        t_idx = torch.randint(0, frames, (batch,)).to(device)
        host = list(zip(top.tolist(), left.tolist(), flip.tolist(), strict=True))
        return cls(pixels, top.to(device), left.to(device), flip.to(device), t_idx, size, host)

    def options(self, static: str, layout: str) -> dict:
        """Keyword arguments of ``clip_prep``."""
        index = dict(top=self.top, left=self.left, flip=self.flip, t_idx=self.t_idx)
        size = (self.size, self.size)
        return dict(mean=MEAN, std=STD, size=size, **index, dtype=torch.bfloat16, static=static, layout=layout)


def with_static(motion: Tensor, t_idx: Tensor, static: str) -> tuple[Tensor, Tensor]:
    """Clips (B,3,T,h,w) and frame ``t_idx`` (B,) of each, (B,3,1,h,w); repeated over T where ``static`` is "full"."""
    frame = motion[torch.arange(len(motion), device=motion.device), :, t_idx].unsqueeze(2)
    return motion, frame if static == "frame" else frame.expand_as(motion).contiguous()


def eager_crops(inputs: ClipInputs) -> Tensor:
    """uint8 (B,T,h,w,3): cropped and mirrored clip by clip, as the official code does."""
    n = inputs.size
    crops = []
    for clip, (y, x, mirrored) in zip(inputs.frames, inputs.host, strict=True):
        crop = clip[:, y : y + n, x : x + n]
        crops.append(crop.flip(2) if mirrored else crop)
    return torch.stack(crops)


def eager_fp32(inputs: ClipInputs, static: str) -> tuple[Tensor, Tensor]:
    """Motion and static clips, bfloat16, computed in float32 and rounded once."""
    mean, std = (inputs.frames.new_tensor(v, dtype=torch.float32) for v in (MEAN, STD))
    clips = (eager_crops(inputs).float() / 255 - mean) / std
    return with_static(clips.permute(0, 4, 1, 2, 3).contiguous().to(torch.bfloat16), inputs.t_idx, static)


def eager_bf16(inputs: ClipInputs, static: str) -> tuple[Tensor, Tensor]:
    """Motion and static clips, bfloat16, rounded after every operation: fewer bytes than in float32."""
    mean, std = (inputs.frames.new_tensor(v, dtype=torch.bfloat16) for v in (MEAN, STD))
    clips = eager_crops(inputs).to(torch.bfloat16).div_(255).sub_(mean).div_(std)
    return with_static(clips.permute(0, 4, 1, 2, 3).contiguous(), inputs.t_idx, static)


def gathered(frames, top, left, flip, t_idx, size: int, static: str, layout: str) -> tuple[Tensor, Tensor]:
    """Motion and static clips, bfloat16, in the form that torch.compile can fuse: crop and flip as gather indices.

    Args:
        frames: uint8 (B,T,H,W,3).
        top, left, flip, t_idx: (B,).
        size: side of the crop, pixels.
        static, layout: as in ``clip_prep``.
    """
    side = torch.arange(size, device=frames.device)
    rows = top[:, None] + side
    columns = left[:, None] + torch.where(flip[:, None], size - 1 - side, side)
    batch = torch.arange(len(frames), device=frames.device)
    time = torch.arange(frames.shape[1], device=frames.device)
    crop = frames[
        batch[:, None, None, None], time[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
    mean, std = (torch.tensor(v, device=frames.device) for v in (MEAN, STD))
    clips = ((crop.float() / 255 - mean) / std).to(torch.bfloat16).permute(0, 4, 1, 2, 3)
    order = torch.channels_last_3d if layout == "channels_last_3d" else torch.contiguous_format
    return with_static(clips.contiguous(memory_format=order), t_idx, static)


def plain_losses(logits: Tensor, target: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> Tensor:
    """ALBAR's loss without its penalty, 0-dim, by torch's own functions.

    Args:
        logits: (R,C), motion rows first.
        target: int64 (R / 2,).
        ce_weight, negent_weight: (R,).
    """
    z = logits.float()
    ce = F.cross_entropy(z, torch.cat((target, target)), reduction="none")
    log_p = F.log_softmax(z, 1)
    return (ce_weight * ce + negent_weight * (log_p.exp() * log_p).sum(1)).sum()


def our_losses(logits: Tensor, target: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> Tensor:
    """``plain_losses`` by ``weighted_losses``, as a training step calls it."""
    return weighted_losses(logits, target, len(target), ce_weight, negent_weight)[0]


def loss_inputs(rows: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits bfloat16 (rows,classes), target int64 (rows / 2,), and ALBAR's two weights of each row, (rows,)."""
    torch.manual_seed(0)
    half = rows // 2
    logits = torch.randn(rows, classes, device=device).to(torch.bfloat16).requires_grad_()
    target = torch.randint(0, classes, (half,), device=device)
    weights = torch.tensor([[1.0] * half + [-0.3] * half, [0.0] * half + [4.25] * half], device=device) / half
    return logits, target, weights[0].contiguous(), weights[1].contiguous()
