"""Options of `unstill export` and `unstill predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from ...pipeline.loading.device import Device
from ...pipeline.sandbox.process import Sandbox


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Turn a run into a folder with weights, configuration, class names, and the network in exchange formats."""

    run: Annotated[Path, Positional]
    """Run folder (its newest checkpoint; the moving average where it kept one), RUN/best, RUN/step-500, or one
    checkpoint."""
    out: Path
    """New folder."""
    formats: tuple[Literal["torch_export", "onnx"], ...] = ("torch_export",)
    """Besides the weights: torch_export (model.pt2), onnx (model.onnx; needs `pip install onnx onnxscript`)."""
    trust_model_code: bool = False
    """Run the code that the run's config.json names, where its network is a `module:function`."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Classify video files with a trained network."""

    videos: Annotated[tuple[Path, ...], Positional]
    """Video files of any kind that FFmpeg reads."""
    model: Path
    """Folder made by `unstill export`, a run folder (its newest checkpoint), RUN/best, or RUN/step-500."""
    top: int = 3
    """Classes shown for each video."""
    views: int = 1
    """Clips per video, spread evenly over it; their probabilities are averaged. One is taken from the middle."""
    engine: Literal["torch", "torch_export", "onnx"] = "torch"
    """torch: the network itself. torch_export, onnx: the exported file, to see that it works; torch_export needs
    --trust-model-code."""
    device: Device = "auto"
    """Where the network runs; the videos are decoded on the CPU. auto: cuda where there is one."""
    sandbox: Sandbox = "auto"
    """Fences around the processes that decode: require stops where this system lacks one, auto says so and goes on, off
    puts up none (time and memory stay limited)."""
    trust_model_code: bool = False
    """Run the code that the model's files name or hold: a network that is a `module:function`, or a model.pt2 (PyTorch
    unpickles parts of it, which can run anything)."""
