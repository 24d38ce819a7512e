"""Options of `unstill detect fit` and `unstill detect score`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ....pipeline.errors import InputError
from ....pipeline.loading.device import Device
from ....pipeline.options import at_least, check_options, more_than
from ..detection_map import Rules
from ..head_config import BadAnnotations


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """Fit a linear layer to frozen features of boxes, and measure what it makes of the boxes of other videos."""

    models: Annotated[tuple[str, ...], Positional, arg(metavar="MODEL")]
    """Run folders, RUN/best, RUN/step-500, folders made by `unstill export`, or `hf:ORG/NAME`. With several, each after
    the first is compared with the first: give the baseline first."""
    train: Path
    """Dataset folder of the training videos."""
    test: Path
    """Dataset folder of the test videos."""
    truth: Path
    """Boxes with classes of the videos of both: a .pkl of UCF101-24 or JHMDB, or a .csv with the columns video, frame,
    left, top, right, bottom, label and, where known, tube. Frames count from 0."""
    boxes: Path | None = None
    """Boxes of people in the test videos by a detector, a .csv like --truth with score in place of label. By default
    the true boxes: then only their classes are in question."""
    train_boxes: Path | None = None
    """Boxes of people in the training videos by a detector. Those that overlap true ones by .5 have their class; those
    that overlap none by more than .3 are background."""
    picture: tuple[int, int] | None = None
    """Width and height that boxes in pixels refer to, such as 320 240 for UCF101. By default those of the converted
    video, which is wrong where the conversion made it smaller."""
    truth_fps: float | None = None
    """Frames per second that the boxes count in; videos of another rate are then bad annotations. By default videos
    must have kept their own rate when they were converted."""
    every: int = 8
    """Frames from one clip that features are taken of to the next; boxes between take the class of the nearest."""
    layer: str = "last"
    """Dotted name of the layer whose map is used; last: the last one with 2 x 2 places or more."""
    penalty: float = 1e-3
    """Of the squared weights of the linear layer."""
    rules: Rules = "act"
    """act: as results on UCF101-24 and JHMDB are published. pascal: as on AVA."""
    resamples: int = 500
    """Of the 95 % intervals of differences, which draw test videos with replacement."""
    bad_annotations: BadAnnotations = "refuse"
    """Tubes whose video is in neither dataset, or that do not fit it: stop and name them, or leave them out, count and
    name them."""
    batch_size: int = 8
    """Clips that the network sees at a time."""
    core_threads: int = 0
    """Threads that decode; 0: as many as the loader would take."""
    isolate: bool = False
    """Decode in processes of their own, as --loader.isolate does in training: a video that crashes a decoder then
    counts as damaged."""
    device: Device = "auto"
    """Where the network runs; the videos are decoded on the CPU. auto: cuda where there is one."""
    out: Path | None = None
    """Folder for detect.json and the detections of each model, a .csv. By default nothing is written."""
    trust_model_code: bool = False
    """Run the code that a model's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        if not self.models:
            raise InputError("expected at least one model")
        if self.picture is not None and min(self.picture) < 1:
            raise InputError(f"picture {self.picture[0]} {self.picture[1]}: expected a width and a height in pixels")
        check_options(
            self,
            truth_fps=more_than(0),
            every=at_least(1),
            penalty=more_than(0),
            batch_size=at_least(1),
            resamples=at_least(2),
            core_threads=at_least(0),
        )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Measure detections of any detector."""

    truth: Annotated[Path, Positional, arg(metavar="TRUTH")]
    """Boxes with classes: a .pkl of UCF101-24 or JHMDB, a .csv with the columns video, frame, left, top, right, bottom,
    label and, where known, tube; or AVA's .csv."""
    found: Annotated[Path, Positional, arg(metavar="FOUND")]
    """Detections with classes and scores: a .csv like the truth's with the column score, or AVA's."""
    rules: Rules = "act"
    """act: as results on UCF101-24 and JHMDB are published. pascal: as on AVA."""
    picture: tuple[int, int] | None = None
    """Width and height in pixels, needed where one of the files has pixels and the other shares of the picture."""
