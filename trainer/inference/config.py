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
    card: bool = False
    """Write a model card, too: README.md as the Hugging Face Hub reads it, with data, recipe, commit, measures, limits
    and licence."""
    evaluation: Path | None = None
    """With --card: folder of `unstill evaluate --out`, whose measures go into the card."""
    license: str = ""
    """With --card: licence of the weights by its name on the Hub, such as cc-by-nc-4.0. By default the card says that
    none is stated."""
    push: str | None = None
    """Upload the folder to this repository of the Hub, ORG/NAME, which is private if it is new; with the card. Needs
    `pip install 'unstill[hub]'` and `hf auth login`."""
    trust_model_code: bool = False
    """Run the code that the run's config.json names, where its network is a `module:function`."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Classify video files with a trained network."""

    videos: Annotated[tuple[Path, ...], Positional]
    """Video files of any kind that FFmpeg reads."""
    model: Path
    """Folder made by `unstill export`, a run folder (its newest checkpoint), RUN/best, RUN/step-500, or `hf:ORG/NAME`
    of the Hugging Face Hub (hf:ORG/NAME@REVISION for one version), which needs `pip install 'unstill[hub]'`."""
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
