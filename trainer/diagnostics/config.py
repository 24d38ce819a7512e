"""Options of `unstill diagnose`, `scene-labels`, `still-bank` and `recast-clips`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ...pipeline.errors import InputError
from ...pipeline.loading.device import Device
from ...pipeline.ood.masks import MaskFrom, MaskValue
from ...pipeline.options import at_least, between, check_options
from ..evaluation.config import EvaluateOptions


@dataclass(frozen=True, kw_only=True)
class SceneBiasConfig:
    """How far do still frames give the class away, to a scene network (a dataset's bias) or to a trained model?"""

    train: Annotated[Path, Positional, arg(metavar="TRAIN")]
    """Dataset that the linear classifier is trained on."""
    test: Annotated[Path, Positional, arg(metavar="TEST")]
    """Dataset that it is tested on, with the same classes."""
    places: Path | None = None
    """Weights of a Places365 ResNet (resnet50_places365.pth.tar): the scene bias of the dataset."""
    run: Path | None = None
    """Run folder: what its network keeps of the scene, in its features of static clips."""
    frames: int | None = None
    """Still frames of each video that features are averaged over; by default 3, spread evenly, for --places, and one at
    random for --run: several, or one at a fixed time, show how things change from frame to frame."""
    seed: int = 0
    """With --run: of the frame that is drawn, by the video's key."""
    decay: float = 1e-3
    """L2 penalty of the linear classifier."""
    out: Path | None = None
    """Folder for scene-bias.json, .html and .png; a path that ends in .json: that file alone. By default nothing is
    written."""
    device: Device = "auto"
    """Where to decode and run the network. auto: cuda where there is one."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        if (self.places is None) == (self.run is None):
            raise InputError("give either --places or --run, whose features are to be used")
        check_options(self, frames=at_least(1))


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
    every: int = 1
    """Every how many frames one is considered; the paper takes all, and of Kinetics every 20th."""
    size: int = 224
    """Side of the stills in pixels."""
    squeeze: bool = True
    """Squeeze complete frames to squares, as the published bank; --no-squeeze: their centre square."""
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
        check_options(self, tau=quantile, stills=at_least(1), every=at_least(1))


@dataclass(frozen=True, kw_only=True)
class HatConfig:
    """Does a model read the human or the background (HAT)? Datasets made by `unstill convert`, joined by key."""

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
    """CSV with the columns key, background (the class that the background comes from) and, if there are several,
    kind (close, far, random, same, ...); needed for `swap`. `unstill ood build --kind swap` writes it."""
    run: Annotated[EvaluateOptions, arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    out: Path | None = None
    """Folder for hat.json, .html and .png; a path that ends in .json: that file alone. By default nothing is
    written."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        if self.original is None and (self.background_only or self.human_only):
            raise InputError("BOR and HOR are ratios to the accuracy on the original videos; give --original")
        if (self.swap is None) != (self.swap_backgrounds is None):
            raise InputError("give --swap and --swap-backgrounds together")
        if not (self.background_only or self.human_only or self.swap):
            raise InputError("give at least one of --background-only, --human-only, --swap")


@dataclass(frozen=True, kw_only=True)
class StaticDynamicConfig:
    """How much of each layer follows what moves, and how much what stands (Kowal et al., CVPR 2022)?"""

    runs: Annotated[tuple[Path, ...], Positional]
    """Run folders or checkpoints; each model is called as its folder is."""
    data: Path
    """Dataset made by `unstill convert`."""
    partner: Path | None = None
    """Dataset with the same keys: the same movements with another appearance. By default each clip is restyled instead
    (colours permuted and bent, alike in all frames), which is cheaper than style transfer and changes less."""
    layers: tuple[str, ...] = ()
    """Names of modules, `penultimate` (what the last layer sees) or `logits`; by default the last layer of each size of
    the map, and `penultimate`."""
    run: Annotated[EvaluateOptions, arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    out: Path | None = None
    """Folder for static-dynamic.json, .html and .png; a path that ends in .json: that file alone. By default nothing is
    written."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""


@dataclass(frozen=True, kw_only=True)
class InformationConfig:
    """What can be read of scene, actor or class from the features of moving and of still clips?"""

    runs: Annotated[tuple[Path, ...], Positional]
    """Run folders or checkpoints; each model is called as its folder is."""
    data: Path
    """Dataset made by `unstill convert`."""
    truth: Path | None = None
    """CSV with the column key and others: what is known of the videos."""
    columns: tuple[str, ...] = ()
    """Columns of --truth that are asked for, given the class; the class itself always is."""
    scenes: Path | None = None
    """The .npz of `unstill scene-labels`: the most likely scene of each video counts as the column `scene`."""
    clips: tuple[Literal["filmed", "still", "shuffled"], ...] = ("filmed", "still")
    """Clips as filmed, one random frame repeated, or all frames in random order."""
    layers: tuple[str, ...] = ("penultimate", "logits")
    """Names of modules, `penultimate` (what the last layer sees) or `logits`."""
    by_class: bool = False
    """Let the probe differ from class to class: tighter where what features say of a column depends on the class."""
    folds: int = 5
    """Parts of the videos; each is tested by a probe that was trained on the others."""
    run: Annotated[EvaluateOptions, arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    out: Path | None = None
    """Folder for information.json, .html and .png; a path that ends in .json: that file alone. By default nothing is
    written."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        check_options(self, folds=at_least(3))
        if self.columns and self.truth is None:
            raise InputError("--columns are columns of a CSV; give it with --truth")


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Where and when do models find their evidence? Grad-CAM and integrated gradients of single clips."""

    runs: Annotated[tuple[Path, ...], Positional]
    """Run folders or checkpoints; each model is called as its folder is."""
    data: Path
    """Dataset made by `unstill convert`."""
    out: Path
    """Folder for look.json, .html and .png."""
    keys: tuple[str, ...] = ()
    """Keys of the clips to show; by default the first of each class, six at most."""
    masks: Path | None = None
    """Who moves where in each frame, named as the source videos are; with them the share of the heat on the actor is
    measured."""
    mask_from: MaskFrom = "segmentation"
    """Kind of the masks, see `unstill ood build --help`."""
    mask_value: MaskValue | None = None
    """Segmentation: the value of foreground in pictures of class numbers, or any for all but 0."""
    target: Literal["label", "predicted"] = "label"
    """The class whose evidence is shown: the video's, or the one that the model names."""
    baseline: Literal["grey", "still"] = "grey"
    """What integrated gradients start from: the mean colour, or the clip's middle frame repeated, so that only what
    motion adds is attributed."""
    steps: int = 32
    """Points on the way from the baseline to the clip."""
    places: int = 7
    """Grad-CAM takes the last layer whose map has this many places along each side; more are finer and earlier."""
    measured: int = 256
    """Clips that the share of the heat on the actor is averaged over, the first of the dataset."""
    run: Annotated[EvaluateOptions, arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models; one view."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        check_options(self, steps=at_least(1), places=at_least(1), measured=at_least(1))
        if self.run.views.temporal * self.run.views.spatial != 1:
            raise InputError("look shows one clip of a video; leave --views.temporal and --views.spatial at 1")


@dataclass(frozen=True, kw_only=True)
class RecastClipsConfig:
    """Show what Recast makes of videos: steady, moving part, backwards, recast, before another background."""

    videos: Annotated[tuple[Path, ...], Positional, arg(metavar="VIDEO")]
    """Videos, two at least: each lends the one before it its colours and its background."""
    out: Path
    """Folder for the videos, the sheet of pictures and clips.json."""
    frames: int = 32
    """Frames of a clip, from the middle of the video."""
    stride: int = 2
    """Every how many frames of the video one is taken."""
    size: int = 224
    """Side of a clip in pixels."""
    steady: Literal["translation", "similarity", "homography"] = "similarity"
    """What the camera's motion may be."""
    seed: int = 0
    """Of the rotation of colours."""

    def __post_init__(self):
        if len(self.videos) < 2:
            raise InputError("give two videos at least: each lends another its colours")
        check_options(self, "", frames=at_least(2), stride=at_least(1), size=at_least(16))
