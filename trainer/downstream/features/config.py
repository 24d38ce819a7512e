"""Options of `unstill features`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ....pipeline.errors import InputError
from ....pipeline.loading.device import Device
from ....pipeline.options import at_least, between, check_options
from .file_names import Names


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Write what a trained network makes of every window of every video: one .npy a video, one record.

    The same command again goes on where it stopped. Started by torchrun, processes share the videos.
    """

    model: Annotated[str, Positional, arg(metavar="MODEL")]
    """Run folder (its newest checkpoint), RUN/best, RUN/step-500, a folder made by `unstill export`, or a pretrained
    `hf:ORG/NAME` or `hf:FOLDER`."""
    data: Annotated[Path, Positional, arg(metavar="DATA")]
    """Dataset folder made by `unstill convert`."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """Folder for one .npy a video and features.json."""
    window: int = 16
    """Frames that a row covers. A video shorter than that gets one row, its last frame repeated."""
    stride: int = 16
    """Frames from one row to the next."""
    frames: int | None = None
    """Frames of a window that the network sees, evenly spread. By default all, or as many as it was trained on if that
    is fewer."""
    crops: Literal[1, 3, 5, 10] = 1
    """1: centre. 3: start, centre and end of the longer side. 5: four corners and the centre. 10: these and their
    mirror images, in the order of torchvision's ten_crop."""
    crop_share: float | None = None
    """Side of a crop as a share of the shorter side; by default 1, and 0.875 for 5 and 10 crops."""
    layer: str = "penultimate"
    """Dotted name of the layer whose output is kept; penultimate: what the last layer sees."""
    pool: Literal["mean", "tokens"] = "mean"
    """mean: the layer's output averaged over time and space, one vector a crop. tokens: all its places, in the order of
    time, height, width."""
    layout: Literal["crops", "flat"] = "crops"
    """crops: (T, crops, D), as RTFM and MGFN read; with tokens (T, crops, places, D). flat: (T, D), as ActionFormer,
    TriDet and OpenTAD read; one crop, without tokens."""
    names: Names = "key"
    """key: files are called by their key, CLASS_VIDEO for videos in class folders. video: without the class, as
    annotations of long videos name them."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the numbers in the files."""
    batch_size: int = 16
    """Windows, times crops, that the network sees at a time."""
    isolate: bool = False
    """Decode in processes of their own, as --loader.isolate does in training: a video that crashes a decoder then
    counts as damaged. Each crop is then decoded by itself."""
    device: Device = "auto"
    """Where the network runs; the videos are decoded on the CPU. auto: cuda where there is one."""
    core_threads: int = 0
    """Threads that decode; 0: as many as the loader would take."""
    trust_model_code: bool = False
    """Run the code that the model's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        share = between(0, 1, "a share of the picture's side", without_low=True)
        frames = between(1, 4096)
        check_options(self, window=frames, stride=frames, frames=frames, crop_share=share)
        check_options(self, batch_size=at_least(1), core_threads=at_least(0))
        if self.layout == "flat" and (self.crops != 1 or self.pool != "mean"):
            raise InputError("layout flat is (T, D); expected --crops 1 --pool mean with it, or --layout crops")
