"""What a network sees of a clip: all of it, or what moves in it, or the one after the other in the course of a run.

    clip            x
    moving_part     x - mean_t x, in training and afterwards: a clip in which nothing moves is zero
    fade_in         x - (1 - a) mean_t x in training: a is 0 until a share ``begin`` of the run, then grows evenly to 1
                    at ``end``, and is 1 from there on. Outside of training a is 1: the clip as it is

A network that sees only what moves cannot read the scene. With ``fade_in`` it learns the motion first, and meets the
scene when little of its loss is left.

With ``steady`` the camera's motion is taken out before (``camera_motion``). Outside of training the view does it; in
training the step, once for all passes and before batch augmentations (``steady_batch``).

The view is a forward pre-hook, so that the network's weights keep their names: weights of any view fit any other. Where
in the run the network is follows from the step's number, which a checkpoint has; nothing else is saved.
"""

import torch
from torch import Tensor, nn

from ..batch import STEADY
from .camera_motion import Kind, steady_clips
from .config import ClipViewConfig


class ClipView(nn.Module):
    """Changes clips on their way into a network.

    Args:
        config: which view.
    """

    share: Tensor

    def __init__(self, config: ClipViewConfig):
        super().__init__()
        self.sees, self.fade = config.sees, config.fade
        self.camera: Kind | None = None if config.steady == "off" else config.steady
        # a tensor: a number would be a constant of the compiled step, and be compiled anew in every one
        self.register_buffer("share", torch.zeros(()), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B,3,T,h,w) as the network is to see them; of their dtype."""
        if self.camera is not None and not self.training:
            clips, _ = steady_clips(clips, self.camera)
        if self.sees == "clip" or (self.sees == "fade_in" and not self.training):
            return clips
        exact = clips.to(torch.promote_types(clips.dtype, torch.float32))
        still = exact.mean(2, keepdim=True)
        if self.sees == "fade_in":
            still = (1 - self.share) * still
        return (exact - still).to(clips.dtype)

    def at(self, done: float) -> float:
        """a, after a share ``done`` of the run."""
        begin, end = self.fade
        return float(done >= end) if begin == end else min(max((done - begin) / (end - begin), 0.0), 1.0)


def add_view(model: nn.Module, config: ClipViewConfig) -> None:
    """Let a network see its clips as ``config`` says; in place."""
    if config.sees != "clip" or config.steady != "off":
        model.add_module("clip_view", ClipView(config))
        model.register_forward_pre_hook(_as_seen)


def set_progress(model: nn.Module, done: float) -> None:
    """Tell a network's view which share of the run is over; the host does not wait for the device."""
    view = getattr(model, "clip_view", None)
    if isinstance(view, ClipView) and view.sees == "fade_in":
        view.share.fill_(view.at(done))


def steady_batch(clips: Tensor, config: ClipViewConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Clips of a training step without the camera's motion, and ``per_sample["steady"]``, where that is asked for."""
    if config.steady == "off":
        return clips, {}
    clips, trusted = steady_clips(clips, config.steady)
    return clips, {STEADY: trusted}


def _as_seen(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (model.clip_view(inputs[0]), *inputs[1:])  # type: ignore[operator]  (a submodule)
