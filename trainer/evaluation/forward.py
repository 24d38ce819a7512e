"""Networks on decoded frames: normalised once for all that want it alike, each in the precision it was trained in."""

import weakref
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ...kernels import clip_prep
from .subject import Subject

# Batches from which compiling a network pays on a GPU: swin3d_t takes about 35 s to compile, and a batch of 64 clips is
# taken to gain about 0.07 s. That gain is an assumption, not a measurement. On a CPU compiling is left out.
COMPILE_FROM = 500

_compiled: "weakref.WeakKeyDictionary[nn.Module, Callable[[Tensor], Tensor]]" = weakref.WeakKeyDictionary()


class Forward:
    """Runs networks on batches of frames.

    Args:
        subjects: the networks; they are moved to the device, and those of precision fp64 to float64.
        device: where they run.
        batch: clips in a full batch.
        batches: how many will be run in all, for the choice whether compiling pays.
        compiled: on, off, or auto: where it pays.
    """

    def __init__(
        self, subjects: Sequence[Subject], device: torch.device, batch: int, batches: int, compiled: str = "auto"
    ):
        self._subjects, self._device, self._batch = subjects, device, batch
        self.compiled = compiled == "on" or (compiled == "auto" and device.type == "cuda" and batches >= COMPILE_FROM)
        for subject in subjects:
            subject.model.to(device=device, dtype=torch.float64 if subject.precision == "fp64" else None)

    def __call__(self, frames: Tensor) -> Iterator[tuple[Subject, Tensor]]:
        """uint8 frames (B,T,h,w,3) -> float64 logits (B,C) of every network."""
        for subject, logits, _ in self.with_features(frames, False):
            yield subject, logits

    def with_features(self, frames: Tensor, features: bool = True) -> Iterator[tuple[Subject, Tensor, Tensor | None]]:
        """The same, and where ``features`` are asked for what the last layer sees, float64 (B,D).

        They are None where that layer is not known; the networks are not compiled for them.
        """
        rows = len(frames)
        # the short last batch: another shape would be compiled again
        if self.compiled and not features and rows < self._batch:
            frames = torch.cat([frames, frames[-1:].expand(self._batch - rows, *frames.shape[1:])])
        prepared: dict[tuple, Tensor] = {}
        for subject in self._subjects:
            dtype = torch.float64 if subject.precision == "fp64" else torch.float32
            key = (subject.mean, subject.std, dtype)
            if key not in prepared:
                prepared[key] = clip_prep(frames, mean=subject.mean, std=subject.std, dtype=torch.float32)[0].to(dtype)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=subject.precision == "bf16"):
                if features and subject.head:
                    logits, seen = _with_input_of(subject.model, subject.head, prepared[key])
                else:
                    logits, seen = self._network(subject.model)(prepared[key]), None
            yield subject, logits[:rows].double(), None if seen is None else _pooled(seen, rows).double()

    def _network(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        if not self.compiled:
            return model
        if model not in _compiled:
            _compiled[model] = torch.compile(model, dynamic=False)
        return _compiled[model]


def _with_input_of(model: nn.Module, layer: str, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and what a layer sees on the way to them."""
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = model(clips)
    finally:
        handle.remove()
    return logits, seen[-1]


def _pooled(features: Tensor, clips: int) -> Tensor:
    """(B,D): averaged over time and place where the head is a convolution, over frames where it sees each by itself."""
    pooled = features if features.ndim == 2 else features.flatten(2).mean(2)
    return pooled.view(clips, -1, pooled.shape[1]).mean(1)
