"""Options of `unstill scene-bias`, `scene-labels`, `still-bank` and `hat`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ...pipeline.errors import InputError
from ...pipeline.loading.device import Device
from ...pipeline.options import at_least, between, check_options
from ..evaluation.config import EvaluateOptions


@dataclass(frozen=True, kw_only=True)
class SceneBiasConfig:
    """Measure the scene bias of a dataset, or of a trained model's features."""

    train: Annotated[Path, Positional, arg(metavar="TRAIN")]
    """Dataset that the linear classifier is trained on."""
    test: Annotated[Path, Positional, arg(metavar="TEST")]
    """Dataset that it is tested on, with the same classes."""
    places: Path | None = None
    """Weights of a Places365 ResNet (resnet50_places365.pth.tar): the scene bias of the dataset."""
    run: Path | None = None
    """Run folder: what its network keeps of the scene, in its features of static clips."""
    frames: int = 3
    """Frames of each video, spread evenly; features are averaged over them."""
    decay: float = 1e-3
    """L2 penalty of the linear classifier."""
    device: Device = "auto"
    """Where to decode and run the network. auto: cuda where there is one."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        if (self.places is None) == (self.run is None):
            raise InputError("give either --places or --run, whose features are to be used")


@dataclass(frozen=True, kw_only=True)
class SceneLabelConfig:
    """Write the soft scene label of every video, for SDN: Places365 probabilities, averaged over frames."""

    data: Annotated[Path, Positional, arg(metavar="DATA")]
    """Dataset folder made by `unstill convert`."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """The .npz to write: keys and probabilities, for --method.scenes."""
    places: Path
    """Weights of a Places365 ResNet (resnet50_places365.pth.tar)."""
    frames: int = 8
    """Frames of each video, spread evenly."""
    device: Device = "auto"
    """Where to decode and run the network. auto: cuda where there is one."""


@dataclass(frozen=True, kw_only=True)
class StillBankConfig:
    """Collect the stills that StillMix blends into clips."""

    data: Annotated[Path, Positional, arg(metavar="DATA")]
    """Training set made by `unstill convert`."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """The .safetensors file to write, for --augmentation.bank."""
    reference: Path | None = None
    """Run folder of a network that was trained on single frames (`clip.frames` 1); none: random frames."""
    tau: float = 0.5
    """Quantile of the largest probability below which frames are left out."""
    stills: int = 1024
    """Number of stills."""
    frames: int = 8
    """Frames of each video that are considered, spread evenly; the paper takes all, or every 20th of Kinetics."""
    size: int = 224
    """Side of the stills in pixels."""
    seed: int = 0
    """Of the choice among the frames that are kept."""
    batch_size: int = 64
    """Frames at a time."""
    device: Device = "auto"
    """Where to decode and score. auto: cuda where there is one."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        quantile = between(0, 1, "a quantile", without_high=True)
        check_options(self, tau=quantile, stills=at_least(1), frames=at_least(1))


@dataclass(frozen=True, kw_only=True)
class HatConfig:
    """Does a model read the human or the background? Datasets made by `unstill convert`, joined by key."""

    runs: Annotated[tuple[Path, ...], Positional]
    """Run folders or checkpoints; each model is called as its folder is."""
    original: Path | None = None
    """The test videos as they are; needed for the ratios."""
    background_only: Path | None = None
    """The same videos with the human painted out: BOR."""
    human_only: Path | None = None
    """The same videos with everything but the human in the mean colour: HOR, the least reliable ratio."""
    swap: Path | None = None
    """Videos of one's human before another's background, in the human's class: SHAcc and SBErr."""
    swap_backgrounds: Path | None = None
    """CSV with the columns key and background, the class that each background comes from; needed for `swap`."""
    run: Annotated[EvaluateOptions, arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    out: Path | None = None
    """A .json to write."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        if self.original is None and (self.background_only or self.human_only):
            raise InputError("BOR and HOR are ratios to the accuracy on the original videos; give --original")
        if (self.swap is None) != (self.swap_backgrounds is None):
            raise InputError("give --swap and --swap-backgrounds together")
        if not (self.background_only or self.human_only or self.swap):
            raise InputError("give at least one of --background-only, --human-only, --swap")
