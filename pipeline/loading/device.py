"""Which device ``auto`` stands for, and what is said where there is none of the kind that was asked for."""

from typing import Literal

from ..errors import InputError

Device = Literal["auto", "cuda", "cpu"]


def resolve_device(device: str) -> Literal["cuda", "cpu"]:
    """cuda or cpu.

    Args:
        device: auto (cuda where torch sees a device), cuda or cpu.

    Raises:
        InputError: cuda was asked for, but there is none, or it is none of the three.
    """
    import torch  # not at the top: options name the type, and must not wait for torch

    if device not in ("auto", "cuda", "cpu"):
        raise InputError(f"device is {device!r}; expected auto, cuda or cpu")
    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise InputError("device cuda: torch sees no CUDA device; check nvidia-smi, or use --device cpu")
    return "cpu"
